//! The report for a person: counts, the verdict, findings with what to do next, and what nobody may conclude.

use std::io::{self, Write};

use super::{Report, Verdict};
use crate::capture::Capture;
use crate::escape::{shell_word, shown};
use crate::finding::{Finding, Signal, Step};
use crate::units::{count, duration, percent};

/// Findings that are told in full, and those that get at least a line, unless all are asked for.
const IN_FULL: usize = 3;
const IN_SHORT: usize = 20;
/// Lines are wrapped here.
const WIDTH: usize = 100;
/// As wide as the labels of a finding's fields.
pub(super) const INDENT: &str = "                 ";

/// Writes the report; with `all`, every finding in full.
///
/// # Errors
/// Only if the output does.
pub fn write(out: &mut dyn Write, report: &Report<'_>, all: bool) -> io::Result<()> {
    head(out, report.capture)?;
    writeln!(out)?;
    wrapped(out, "verdict: ", &verdict(report), "         ")?;
    for s in &report.settings {
        let set = format!("{}.{} is {} instead of {}", s.rule, s.name, s.shown, s.default);
        wrapped(out, "         ", &set, "         ")?;
    }
    let in_full = if all { usize::MAX } else { IN_FULL };
    let in_short = if all { usize::MAX } else { IN_SHORT };
    for (n, finding) in report.findings.iter().enumerate().take(in_full) {
        write_finding(out, n + 1, finding, report.source)?;
    }
    let rest = report.findings.get(in_full.min(report.findings.len())..).unwrap_or_default();
    if !rest.is_empty() {
        writeln!(out)?;
    }
    for (n, finding) in rest.iter().enumerate().take(in_short) {
        let label = format!("{}. {} {}: ", n + 1 + in_full, finding.severity.as_str(), finding.rule);
        wrapped(out, &label, &finding.title, "   ")?;
    }
    if rest.len() > in_short {
        writeln!(out, "{} more: `--all`", rest.len() - in_short)?;
    }
    unjudged(out, report)?;
    sentences(out, "not measured", &report.capture.coverage.not_measured)
}

fn head(out: &mut dyn Write, capture: &Capture) -> io::Result<()> {
    let node = capture.node_name.as_deref().map_or_else(|| "unknown node".to_owned(), shown);
    write!(out, "ktrace capture of {node}")?;
    if let Some(window) = clock(capture) {
        write!(out, ", {window}")?;
    }
    if !capture.coverage.sealed {
        write!(out, ", not sealed")?;
    }
    writeln!(out)?;
    writeln!(out, "{}", counts(capture))
}

/// `2026-11-20 13:53:48 to 13:53:58 UTC (10.0 s)`.
pub(super) fn clock(capture: &Capture) -> Option<String> {
    let (start, end) = (capture.start_at?.format("%Y-%m-%d %H:%M:%S"), capture.end_at?.format("%H:%M:%S UTC"));
    Some(format!("{start} to {end} ({})", duration(capture.duration_ns)))
}

/// How much was recorded.
pub(super) fn counts(capture: &Capture) -> String {
    let parts = [
        count(capture.event_count(), "event", "events"),
        count(capture.connections.len() as u64, "TCP connection", "TCP connections"),
        count(capture.udp_flow_count(), "UDP flow", "UDP flows"),
        count(capture.processes.len() as u64, "process", "processes"),
    ];
    parts.join(", ")
}

/// What it all comes to, in a sentence.
pub(super) fn verdict(report: &Report<'_>) -> String {
    let word = report.verdict.as_str();
    let is_empty = report.capture.event_count() == 0;
    let found = if is_empty { "nothing was recorded" } else { "nothing found" };
    match (report.verdict, report.findings.first()) {
        (Verdict::Critical | Verdict::Warning, Some(first)) => format!("{word}: {}", first.title),
        (Verdict::Ok, None) if is_empty => {
            format!(
                "{word}: nothing was recorded, so {} had nothing to judge{}",
                rules(report.clear.len()),
                on_ports(report)
            )
        }
        (Verdict::Ok, None) => format!("{word}: nothing found by {}{}", rules(report.clear.len()), on_ports(report)),
        (Verdict::Ok, Some(_)) => format!("{word}: nothing worse than a note"),
        _ => format!("{word}: {found}, but {} could not judge", rules(report.inconclusive.len())),
    }
}

/// ` (ports 80, 443)`: what all that was found, or was not, is limited to.
fn on_ports(report: &Report<'_>) -> String {
    report.capture.coverage.shown_ports().map_or_else(String::new, |ports| format!(" (ports {ports})"))
}

fn rules(n: usize) -> String {
    count(n as u64, "rule", "rules")
}

/// One finding in full.
///
/// # Errors
/// Only if the output does.
pub(crate) fn write_finding(out: &mut dyn Write, n: usize, finding: &Finding, source: &str) -> io::Result<()> {
    writeln!(out, "\n{n}. {} {}", finding.severity.as_str().to_uppercase(), finding.rule)?;
    wrapped(out, "   ", &finding.title, "   ")?;
    field(out, "cause", &finding.cause)?;
    field(out, "impact", &finding.impact)?;
    field(out, "signal", &signal(&finding.signal))?;
    if let Some(place) = place(finding) {
        field(out, "where", &place)?;
    }
    field(out, "confidence", &percent(finding.confidence))?;
    if !finding.symptoms.is_empty() {
        field(out, "also shows as", &finding.symptoms.join(", "))?;
    }
    write_evidence(out, finding, source)?;
    match (entered(finding), finding.subject.netns) {
        (Some(pid), Some(netns)) => {
            writeln!(out, "   next (if pid {pid} has ended, `lsns -t net` names another one in netns {netns})")?;
        }
        _ => writeln!(out, "   next")?,
    }
    for (n, step) in finding.next_steps.iter().enumerate() {
        write_step(out, n + 1, step)?;
    }
    Ok(())
}

