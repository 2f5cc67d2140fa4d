//! Bytes → lines, none of them longer than the contract allows; a longer one is skipped, not held.

use std::io::{self, BufRead, Read};

use crate::line::MAX_LINE_BYTES;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole line.
    Whole,
    /// A whole line that is too long; its text is not available.
    TooLong,
    /// Text that no newline ends.
    Tail,
    /// Nothing any more.
    End,
}

/// Splits what it reads into lines and counts them.
pub(super) struct Lines<R> {
    input: R,
    text: Vec<u8>,
    whole: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, text: Vec::with_capacity(MAX_LINE_BYTES + 1), whole: 0 }
    }

    /// The text of the [`Next::Whole`] line or the [`Next::Tail`], without the newline.
    pub(super) fn text(&self) -> &[u8] {
        self.text.strip_suffix(b"\n").unwrap_or(&self.text)
    }

    /// Whole lines so far; the number of the newest one.
    pub(super) const fn whole(&self) -> u64 {
        self.whole
    }

    /// What the lines come from.
    pub(super) const fn input(&self) -> &R {
        &self.input
    }

    /// Moves to the next line.
    ///
    /// # Errors
    /// Those of the input, at the line in which it fails.
    pub(super) fn advance(&mut self) -> io::Result<Next> {
        self.text.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        self.input.by_ref().take(limit).read_until(b'\n', &mut self.text)?;
        if self.text.is_empty() {
            return Ok(Next::End);
        }
        if self.text.ends_with(b"\n") {
            self.whole += 1;
            return Ok(Next::Whole);
        }
        if self.text.len() as u64 == limit {
            return self.skip_rest();
        }
        Ok(Next::Tail)
    }

    fn skip_rest(&mut self) -> io::Result<Next> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(Next::Tail);
            }
            let end = buffer.iter().position(|b| *b == b'\n');
            let used = end.map_or(buffer.len(), |at| at + 1);
            self.input.consume(used);
            if end.is_some() {
                self.whole += 1;
                return Ok(Next::TooLong);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_too_long_are_skipped_whole_and_counted() {
        let mut input = b"first\n".to_vec();
        input.resize(input.len() + MAX_LINE_BYTES + 1, b'x');
        input.push(b'\n');
        let longest = vec![b'y'; MAX_LINE_BYTES];
        input.extend_from_slice(&longest);
        input.extend_from_slice(b"\ntail");
        let mut lines = Lines::new(input.as_slice());
        assert_eq!((lines.advance().unwrap(), lines.text()), (Next::Whole, b"first".as_slice()));
        assert_eq!(lines.advance().unwrap(), Next::TooLong);
        assert_eq!((lines.advance().unwrap(), lines.text()), (Next::Whole, longest.as_slice()));
        assert_eq!((lines.advance().unwrap(), lines.text()), (Next::Tail, b"tail".as_slice()));
        assert_eq!((lines.advance().unwrap(), lines.whole()), (Next::End, 3));
    }

    #[test]
    fn an_endless_line_is_a_tail() {
        let input = vec![0; 3 * MAX_LINE_BYTES];
        let mut lines = Lines::new(input.as_slice());
        assert_eq!((lines.advance().unwrap(), lines.whole()), (Next::Tail, 0));
    }
}
