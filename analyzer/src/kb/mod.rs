//! What the rules know: one TOML file each in `analyzer/kb/`, with the question that a rule answers, how it decides,
//! what it cannot know, and the thresholds that it decides by.
//!
//! A rule's code reads its thresholds from here and nowhere else, so that a text never says another number than the
//! one that decided, and `--set` judges an old bundle by others.

mod threshold;
mod words;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use threshold::{Ms, NoThresholds, Threshold};
pub use words::{Match, telling};

use crate::capture::Cutoffs;
use crate::detectors::{DETECTORS, Detector};

/// What can be wrong with the knowledge base, or with what a user changes in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KbError {
    /// A file of the project does not say what its rule needs.
    #[error("the knowledge of rule `{rule}` cannot be used: {why}")]
    Entry {
        /// The rule.
        rule: String,
        /// What is wrong.
        why: String,
    },
    /// `--set` without `=`, or without a dot before the name.
    #[error("`{0}` is not `RULE.THRESHOLD=NUMBER`")]
    Form(String),
    /// No rule of this name.
    #[error("there is no rule `{0}`")]
    Rule(String),
    /// The rule has no such threshold.
    #[error("rule `{rule}` has no threshold `{name}`")]
    Threshold {
        /// The rule.
        rule: &'static str,
        /// What was asked for.
        name: String,
        /// What there is, one after the other.
        known: String,
    },
    /// The number is none, or out of range.
    #[error("`{value}` cannot be `{threshold}`: {why}")]
    Value {
        /// What was given.
        value: String,
        /// Rule and threshold.
        threshold: String,
        /// What it must be.
        why: &'static str,
    },
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Names.
    Dns,
    /// Connections that stand.
    Tcp,
    /// Getting a connection, and what is on the way.
    Connect,
    /// Addresses that stand for others.
    Nat,
    /// What a process does with its sockets.
    Socket,
    /// The machine.
    Node,
    /// The capture itself.
    Capture,
}

impl Layer {
    /// Every layer, in the order of a question that goes from a name to the machine.
    pub const ALL: [Self; 7] =
        [Self::Dns, Self::Connect, Self::Tcp, Self::Nat, Self::Socket, Self::Node, Self::Capture];

    /// The name as it stands in the files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Connect => "connect",
            Self::Nat => "nat",
            Self::Socket => "socket",
            Self::Node => "node",
            Self::Capture => "capture",
        }
    }
}

/// What is known of a rule. In the texts `{name}` stands for the threshold of that name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is about.
    pub layer: Layer,
    /// The question that it answers.
    pub question: String,
    /// Words of a question that lead here, besides those of the texts.
    #[serde(default)]
    pub words: Vec<String>,
    /// What it reads in the bundle, and how.
    #[serde(default)]
    reads: Vec<String>,
    /// How it decides, one sentence each.
    decides: Vec<String>,
    /// Why this happens.
    #[serde(default)]
    cause: Vec<String>,
    /// What it does to those concerned.
    #[serde(default)]
    impact: Vec<String>,
    /// What it cannot know, one sentence each.
    limits: Vec<String>,
    /// What to do about it, one sentence each.
    next: Vec<String>,
    /// Where that is written: RFCs, man pages, documents of the kernel.
    #[serde(default)]
    pub references: Vec<String>,
    /// By name; the name ends in its unit.
    #[serde(default)]
    pub thresholds: BTreeMap<String, Threshold>,
}

impl Entry {
    /// What it reads in the bundle, and how.
    pub fn reads(&self) -> Vec<String> {
        self.filled(&self.reads)
    }

    /// How it decides.
    pub fn decides(&self) -> Vec<String> {
        self.filled(&self.decides)
    }

    /// Why this happens.
    pub fn cause(&self) -> Vec<String> {
        self.filled(&self.cause)
    }

    /// What it does to those concerned.
    pub fn impact(&self) -> Vec<String> {
        self.filled(&self.impact)
    }

    /// What it cannot know.
    pub fn limits(&self) -> Vec<String> {
        self.filled(&self.limits)
    }

    /// What to do about it.
    pub fn next(&self) -> Vec<String> {
        self.filled(&self.next)
    }

    /// The sentences with the thresholds' values in place of their names.
    fn filled(&self, sentences: &[String]) -> Vec<String> {
        let fill = |sentence: &String| {
            self.thresholds.iter().fold(sentence.clone(), |text, (name, threshold)| {
                text.replace(&format!("{{{name}}}"), &threshold.shown(name))
            })
        };
        sentences.iter().map(fill).collect()
    }
}

