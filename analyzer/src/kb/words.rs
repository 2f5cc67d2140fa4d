//! Words → the rules that they are about.

use std::collections::BTreeSet;

use super::{Entry, Kb};
use crate::detectors::Detector;

/// A word in the rule's own name or in its question tells more than one in its other texts.
const IN_NAME: u32 = 8;
const IN_QUESTION: u32 = 4;
const IN_TEXT: u32 = 1;
/// Words that are in every question.
const COMMON: &[&str] = &[
    "a", "about", "all", "an", "and", "are", "at", "be", "but", "by", "can", "cannot", "could", "did", "do", "does",
    "for", "from", "get", "gets", "has", "have", "how", "i", "in", "is", "it", "its", "me", "my", "no", "not", "of",
    "on", "or", "our", "so", "that", "the", "their", "there", "they", "this", "to", "was", "we", "what", "when",
    "where", "which", "who", "why", "will", "with",
];

/// A rule and how well it fits.
#[derive(Clone, Copy)]
pub struct Match<'a> {
    /// The rule.
    pub detector: &'static dyn Detector,
    /// What is known of it.
    pub entry: &'a Entry,
    /// How well it fits; only good for comparing.
    pub weight: u32,
}

/// The words of a text that tell something, in small letters, each once.
pub fn telling(text: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let is_word = |c: char| !(c.is_alphanumeric() || c == '_' || c == '-' || c == '.');
    let words = text.split(is_word).map(|w| w.trim_matches(['.', '-', '_']).to_lowercase());
    words.filter(|w| !w.is_empty() && !COMMON.contains(&w.as_str()) && seen.insert(w.clone())).collect()
}

impl Kb {
    /// Rules that these words are about, the best first.
    pub fn search(&self, words: &[String]) -> Vec<Match<'_>> {
        let weigh = |(detector, entry): (&'static dyn Detector, _)| {
            let weight = words.iter().map(|word| weight(detector.id(), entry, word)).sum();
            Match { detector, entry, weight }
        };
        let mut out: Vec<Match<'_>> = self.all().into_iter().map(weigh).filter(|m| m.weight > 0).collect();
        out.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.detector.id().cmp(b.detector.id())));
        out
    }
}

/// How much this word says for a rule.
fn weight(id: &str, entry: &Entry, word: &str) -> u32 {
    let stem = stem(word);
    let is_gap = |c: char| !(c.is_alphanumeric() || c == '_' || c == '-');
    let begins = |w: &str| w.starts_with(stem) || w.split(['_', '-']).any(|part| part.starts_with(stem));
    let has = |text: &str| text.to_lowercase().split(is_gap).any(begins);
    let named = word == id || has(id) || has(entry.layer.as_str()) || entry.words.iter().any(|w| has(w));
    let texts = [&entry.decides, &entry.cause, &entry.impact, &entry.limits, &entry.next, &entry.reads];
    let mut sum = 0;
    if id.rsplit('.').next() == Some(word) {
        sum += IN_NAME;
    }
    if named {
        sum += IN_NAME;
    }
    if has(&entry.question) {
        sum += IN_QUESTION;
    }
    if texts.into_iter().flatten().any(|text| has(text)) {
        sum += IN_TEXT;
    }
    sum
}

/// `retransmits` and `retransmitted` are about the same: a long word goes by its beginning.
fn stem(word: &str) -> &str {
    let endings = ["ions", "ing", "ion", "ies", "ed", "es", "s", "e"];
    let cut = endings.iter().find_map(|e| word.strip_suffix(e).filter(|rest| rest.chars().count() >= 4));
    cut.unwrap_or(word)
}
