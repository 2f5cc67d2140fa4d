//! Names that the captured machine chose stay names: in text, JSON and Markdown, and out of every command.

use std::path::Path;

use serde_json::Value;

use crate::cases;
use crate::scene::{Scene, write_member};
use crate::{analyze, report, run};

/// What a process, a pod or a label may be called by somebody who means harm. Each holds [`MARK`].
const HOSTILE: &[&str] = &[
    "](javascript:x) <img onerror> `|` @channel #123 \n# heading reboot",
    "\u{1b}[31mred\u{1b}]8;;http://evil.example/reboot\u{7}link\u{9b}2J",
    "\u{202e}gnp.reboot\u{2066}\u{200f}\u{feff}\u{2028}verdict: ok",
    "$(reboot)",
    "`reboot`",
    "'; reboot #",
    "&& reboot ||\r\nverdict: ok: reboot",
    "``` reboot ```\n\n<script>alert(1)</script>",
    "<!-- reboot --> ~~a~~ **b** __c__ www.evil.example me@evil.example",
    "![reboot](https://evil.example/x.png) [a]: b | - | -",
    "reboot/../../../../etc/passwd\0\u{7f}",
    "rebootrebootrebootrebootrebootrebootrebootrebootrebootrebootrebootrebootrebootrebootrebootrebootrebootreboot",
];
/// Stands in every hostile name, and in nothing that `analyze` says by itself.
const MARK: &str = "reboot";
/// Keys whose values the captured machine chose.
const KEYS: &[&str] = &[
    "comm",
    "thread",
    "node",
    "cluster",
    "namespace",
    "pod",
    "container",
    "workload",
    "workload_from",
    "unit",
    "text",
    "path",
    "exe",
    "cmdline",
    "symbol",
    "dev",
    "operstate",
    "clocksource",
    "driver",
];

/// Puts hostile names wherever a bundle has names.
fn poison(value: &mut Value, turn: usize) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|v| poison(v, turn)),
        Value::Object(map) => {
            for (key, v) in map.iter_mut() {
                if KEYS.contains(&key.as_str()) && v.is_string() {
                    // the same name stays the same name, so that the story does
                    let name = v.as_str().unwrap();
                    let at = name.bytes().map(usize::from).sum::<usize>() + turn;
                    *v = Value::String(HOSTILE[at % HOSTILE.len()].to_owned());
                } else {
                    poison(v, turn);
                }
            }
        }
        _ => {}
    }
}

fn poisoned(scene: &Scene, turn: usize, dir: &Path) {
    let mut sizes = Vec::new();
    for (name, bytes) in scene.members() {
        let text = String::from_utf8(bytes).unwrap();
        let each = |text: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            poison(&mut value, turn);
            if let Some(members) = value.get_mut("members").and_then(Value::as_array_mut) {
                for member in members {
                    let size = sizes.iter().find(|(n, _)| member["name"] == *n);
                    member["bytes"] = size.map_or(0, |(_, bytes): &(&str, usize)| *bytes).into();
                }
            }
            value.to_string()
        };
        let out: String =
            if name.ends_with(".jsonl") { text.lines().map(|line| each(line) + "\n").collect() } else { each(&text) };
        sizes.push((name, out.len()));
        write_member(dir, name, out.as_bytes());
    }
}

/// Every case, with each of its names a hostile one; in `turns` that differ in which.
fn for_each_poisoned(turns: usize, check: impl Fn(&str, &Path)) {
    for (n, case) in cases::all().enumerate() {
        for turn in 0..turns {
            let dir = tempfile::tempdir().unwrap();
            poisoned(&(case.build)(), n + turn * 5, dir.path());
            check(case.name, dir.path());
        }
    }
}