/// A threshold that is not what the release says.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The rule.
    pub rule: &'static str,
    /// The threshold.
    pub name: String,
    /// What it is now.
    pub value: f64,
    /// The same for people, with its unit.
    pub shown: String,
    /// What it would be, for people.
    pub default: String,
}

/// What all rules know.
#[derive(Debug, Clone)]
pub struct Kb {
    entries: BTreeMap<&'static str, Entry>,
}

impl Kb {
    /// The knowledge of this release.
    ///
    /// # Errors
    /// [`KbError::Entry`] if a file of the project is wrong, which a test of the project would tell.
    pub fn new() -> Result<Self, KbError> {
        let mut entries = BTreeMap::new();
        for detector in DETECTORS {
            let entry = toml::from_str(detector.text())
                .map_err(|e| KbError::Entry { rule: detector.id().to_owned(), why: e.to_string() })?;
            entries.insert(detector.id(), entry);
        }
        let kb = Self { entries };
        kb.check()?;
        Ok(kb)
    }

    /// Changes a threshold: `dns.slow.p95_ms=50`.
    ///
    /// # Errors
    /// All of [`KbError`] but [`KbError::Entry`].
    pub fn set(&mut self, assignment: &str) -> Result<(), KbError> {
        let form = || KbError::Form(assignment.to_owned());
        let (path, value) = assignment.split_once('=').ok_or_else(form)?;
        let (rule, name) = path.trim().rsplit_once('.').ok_or_else(form)?;
        let Some((rule, entry)) = self.entries.iter_mut().find(|(id, _)| **id == rule) else {
            return Err(KbError::Rule(rule.to_owned()));
        };
        let known = || entry.thresholds.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let Some(threshold) = entry.thresholds.get(name) else {
            return Err(KbError::Threshold { rule, name: name.to_owned(), known: known() });
        };
        let changed = threshold.with(name, value.trim()).map_err(|why| KbError::Value {
            value: value.trim().to_owned(),
            threshold: path.trim().to_owned(),
            why,
        })?;
        entry.thresholds.insert(name.to_owned(), changed);
        self.check()
    }

    /// Whether every rule can read its thresholds.
    fn check(&self) -> Result<(), KbError> {
        DETECTORS.iter().try_for_each(|detector| detector.check(self))
    }

    /// What is known of this rule.
    pub fn entry(&self, rule: &str) -> Option<&Entry> {
        self.entries.get(rule)
    }

    /// Every rule with what is known of it, by layer, in the order in which they are judged.
    pub fn all(&self) -> Vec<(&'static dyn Detector, &Entry)> {
        let known = DETECTORS.iter().filter_map(|d| Some((*d, self.entries.get(d.id())?)));
        let mut out: Vec<_> = known.collect();
        let place = |layer: Layer| Layer::ALL.iter().position(|l| *l == layer);
        out.sort_by_key(|(_, entry)| place(entry.layer));
        out
    }

    /// What a rule decides by, in its own form.
    ///
    /// # Errors
    /// [`KbError::Entry`] if a name is missing, or one too many, or a number is of the wrong kind.
    pub fn thresholds<T: DeserializeOwned>(&self, rule: &str) -> Result<T, KbError> {
        let entry = self.entries.get(rule).ok_or_else(|| KbError::Rule(rule.to_owned()))?;
        let table: toml::Table = entry.thresholds.iter().map(|(name, t)| (name.clone(), t.value.value())).collect();
        table.try_into().map_err(|e: toml::de::Error| KbError::Entry { rule: rule.to_owned(), why: e.to_string() })
    }

    /// What the model needs to know while records come in.
    ///
    /// # Errors
    /// [`KbError::Entry`] if a rule cannot read its thresholds.
    pub fn cutoffs(&self) -> Result<Cutoffs, KbError> {
        crate::detectors::cutoffs(self)
    }

    /// Thresholds that are not those of the release.
    pub fn settings(&self) -> Vec<Setting> {
        let changed = |(rule, entry): (&&'static str, &Entry)| -> Vec<Setting> {
            let rule = *rule;
            let of = entry.thresholds.iter().filter_map(|(name, t)| {
                let default = t.default_shown(name)?;
                Some(Setting { rule, name: name.clone(), value: t.value.number(), shown: t.shown(name), default })
            });
            of.collect()
        };
        self.entries.iter().flat_map(changed).collect()
    }
}

/// As the release judges.
#[cfg(test)]
pub(crate) fn release() -> Kb {
    Kb::new().unwrap()
}

#[cfg(test)]
mod tests;
