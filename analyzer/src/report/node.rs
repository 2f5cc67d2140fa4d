//! `analyze node`: the machine's network and the pressure on it, in a screen of 80 columns; what is unusual first.
//!
//! Facts of both looks, not judgements: the rules judge. What was not read is said, too, so that a quiet screen is not taken for a
//! healthy machine.

mod machine;
mod summary;
mod unusual;

use std::collections::BTreeSet;
use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::text::wrapped_at;
use crate::capture::{Capture, Node};
use crate::escape::shown;
use crate::units::duration;

pub use summary::Row;
pub use unusual::Note;

/// Lines are wrapped here.
const WIDTH: usize = 80;
/// Unusual things that are told, unless all are asked for.
const MAX_NOTES: usize = 16;
/// Reasons for what was not read that are told, unless all are asked for.
const MAX_REASONS: usize = 4;
/// As wide as the labels of rows.
const INDENT: &str = "              ";

/// What the machine looked like.
#[derive(Debug)]
pub struct NodeReport<'a> {
    capture: &'a Capture,
    /// What is unusual, by kind.
    pub unusual: Vec<Note>,
    /// The rest, in rows.
    pub rows: Vec<Row>,
    /// Why parts were not read.
    pub not_read: Vec<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: Schema,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_at: Option<String>,
    duration_ns: u64,
    unusual: &'a [Note],
    omitted_count: usize,
    rows: &'a [Row],
    not_read: &'a [String],
    untrusted: bool,
}

#[derive(Serialize)]
struct Schema {
    name: &'static str,
    version: u32,
}

impl<'a> NodeReport<'a> {
    /// Looks through what the capture knows of its node.
    pub fn new(capture: &'a Capture) -> Self {
        let reasons = capture.coverage.node.reasons().into_iter().map(str::to_owned);
        let not_read = reasons.chain(absent(&capture.node)).collect();
        let unusual = unusual::of(capture);
        Self { capture, unusual, rows: summary::rows(capture), not_read }
    }

    /// Writes it for a person; with `all`, everything unusual.
    ///
    /// # Errors
    /// Only if the output does.
    pub fn write_text(&self, out: &mut dyn Write, all: bool) -> io::Result<()> {
        self.head(out)?;
        let shown = if all { self.unusual.len() } else { MAX_NOTES.min(self.unusual.len()) };
        writeln!(out, "\nunusual")?;
        for note in self.unusual.iter().take(shown) {
            wrapped_at(out, WIDTH, "  - ", &note.text, "    ")?;
        }
        match self.unusual.len() - shown {
            0 if shown == 0 && !self.capture.node.is_told() => writeln!(out, "  nothing is known of the node")?,
            0 if shown == 0 => writeln!(out, "  nothing in what was read")?,
            0 => {}
            more => writeln!(out, "  {more} more: `--all`")?,
        }
        let mut section = "";
        for row in &self.rows {
            if row.section != section {
                writeln!(out, "\n{}", row.section)?;
            }
            section = row.section;
            wrapped_at(out, WIDTH, &format!("  {:<12}", row.name), &row.text, INDENT)?;
        }
        self.reasons(out, all)
    }

    fn head(&self, out: &mut dyn Write) -> io::Result<()> {
        let c = self.capture;
        let name = c.node_name.as_deref().map_or_else(|| "unknown node".to_owned(), shown);
        write!(out, "{name}")?;
        if let (Some(start), Some(end)) = (c.start_at, c.end_at) {
            let (start, end) = (start.format("%Y-%m-%d %H:%M:%S"), end.format("%H:%M:%S UTC"));
            write!(out, ", {start} to {end} ({})", duration(c.duration_ns))?;
        }
        writeln!(out)
    }

    fn reasons(&self, out: &mut dyn Write, all: bool) -> io::Result<()> {
        if self.not_read.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nnot read")?;
        let shown = if all { self.not_read.len() } else { MAX_REASONS };
        for why in self.not_read.iter().take(shown) {
            wrapped_at(out, WIDTH, "  - ", why, "    ")?;
        }
        match self.not_read.len().saturating_sub(shown) {
            0 => Ok(()),
            more => writeln!(out, "  {more} more: `--all`"),
        }
    }

    /// Writes it for a program, as one line of JSON.
    ///
    /// # Errors
    /// Only if the output does.
    pub fn write_json(&self, out: &mut dyn Write, all: bool) -> io::Result<()> {
        let kept = if all { self.unusual.len() } else { MAX_NOTES.min(self.unusual.len()) };
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let document = Document {
            schema: Schema { name: "ktrace-node", version: 1 },
            node: self.capture.node_name.as_deref().map(shown),
            start_at: self.capture.start_at.map(time),
            end_at: self.capture.end_at.map(time),
            duration_ns: self.capture.duration_ns,
            unusual: self.unusual.get(..kept).unwrap_or_default(),
            omitted_count: self.unusual.len() - kept,
            rows: &self.rows,
            not_read: &self.not_read,
            untrusted: true,
        };
        serde_json::to_writer(&mut *out, &document)?;
        writeln!(out)
    }
}

/// What the collector could not read, each once, whichever namespaces it was missing in; escaped.
fn absent(node: &Node) -> BTreeSet<String> {
    node.absent.iter().map(|(_, absent)| format!("{}: {}", shown(&absent.what), shown(&absent.why))).collect()
}

#[cfg(test)]
mod tests;
