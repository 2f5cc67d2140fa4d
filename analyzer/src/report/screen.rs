//! The report on one screen, for somebody who has a minute: one true sentence first, then why, and what to type next.
//!
//! At most [`LINES`] lines of [`COLUMNS`] columns; only a command may be wider, since half of one is worse than none.
//! What does not fit is counted. Everything else is in the full report ([`super::text`]).

use std::io::{self, Write};

use super::text::wrapped_at;
use super::{Report, Verdict};
use crate::finding::{Finding, Severity, Step};
use crate::units::{count, percent};

/// Lines of a screen, as every terminal has them.
pub const LINES: usize = 24;
/// Width that lines are wrapped at, in characters.
pub const COLUMNS: usize = 100;
/// Findings that are told, the one of the verdict included.
const MAX_FINDINGS: usize = 3;
/// Lines of each part at most; what is longer ends in `…`.
const TITLE_LINES: usize = 4;
const CAUSE_LINES: usize = 2;
const WATCHED_LINES: usize = 2;
const BUNDLE_LINES: usize = 2;
/// Reasons why rules could not judge, a line each.
const MAX_REASONS: usize = 2;
/// From here on nothing is said about how sure a rule is.
const SURE: f64 = 0.9;
/// As wide as the labels of the last lines.
const MARGIN: &str = "              ";

/// What whoever made the bundle knows better than the bundle; escaped.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// What was watched, for how long, and why not longer: `vm for 6.5 s of 15 s`.
    pub watched: &'a str,
    /// Where the bundle is, or how to keep the next one.
    pub bundle: &'a str,
}

/// Writes the report.
///
/// # Errors
/// Only if the output does.
pub fn write(out: &mut dyn Write, report: &Report<'_>, frame: Frame<'_>) -> io::Result<()> {
    let told = told(report);
    let tail = tail(report, frame);
    let mut blocks = Vec::new();
    // the first that fits; what is left without any finding but that of the verdict always does
    for (most, gaps) in [(told.len(), true), (told.len(), false), (2, true), (2, false), (1, true), (1, false)] {
        let n = most.min(told.len());
        blocks = told.iter().take(n).enumerate().map(|(i, f)| block(report, i, f)).collect();
        if blocks.is_empty() {
            blocks.push(clipped("", &verdict(report), "", TITLE_LINES));
        }
        blocks.extend(rest(report, n).map(|line| vec![line]));
        blocks.push(tail.clone());
        let spaces = if gaps { blocks.len() - 1 } else { 0 };
        if blocks.iter().map(Vec::len).sum::<usize>() + spaces <= LINES {
            return put(out, &blocks, if gaps { "\n" } else { "" });
        }
    }
    put(out, &blocks, "")
}

fn put(out: &mut dyn Write, blocks: &[Vec<String>], gap: &str) -> io::Result<()> {
    let text: Vec<String> = blocks.iter().map(|lines| lines.iter().map(|line| format!("{line}\n")).collect()).collect();
    out.write_all(text.join(gap).as_bytes())
}

/// The findings that a screen is for. Notes are worth it only where there is nothing worse.
fn told<'a>(report: &'a Report<'_>) -> Vec<&'a Finding> {
    let worst = report.worst().unwrap_or(Severity::Info);
    let is_told = |f: &&Finding| f.severity > Severity::Info || worst == Severity::Info;
    report.findings.iter().filter(is_told).take(MAX_FINDINGS).collect()
}

/// The first sentence: what is wrong, or that nothing is, or why that cannot be said.
fn verdict(report: &Report<'_>) -> String {
    let rules = |n: usize| count(n as u64, "rule", "rules");
    let first = report.findings.first();
    let is_empty = report.capture.event_count() == 0 && report.capture.connections.is_empty();
    match (report.verdict, first) {
        (Verdict::Critical | Verdict::Warning, Some(first)) => format!("{}: {}", report.verdict.as_str(), first.title),
        (Verdict::Inconclusive, _) => {
            let why = report.inconclusive.first().map_or_else(String::new, |u| format!(": {}", u.why));
            format!("inconclusive: nothing found, but {} could not judge{why}", rules(report.inconclusive.len()))
        }
        _ if is_empty => format!("inconclusive: nothing was seen that {} could judge", rules(report.clear.len())),
        (_, Some(_)) => {
            format!("ok: {} found nothing worse than a note in {}", rules(judging(report)), measured(report))
        }
        (_, None) => format!("ok: {} found nothing wrong in {}", rules(judging(report)), measured(report)),
    }
}

/// Rules that were able to judge.
fn judging(report: &Report<'_>) -> usize {
    let mut found: Vec<&str> = report.findings.iter().map(|f| f.rule).collect();
    found.sort_unstable();
    found.dedup();
    report.clear.len() + found.len()
}

/// `120 TCP connections, 45 DNS queries (44 answered) and 3 other UDP flows`.
fn measured(report: &Report<'_>) -> String {
    let capture = report.capture;
    let sum = |of: fn(&crate::capture::UdpFlow) -> u64| capture.dns.iter().map(of).fold(0_u64, u64::saturating_add);
    let (sent, answered) = (sum(|f| f.sent), sum(|f| f.answered));
    let answers = if sent > 0 { format!(" ({answered} answered)") } else { String::new() };
    format!(
        "{}, {}{answers} and {}",
        count(capture.connections.len() as u64, "TCP connection", "TCP connections"),
        count(sent, "DNS query", "DNS queries"),
        count(capture.udp.len() as u64, "other UDP flow", "other UDP flows"),
    )
}

