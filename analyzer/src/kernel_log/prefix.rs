//! What stands before the kernel's own words: priorities, times and host names of whoever wrote the line down.
//!
//! Known are `dmesg` in its formats (`-r`, `-x`, `-T`, ISO), syslog, journald and what a console prints; the rest of
//! the line is the message. Nothing of it is believed or kept.

const FACILITIES: [&str; 12] =
    ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// More parts than any format puts before a message.
const MAX_PARTS: usize = 8;

/// The message of a line, without what was put before it and white space around it.
pub fn message(line: &str) -> &str {
    let mut rest = line.trim();
    for _ in 0..MAX_PARTS {
        let parts: [fn(&str) -> Option<&str>; 6] = [priority, bracket, facility, iso_time, syslog_time, tag];
        match parts.iter().find_map(|part| part(rest)) {
            Some(after) => rest = after.trim_start(),
            None => break,
        }
    }
    rest
}

/// `<4>`.
fn priority(text: &str) -> Option<&str> {
    let (number, after) = text.strip_prefix('<')?.split_once('>')?;
    (matches!(number.len(), 1..=3) && number.bytes().all(|b| b.is_ascii_digit())).then_some(after)
}

/// `[12345.678901]`, `[Tue Dec  1 08:40:00 2026]`, `[    T1234]`, `[C1]`.
fn bracket(text: &str) -> Option<&str> {
    let (inside, after) = text.strip_prefix('[')?.split_once(']')?;
    let inside = inside.trim();
    let is_time = inside.contains('.') && inside.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let is_date = inside.ends_with(|c: char| c.is_ascii_digit()) && inside.matches(':').count() == 2 && {
        let mut words = inside.split_whitespace();
        words.nth(1).is_some_and(|month| MONTHS.contains(&month)) && words.count() == 3
    };
    let is_caller = inside.strip_prefix(['T', 'C']).is_some_and(is_number);
    (is_time || is_date || is_caller).then_some(after)
}

/// `kern  :warn  : `.
fn facility(text: &str) -> Option<&str> {
    let (facility, after) = text.split_once(':')?;
    let (level, after) = after.split_once(':')?;
    (FACILITIES.contains(&facility.trim_end()) && LEVELS.contains(&level.trim())).then_some(after)
}

/// `2026-01-24T21:57:54.326118+00:00 `.
fn iso_time(text: &str) -> Option<&str> {
    let (word, after) = text.split_once(' ')?;
    let (date, time) = word.split_once('T')?;
    let is_date = date.len() == 10 && date.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let is_time = time.len() >= 8 && time.bytes().all(|b| b.is_ascii_digit() || b":.,+-Z".contains(&b));
    (is_date && is_time).then_some(after)
}

/// `Nov 30 21:57:54 `.
fn syslog_time(text: &str) -> Option<&str> {
    let (month, rest) = text.split_once(' ')?;
    let (day, rest) = rest.trim_start().split_once(' ')?;
    let (time, after) = rest.split_once(' ')?;
    let is_time = time.len() >= 8 && time.bytes().all(|b| b.is_ascii_digit() || b":.".contains(&b));
    (MONTHS.contains(&month) && day.len() <= 2 && is_number(day) && is_time).then_some(after)
}

/// `kernel: `, `host kernel: `, `host kernel[0]: `.
fn tag(text: &str) -> Option<&str> {
    let is_kernel = |word: &str| {
        let name = word.strip_suffix(':').unwrap_or_default();
        name == "kernel" || name.strip_prefix("kernel[").and_then(|n| n.strip_suffix(']')).is_some_and(is_number)
    };
    let (first, after) = text.split_once(' ')?;
    if is_kernel(first) {
        return Some(after);
    }
    let (second, after) = after.trim_start().split_once(' ')?;
    is_kernel(second).then_some(after)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_wrote_it_down_the_message_is_the_same() {
        for line in [
            "TCP: too many orphaned sockets",
            "[12345.678901] TCP: too many orphaned sockets",
            "[    5.000001] TCP: too many orphaned sockets\r",
            "<6>[  12.345678] TCP: too many orphaned sockets",
            "<4>TCP: too many orphaned sockets",
            "[12345.678901][T1234] TCP: too many orphaned sockets",
            "[12345.678901] [    C1] TCP: too many orphaned sockets",
            "kern  :warn  : [12345.678901] TCP: too many orphaned sockets",
            "kern  :info  : 2026-11-30T21:57:54,326118+01:00 TCP: too many orphaned sockets",
            "2026-11-30T21:57:54.326118+00:00 node-1 kernel: TCP: too many orphaned sockets",
            "2026-11-30T21:57:54Z node-1 kernel: [12345.678901] TCP: too many orphaned sockets",
            "Nov 30 21:57:54 node-1 kernel: TCP: too many orphaned sockets",
            "Dec  1 08:00:00 node-1 kernel[0]: [  1.5] TCP: too many orphaned sockets",
            "[12345.678901] node-1 kernel: TCP: too many orphaned sockets",
            "[Tue Dec  1 08:40:00 2026] TCP: too many orphaned sockets",
            "kernel: TCP: too many orphaned sockets",
        ] {
            assert_eq!(message(line), "TCP: too many orphaned sockets", "{line}");
        }
    }

    #[test]
    fn what_only_looks_like_a_prefix_stays() {
        for line in [
            "[Hardware Error]: CPU 1",
            "<warn> x",
            "mount: a: b",
            "2026 was kernel",
            "May 5 be wrong",
            "[fd00::1] x",
            "[] x",
            "kernel",
        ] {
            assert_eq!(message(line), line);
        }
    }
}
