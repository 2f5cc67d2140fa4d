//! Lines of the kernel's log → what each kind of them means.
//!
//! A line loses what [`prefix`] knows, and is held against every wording of [`knowledge`]. Lines of one kind become
//! one [`Known`], with what their fields held; the rest is counted, and the first of it kept with what comes nearest.
//! Needs no bundle and no network; whatever is read, memory and output are bounded, and every line is hostile.

pub mod knowledge;
mod nearest;
pub mod pattern;
mod prefix;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead};

use knowledge::{Entry, Wording};
use pattern::{Capture, Kind};

/// Longest line that is read; the kernel's own are shorter than 1,024 bytes with all that it puts before them.
const MAX_LINE: usize = 1024;
/// Most lines of one kind that are kept apart.
const MAX_LINES: usize = 8;
/// Most unknown lines that are kept.
const MAX_UNKNOWN: usize = 8;

/// Everything that was read.
#[derive(Debug)]
pub struct Reading<'k> {
    entries: &'k [Entry],
    /// Kinds of lines, in the order in which they came.
    pub known: Vec<Known<'k>>,
    /// The first lines that nothing is known of.
    pub unknown: Vec<Unknown<'k>>,
    /// Lines that nothing is known of, the same line each time it came.
    pub unknown_count: u64,
    /// Lines that were not empty.
    pub line_count: u64,
}

/// Lines of one kind.
#[derive(Debug)]
pub struct Known<'k> {
    /// What it is.
    pub entry: &'k Entry,
    /// How often it came.
    pub count: u64,
    /// Different ones, at most [`MAX_LINES`].
    pub lines: Vec<Line<'k>>,
}

/// One line.
#[derive(Debug)]
pub struct Line<'k> {
    /// The message without its prefix: hostile.
    pub message: String,
    /// How often it came.
    pub count: u64,
    /// The wording that fits it.
    pub wording: &'k Wording,
    /// What its fields held.
    pub fields: Vec<Field>,
}

/// What a field held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name in the pattern.
    pub name: String,
    /// What it is called.
    pub label: String,
    /// What it holds: hostile.
    pub value: String,
    kind: Kind,
}

/// A line that nothing is known of.
#[derive(Debug)]
pub struct Unknown<'k> {
    /// The message without its prefix: hostile.
    pub message: String,
    /// How often it came.
    pub count: u64,
    /// What comes nearest, best first.
    pub nearest: Vec<&'k Entry>,
}

impl<'k> Reading<'k> {
    /// Nothing read yet.
    pub const fn new(entries: &'k [Entry]) -> Self {
        Self { entries, known: Vec::new(), unknown: Vec::new(), unknown_count: 0, line_count: 0 }
    }

    /// The families of everything that is known, each once.
    pub fn families(&self) -> Vec<&'k str> {
        let mut all: Vec<&str> = self.entries.iter().map(Entry::family).collect();
        all.dedup();
        all
    }

    /// Reads lines to the end; what is longer than the kernel makes them is cut.
    ///
    /// # Errors
    /// Only if the input does.
    pub fn read(&mut self, mut input: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        while next_line(&mut input, &mut line)? {
            self.push(&String::from_utf8_lossy(&line));
        }
        Ok(())
    }

    /// Reads one line.
    pub fn push(&mut self, line: &str) {
        let message = prefix::message(bounded(line));
        if message.is_empty() {
            return;
        }
        self.line_count += 1;
        match self.recognized(message) {
            Some((entry, line)) => self.count(entry, line),
            None => self.count_unknown(message),
        }
    }

    fn recognized(&self, message: &str) -> Option<(&'k Entry, Line<'k>)> {
        self.entries.iter().find_map(|entry| {
            let (wording, captures) =
                entry.wordings().find_map(|(wording, pattern)| pattern.captures(message).map(|c| (wording, c)))?;
            let fields = captures.into_iter().map(|c| Field::of(entry, c)).filter(|f| !f.value.is_empty()).collect();
            Some((entry, Line { message: message.to_owned(), count: 1, wording, fields }))
        })
    }

    fn count(&mut self, entry: &'k Entry, line: Line<'k>) {
        let Some(known) = self.known.iter_mut().find(|known| known.entry.id == entry.id) else {
            self.known.push(Known { entry, count: 1, lines: vec![line] });
            return;
        };
        known.count += 1;
        if let Some(seen) = known.lines.iter_mut().find(|seen| seen.message == line.message) {
            seen.count += 1;
        } else if known.lines.len() < MAX_LINES {
            known.lines.push(line);
        }
    }

    fn count_unknown(&mut self, message: &str) {
        self.unknown_count += 1;
        if let Some(seen) = self.unknown.iter_mut().find(|seen| seen.message == message) {
            seen.count += 1;
        } else if self.unknown.len() < MAX_UNKNOWN {
            let nearest = nearest::entries(self.entries, message);
            self.unknown.push(Unknown { message: message.to_owned(), count: 1, nearest });
        }
    }
}

impl Field {
    fn of(entry: &Entry, capture: Capture<'_>) -> Self {
        let name = capture.name.to_owned();
        let label = entry.fields.get(&name).cloned().unwrap_or_else(|| name.replace('_', " "));
        Self { name, label, value: capture.value.trim().to_owned(), kind: capture.kind }
    }
}

impl Line<'_> {
    /// A command with what this line's fields held. What could mean something to a shell, or is not there, is its
    /// name in capitals, for the reader to fill in.
    pub fn command(&self, template: &str) -> String {
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("%{") {
            let Some((name, after)) = after.split_once('}') else { break };
            out.push_str(before);
            match self.fields.iter().find(|field| field.name == name && field.kind.is_inert(&field.value)) {
                Some(field) => out.push_str(&field.value),
                None => out.push_str(&name.to_uppercase()),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }
}

/// As much of it as is read.
fn bounded(line: &str) -> &str {
    line.get(..line.floor_char_boundary(MAX_LINE)).unwrap_or(line)
}

/// The next line, without its end, cut at [`MAX_LINE`]; false at the end.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut is_some = false;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(is_some);
        }
        is_some = true;
        let end = buffer.iter().position(|b| *b == b'\n');
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let room = MAX_LINE.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.get(..room).unwrap_or_default());
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}
