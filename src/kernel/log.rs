//! libbpf's own words: kept for error messages, never printed as they come.
//!
//! An error of libbpf-rs is a number; why a program was refused stands only in these lines.

use std::collections::VecDeque;
use std::sync::Mutex;

use libbpf_rs::{PrintLevel, set_print};

const KEPT: usize = 400;

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Starts keeping the newest lines.
pub fn install() {
    set_print(Some((PrintLevel::Info, keep)));
}

fn keep(_level: PrintLevel, text: String) {
    let mut lines = lines();
    for line in text.lines() {
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }
}

/// Takes what was kept, oldest first.
pub fn take() -> Vec<String> {
    lines().drain(..).collect()
}

fn lines() -> std::sync::MutexGuard<'static, VecDeque<String>> {
    // a poisoned lock still holds whole lines
    LINES.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// An error of libbpf-rs with its causes, in one line: its own text hides them.
pub fn chain(error: &libbpf_rs::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The first cause of an error of libbpf-rs: what the kernel said.
pub fn root(error: &libbpf_rs::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(error) = cause.source() {
        cause = error;
    }
    cause.to_string()
}

/// Which of `programs` the kernel refused to load, and its reason in one line.
pub fn culprit<'a>(lines: &[String], programs: impl Iterator<Item = &'a str>) -> Option<(&'a str, String)> {
    let mut programs = programs;
    programs.find_map(|name| {
        let at = lines.iter().position(|l| l.contains(&format!("prog '{name}'")) && l.contains("failed"))?;
        Some((name, reason(lines, lines.get(at).map_or("", String::as_str), name)))
    })
}

/// The verifier's last sentence, or libbpf's own line where there was no verifier log. A load ends with the first program
/// that is refused, so the last log is its own; where that is long, the lines before it are not kept.
fn reason(lines: &[String], own: &str, name: &str) -> String {
    let own = own.rsplit_once(": ").map_or(own, |(_, tail)| tail.trim_start_matches('-'));
    let log_end = lines.iter().rposition(|l| l.contains("END PROG LOAD LOG"));
    let verdict = log_end.and_then(|end| {
        let log = lines.get(..end)?;
        log.iter().rev().find(|l| !l.starts_with("processed ") && !l.contains("PROG LOAD LOG") && !l.trim().is_empty())
    });
    match verdict {
        Some(verdict) => format!("`{name}` cannot be loaded: {own} ({})", verdict.trim()),
        None => format!("`{name}` cannot be loaded: {own}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_program_and_the_verifier_s_last_sentence_are_found() {
        let lines: Vec<String> = [
            "libbpf: prog 'udp__send': BPF program load failed: -EACCES",
            "libbpf: prog 'udp__send': -- BEGIN PROG LOAD LOG --",
            "0: R1=ctx() R10=fp0",
            "R1 invalid mem access 'scalar'",
            "processed 12 insns (limit 1000000)",
            "-- END PROG LOAD LOG --",
        ]
        .map(String::from)
        .into();
        let found = culprit(&lines, ["tcp_state", "udp__send"].into_iter());
        let why = "`udp__send` cannot be loaded: EACCES (R1 invalid mem access 'scalar')";
        assert_eq!(found, Some(("udp__send", why.to_owned())));
        assert_eq!(culprit(&lines, ["tcp_state"].into_iter()), None);
    }

    #[test]
    fn the_last_sentence_of_a_log_too_long_to_keep_is_found() {
        let lines: Vec<String> = [
            "89: (bf) r1 = r8",
            "unknown func bpf_get_socket_cookie#46",
            "processed 46 insns (limit 1000000)",
            "-- END PROG LOAD LOG --",
            "libbpf: prog 'udp__send': failed to load: -EINVAL",
            "libbpf: failed to load object 'ktrace_bpf'",
        ]
        .map(String::from)
        .into();
        let why = "`udp__send` cannot be loaded: EINVAL (unknown func bpf_get_socket_cookie#46)";
        assert_eq!(culprit(&lines, ["udp__send"].into_iter()), Some(("udp__send", why.to_owned())));
    }
}
