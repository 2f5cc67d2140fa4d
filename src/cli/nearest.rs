//! A word that nobody knows → the known one that was probably meant.

/// Similarity from which on a word is worth a guess; clap's own limit for flags.
const ALIKE: f64 = 0.7;

/// The most similar of `known`, if any is similar at all.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let rate = |it| match strsim::osa_distance(word, it) {
        // one slip of the finger, also in a short word
        0 | 1 => 1.0,
        _ => strsim::jaro(word, it),
    };
    let rated = known.into_iter().map(|it| (rate(it), it)).filter(|(alike, _)| *alike > ALIKE);
    rated.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, it)| it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_word_is_named_and_a_strange_one_has_no_neighbour() {
        let known = ["duration", "dns-only", "dns-ports"];
        assert_eq!(nearest("dns-port", known), Some("dns-ports"));
        assert_eq!(nearest("upd", ["tcp", "udp"]), Some("udp"));
        assert_eq!(nearest("xyzzy", known), None);
    }
}
