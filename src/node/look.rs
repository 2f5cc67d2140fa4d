//! One look at the node's networks and at the machine, in the order of what matters most: the node's own network, the machine, the
//! other networks, cgroups, resolvers. What there is no time for is told.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ktrace_bundle::node::{Item, Netns};
use nix::sched::{CloneFlags, setns};

use super::desk::{Order, Part};
use super::host::cgroups::Mounts;
use super::host::{self, cgroups, resolver};
use super::network::Network;
use super::out::Out;
use super::places::{self, Map, Place};
use super::rose::Rose;
use crate::cgroup::Paths;
use crate::services::presence::{self, INET_DIAG, TCP_DIAG, UDP_DIAG};

/// What the thread keeps between two looks.
pub struct Looks {
    root: PathBuf,
    rose: Rose,
    home: io::Result<File>,
    may_ask_sockets: Result<(), String>,
    mounts: Mounts,
    paths: Paths,
    /// It is left in a namespace that it cannot leave.
    is_stranded: bool,
}

impl Looks {
    /// Prepares what takes a while. `root`: the host's root directory.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            rose: Rose::default(),
            home: File::open("/proc/thread-self/ns/net"),
            may_ask_sockets: presence::lacking(&[INET_DIAG, TCP_DIAG, UDP_DIAG]).map_or(Ok(()), Err),
            mounts: Mounts::read(),
            paths: Paths::open(),
            is_stranded: false,
        }
    }

    /// Looks.
    pub fn look(&mut self, order: &Order, out: &mut Out) -> Vec<Part> {
        let begin = Instant::now();
        let on_host = self.look_at_networks(order, out);
        let network = begin.elapsed().saturating_sub(on_host);
        let begin = Instant::now();
        let mut of_network = std::mem::take(&mut out.counts);
        out.at(None);
        cgroups::look(&order.seen, &self.mounts, &mut self.paths, out, &mut self.rose);
        // a pod's file system may never answer: last, and what was found before has left
        out.flush();
        resolver::look(&self.root, &order.seen, out);
        let mut of_host = std::mem::take(&mut out.counts);
        of_host.found += std::mem::take(&mut of_network.of_others);
        vec![
            Part { source: "node_network", counts: of_network, took: network },
            Part { source: "node_host", counts: of_host, took: on_host + begin.elapsed() },
        ]
    }

    /// Returns how long looking at the machine took, which comes second.
    fn look_at_networks(&mut self, order: &Order, out: &mut Out) -> Duration {
        let (places, more) = places::of(&order.seen);
        let mut network = match Network::open(self.may_ask_sockets.clone()) {
            Ok(network) => Some(network),
            Err(e) => {
                out.absent("rtnetlink", e);
                None
            }
        };
        let (mut places, mut map) = (places.into_iter(), Map::default());
        if let (Some(place), Some(network)) = (places.next(), &mut network) {
            self.one(&place, None, network, out);
        }
        let (begin, before) = (Instant::now(), out.counts.found);
        host::look(&self.root, out, &mut self.rose);
        let on_host = begin.elapsed();
        out.counts.move_to_others(before);
        if let Some(network) = &mut network {
            self.others(places, network, &mut map, out);
        }
        out.at(None);
        out.no_room("namespaces", more);
        on_host
    }

    fn others(&mut self, mut places: std::vec::IntoIter<Place>, network: &mut Network, map: &mut Map, out: &mut Out) {
        while let Some(place) = places.next() {
            out.at(Some(place.netns));
            if self.is_stranded {
                out.absent("namespace", "the one before it cannot be left");
            } else if out.is_late() {
                out.at(None);
                out.no_time("namespaces", Some(places.len() as u64 + 1));
                break;
            } else if let Some((file, pid)) = map.find(&place) {
                match setns(&file, CloneFlags::CLONE_NEWNET) {
                    Ok(()) => self.one(&place, pid, network, out),
                    Err(e) => out.absent("namespace", e),
                }
            } else {
                out.absent("namespace", "no process and no mount leads there any more");
            }
        }
        let home =
            self.home.as_ref().map_err(|_| ()).and_then(|home| setns(home, CloneFlags::CLONE_NEWNET).map_err(drop));
        self.is_stranded |= home.is_err();
    }

    /// The namespace that the thread is in.
    fn one(&mut self, place: &Place, pid: Option<u32>, network: &mut Network, out: &mut Out) {
        let begin = Instant::now();
        out.at(Some(place.netns));
        if let Err(e) = network.look(out, &mut self.rose, place.is_node) {
            out.absent("rtnetlink", e);
        }
        let took_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        out.put(Item::Netns(Netns { is_node: place.is_node, pid, took_us }));
    }
}
