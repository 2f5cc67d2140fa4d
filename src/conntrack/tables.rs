//! The tables of all namespaces that matter: the node's, which the traffic of pods passes, and those that own sockets of records.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use ktrace_bundle::tracking::TrackingReport;
use ktrace_bundle::why::Reason;

use super::ask::{Ask, Ends};
use super::entry::Entry;
use super::module::{self, Modules, Presence};
use super::seen::Backends;
use super::table::{Stranded, Table};
use crate::audit::namespaces::{self, Anchor};

/// Tables that are open at a time: two files each.
const MOST: usize = 64;
/// Between two looks at all processes and mounts for namespaces that nobody led to.
const SCANNED: Duration = Duration::from_secs(2);
/// Namespaces that are remembered as out of reach.
const MOST_LOST: usize = 4096;

/// Why ctnetlink must not be asked: it is not there, and asking would load it.
type Unasked = (Reason, String);

/// All tables.
pub struct Tables {
    list: Vec<Table>,
    by_netns: HashMap<u32, usize>,
    may_ask: Result<(), Unasked>,
    lost: HashMap<u32, Reason>,
    /// Where namespaces were found, and when.
    anchors: Option<(Instant, BTreeMap<u32, Vec<Anchor>>)>,
    omitted: u64,
}

impl Tables {
    /// With the tables of the node: of the namespace that ktrace runs in, and of the host's if that is another one.
    ///
    /// # Errors
    /// [`Stranded`].
    pub fn open() -> Result<Self, Stranded> {
        let may_ask = may_ask();
        let mut tables = Self {
            list: Vec::new(),
            by_netns: HashMap::new(),
            may_ask,
            lost: HashMap::new(),
            anchors: None,
            omitted: 0,
        };
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        if let Some((_, netns)) = namespace_of(own) {
            tables.add(netns, true, None, Some(own))?;
        }
        // where process 1 is out of reach, process 2 is a thread of the kernel and in the same namespace
        for process in [1, 2] {
            if let Some((file, netns)) = namespace_of(process) {
                if !tables.by_netns.contains_key(&netns) {
                    tables.add(netns, true, Some(&file), Some(process))?;
                }
                break;
            }
        }
        Ok(tables)
    }

    /// Every table.
    pub fn each(&mut self) -> impl Iterator<Item = &mut Table> {
        self.list.iter_mut()
    }

    /// Makes sure that the table of the socket's own namespace is open, if that is possible.
    ///
    /// # Errors
    /// [`Stranded`].
    pub fn reach(&mut self, ask: &Ask) -> Result<(), Stranded> {
        let netns = ask.key.netns;
        if self.by_netns.contains_key(&netns) || self.lost.contains_key(&netns) {
            return Ok(());
        }
        if self.list.len() >= MOST {
            self.omitted += 1;
            self.lose(netns, Reason::Overflow);
            return Ok(());
        }
        let process = ask.pid.and_then(|pid| i32::try_from(pid).ok());
        if let Some((file, found)) = process.and_then(namespace_of)
            && found == netns
        {
            return self.add(netns, false, Some(&file), process);
        }
        let is_fresh = self.is_scan_due();
        match self.anchor(netns) {
            Some((file, process)) => self.add(netns, false, Some(&file), process),
            None => {
                // of an earlier scan nothing follows: it may be younger
                if is_fresh {
                    self.lose(netns, Reason::Gone);
                }
                Ok(())
            }
        }
    }

    fn is_scan_due(&self) -> bool {
        self.anchors.as_ref().is_none_or(|(at, _)| at.elapsed() >= SCANNED)
    }

    fn lose(&mut self, netns: u32, reason: Reason) {
        if self.lost.len() < MOST_LOST {
            self.lost.insert(netns, reason);
        }
    }

    /// The namespace by another process in it, or by where it is mounted.
    fn anchor(&mut self, netns: u32) -> Option<(File, Option<i32>)> {
        if self.is_scan_due() {
            self.anchors = Some((Instant::now(), namespaces::scan().anchors));
        }
        let (_, anchors) = self.anchors.as_ref()?;
        anchors.get(&netns)?.iter().find_map(|anchor| {
            let file = File::open(anchor.path()).ok().filter(|file| inode(file) == Some(netns))?;
            let process = match anchor {
                Anchor::Process(pid) => Some(*pid),
                Anchor::Mount(_) => None,
            };
            Some((file, process))
        })
    }

    fn add(&mut self, netns: u32, is_node: bool, file: Option<&File>, process: Option<i32>) -> Result<(), Stranded> {
        let table = Table::open(netns, is_node, file, process, self.may_ask.clone())?;
        self.by_netns.insert(netns, self.list.len());
        self.list.push(table);
        Ok(())
    }

    /// The tables that can know this flow: of its own namespace, then the node's.
    fn of(&self, netns: u32) -> impl Iterator<Item = usize> {
        let own = self.by_netns.get(&netns).copied();
        let nodes = self.list.iter().enumerate().filter(|(_, table)| table.report.is_node).map(|(index, _)| index);
        own.into_iter().chain(nodes.filter(move |index| Some(*index) != own))
    }

