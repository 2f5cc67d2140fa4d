//! `analyze kb`: what the rules know.

use std::io::{self, Write};

use clap::{Subcommand, ValueEnum};

use crate::capture::Needs;
use crate::detectors::by_id;
use crate::error::{Error, Exit};
use crate::kb::{Entry, Kb, KbError, Layer, telling};
use crate::report::text;

/// Rules that a search prints.
const MAX_MATCHES: usize = 8;

/// What to say.
#[derive(Debug, Subcommand)]
pub(super) enum KbCommand {
    /// List the rules and the question that each answers
    List {
        /// Only those of this layer
        #[arg(long, value_enum)]
        layer: Option<LayerName>,
    },
    /// Say what a rule reads, how it decides, what it cannot know, and what to do next
    Show {
        /// Its name, as in `dns.slow`
        rule: String,
        /// Show it with another threshold, as in `dns.slow.p95_ms=50`; may be repeated
        #[arg(long, value_name = "RULE.THRESHOLD=NUMBER")]
        set: Vec<String>,
    },
    /// Find the rules that some words are about, the best first
    Search {
        /// Words, as in `slow resolver`
        #[arg(required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LayerName {
    Dns,
    Connect,
    Tcp,
    Nat,
    Socket,
    Node,
    Capture,
}

impl LayerName {
    const fn layer(self) -> Layer {
        match self {
            Self::Dns => Layer::Dns,
            Self::Connect => Layer::Connect,
            Self::Tcp => Layer::Tcp,
            Self::Nat => Layer::Nat,
            Self::Socket => Layer::Socket,
            Self::Node => Layer::Node,
            Self::Capture => Layer::Capture,
        }
    }
}

pub(super) fn run(command: &KbCommand, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    match command {
        KbCommand::List { layer } => list(&Kb::new()?, layer.map(LayerName::layer), out)?,
        KbCommand::Show { rule, set } => {
            let kb = super::knowledge(set)?;
            let entry = kb.entry(rule).ok_or_else(|| KbError::Rule(rule.clone()))?;
            let detector = by_id(rule).ok_or_else(|| KbError::Rule(rule.clone()))?;
            writeln!(
                out,
                "{} ({}, version {})\n{}",
                detector.id(),
                entry.layer.as_str(),
                detector.version(),
                entry.question
            )?;
            show(entry, &detector.needs(), out)?;
        }
        KbCommand::Search { words } => {
            let words = telling(&words.join(" "));
            let kb = Kb::new()?;
            let found = kb.search(&words);
            for it in found.iter().take(MAX_MATCHES) {
                line(out, it.detector.id(), &it.entry.question)?;
            }
            if found.is_empty() {
                writeln!(err, "note: no rule is about these words; `analyze kb list` names all")?;
            } else if found.len() > MAX_MATCHES {
                writeln!(err, "note: {} of {} rules shown", MAX_MATCHES, found.len())?;
            }
        }
    }
    Ok(Exit::Done)
}

fn line(out: &mut dyn Write, id: &str, question: &str) -> io::Result<()> {
    writeln!(out, "{id:<30} {question}")
}

fn list(kb: &Kb, only: Option<Layer>, out: &mut dyn Write) -> io::Result<()> {
    let all = kb.all();
    let mut layer = None;
    for (detector, entry) in all.iter().filter(|(_, e)| only.is_none_or(|layer| e.layer == layer)) {
        if only.is_none() && layer != Some(entry.layer) {
            let before = if layer.is_some() { "\n" } else { "" };
            writeln!(out, "{before}{}", entry.layer.as_str())?;
            layer = Some(entry.layer);
        }
        line(out, detector.id(), &entry.question)?;
    }
    Ok(())
}

fn show(entry: &Entry, needs: &Needs, out: &mut dyn Write) -> io::Result<()> {
    let references = entry.references.clone();
    let parts = [
        ("needs", needed(needs)),
        ("reads", entry.reads()),
        ("decides", entry.decides()),
        ("thresholds", thresholds(entry)),
        ("cause", entry.cause()),
        ("impact", entry.impact()),
        ("does not know", entry.limits()),
        ("next", entry.next()),
        ("see", references),
    ];
    for (title, sentences) in parts.iter().filter(|(_, sentences)| !sentences.is_empty()) {
        writeln!(out, "\n{title}")?;
        sentences.iter().try_for_each(|s| text::sentence(out, s))?;
    }
    Ok(())
}

fn thresholds(entry: &Entry) -> Vec<String> {
    let of = entry.thresholds.iter().map(|(name, t)| {
        let instead = t.default_shown(name).map_or_else(String::new, |default| format!(" instead of {default}"));
        format!("{name} = {}{instead}: {}", t.shown(name), t.means)
    });
    of.collect()
}

/// What must have been recorded, one sentence each.
fn needed(needs: &Needs) -> Vec<String> {
    let mut out = Vec::new();
    if !needs.hooks.is_empty() {
        let complete = if needs.lossless { ", and none of its events lost; else it is inconclusive" } else { "" };
        out.push(format!("hook `{}`{complete}", needs.hooks.join("` and `")));
    }
    out.extend(needs.tracking.in_words().map(|what| format!("connection tracking: {what}; else it is inconclusive")));
    out.extend(needs.node.iter().map(|part| format!("the node: {}; else it is inconclusive", part.in_words())));
    out
}
