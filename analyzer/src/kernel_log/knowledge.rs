//! What is known of the kernel's log: `analyzer/explain/*.toml`, one file per family, as part of the program.
//!
//! Each entry has a wording or several, what they mean, and real lines that must fit it and nothing else. Tests hold
//! the files to that, and to what they refer to: rules, hooks, and fields in commands.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::pattern::{Pattern, PatternError};

/// Families by name, in the order in which entries are tried.
const FAMILIES: &[(&str, &str)] = &[
    ("conntrack", include_str!("../../explain/conntrack.toml")),
    ("tcp", include_str!("../../explain/tcp.toml")),
    ("udp", include_str!("../../explain/udp.toml")),
    ("ip", include_str!("../../explain/ip.toml")),
    ("device", include_str!("../../explain/device.toml")),
    ("link", include_str!("../../explain/link.toml")),
    ("filter", include_str!("../../explain/filter.toml")),
    ("tunnel", include_str!("../../explain/tunnel.toml")),
    ("memory", include_str!("../../explain/memory.toml")),
    ("stall", include_str!("../../explain/stall.toml")),
    ("clock", include_str!("../../explain/clock.toml")),
    ("storage", include_str!("../../explain/storage.toml")),
    ("process", include_str!("../../explain/process.toml")),
    ("bpf", include_str!("../../explain/bpf.toml")),
    ("hardware", include_str!("../../explain/hardware.toml")),
];

/// Why there is no knowledge: only a build that was never tested can say so.
#[derive(Debug, thiserror::Error)]
pub enum KnowledgeError {
    /// No TOML, or not of this form.
    #[error("`explain/{family}.toml` cannot be read")]
    Toml {
        /// The file.
        family: &'static str,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// A pattern that is none.
    #[error("entry `{id}` has a pattern that is none")]
    Pattern {
        /// The entry.
        id: String,
        /// What is wrong.
        source: PatternError,
    },
}

/// One thing that the kernel may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `family.name`.
    pub id: String,
    /// What it says, in a few words.
    pub title: String,
    /// Its wordings.
    pub pattern: Vec<Wording>,
    /// What fields are called, with their unit; others by their own name.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// What the kernel saw.
    pub meaning: String,
    /// Why that happens, most likely.
    pub cause: String,
    /// What it does to whom.
    pub impact: String,
    /// What to do next; commands only read.
    pub next: Vec<Next>,
    /// What of ktrace would prove it.
    #[serde(default)]
    pub proves: Proves,
    /// Where to read on: the kernel's source and documentation, man pages, RFCs.
    pub references: Vec<String>,
    /// Real lines.
    pub sample: Vec<String>,
    /// Lines that look like it and are not.
    #[serde(default)]
    pub near_miss: Vec<String>,
    /// The patterns, in the order of `pattern`.
    #[serde(skip)]
    compiled: Vec<Pattern>,
}

/// How one range of kernels says it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Wording {
    /// Every kernel, as far as is known.
    Always(String),
    /// Some.
    Some(Versions),
}

/// A wording with the kernels that have it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// The pattern.
    pub text: String,
    /// First of them, such as `6.4`.
    pub since: Option<String>,
    /// First one that says it otherwise.
    pub until: Option<String>,
}

impl Wording {
    /// The pattern.
    pub fn text(&self) -> &str {
        match self {
            Self::Always(text) => text,
            Self::Some(versions) => &versions.text,
        }
    }

    /// `Linux 6.4 and later`; `None` where every kernel says it so.
    pub fn kernels(&self) -> Option<String> {
        let Self::Some(versions) = self else { return None };
        match (&versions.since, &versions.until) {
            (Some(since), Some(until)) => Some(format!("Linux {since} and later, before {until}")),
            (Some(since), None) => Some(format!("Linux {since} and later")),
            (None, Some(until)) => Some(format!("Linux before {until}")),
            (None, None) => None,
        }
    }
}

/// One thing to do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Next {
    /// What it tells.
    pub text: String,
    /// What to type. `%{field}` stands for a number, an address or the name of an interface, and nothing
    /// else.
    pub command: Option<String>,
}

/// What of ktrace would prove it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proves {
    /// Rules of `analyze`.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Hooks of `ktrace`.
    #[serde(default)]
    pub hooks: Vec<String>,
    /// What else there is to say about it.
    pub note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    entry: Vec<Entry>,
}

impl Entry {
    /// The family: what stands before the dot.
    pub fn family(&self) -> &str {
        self.id.split('.').next().unwrap_or_default()
    }

    /// Wordings with their patterns.
    pub fn wordings(&self) -> impl Iterator<Item = (&Wording, &Pattern)> {
        self.pattern.iter().zip(&self.compiled)
    }

    fn compile(mut self) -> Result<Self, KnowledgeError> {
        let compiled = self.pattern.iter().map(|w| Pattern::parse(w.text())).collect::<Result<_, _>>();
        self.compiled = compiled.map_err(|source| KnowledgeError::Pattern { id: self.id.clone(), source })?;
        Ok(self)
    }
}

/// Every entry, family by family.
///
/// # Errors
/// [`KnowledgeError`]: the program was built from files that are wrong.
pub fn entries() -> Result<Vec<Entry>, KnowledgeError> {
    let mut all = Vec::new();
    for (family, text) in FAMILIES {
        let file: File = toml::from_str(text).map_err(|e| KnowledgeError::Toml { family, source: Box::new(e) })?;
        for entry in file.entry {
            all.push(entry.compile()?);
        }
    }
    Ok(all)
}
