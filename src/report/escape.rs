//! Text from the machine → text that a terminal shows and does not obey.

use std::borrow::Cow;
use std::fmt::Write;

/// Replaces control characters, line separators and bidirectional controls by `\u{…}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            let _ = write!(safe, "{}", c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_of_any_script_is_left_alone() {
        assert_eq!(escape("kubelet größe 名前 `x`"), "kubelet größe 名前 `x`");
    }

    #[test]
    fn escape_sequences_newlines_and_reordering_are_shown() {
        assert_eq!(escape("\u{1b}[31m\r\n\u{9b}\u{202e}"), "\\u{1b}[31m\\u{d}\\u{a}\\u{9b}\\u{202e}");
    }
}