/// A finding as a sentence, its cause and the first thing to do. That of the verdict stands without a number.
fn block(report: &Report<'_>, place: usize, finding: &Finding) -> Vec<String> {
    let is_note = finding.severity == Severity::Info;
    let mut lines = match place {
        0 => clipped("", &verdict(report), "", TITLE_LINES),
        _ => Vec::new(),
    };
    if place > 0 || is_note {
        let severity = if is_note { "note" } else { finding.severity.as_str() };
        let label = format!("{}. {severity}: ", place + 1);
        lines.extend(clipped(&label, &finding.title, "   ", TITLE_LINES));
    }
    if is_note {
        return lines;
    }
    let sure = match finding.confidence {
        sure if sure >= SURE => String::new(),
        doubtful => format!("; {} sure", percent((doubtful * 100.0).round() / 100.0)),
    };
    lines.extend(clipped("   cause  ", &format!("{}{sure}", finding.cause), "          ", CAUSE_LINES));
    lines.extend(finding.next_steps.first().map(next).unwrap_or_default());
    lines
}

/// One line to paste, with what it tells as a comment, or two where that is too wide.
fn next(step: &Step) -> Vec<String> {
    let Some(command) = &step.command else { return clipped("   next   ", &step.text, "          ", CAUSE_LINES) };
    let line = format!("   next   {command}   # {}", step.text);
    if line.chars().count() <= COLUMNS {
        return vec![line];
    }
    let mut lines = clipped("   next   ", &step.text, "          ", 1);
    lines.push(format!("          {command}"));
    lines
}

/// `3 more: 1 critical, 2 warning`, of those that are not told.
fn rest(report: &Report<'_>, told: usize) -> Option<String> {
    let rest = report.findings.get(told..).unwrap_or_default();
    let kinds = [Severity::Critical, Severity::Warning, Severity::Info].map(|severity| {
        let n = rest.iter().filter(|f| f.severity == severity).count();
        (n > 0).then(|| format!("{n} {}", severity.as_str()))
    });
    let kinds: Vec<String> = kinds.into_iter().flatten().collect();
    (!rest.is_empty()).then(|| format!("{} more: {}", rest.len(), kinds.join(", ")))
}

/// What was watched, what could not be judged, what was not measured, and where all of it can be read.
fn tail(report: &Report<'_>, frame: Frame<'_>) -> Vec<String> {
    let events = count(report.capture.event_count(), "event", "events");
    let watched = format!("{}; {events}, {}", frame.watched, measured(report));
    let mut lines = clipped("watched       ", &watched, MARGIN, WATCHED_LINES);
    lines.extend(unjudged(report));
    let not_measured = &report.capture.coverage.not_measured;
    if let Some(first) = not_measured.first() {
        let others = match not_measured.len() - 1 {
            0 => String::new(),
            n => format!("{}: ", count(n as u64 + 1, "thing", "things")),
        };
        lines.extend(clipped("not measured  ", &format!("{others}{first}"), MARGIN, 1));
    }
    lines.extend(clipped("bundle        ", frame.bundle, MARGIN, BUNDLE_LINES));
    lines
}

/// A line for each reason, the one that stopped most rules first.
fn unjudged(report: &Report<'_>) -> Vec<String> {
    let mut by_why: Vec<(&str, Vec<&str>)> = Vec::new();
    for u in &report.inconclusive {
        match by_why.iter_mut().find(|(why, _)| *why == u.why) {
            Some((_, rules)) => rules.push(u.rule),
            None => by_why.push((&u.why, vec![u.rule])),
        }
    }
    by_why.sort_by_key(|(_, rules)| std::cmp::Reverse(rules.len()));
    let named = |(why, rules): &(&str, Vec<&str>)| match rules.as_slice() {
        [rule] => format!("{rule}: {why}"),
        _ => format!("{} rules: {why}", rules.len()),
    };
    let told = if by_why.len() > MAX_REASONS { MAX_REASONS - 1 } else { by_why.len() };
    let mut texts: Vec<String> = by_why.iter().take(told).map(named).collect();
    let more: usize = by_why.iter().skip(told).map(|(_, rules)| rules.len()).sum();
    if more > 0 {
        texts.push(format!("{more} rules more, for {} other reasons", by_why.len() - told));
    }
    let label = |i: usize| if i == 0 { "inconclusive  " } else { MARGIN };
    texts.iter().enumerate().flat_map(|(i, text)| clipped(label(i), text, MARGIN, 1)).collect()
}

/// Text after a label, wrapped between words, so many lines at most.
fn clipped(label: &str, text: &str, indent: &str, most: usize) -> Vec<String> {
    let mut wrapped = Vec::new();
    // a vector takes everything
    let _infallible = wrapped_at(&mut wrapped, COLUMNS, label, text, indent);
    let mut lines: Vec<String> = String::from_utf8_lossy(&wrapped).lines().map(str::to_owned).collect();
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            *last = shortened(last);
        }
    }
    lines
}

/// A whole line with ` …` behind it, for which its last words may have to go.
fn shortened(line: &str) -> String {
    let mut kept = line.trim_end();
    while kept.chars().count() + 2 > COLUMNS {
        kept = kept.rsplit_once(' ').map_or("", |(before, _)| before);
    }
    format!("{kept} …")
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
