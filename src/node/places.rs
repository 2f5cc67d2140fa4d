//! Which network namespaces are looked at, and how the thread gets there: the node's own first, the host's, then those of
//! sockets that were seen, the busiest first.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use super::seen::{Seen, Way, busiest};
use crate::audit::namespaces::{self, Anchor};

/// Namespaces that are looked at.
pub const MOST: usize = 200;

/// A namespace.
#[derive(Debug)]
pub struct Place {
    /// Its inode number.
    pub netns: u32,
    /// The node itself is in it: ktrace's own, and the host's.
    pub is_node: bool,
    /// What may lead there.
    way: Way,
}

/// All that are to be looked at, and how many there are besides.
pub fn of(seen: &Seen) -> (Vec<Place>, u64) {
    let mut places: Vec<Place> = Vec::new();
    // where process 1 is out of reach, process 2 is a thread of the kernel and in the same namespace
    for pids in [&[std::process::id()][..], &[1, 2]] {
        let found = pids.iter().find_map(|pid| Some((*pid, open(&format!("/proc/{pid}/ns/net"))?.1)));
        if let Some((pid, netns)) = found.filter(|(_, netns)| places.iter().all(|it| it.netns != *netns)) {
            places.push(Place { netns, is_node: true, way: Way { pids: vec![pid], count: 0 } });
        }
    }
    let others = seen.networks.iter().filter(|(netns, _)| places.iter().all(|it| it.netns != **netns));
    let others = others.map(|(netns, way)| (*netns, way.clone())).collect();
    let (busy, more) = busiest(&others, |way| way.count, MOST.saturating_sub(places.len()));
    let way = |netns: &u32| others.get(netns).cloned().unwrap_or_default();
    places.extend(busy.iter().map(|netns| Place { netns: *netns, is_node: false, way: way(netns) }));
    (places, more)
}

fn open(path: &str) -> Option<(File, u32)> {
    let file = File::open(path).ok()?;
    let inode = u32::try_from(file.metadata().ok()?.ino()).ok()?;
    Some((file, inode))
}

/// Where else namespaces are found: by all processes and mounts, looked at once, and only if somebody is lost.
#[derive(Debug, Default)]
pub struct Map(Option<BTreeMap<u32, Vec<Anchor>>>);

impl Map {
    /// A file that stands for the namespace, and the process that leads there; `None`: it is gone.
    pub fn find(&mut self, place: &Place) -> Option<(File, Option<u32>)> {
        let by_process = place.way.pids.iter().rev().find_map(|pid| {
            let (file, netns) = open(&format!("/proc/{pid}/ns/net"))?;
            (netns == place.netns).then_some((file, Some(*pid)))
        });
        by_process.or_else(|| {
            let anchors = self.0.get_or_insert_with(|| namespaces::scan().anchors).get(&place.netns)?;
            anchors.iter().find_map(|anchor| {
                let (file, netns) = open(anchor.path().to_str()?)?;
                let pid = match anchor {
                    Anchor::Process(pid) => u32::try_from(*pid).ok(),
                    Anchor::Mount(_) => None,
                };
                (netns == place.netns).then_some((file, pid))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::testing::an_event;

    use super::*;

    #[test]
    fn the_own_namespace_is_the_nodes_and_comes_first() {
        let mut seen = Seen::default();
        for netns in 1..=MOST as u32 + 5 {
            seen.add(&an_event().netns(netns).build().id);
        }
        seen.add(&an_event().netns(7).by("y", 5).build().id);
        let (places, more) = of(&seen);
        let own = open("/proc/self/ns/net").unwrap().1;
        assert_eq!((places[0].netns, places[0].is_node, places.len()), (own, true, MOST));
        let node = places.iter().filter(|it| it.is_node).count();
        assert_eq!((places[node].netns, more), (7, 5 + node as u64));
    }

    #[test]
    fn a_process_that_is_elsewhere_leads_nowhere_and_others_are_looked_for() {
        let own = open("/proc/self/ns/net").unwrap().1;
        let mut map = Map::default();
        let way = Way { pids: vec![u32::MAX], count: 1 };
        assert!(map.find(&Place { netns: own, is_node: false, way: way.clone() }).is_some());
        assert!(map.find(&Place { netns: 1, is_node: false, way }).is_none());
    }
}
