//! The keys of a line, for people: read from the one place that describes them, `docs/bundle-format.md`, which a test
//! compares with the keys that are written.

/// The contract as its page says it.
pub(crate) const DOCUMENT: &str = include_str!("../../docs/bundle-format.md");

/// One row of the page's table of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Name, `ns.net` for a key within a key. Its suffix is the unit.
    pub name: &'static str,
    /// `int`, `string`, `true` or `object`.
    pub kind: &'static str,
    /// Lines that carry it: `all`, `events`, event types, `sockets`.
    pub on: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

impl Key {
    /// Whether lines of an event type, or those of `sockets`, carry it apart from what every line carries.
    pub fn belongs_to(&self, line: &str) -> bool {
        match self.on.strip_prefix("as `").and_then(|rest| rest.strip_suffix('`')) {
            Some(other) => all().any(|key| key.name == other && key.belongs_to(line)),
            None => self.on.contains(&format!("`{line}`")) || (line == "sockets" && self.on.contains("sockets")),
        }
    }

    /// Whether every line, or every event, carries it.
    pub fn is_common(&self) -> bool {
        matches!(self.on, "all" | "events")
    }
}

/// All keys in the order in which they are written.
pub fn all() -> impl Iterator<Item = Key> {
    let section = DOCUMENT.split("\n### ").find(|it| it.starts_with("Keys\n")).unwrap_or_default();
    section.lines().filter(|line| line.starts_with("| `")).filter_map(row)
}

fn row(line: &'static str) -> Option<Key> {
    let mut cells = line.trim_matches('|').split('|').map(str::trim);
    let (name, kind, on, meaning) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
    Some(Key { name: name.trim_matches('`'), kind, on, meaning })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Vec<&'static str> {
        all().filter(|key| key.belongs_to(line)).map(|key| key.name).collect()
    }

    #[test]
    fn each_row_has_its_four_cells() {
        assert!(all().count() > 50);
        assert!(all().all(|key| !key.name.contains('`') && !key.on.is_empty() && !key.meaning.is_empty()));
    }

    #[test]
    fn a_key_that_goes_with_another_belongs_where_that_one_does() {
        assert!(of("connect").contains(&"errno") && of("udp_recv").contains(&"errno"));
        assert!(!of("tcp_retransmit").contains(&"errno"));
    }

    #[test]
    fn every_event_type_has_keys_of_its_own() {
        for kind in crate::event::EventKind::ALL {
            assert!(!of(kind.as_str()).is_empty(), "{}", kind.as_str());
        }
        assert!(of("sockets").contains(&"backlog"));
    }
}
