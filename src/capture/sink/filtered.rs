//! Between the rings and the writer: what filters have yet to say about a record, and what waits for a name.

use ktrace_bundle::event::EventKind;

use super::{Doubt, RawEvent, Settled, Sink, clock, hooks};
use crate::identity::Cgroup;
use crate::plan::filters::home::Answer;

/// Who accepted a connection, as far as filters by owner are concerned.
pub struct Acceptor {
    /// What those that the kernel can ask say.
    pub passes: bool,
    /// Where it runs.
    pub cgroup: Option<Cgroup>,
}

impl Sink {
    /// Writes what was taken, in kernel order.
    pub fn write_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.index.sort_by_key(|(boot_ns, _)| *boot_ns);
        let now = clock::boot_ns();
        if self.homes.refresh(!self.nameless.is_empty()) {
            self.write_named();
        }
        for (_, range) in batch.index.drain(..) {
            self.filter(batch.bytes.get(range).unwrap_or_default(), now);
        }
        batch.bytes.clear();
        self.turn_flows(now);
        self.flush_tee();
        self.batch = batch;
    }

    /// Settles what cannot wait any longer at this boot time, or without one everything: `acceptor` says what is known
    /// about a socket by now.
    pub fn settle_overdue(&mut self, now: Option<u64>, acceptor: impl Fn(u64) -> Option<Acceptor>) {
        while let Some((cookie, records)) = self.hold.overdue(now) {
            match acceptor(cookie) {
                Some(Acceptor { passes: false, .. }) => self.drop_late(&records),
                Some(Acceptor { cgroup: Some(cgroup), .. }) => match (self.homes.answer(Some(cgroup)), now) {
                    // who it is is known only now, and what that is called may be in a moment
                    ((Answer::Unknown, true), Some(now)) => {
                        records.iter().for_each(|record| self.nameless.add(cookie, record, cgroup, now));
                    }
                    _ => self.write_those_that_pass(&records, cgroup),
                },
                // those that nobody has accepted pass: whose they will be nobody knows
                _ => records.iter().for_each(|record| self.write_waited(record)),
            }
        }
        while let Some((_, cgroup, records)) = self.nameless.overdue(now) {
            self.write_those_that_pass(&records, cgroup);
        }
    }

    /// To be called before names are asked for the last time: looks up whose sockets are that still wait.
    pub fn look_ahead(&mut self, acceptor: impl Fn(u64) -> Option<Acceptor>) {
        for cookie in self.hold.sockets() {
            self.homes.answer(acceptor(cookie).and_then(|it| it.cgroup));
        }
    }

    /// Writes what has waited for names that are there now.
    fn write_named(&mut self) {
        let homes = &mut self.homes;
        for cookie in self.nameless.ready(|cgroup| homes.is_named(cgroup)) {
            let Some(cgroup) = self.nameless.of(cookie) else { continue };
            let records = self.nameless.take(cookie);
            self.write_those_that_pass(&records, cgroup);
        }
    }

    /// Records that wait no longer. `settles`: the cgroup that decides about those that had no owner yet.
    fn write_those_that_pass(&mut self, records: &[Vec<u8>], settles: Cgroup) {
        for record in records {
            let Ok(raw) = RawEvent::new(record) else { continue };
            let answer = match raw.mark().doubt {
                Doubt::None | Doubt::Refused => Answer::Passes,
                Doubt::Undecided => self.homes.answer(Some(settles)).0,
                Doubt::Unnamed => self.homes.answer(raw.cgroup()).0,
            };
            match answer {
                Answer::Passes => self.write_waited(record),
                Answer::Refused(_) => self.drop_late(std::slice::from_ref(record)),
                Answer::Unknown => self.unjudged(|sink| sink.write_waited(record)),
            }
        }
    }

    /// What no filter had doubts about is written at once.
    fn filter(&mut self, record: &[u8], now: u64) {
        let Ok(raw) = RawEvent::new(record) else { return };
        let mark = raw.mark();
        let mut records = match self.hold.settle(record, mark, now) {
            Settled::Held => return,
            Settled::Written(before) | Settled::Refused(before) => before,
        };
        let (answer, may_come) = match mark.doubt {
            Doubt::Unnamed => self.homes.answer(raw.cgroup()),
            _ => (Answer::Passes, false),
        };
        if mark.doubt == Doubt::Refused || matches!(answer, Answer::Refused(_)) {
            records.push(record.to_vec());
            return self.drop_late(&records);
        }
        let waits_for = self.nameless.of(mark.cookie).or(raw.cgroup().filter(|_| may_come && mark.cookie != 0));
        match waits_for.filter(|_| answer == Answer::Unknown) {
            Some(cgroup) => {
                let before_and_it = records.iter().map(Vec::as_slice).chain([record]);
                before_and_it.for_each(|record| self.nameless.add(mark.cookie, record, cgroup, now));
            }
            None if answer == Answer::Unknown => self.unjudged(|sink| {
                records.iter().for_each(|record| sink.write_waited(record));
                sink.write_waited(record);
            }),
            None => {
                records.iter().for_each(|record| self.write_when_named(record, mark.cookie, now, true));
                self.write_when_named(record, mark.cookie, now, false);
            }
        }
    }

    /// Counts what this writes.
    fn unjudged(&mut self, write: impl FnOnce(&mut Self)) {
        let before = self.written;
        write(self);
        self.unjudged += self.written - before;
    }

    fn drop_late(&mut self, records: &[Vec<u8>]) {
        for raw in records.iter().filter_map(|record| RawEvent::new(record).ok()) {
            self.tally.entry(raw.kind()).or_default().filtered_late += 1;
        }
    }

    /// Records of one socket stay in order: those that follow one that waits wait with it. Others wait unless they have
    /// waited already, or nobody knows which socket they are of.
    fn write_when_named(&mut self, record: &[u8], cookie: u64, now: u64, has_waited: bool) {
        let Ok(mut event) = hooks::decode(record, &self.context) else { return };
        let kind = event.payload.kind();
        let cgroup = self.homes.settle(&mut event.id).filter(|_| !has_waited && cookie != 0);
        match self.nameless.of(cookie).or(cgroup) {
            Some(cgroup) => self.nameless.add(cookie, record, cgroup, now),
            // what is added up comes when its second is over
            None => self.admit(event, has_waited || kind == EventKind::Drop),
        }
    }

    /// A record that cannot be decoded is in no tally: what the kernel submitted and no tally has is undecodable.
    fn write_waited(&mut self, record: &[u8]) {
        let Ok(mut event) = hooks::decode(record, &self.context) else { return };
        self.homes.settle(&mut event.id);
        self.admit(event, true);
    }
}
