//! Who is behind an address, as the events of the sockets that talk to it tell: `peer`. An address means something in its network
//! namespace only.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ktrace_bundle::event::Identity;
use ktrace_bundle::peer::Peer;

/// Most addresses that are kept; of more it is not known who they are.
const MAX_PEERS: usize = 65_536;

/// Remote ends by name.
#[derive(Debug, Default)]
pub struct Peers {
    by_address: BTreeMap<(u32, IpAddr), Arc<Peer>>,
}

impl Peers {
    /// Adds what a record says of its remote end; who had the address last is kept.
    pub(super) fn learn(&mut self, id: &Identity) {
        let (Some(peer), Some(addr)) = (&id.peer, id.remote.addr) else { return };
        let key = (id.netns, addr);
        if self.by_address.len() < MAX_PEERS || self.by_address.contains_key(&key) {
            self.by_address.insert(key, Arc::clone(peer));
        }
    }

    /// Namespace and name of the pod that has this address for sockets of this network namespace; hostile.
    pub fn pod(&self, netns: u32, addr: IpAddr) -> Option<(&str, &str)> {
        match self.by_address.get(&(netns, addr))?.as_ref() {
            Peer::Pod { namespace, pod, .. } => Some((namespace, pod)),
            Peer::Node { .. } => None,
        }
    }
}
