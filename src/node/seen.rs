//! The owners of sockets that were seen → where there is something to look at: their network and mount namespaces and the
//! cgroups of pods, with a process that leads there.
//!
//! Stands on the path of events: the next event mostly is of the same socket's owner, and costs a comparison.

use std::collections::HashMap;

use ktrace_bundle::attribution::Attribution;
use ktrace_bundle::event::Identity;
use ktrace_bundle::workload::Home;

use crate::cgroup::Hierarchy;

/// Namespaces, and cgroups, that are remembered.
const MOST: usize = 1 << 12;
/// Processes of a namespace that are remembered: the first may have ended when it is looked at.
const MOST_WAYS: usize = 4;

/// A namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// Some processes that are, or may be, in it; the newest last.
    pub pids: Vec<u32>,
    /// Sockets and events that were seen in it.
    pub count: u64,
}

impl Way {
    fn add(&mut self, pid: Option<u32>) {
        self.count += 1;
        if let Some(pid) = pid.filter(|pid| !self.pids.contains(pid)) {
            if self.pids.len() >= MOST_WAYS {
                self.pids.remove(0);
            }
            self.pids.push(pid);
        }
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Network namespaces.
    pub networks: HashMap<u32, Way>,
    /// Mount namespaces.
    pub mounts: HashMap<u32, Way>,
    /// Cgroups of pods, with how often they were seen.
    pub cgroups: HashMap<(Hierarchy, u64), u64>,
    last: Option<(u32, Option<u32>, Option<u64>)>,
}

impl Seen {
    /// Remembers where the owner of a socket is.
    pub fn add(&mut self, id: &Identity) {
        let owner = id.owner.value();
        let now = (id.netns, owner.map(|it| it.pid), owner.and_then(|it| it.proc_start_ns));
        if self.last == Some(now) {
            return;
        }
        self.last = Some(now);
        let pid = owner.map(|it| it.pid);
        // a packet that is thrown away may be nobody's
        if id.netns != 0
            && let Some(way) = room(&mut self.networks, id.netns)
        {
            way.add(pid);
        }
        let Some(owner) = owner else { return };
        if let Some(way) = owner.mnt_ns.and_then(|mnt| room(&mut self.mounts, mnt)) {
            way.add(pid);
        }
        if let (Attribution::Resolved(Home::Pod(_)), Some(cgroup)) = (&id.home, owner.cgroup_id)
            && let Some(count) = room(&mut self.cgroups, (Hierarchy::of(id.why.get("cgroup_id")), cgroup))
        {
            *count += 1;
        }
    }
}

/// The entry of a key, unless it is new and there are too many.
fn room<K: Eq + std::hash::Hash, V: Default>(map: &mut HashMap<K, V>, key: K) -> Option<&mut V> {
    if map.len() < MOST || map.contains_key(&key) { Some(map.entry(key).or_default()) } else { None }
}

/// The keys that were seen most often, most often first, and how many there are besides.
pub fn busiest<K: Copy + Ord, V>(map: &HashMap<K, V>, count: impl Fn(&V) -> u64, most: usize) -> (Vec<K>, u64) {
    let mut keys: Vec<_> = map.iter().map(|(key, value)| (std::cmp::Reverse(count(value)), *key)).collect();
    keys.sort_unstable();
    let more = keys.len().saturating_sub(most) as u64;
    (keys.into_iter().take(most).map(|(_, key)| key).collect(), more)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ktrace_bundle::testing::an_event;
    use ktrace_bundle::why::Reason;
    use ktrace_bundle::workload::Workload;

    use super::*;

    #[test]
    fn namespaces_are_remembered_with_the_newest_processes_that_lead_there() {
        let mut seen = Seen::default();
        for pid in 1..=6 {
            seen.add(&an_event().netns(7).by("x", pid).build().id);
            seen.add(&an_event().netns(7).by("x", pid).build().id);
        }
        seen.add(&an_event().netns(8).unowned(Reason::NoOwner).build().id);
        assert_eq!(seen.networks[&7], Way { pids: vec![3, 4, 5, 6], count: 6 });
        assert_eq!(seen.networks[&8], Way { pids: vec![], count: 1 });
        assert_eq!((seen.mounts.len(), seen.cgroups.len()), (1, 0), "the owner is in no pod");
        assert_eq!(busiest(&seen.networks, |way| way.count, 1), (vec![7], 1));
    }

    #[test]
    fn cgroups_are_remembered_of_pods() {
        let pod = Home::Pod(Arc::new(Workload::of_cgroup("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10".into())));
        let mut seen = Seen::default();
        seen.add(&an_event().home(pod).build().id);
        assert_eq!(seen.cgroups, [((Hierarchy::V2, 7712), 1)].into());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        (0..2 * MOST as u32).for_each(|netns| seen.add(&an_event().netns(netns).build().id));
        assert_eq!(seen.networks.len(), MOST);
    }
}
