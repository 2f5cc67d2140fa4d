//! What a table tells without being asked for one flow: translated entries that may be gone when somebody asks, and who
//! stands behind which address.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

use ktrace_bundle::event::Proto;
use ktrace_bundle::tracking::{MAX_BACKENDS, MAX_SERVICES};

use super::ask::Ends;
use super::entry::{Entry, Tuple};
use super::netlink::Change;

/// Translated entries that are remembered, some 2 MiB.
const MOST_ENTRIES: usize = 1 << 11;

/// Flows that were sent to one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// All.
    pub tracked: u64,
    /// Ended, or at the end, without an answer.
    pub unreplied: u64,
}

/// Who was sent where instead of where it wanted to: protocol and address asked for → address that got it.
pub type Backends = BTreeMap<(Proto, SocketAddr), BTreeMap<SocketAddr, Sent>>;

/// What one table told.
#[derive(Debug, Default)]
pub struct Seen {
    /// `None`: several have these ends, so that nobody can tell which is meant.
    entries: HashMap<Ends, Option<Entry>>,
    order: VecDeque<Tuple>,
    /// By service.
    pub backends: Backends,
    /// Services and backends that found no room.
    pub omitted: u64,
}

impl Seen {
    /// An entry that was there when the table was read first.
    pub fn stands(&mut self, entry: &Entry) {
        self.count(entry, |sent| sent.tracked += 1);
    }

    /// An entry that is still there at the end.
    pub fn stays(&mut self, entry: &Entry) {
        if !entry.is_replied {
            self.count(entry, |sent| sent.unreplied += 1);
        }
    }

    /// The kernel tells of an entry.
    pub fn changed(&mut self, change: Change, entry: &Entry) {
        match change {
            Change::New => self.count(entry, |sent| sent.tracked += 1),
            Change::Destroyed if !entry.is_replied => self.count(entry, |sent| sent.unreplied += 1),
            Change::Update | Change::Destroyed => {}
        }
        if entry.is_dnat() || entry.is_snat() {
            self.remember(entry);
        }
    }

    /// The last that was told of the entry with these ends.
    pub fn get(&self, ends: &Ends) -> Option<&Entry> {
        self.entries.get(ends)?.as_ref()
    }

    fn remember(&mut self, entry: &Entry) {
        if !self.entries.contains_key(&Ends::Both(entry.original)) {
            self.order.push_back(entry.original);
        }
        if self.order.len() > MOST_ENTRIES
            && let Some(oldest) = self.order.pop_front()
            && let Some(gone) = self.entries.get(&Ends::Both(oldest)).copied().flatten()
        {
            for ends in keys(&gone) {
                self.entries.remove(&ends);
            }
        }
        for ends in keys(entry) {
            let known = self.entries.entry(ends).or_insert(Some(*entry));
            // an update does not repeat what stayed as it was
            *known = known.filter(|known| known.original == entry.original).map(|known| Entry {
                tcp_state: entry.tcp_state.or(known.tcp_state),
                mark: entry.mark.or(known.mark),
                ..*entry
            });
        }
    }

    fn count(&mut self, entry: &Entry, add: impl FnOnce(&mut Sent)) {
        if !entry.is_dnat() {
            return;
        }
        let service = (entry.original.proto, entry.original.dst);
        // nearly always: a table of 50,000 entries comes by here
        if let Some(sent) = self.backends.get_mut(&service).and_then(|it| it.get_mut(&entry.reply.src)) {
            return add(sent);
        }
        if !self.backends.contains_key(&service) && self.backends.len() >= MAX_SERVICES {
            self.omitted += 1;
            return;
        }
        let backends = self.backends.entry(service).or_default();
        if !backends.contains_key(&entry.reply.src) && backends.len() >= MAX_BACKENDS {
            self.omitted += 1;
            return;
        }
        add(backends.entry(entry.reply.src).or_default());
    }
}

/// By whatever of its two directions a socket sees.
fn keys(entry: &Entry) -> impl Iterator<Item = Ends> {
    [entry.original, entry.reply].into_iter().flat_map(Ends::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(client: u16, backend: &str, status: u32) -> Entry {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let client = SocketAddr::new([10, 0, 0, 1].into(), client);
        let original = Tuple { proto: Proto::Udp, src: client, dst: end("10.96.0.10:53") };
        Entry::with_status(original, Tuple { src: end(backend), dst: client, ..original }, status)
    }

    const REPLIED: u32 = 2;

    #[test]
    fn flows_are_counted_by_who_got_them_and_whether_they_were_answered() {
        let mut seen = Seen::default();
        let [a, b] = ["10.244.0.5:53", "10.244.0.6:53"];
        seen.stands(&entry(1, a, REPLIED));
        seen.changed(Change::New, &entry(2, a, 0));
        seen.changed(Change::Update, &entry(2, a, REPLIED));
        seen.changed(Change::Destroyed, &entry(2, a, REPLIED));
        seen.changed(Change::New, &entry(3, b, 0));
        seen.changed(Change::Destroyed, &entry(3, b, 0));
        seen.changed(Change::New, &entry(4, b, 0));
        seen.stays(&entry(1, a, REPLIED));
        seen.stays(&entry(4, b, 0));
        let of = seen.backends.values().next().unwrap().values().copied().collect::<Vec<_>>();
        assert_eq!(of, [Sent { tracked: 2, unreplied: 0 }, Sent { tracked: 2, unreplied: 2 }]);
    }

    #[test]
    fn an_entry_that_has_ended_is_found_from_both_ends_also_without_the_own_address() {
        let mut seen = Seen::default();
        let flow = entry(7, "10.244.0.5:5353", REPLIED);
        seen.changed(Change::Destroyed, &flow);
        for tuple in [flow.original, flow.reply] {
            assert_eq!(Ends::of(tuple).map(|ends| seen.get(&ends).copied()), [Some(flow); 2]);
        }
        assert_eq!(seen.get(&Ends::Both(flow.original.reversed())), None);
    }

    #[test]
    fn two_with_the_same_port_are_not_taken_for_one_another() {
        let mut seen = Seen::default();
        let one = entry(7, "10.244.0.5:5353", REPLIED);
        let elsewhere = Tuple { src: "10.0.0.2:7".parse().unwrap(), ..one.original };
        let other = Entry { original: elsewhere, reply: Tuple { dst: elsewhere.src, ..one.reply }, ..one };
        seen.changed(Change::New, &one);
        seen.changed(Change::New, &other);
        let [both, port] = Ends::of(one.original).map(|ends| seen.get(&ends).copied());
        assert_eq!((both, port), (Some(one), None));
        assert_eq!(seen.get(&Ends::Both(elsewhere)), Some(&other));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let mut seen = Seen::default();
        for client in 0..=MOST_ENTRIES as u16 {
            seen.changed(Change::New, &entry(client, "10.244.0.5:5353", 0));
        }
        let is_known = |client| seen.get(&Ends::Both(entry(client, "10.244.0.5:5353", 0).original)).is_some();
        assert_eq!([is_known(0), is_known(1), is_known(MOST_ENTRIES as u16)], [false, true, true]);
        assert_eq!(seen.entries.len(), 4 * MOST_ENTRIES);
    }
}
