//! What comes nearest to a line that no wording fits: the entries that share most of its words.

use std::collections::BTreeSet;

use super::knowledge::Entry;

/// Most entries that are named.
const MAX_NEAREST: usize = 3;
/// Shorter words are in too many lines to tell one from another.
const MIN_WORD: usize = 4;

/// Entries that share at least two words with it, those that share most first.
pub fn entries<'k>(all: &'k [Entry], message: &str) -> Vec<&'k Entry> {
    let asked: BTreeSet<String> = words(message).collect();
    let mut scored: Vec<(usize, &Entry)> = all.iter().map(|entry| (score(entry, &asked), entry)).collect();
    scored.retain(|(score, _)| *score > 1);
    // a stable sort: of two that are as near the one that is listed first
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    scored.into_iter().take(MAX_NEAREST).map(|(_, entry)| entry).collect()
}

/// The most words that one wording has in common with them.
fn score(entry: &Entry, asked: &BTreeSet<String>) -> usize {
    let shared = |literals: Vec<&str>| {
        let own: BTreeSet<String> = literals.into_iter().flat_map(words).collect();
        own.intersection(asked).count()
    };
    entry.wordings().map(|(_, pattern)| shared(pattern.literals().collect())).max().unwrap_or(0)
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() >= MIN_WORD).map(str::to_lowercase)
}