    /// The entry with these ends of a flow in this namespace, and the namespace of its table: a translated one, if there is
    /// any.
    pub fn look_up(&mut self, netns: u32, ends: &Ends) -> Option<(Entry, u32)> {
        let mut plain = None;
        for index in self.of(netns).collect::<Vec<_>>() {
            let Some(table) = self.list.get_mut(index) else { continue };
            if !table.has_entries() {
                continue;
            }
            let Some(entry) = table.look_up(ends) else { continue };
            if entry.is_dnat() || entry.is_snat() {
                return Some((entry, table.netns));
            }
            plain = plain.or(Some((entry, table.netns)));
        }
        plain
    }

    /// Whether the flow's tables can be asked for one flow; otherwise they have to be read whole.
    pub fn looks_up(&self, netns: u32) -> bool {
        self.of(netns).filter_map(|index| self.list.get(index)).all(|table| table.looks_up() || !table.is_active())
    }

    /// Why there is nothing about a flow in this namespace.
    pub fn why(&self, netns: u32) -> Reason {
        // what the node's table does not have, the namespace's own may have had
        if let Some(reason) = self.lost.get(&netns) {
            return reason.clone();
        }
        let tables: Vec<_> = self.of(netns).filter_map(|index| self.list.get(index)).collect();
        if tables.iter().any(|table| table.is_active()) {
            return Reason::NotFound;
        }
        let silent = tables.iter().find_map(|table| table.why_silent()).cloned();
        silent.unwrap_or(if tables.is_empty() { Reason::SourceAbsent } else { Reason::Inactive })
    }

    /// Cookie of a namespace.
    pub fn cookie(&self, netns: u32) -> Option<u64> {
        self.list.get(*self.by_netns.get(&netns)?)?.cookie
    }

    /// The last word.
    pub fn finish(mut self) -> (TrackingReport, Backends, u64) {
        let (mut backends, mut omitted) = (Backends::new(), 0);
        for table in &mut self.list {
            // what is known of entries that are there since before
            table.scan(|seen, entry| seen.stays(entry));
        }
        let tables = self.list.iter_mut().map(Table::finish).collect();
        for table in self.list {
            omitted += table.seen.omitted;
            for (service, sent) in table.seen.backends {
                let known = backends.entry(service).or_default();
                for (backend, sent) in sent {
                    let sum: &mut super::seen::Sent = known.entry(backend).or_default();
                    sum.tracked += sent.tracked;
                    sum.unreplied += sent.unreplied;
                }
            }
        }
        (TrackingReport { tables, omitted_count: self.omitted, ..TrackingReport::default() }, backends, omitted)
    }
}

/// Whether ctnetlink can be asked without a module being loaded for it.
fn may_ask() -> Result<(), Unasked> {
    let Modules { conntrack, ctnetlink } = module::look();
    let why = match (conntrack, ctnetlink) {
        (_, it) if it.is_there() => return Ok(()),
        (Presence::Absent, _) => "the kernel's module `nf_conntrack` is not loaded",
        (_, Presence::Unknown) => "which modules are loaded cannot be read",
        _ => "the kernel's module `nf_conntrack_netlink` is not loaded",
    };
    Err((Reason::SourceAbsent, format!("{why}, and ktrace loads none")))
}

fn namespace_of(process: i32) -> Option<(File, u32)> {
    let file = File::open(format!("/proc/{process}/ns/net")).ok()?;
    let netns = inode(&file)?;
    Some((file, netns))
}

fn inode(file: &File) -> Option<u32> {
    u32::try_from(file.metadata().ok()?.ino()).ok()
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::event::{Endpoint, Proto};

    use super::*;
    use crate::conntrack::ask::FlowKey;

    /// Without the node's tables.
    fn tables(scanned: Option<Instant>) -> Tables {
        Tables {
            list: Vec::new(),
            by_netns: HashMap::new(),
            may_ask: Ok(()),
            lost: HashMap::new(),
            anchors: scanned.map(|at| (at, BTreeMap::new())),
            omitted: 0,
        }
    }

    /// A flow of a namespace that no process and no mount leads to.
    fn nowhere() -> Ask {
        let remote = "10.0.0.2:53".parse().unwrap();
        let key = FlowKey { netns: 1, socket: 7, proto: Proto::Udp, remote };
        Ask { key, local: Endpoint::new([10, 0, 0, 1].into(), 4000), pid: None }
    }

    #[test]
    fn a_namespace_is_given_up_only_after_a_look_for_it() {
        let mut looked_before = tables(Some(Instant::now()));
        looked_before.reach(&nowhere()).unwrap();
        assert_eq!((looked_before.lost.len(), looked_before.why(1)), (0, Reason::SourceAbsent));
        let mut looks = tables(None);
        looks.reach(&nowhere()).unwrap();
        assert_eq!(looks.why(1), Reason::Gone);
    }

    #[test]
    fn what_could_not_be_looked_at_is_never_not_found() {
        let mut tables = tables(None);
        tables.lose(1, Reason::Overflow);
        assert_eq!((tables.why(1), tables.why(2)), (Reason::Overflow, Reason::SourceAbsent));
    }
}
