//! The kernel's own counters per network namespace against what the hooks saw: the check that does not trust ktrace.
//!
//! The counters are read before and after the window opens, and before and after it closes; what they rose by in
//! between is the tolerance, so a busy machine is explained and a quiet one is exact. A namespace is kept readable by
//! three open files, which also keep it alive: it is let go half a second after its last process (later where looking
//! at all processes takes long, see [`SCAN_SHARE`]), with its account closed. One that appears counts from 0; one that
//! appears and ends within the window cannot be audited, which the bundle says. Not found: namespaces that only a thread or an open file holds.

mod account;
mod counters;
pub mod namespaces;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ktrace_bundle::audit::{AuditEntry, Audited, Unaudited};
use ktrace_bundle::manifest::HookReport;
use nix::time::{ClockId, clock_gettime};

use account::Rise;
use counters::Reading;
use namespaces::Namespace;

use crate::kernel::session::SessionError;
use crate::kernel::skel::types::kt_audit;

/// While the window is open, looking at all processes takes one part in so many of a CPU's time: 5,000 processes take
/// 26 ms, and are looked at every 2.6 s at most.
const SCAN_SHARE: u32 = 100;

/// By `enum kt_audit`.
pub type Seen = [u64; kt_audit::KT_AUDIT_MAX.0 as usize];

/// What the hooks saw in one namespace since the gate opened.
#[derive(Debug, Clone)]
pub struct Observed {
    /// A number that no other namespace has, or, before Linux 5.12, the inode's.
    pub id: u64,
    /// Inode of the namespace.
    pub netns: u32,
    /// Counts.
    pub seen: Seen,
}

/// One namespace from its first reading to its last.
struct Watched {
    namespace: Namespace,
    before: Reading,
    opened: Reading,
    closing: Reading,
    closed: Reading,
}

impl Watched {
    fn rise(&self) -> Rise {
        Rise::between([&self.before, &self.opened, &self.closing, &self.closed])
    }
}

/// A namespace whose counting is over.
struct Closed {
    netns: u32,
    id: Option<u64>,
    has_tunnels: bool,
    rise: Rise,
    seen: Seen,
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// The audit of one capture. Its methods are called in the order in which they stand here.
pub struct Audit {
    watched: BTreeMap<u32, Watched>,
    closed: Vec<Closed>,
    unaudited: BTreeMap<Unaudited, u64>,
    room: usize,
    /// When all processes may be looked at again.
    next_scan: Instant,
}

impl Audit {
    /// Finds the namespaces and reads their counters for the first time, some time before the gate opens.
    pub fn begin() -> Self {
        let mut audit = Self {
            watched: BTreeMap::new(),
            closed: Vec::new(),
            unaudited: BTreeMap::new(),
            room: namespaces::room(),
            next_scan: Instant::now(),
        };
        audit.watch(false);
        audit
    }

    /// Adds the namespaces that are not watched yet.
    fn watch(&mut self, is_new: bool) {
        let found = namespaces::scan();
        let mut unaudited = found.unaudited;
        for (netns, anchors) in found.anchors {
            if self.watched.contains_key(&netns) {
                continue;
            }
            if self.watched.len() >= self.room {
                *unaudited.entry(Unaudited::TooMany).or_default() += 1;
                continue;
            }
            match Namespace::open(netns, anchors).and_then(|namespace| Ok((namespace.read()?, namespace))) {
                Ok((reading, namespace)) => {
                    let before = if is_new { Reading::zero() } else { reading };
                    let watched = Watched { namespace, opened: before, closing: before, closed: before, before };
                    self.watched.insert(netns, watched);
                }
                // if it was of any interest, the hooks have seen something in it
                Err(Unaudited::Gone) => {}
                Err(why) => *unaudited.entry(why).or_default() += 1,
            }
        }
        // what is left out at both ends of the window is mostly the same
        for (why, count) in unaudited {
            let known = self.unaudited.entry(why).or_default();
            *known = count.max(*known);
        }
    }

    fn leave_out(&mut self, why: Unaudited) {
        *self.unaudited.entry(why).or_default() += 1;
    }

