//! Outcomes → what a person or a program reads.
//!
//! One [`Report`] is made of a capture and the outcomes of all rules; [`text`], [`screen`], [`markdown`] and [`json`] only write it
//! down.
//! The same bundle gives the same bytes.

pub mod json;
pub mod kernel_log;
pub mod markdown;
pub mod node;
pub mod screen;
pub mod text;

use crate::capture::Capture;
use crate::detectors::{self, Detector};
use crate::finding::{Finding, Outcome, Severity};
use crate::kb::{Kb, KbError, Setting};

/// What it all comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Something does not work.
    Critical,
    /// Something does not work as it should.
    Warning,
    /// Every rule was able to judge, and found nothing worse than info.
    Ok,
    /// Nothing was found, and something might have been missed.
    Inconclusive,
}

impl Verdict {
    /// The name as it stands in a report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Ok => "ok",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// A rule that could not judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unjudged {
    /// The rule.
    pub rule: &'static str,
    /// What was missing.
    pub why: String,
}

/// Everything that a report says.
#[derive(Debug)]
pub struct Report<'a> {
    /// The capture that was judged.
    pub capture: &'a Capture,
    /// The bundle as it was named, for commands that read it again.
    pub source: &'a str,
    /// What it all comes to.
    pub verdict: Verdict,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// Rules that could not judge.
    pub inconclusive: Vec<Unjudged>,
    /// Rules that found nothing and would have.
    pub clear: Vec<&'static str>,
    /// Thresholds that are not those of the release.
    pub settings: Vec<Setting>,
}

impl<'a> Report<'a> {
    /// Runs every rule over a capture.
    ///
    /// # Errors
    /// [`KbError::Entry`] if a rule cannot read its thresholds.
    pub fn new(capture: &'a Capture, kb: &Kb, source: &'a str) -> Result<Self, KbError> {
        let outcomes = detectors::run(capture, kb)?;
        let findings = detectors::ranked(&outcomes);
        let mut inconclusive = Vec::new();
        let mut clear = Vec::new();
        let mut unsure = false;
        for (detector, outcome) in &outcomes {
            match outcome {
                Outcome::Found(_) => {}
                Outcome::Clear => clear.push(detector.id()),
                Outcome::Inconclusive { why, by_plan } => {
                    unsure |= !by_plan;
                    inconclusive.push(Unjudged { rule: Detector::id(*detector), why: why.clone() });
                }
            }
        }
        let verdict = match findings.iter().map(|f| f.severity).max() {
            Some(Severity::Critical) => Verdict::Critical,
            Some(Severity::Warning) => Verdict::Warning,
            Some(Severity::Info) | None if unsure => Verdict::Inconclusive,
            Some(Severity::Info) | None => Verdict::Ok,
        };
        Ok(Self { capture, source, verdict, findings, inconclusive, clear, settings: kb.settings() })
    }

    /// Rules that could not judge, by the reason.
    pub fn inconclusive_by_why(&self) -> Vec<(&str, Vec<&'static str>)> {
        let mut by_why: Vec<(&str, Vec<&'static str>)> = Vec::new();
        for u in &self.inconclusive {
            match by_why.iter_mut().find(|(why, _)| *why == u.why) {
                Some((_, rules)) => rules.push(u.rule),
                None => by_why.push((&u.why, vec![u.rule])),
            }
        }
        by_why
    }

    /// The worst severity among the findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|f| f.severity).max()
    }
}
