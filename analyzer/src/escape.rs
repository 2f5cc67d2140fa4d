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

/// A sentence for Markdown in which nothing is more than text: no link, HTML, mention, heading, list or table.
///
/// What stands between backticks stays code, and so becomes each word that could mean something to Markdown or to
/// what shows it: names of accounts, numbers of issues and addresses become links there however they are escaped, but
/// not in code. It must not begin a line.
pub(crate) fn markdown(text: &str) -> String {
    let text = line(text);
    let parts: Vec<&str> = text.split('`').collect();
    let mut out = String::new();
    if parts.len().is_multiple_of(2) {
        // a backtick without its other one: none of them means anything
        push_words(&mut out, &text);
        return out;
    }
    for (n, part) in parts.into_iter().enumerate() {
        if n % 2 == 0 { push_words(&mut out, part) } else { push_code(&mut out, part) }
    }
    out
}

/// The whole text as code in Markdown.
pub(crate) fn code(text: &str) -> String {
    let mut out = String::new();
    push_code(&mut out, &line(text));
    out
}

/// A code span whose fence does not stand in it, apart from what stands before it.
fn push_code(out: &mut String, text: &str) {
    if text.is_empty() {
        return;
    }
    if out.ends_with('`') {
        out.push(' ');
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // Markdown takes one space off at both ends, if there is one at both
    let pad = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) { " " } else { "" };
    let _infallible = write!(out, "{fence}{pad}{text}{pad}{fence}");
}

fn push_words(out: &mut String, text: &str) {
    for (n, word) in text.split(' ').enumerate() {
        if n > 0 {
            out.push(' ');
        }
        if is_plain(word) { out.push_str(word) } else { push_code(out, word) }
    }
}

/// Whether a word means nothing to Markdown, and is no address or short name that something makes a link or a picture
/// of.
fn is_plain(word: &str) -> bool {
    let is_text = |c: char| c.is_alphanumeric() || ".,:;()/%='\"?+-…".contains(c);
    let names_follow = |mark: char| word.split(mark).skip(1).any(|part| part.starts_with(char::is_alphabetic));
    let is_name = names_follow('.') || names_follow(':') || word.contains("//") || word.contains("--");
    word == "->" || (word.chars().all(is_text) && !is_name)
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
    fn a_sentence_stays_itself_in_markdown() {
        let sentence = "`api` (pid 1847) gets no reply from the DNS server 10.96.0.53:53: 4 of 4 queries";
        assert_eq!(markdown(sentence), sentence);
        assert_eq!(
            markdown("10.0.0.1:5 -> 10.96.0.1:80, 35.0 ms, 100 %"),
            "10.0.0.1:5 -> 10.96.0.1:80, 35.0 ms, 100 %"
        );
        assert_eq!(markdown("dns.no_reply, net.rp_filter"), "`dns.no_reply,` `net.rp_filter`");
    }

    #[test]
    fn nothing_in_markdown_is_more_than_text() {
        assert_eq!(
            markdown("in :tada: [x](javascript:a) <img onerror> | @channel #123 *b* \n# h www.evil.example"),
            r"in `:tada:` `[x](javascript:a)` `<img` `onerror>` `|` `@channel` `#123` `*b*` `\u{a}#` h `www.evil.example`"
        );
        assert_eq!(markdown("a `b` c` d"), "a `` `b` `` `` c` `` d");
        assert_eq!(markdown("`a``b`"), "`a` `b`");
        assert_eq!(markdown("x_y`z`"), "`x_y` `z`");
    }

    #[test]
    fn code_outlives_every_backtick_in_it() {
        assert_eq!(code("a"), "`a`");
        assert_eq!(code("``` x"), "```` ``` x ````");
        assert_eq!(code("a`b"), "``a`b``");
        assert_eq!(code(""), "");
    }

    #[test]
    fn a_word_reaches_the_shell_as_one_word() {
        assert_eq!(shell_word("out/ktrace.n1.tgz"), "out/ktrace.n1.tgz");
        assert_eq!(shell_word("[::1]:53"), "'[::1]:53'");
        assert_eq!(shell_word("a'; rm -rf $HOME #"), r"'a'\''; rm -rf $HOME #'");
        assert_eq!(shell_word(""), "''");
    }
}
