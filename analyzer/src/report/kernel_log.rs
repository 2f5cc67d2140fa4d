//! What lines of the kernel's log mean, for a person and for a program.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::text::{INDENT, field, wrapped};
use crate::escape::{line as visible, shown};
use crate::kernel_log::knowledge::Entry;
use crate::kernel_log::{Known, Line, Reading, Unknown};
use crate::units::count;

/// Characters of a line that are repeated.
const MAX_SHOWN: usize = 300;
/// Different lines of one kind that are shown.
const MAX_LINES: usize = 3;
/// Unknown lines that are shown where nothing is known.
const MAX_UNKNOWN: usize = 3;

/// Writes it for a person.
///
/// # Errors
/// Only if the output does.
pub fn write_text(out: &mut dyn Write, reading: &Reading<'_>) -> io::Result<()> {
    for (n, known) in reading.known.iter().enumerate() {
        if n > 0 {
            writeln!(out)?;
        }
        write_known(out, known)?;
    }
    if reading.line_count == 0 {
        return writeln!(out, "nothing to explain: there is no line");
    }
    if reading.known.is_empty() {
        return write_unknown(out, reading);
    }
    if reading.unknown_count > 0 {
        let lines = count(reading.unknown_count, "other line", "other lines");
        writeln!(out, "\nnothing is known of {lines}")?;
    }
    Ok(())
}

fn write_known(out: &mut dyn Write, known: &Known<'_>) -> io::Result<()> {
    let entry = known.entry;
    wrapped(out, &format!("{}: ", entry.id), &entry.title, "   ")?;
    for line in known.lines.iter().take(MAX_LINES) {
        let times = if line.count > 1 { format!(" ({} times)", line.count) } else { String::new() };
        field(out, "line", &format!("{}{times}", repeated(&line.message)))?;
        let seen: Vec<String> = line.fields.iter().map(|f| format!("{} `{}`", f.label, shown(&f.value))).collect();
        if !seen.is_empty() {
            field(out, "with", &seen.join(", "))?;
        }
        if let Some(kernels) = line.wording.kernels() {
            field(out, "wording", &format!("of {kernels}"))?;
        }
    }
    let told: u64 = known.lines.iter().take(MAX_LINES).map(|line| line.count).sum();
    if known.count > told {
        field(out, "line", &format!("{} more of this kind", known.count - told))?;
    }
    field(out, "means", &entry.meaning)?;
    field(out, "cause", &entry.cause)?;
    field(out, "impact", &entry.impact)?;
    writeln!(out, "   next")?;
    let first = known.lines.first();
    for (n, next) in entry.next.iter().enumerate() {
        wrapped(out, &format!("     {}. ", n + 1), &next.text, "        ")?;
        if let Some(command) = command(first, next.command.as_deref()) {
            writeln!(out, "          {command}")?;
        }
    }
    for proof in proofs(entry) {
        field(out, "proof", &proof)?;
    }
    field(out, "read", &entry.references.join("; "))
}

fn write_unknown(out: &mut dyn Write, reading: &Reading<'_>) -> io::Result<()> {
    for (n, unknown) in reading.unknown.iter().take(MAX_UNKNOWN).enumerate() {
        if n > 0 {
            writeln!(out)?;
        }
        wrapped(out, "nothing is known of this line: ", &repeated(&unknown.message), "   ")?;
        for entry in &unknown.nearest {
            wrapped(out, "   nearest: ", &format!("{}: {}", entry.id, entry.title), INDENT)?;
        }
    }
    let told: u64 = reading.unknown.iter().take(MAX_UNKNOWN).map(|unknown| unknown.count).sum();
    match reading.unknown_count.saturating_sub(told) {
        0 => Ok(()),
        rest => writeln!(out, "\nnor of {}", count(rest, "other line", "other lines")),
    }
}

/// What of ktrace would prove it, one sentence each.
fn proofs(entry: &Entry) -> Vec<String> {
    let rules = entry.proves.rules.iter().map(|rule| format!("rule `{rule}`: `analyze kb show {rule}`"));
    let hooks = entry.proves.hooks.iter().map(|hook| format!("hook `{hook}`: `ktrace hooks show {hook}`"));
    rules.chain(hooks).chain(entry.proves.note.clone()).collect()
}

/// What to type, with what the first line held.
fn command(first: Option<&Line<'_>>, template: Option<&str>) -> Option<String> {
    Some(first?.command(template?))
}

/// A line that cannot steer a terminal, cut visibly.
fn repeated(message: &str) -> String {
    let cut = message.char_indices().nth(MAX_SHOWN).and_then(|(at, _)| message.get(..at));
    cut.map_or_else(|| visible(message), |cut| format!("{}…", visible(cut)))
}

#[derive(Serialize)]
struct Document<'a> {
    schema: Schema,
    line_count: u64,
    known: Vec<KnownRow<'a>>,
    unknown: Vec<UnknownRow<'a>>,
    unknown_count: u64,
}

#[derive(Serialize)]
struct Schema {
    name: &'static str,
    version: u32,
}

#[derive(Serialize)]
struct KnownRow<'a> {
    id: &'a str,
    title: &'a str,
    count: u64,
    lines: Vec<LineRow>,
    meaning: &'a str,
    cause: &'a str,
    impact: &'a str,
    next_steps: Vec<StepRow<'a>>,
    rules: &'a [String],
    hooks: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    references: &'a [String],
}

#[derive(Serialize)]
struct LineRow {
    message: String,
    count: u64,
    fields: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wording: Option<String>,
    untrusted: bool,
}

#[derive(Serialize)]
struct StepRow<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

#[derive(Serialize)]
struct UnknownRow<'a> {
    message: String,
    count: u64,
    nearest: Vec<&'a str>,
    untrusted: bool,
}

/// Writes it for a program.
///
/// # Errors
/// Only if the output does.
pub fn write_json(out: &mut dyn Write, reading: &Reading<'_>) -> io::Result<()> {
    let document = Document {
        schema: Schema { name: "ktrace-kernel-log", version: 1 },
        line_count: reading.line_count,
        known: reading.known.iter().map(known_row).collect(),
        unknown: reading.unknown.iter().map(unknown_row).collect(),
        unknown_count: reading.unknown_count,
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

fn known_row<'a>(known: &'a Known<'_>) -> KnownRow<'a> {
    let (entry, first) = (known.entry, known.lines.first());
    let steps = entry.next.iter();
    KnownRow {
        id: &entry.id,
        title: &entry.title,
        count: known.count,
        lines: known.lines.iter().map(line_row).collect(),
        meaning: &entry.meaning,
        cause: &entry.cause,
        impact: &entry.impact,
        next_steps: steps.map(|n| StepRow { text: &n.text, command: command(first, n.command.as_deref()) }).collect(),
        rules: &entry.proves.rules,
        hooks: &entry.proves.hooks,
        note: entry.proves.note.as_deref(),
        references: &entry.references,
    }
}

fn line_row(line: &Line<'_>) -> LineRow {
    LineRow {
        message: repeated(&line.message),
        count: line.count,
        fields: line.fields.iter().map(|f| (f.name.clone(), Value::String(shown(&f.value)))).collect(),
        wording: line.wording.kernels(),
        untrusted: true,
    }
}

fn unknown_row<'a>(unknown: &Unknown<'a>) -> UnknownRow<'a> {
    UnknownRow {
        message: repeated(&unknown.message),
        count: unknown.count,
        nearest: unknown.nearest.iter().map(|entry| entry.id.as_str()).collect(),
        untrusted: true,
    }
}
