//! The report for a ticket: Markdown, at most 3,000 characters unless all is asked for.
//!
//! What does not fit is left out in whole pieces, the least important first, and the last lines say what. Nothing that
//! the captured machine chose is more than text there: see [`crate::escape::markdown`].

use std::fmt::Write as _;
use std::io::{self, Write};

use super::text::{clock, counts, place, signal, verdict};
use super::{Report, Verdict};
use crate::escape::{code, markdown, shell_word, shown};
use crate::finding::{Finding, Severity};
use crate::units::{count, percent};

/// Longest page, characters.
const MAX_CHARS: usize = 3000;
/// Kept for the last lines, which say what was left out.
const LAST_LINES: usize = 600;
/// Kept for rules that could not judge, however much there is to say of findings.
const UNJUDGED: usize = 500;
/// Most thresholds that are named which are not those of the release.
const MAX_SETTINGS: usize = 5;
/// A longer path of the bundle is not repeated.
const MAX_SOURCE: usize = 120;

/// Writes the report; with `all`, however long it gets.
///
/// # Errors
/// Only if the output does.
pub fn write(out: &mut dyn Write, report: &Report<'_>, all: bool) -> io::Result<()> {
    let mut text = page(report, None);
    if !all && text.chars().count() > MAX_CHARS {
        text = page(report, Some(MAX_CHARS));
    }
    out.write_all(text.as_bytes())
}

/// A page that takes whole pieces as long as there is room.
struct Page {
    text: String,
    /// Characters that are left; `None` is no limit.
    room: Option<usize>,
}

impl Page {
    /// Whether there was room for it.
    fn add(&mut self, piece: &str) -> bool {
        match self.room.map(|room| room.checked_sub(piece.chars().count())) {
            Some(None) => return false,
            Some(left) => self.room = left,
            None => {}
        }
        self.text.push_str(piece);
        true
    }

    /// Keeps room for later, as much as there is.
    fn keep(&mut self, chars: usize) -> usize {
        let kept = self.room.map_or(0, |room| room.min(chars));
        self.room = self.room.map(|room| room - kept);
        kept
    }

    fn give_back(&mut self, chars: usize) {
        self.room = self.room.map(|room| room + chars);
    }
}

/// What a page had no room for.
#[derive(Default)]
struct LeftOut {
    shortened: u64,
    findings: u64,
    reasons: u64,
}

fn page(report: &Report<'_>, room: Option<usize>) -> String {
    let mut page = Page { text: String::new(), room };
    let mut left_out = LeftOut::default();
    let last = page.keep(LAST_LINES);
    page.add(&head(report));
    let reasons = reasons(report);
    let kept = page.keep(reasons.iter().map(|r| r.chars().count()).sum::<usize>().min(UNJUDGED));
    add_findings(&mut page, report, &mut left_out);
    page.give_back(kept);
    let mut heading = "\n### inconclusive\n\n";
    for reason in &reasons {
        if page.add(&format!("{heading}{reason}")) {
            heading = "";
        } else {
            left_out.reasons += 1;
        }
    }
    page.give_back(last);
    page.add(&last_lines(report, &left_out));
    page.text
}

fn head(report: &Report<'_>) -> String {
    let capture = report.capture;
    let node = capture.node_name.as_deref().map_or_else(|| "unknown node".to_owned(), |node| code(&shown(node)));
    let mut out = format!("## ktrace: {}\n\n", report.verdict.as_str());
    let window = clock(capture).map(|window| format!(", {window}")).unwrap_or_default();
    let _infallible = write!(out, "{node}{window}: {}\n\n", counts(capture));
    let worst = |severity: Severity| report.findings.iter().filter(|f| f.severity == severity).count() as u64;
    let told = match report.verdict {
        Verdict::Critical | Verdict::Warning => format!(
            "{}: {} critical, {} warning, {} info",
            report.verdict.as_str(),
            worst(Severity::Critical),
            worst(Severity::Warning),
            worst(Severity::Info)
        ),
        Verdict::Ok | Verdict::Inconclusive => markdown(&verdict(report)),
    };
    let _infallible = writeln!(out, "**verdict** {told}");
    for s in report.settings.iter().take(MAX_SETTINGS) {
        let name = code(&format!("{}.{}", s.rule, s.name));
        let _infallible = writeln!(out, "\n{name} is {} instead of {}", markdown(&s.shown), markdown(&s.default));
    }
    if let Some(rest) = report.settings.len().checked_sub(MAX_SETTINGS).filter(|rest| *rest > 0) {
        let _infallible = writeln!(out, "\n{rest} more thresholds are not those of the release");
    }
    out
}