fn steers(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn commands(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap();
    let steps = findings.iter().flat_map(|f| f["next_steps"].as_array().unwrap());
    steps.filter_map(|s| s["command"].as_str()).collect()
}

#[test]
fn names_steer_no_terminal_and_forge_no_line() {
    for_each_poisoned(1, |case, dir| {
        for first in [&["analyze"][..], &["analyze", "node"]] {
            let text = run(&[first, &[dir.to_str().unwrap()]].concat(), &["--all"]);
            assert!(!text.contains(steers), "{case}: {text:?}");
            let verdicts = text.lines().filter(|line| line.trim_start().starts_with("verdict: ")).count();
            assert!(verdicts <= 1, "{case}: {text}");
        }
    });
}

#[test]
fn names_reach_no_command() {
    for_each_poisoned(2, |case, dir| {
        let report = report(dir);
        for command in commands(&report) {
            assert!(!command.contains(MARK), "{case}: {command}");
        }
    });
}

#[test]
fn names_in_json_are_marked_and_steer_nothing() {
    for_each_poisoned(1, |case, dir| {
        let text = analyze(dir, &["--format", "json", "--all"]);
        assert!(!text.trim_end().contains(steers), "{case}: {text:?}");
        let report: Value = serde_json::from_str(&text).unwrap();
        let mut parts = vec![&report["bundle"]];
        for finding in report["findings"].as_array().unwrap() {
            parts.extend([finding, &finding["subject"]]);
        }
        assert!(parts.iter().all(|part| part["untrusted"] == true), "{case}: {report}");
    });
}

/// A line of Markdown without its code, by the rules of CommonMark.
fn without_code(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        out.push_str(&rest[..at]);
        let fence = rest[at..].len() - rest[at..].trim_start_matches('`').len();
        let behind = &rest[at + fence..];
        match closing(behind, fence) {
            Some(end) => {
                out.push('·');
                rest = &behind[end + fence..];
            }
            None => {
                out.push_str(&rest[at..at + fence]);
                rest = behind;
            }
        }
    }
    out + rest
}

/// Where a run of exactly so many backticks begins.
fn closing(text: &str, fence: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text[at..].find('`') {
        let start = at + found;
        let run = text[start..].len() - text[start..].trim_start_matches('`').len();
        if run == fence {
            return Some(start);
        }
        at = start + run;
    }
    None
}

/// Whether nothing in a line is more than text, apart from what the page itself puts there.
fn is_inert(line: &str) -> bool {
    let line = without_code(line);
    let line = line.strip_prefix("## ktrace: ").or_else(|| line.strip_prefix("### ")).unwrap_or(&line);
    let line = match line.strip_prefix("- ") {
        Some(item) => item,
        None => line,
    };
    let line = match line.strip_prefix("**").and_then(|rest| rest.split_once("** ")) {
        Some((_, rest)) => rest,
        None => line,
    };
    let odd = |c: char| "`<>[]{}*_~|@#!&\\$^".contains(c);
    let line = line.replace(" -> ", " ");
    let line = line.strip_prefix("-> ").unwrap_or(&line);
    !line.contains(odd)
        && !line.starts_with(['-', '+', '='])
        && !["://", "www.", "javascript:"].iter().any(|link| line.contains(link))
}

#[test]
fn names_in_markdown_are_nothing_but_text() {
    for_each_poisoned(2, |case, dir| {
        let page = analyze(dir, &["--format", "markdown", "--all"]);
        assert!(!page.contains(steers), "{case}: {page:?}");
        for line in page.lines() {
            assert!(is_inert(line), "{case}: {line}");
        }
    });
}

#[test]
fn the_check_itself_sees_what_is_not_inert() {
    for bad in ["a [x](y)", "`a` <b>", "- **next** @all", "x ``a` b|c", "### 1. *x*", "see www.evil.example"] {
        assert!(!is_inert(bad), "{bad}");
    }
    for good in ["- **cause** `[x](y)` is ``a`b`` -> c", "### 1. critical `dns.no_reply`"] {
        assert!(is_inert(good), "{good}");
    }
}

#[test]
fn a_page_for_a_ticket_is_short_and_cut_only_between_pieces() {
    for_each_poisoned(1, |case, dir| {
        let (short, whole) =
            (analyze(dir, &["--format", "markdown"]), analyze(dir, &["--format", "markdown", "--all"]));
        assert!(short.chars().count() <= 3000, "{case}: {}", short.chars().count());
        for line in short.lines() {
            assert!(is_inert(line), "{case}: {line}");
        }
        for line in short.lines().filter(|line| !line.starts_with("left out for length: ")) {
            assert!(whole.lines().any(|l| l == line), "{case}: {line}");
        }
        assert_eq!(short.contains("\nleft out for length: "), short != whole, "{case}: {short}");
    });
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let case = cases::all().find(|c| c.name == "dns-dead-server").unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in (case.build)().members() {
        let name_at = |at: usize| bytes[at..].starts_with(b"\"comm\":\"") && name == "events.jsonl";
        let mut out = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            out.push(*byte);
            if at >= 7 && name_at(at - 7) {
                out.extend_from_slice(b"\xff\xfe");
            }
        }
        write_member(dir.path(), name, &out);
    }
    for format in ["text", "json", "markdown"] {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ["analyze", dir.path().to_str().unwrap(), "--format", format];
        ktrace_analyzer::cli::run(args.into_iter().map(Into::into), &mut out, &mut err).unwrap();
        assert!(String::from_utf8(out).is_ok() && String::from_utf8(err).is_ok(), "{format}");
    }
}
