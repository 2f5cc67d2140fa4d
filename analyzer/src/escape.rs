//! Strings of the captured machine on their way to a terminal or into a command.
//!
//! A process may call itself anything: control characters become visible escapes, and what could mean
//! something to a shell is quoted. Nothing is dropped silently; long strings end in `…`.

use std::fmt::Write as _;

/// Longest string that a report repeats, in characters.
const MAX_CHARS: usize = 64;

/// The text with control, bidirectional and zero-width characters as `\u{..}`, cut at 64 characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == MAX_CHARS {
            out.push('…');
            break;
        }
        push_visible(&mut out, c);
    }
    out
}

/// The whole text with what could steer a terminal made visible; for sentences, which may be long.
pub(crate) fn line(text: &str) -> String {
    let mut out = String::new();
    text.chars().for_each(|c| push_visible(&mut out, c));
    out
}

/// One word for a POSIX shell.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", line(text).replace('\'', r"'\''"))
}

fn push_visible(out: &mut String, c: char) {
    let steers = c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    if steers {
        let _infallible = write!(out, "{}", c.escape_unicode());
    } else {
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(shown("a\u{1b}[31mb\n\u{202e}c"), r"a\u{1b}[31mb\u{a}\u{202e}c");
    }

    #[test]
    fn a_long_name_is_cut_visibly() {
        assert_eq!(shown(&"é".repeat(70)), format!("{}…", "é".repeat(64)));
    }

    #[test]
    fn a_word_reaches_the_shell_as_one_word() {
        assert_eq!(shell_word("out/ktrace.n1.tgz"), "out/ktrace.n1.tgz");
        assert_eq!(shell_word("[::1]:53"), "'[::1]:53'");
        assert_eq!(shell_word("a'; rm -rf $HOME #"), r"'a'\''; rm -rf $HOME #'");
        assert_eq!(shell_word(""), "''");
    }
}