/// Findings in full while there is room, then their titles, then at least which rules they are of.
fn add_findings(page: &mut Page, report: &Report<'_>, left_out: &mut LeftOut) {
    let mut in_full = true;
    for (n, finding) in report.findings.iter().enumerate() {
        let heading = format!("\n### {}. {} {}\n\n", n + 1, finding.severity.as_str(), code(finding.rule));
        let title = markdown(&finding.title);
        in_full = in_full && page.add(&format!("{heading}{title}\n\n{}", details(finding, report.source)));
        if in_full {
            continue;
        }
        if page.add(&format!("{heading}{title}\n")) {
            left_out.shortened += 1;
        } else {
            left_out.findings += 1;
        }
    }
}

fn details(finding: &Finding, source: &str) -> String {
    let mut out = String::new();
    let mut field = |name: &str, value: &str| {
        let _infallible = writeln!(out, "- **{name}** {value}");
    };
    field("signal", &markdown(&signal(&finding.signal)));
    if let Some(place) = place(finding) {
        field("where", &markdown(&place));
    }
    field("cause", &markdown(&finding.cause));
    field("impact", &markdown(&finding.impact));
    field("confidence", &percent(finding.confidence));
    if !finding.symptoms.is_empty() {
        field("also shows as", &markdown(&finding.symptoms.join(", ")));
    }
    let seqs = finding.evidence.seqs();
    if let Some(first) = seqs.first() {
        let list = seqs.iter().map(|s| format!("#{s}")).collect::<Vec<_>>().join(" ");
        let total = count(finding.evidence.total(), "event", "events");
        let command = code(&format!("analyze events {} --seq {first}", bundle(source)));
        field("evidence", &format!("{} ({total} in all), {command}", code(&list)));
    }
    for (n, step) in finding.next_steps.iter().enumerate() {
        let command = step.command.as_deref().map_or_else(String::new, |command| format!(": {}", code(command)));
        field(&format!("next {}", n + 1), &format!("{}{command}", markdown(&step.text)));
    }
    out
}

/// Why rules could not judge, a line each.
fn reasons(report: &Report<'_>) -> Vec<String> {
    let by_why = report.inconclusive_by_why().into_iter();
    by_why.map(|(why, rules)| format!("- {}: {}\n", markdown(&rules.join(", ")), markdown(why))).collect()
}

fn last_lines(report: &Report<'_>, left_out: &LeftOut) -> String {
    let unmeasured = report.capture.coverage.not_measured.len() as u64;
    let mut out = format!(
        "\n{} found nothing, {} could not judge; not measured: {}\n",
        count(report.clear.len() as u64, "rule", "rules"),
        report.inconclusive.len(),
        count(unmeasured, "thing", "things"),
    );
    let pieces = [
        (left_out.shortened, "finding but for its title", "findings but for their titles"),
        (left_out.findings, "whole finding", "whole findings"),
        (left_out.reasons, "reason why rules could not judge", "reasons why rules could not judge"),
    ];
    let pieces: Vec<String> =
        pieces.into_iter().filter(|(n, _, _)| *n > 0).map(|(n, one, many)| count(n, one, many)).collect();
    if !pieces.is_empty() {
        let command = code(&format!("analyze {} --format markdown --all", bundle(report.source)));
        let _infallible = writeln!(out, "\nleft out for length: {}; {command} has all of it", pieces.join(", "));
    }
    out
}

/// The bundle in a command.
fn bundle(source: &str) -> String {
    let word = shell_word(source);
    if word.chars().count() > MAX_SOURCE { "BUNDLE".to_owned() } else { word }
}