    /// Reads every namespace; one that cannot be read any more is left out.
    fn read(&mut self, mut take: impl FnMut(&mut Watched, Reading)) {
        let mut failed = 0;
        self.watched.retain(|_, watched| match watched.namespace.read() {
            Ok(reading) => {
                take(watched, reading);
                true
            }
            Err(_) => {
                failed += 1;
                false
            }
        });
        (0..failed).for_each(|_| self.leave_out(Unaudited::Unreadable));
    }

    /// The gate is open.
    pub fn opened(&mut self) {
        self.read(|watched, reading| watched.opened = reading);
    }

    /// Lets namespaces go that nothing but this audit keeps alive.
    ///
    /// # Errors
    /// What the hooks saw could not be read.
    pub fn tend(&mut self, observed: impl Fn() -> Result<Vec<Observed>, SessionError>) -> Result<(), SessionError> {
        let now = Instant::now();
        if now < self.next_scan || self.watched.values_mut().all(|w| w.namespace.is_anchored()) {
            return Ok(());
        }
        let cpu = cpu_time();
        let mut anchors = namespaces::scan().anchors;
        self.next_scan = now + cpu_time().saturating_sub(cpu) * SCAN_SHARE;
        let mut ended = Vec::new();
        for (netns, watched) in &mut self.watched {
            let namespace = &mut watched.namespace;
            if !namespace.is_anchored() && !namespace.anchor_to(anchors.remove(netns).unwrap_or_default()) {
                ended.push(*netns);
            }
        }
        for netns in ended {
            let Some(mut watched) = self.watched.remove(&netns) else { continue };
            let closing = watched.namespace.read();
            let rows = observed()?;
            match (closing, watched.namespace.read()) {
                (Ok(closing), Ok(closed)) => {
                    (watched.closing, watched.closed) = (closing, closed);
                    self.close(&watched, &rows);
                }
                (Err(why), _) | (_, Err(why)) => self.leave_out(why),
            }
        }
        Ok(())
    }

    /// The gate is about to close.
    pub fn closing(&mut self) {
        self.watch(true);
        self.read(|watched, reading| watched.closing = reading);
    }

    /// The gate is closed, and no program runs any more.
    pub fn closed(&mut self) {
        self.read(|watched, reading| watched.closed = reading);
    }

    /// This is what the programs saw. Returns the entries and what they cover.
    pub fn finish(
        mut self,
        rows: &[Observed],
        rest: &Seen,
        hooks: &[HookReport],
        missed: u64,
    ) -> (Vec<AuditEntry>, Audited) {
        for watched in std::mem::take(&mut self.watched).into_values() {
            self.close(&watched, rows);
        }
        self.count_the_gone(rows, rest);
        let mut unused_missed = missed;
        let mut entries = Vec::new();
        for c in &self.closed {
            entries.extend(account::entries(c.netns, &c.rise, &c.seen, c.has_tunnels, hooks, &mut unused_missed));
        }
        (entries, Audited { netns_count: self.closed.len() as u64, unaudited: self.unaudited })
    }

    /// A new namespace may have the inode of one that ended within the window: then nobody can tell their counts apart.
    fn close(&mut self, watched: &Watched, rows: &[Observed]) {
        let netns = watched.namespace.netns;
        let is_taken = |id: u64| self.closed.iter().any(|c| c.id == Some(id));
        let own: Vec<_> = rows.iter().filter(|row| row.netns == netns && !is_taken(row.id)).collect();
        if own.len() > 1 {
            return; // they count as gone
        }
        if is_taken(u64::from(netns)) {
            self.leave_out(Unaudited::Gone);
            return;
        }
        let row = own.first();
        self.closed.push(Closed {
            netns,
            id: row.map(|row| row.id),
            has_tunnels: watched.namespace.has_tunnels,
            rise: watched.rise(),
            seen: row.map_or_else(Seen::default, |row| row.seen),
        });
    }

    /// Namespaces in which something was seen and whose counters are not known.
    fn count_the_gone(&mut self, rows: &[Observed], rest: &Seen) {
        let known: BTreeSet<u64> = self.closed.iter().filter_map(|c| c.id).collect();
        let gone = rows.iter().filter(|row| !known.contains(&row.id) && row.seen != Seen::default()).count();
        (0..gone).for_each(|_| self.leave_out(Unaudited::Gone));
        if *rest != Seen::default() {
            self.leave_out(Unaudited::TooMany);
        }
    }
}