fn write_step(out: &mut dyn Write, n: usize, step: &Step) -> io::Result<()> {
    wrapped(out, &format!("     {n}. "), &step.text, "        ")?;
    match &step.command {
        Some(command) => writeln!(out, "          {command}"),
        None => Ok(()),
    }
}

/// The number that made the rule fire.
pub(super) fn signal(signal: &Signal) -> String {
    let name = signal.name.replace('_', " ");
    let number = |v: f64| if v == v.trunc() { format!("{v:.0}") } else { format!("{v:.1}") };
    let unit = if signal.unit == "percent" { "%" } else { signal.unit };
    format!("{name} {} {unit} (threshold {} {unit})", number(signal.value), number(signal.threshold))
}

/// `10.42.1.15 -> VIP 10.96.0.80:80 -> 10.244.20.2:8080 (`nginx` in shop/web-2), netns 4026532110`.
pub(super) fn place(finding: &Finding) -> Option<String> {
    let s = &finding.subject;
    let client = s.far.as_ref().filter(|far| far.is_client);
    let server =
        s.far.as_ref().filter(|far| !far.is_client).map_or_else(String::new, |far| format!(" ({})", far.who()));
    let to = match (s.vip, s.backend.or(s.remote)) {
        (Some(vip), Some(to)) if to != vip => Some(format!("VIP {vip} -> {to}{server}")),
        (Some(vip), _) => Some(format!("VIP {vip}{server}")),
        (None, to) => to.map(|to| format!("{to}{server}")),
    };
    let ends = match (s.local, to) {
        (Some(local), Some(to)) => Some(format!("{local} -> {to}")),
        (None, Some(to)) => Some(format!("-> {to}")),
        (Some(local), None) => Some(local.to_string()),
        (None, None) => None,
    };
    let client = client.map(|far| format!("client {} at {}", far.who(), far.end));
    let netns = s.netns.map(|n| format!("netns {n}"));
    let parts: Vec<String> = [ends, client, netns].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn write_evidence(out: &mut dyn Write, finding: &Finding, source: &str) -> io::Result<()> {
    let seqs = finding.evidence.seqs();
    let Some(first) = seqs.first() else { return Ok(()) };
    let list = seqs.iter().map(|s| format!("#{s}")).collect::<Vec<_>>().join(" ");
    let total = count(finding.evidence.total(), "event", "events");
    field(out, "evidence", &format!("{list} ({total} in all)"))?;
    writeln!(out, "{INDENT}analyze events {} --seq {first}", shell_word(source))?;
    writeln!(out, "{INDENT}analyze story {} --seq {first}", shell_word(source))
}

/// The process whose network namespace the commands enter, if any does.
fn entered(finding: &Finding) -> Option<u32> {
    let enters = |s: &Step| s.command.as_deref().is_some_and(|c| c.starts_with("nsenter "));
    finding.subject.pid().filter(|_| finding.next_steps.iter().any(enters))
}

fn unjudged(out: &mut dyn Write, report: &Report<'_>) -> io::Result<()> {
    if !report.inconclusive.is_empty() {
        writeln!(out, "\ninconclusive")?;
        for (why, rules) in report.inconclusive_by_why() {
            sentence(out, &format!("{}: {why}", rules.join(", ")))?;
        }
    }
    if !report.clear.is_empty() {
        writeln!(out)?;
        wrapped(out, &format!("clear{}: ", on_ports(report)), &report.clear.join(", "), "       ")?;
    }
    Ok(())
}

fn sentences(out: &mut dyn Write, title: &str, list: &[String]) -> io::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    list.iter().try_for_each(|s| sentence(out, s))
}

/// One item of a list of sentences.
///
/// # Errors
/// Only if the output does.
pub fn sentence(out: &mut dyn Write, text: &str) -> io::Result<()> {
    wrapped(out, "   - ", text, "     ")
}

/// A named value of an entry or a finding.
pub(super) fn field(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    wrapped(out, &format!("   {name:<14}"), value, INDENT)
}

/// Text after a label, wrapped between words.
pub(crate) fn wrapped(out: &mut dyn Write, label: &str, text: &str, indent: &str) -> io::Result<()> {
    wrapped_at(out, WIDTH, label, text, indent)
}

/// The same at another width, in characters.
pub(crate) fn wrapped_at(out: &mut dyn Write, width: usize, label: &str, text: &str, indent: &str) -> io::Result<()> {
    let mut line = label.to_owned();
    let mut column = label.chars().count();
    let mut is_first = true;
    for word in text.split(' ') {
        let length = word.chars().count();
        if !is_first && column + 1 + length > width {
            writeln!(out, "{}", line.trim_end())?;
            line = indent.to_owned();
            column = indent.chars().count();
            is_first = true;
        }
        if !is_first {
            line.push(' ');
            column += 1;
        }
        line.push_str(word);
        column += length;
        is_first = false;
    }
    writeln!(out, "{}", line.trim_end())
}
