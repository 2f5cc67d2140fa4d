//! Who has an address: pods of this node, as their runtime says, and the node itself, by its interfaces.
//!
//! An address means nothing by itself: it may be used again in a network of its own. So only the ends of sockets in the
//! host's network namespace, and of processes in pods, are named.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ktrace_bundle::attribution::Attribution;
use ktrace_bundle::event::Identity;
use ktrace_bundle::peer::{Peer, PeerVia};
use ktrace_bundle::workload::Home;
use nix::net::if_::InterfaceFlags;

use super::names::PodName;
use crate::preflight;

/// Addresses that are remembered.
pub const MOST: usize = 1 << 14;
/// Between two looks at the interfaces.
const PAUSE: Duration = Duration::from_secs(2);

/// The pods of a runtime that run now and have addresses of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(HashMap<IpAddr, Option<PodName>>);

impl Addresses {
    /// Adds a pod's address; of several that claim the same one none has it.
    pub fn add(&mut self, address: IpAddr, pod: &PodName) {
        let address = address.to_canonical();
        if address.is_loopback() || address.is_unspecified() || is_link_local(address) || self.0.len() >= MOST {
            return;
        }
        let claimed = self.0.entry(address).or_insert_with(|| Some(pod.clone()));
        if claimed.as_ref() != Some(pod) {
            *claimed = None;
        }
    }
}

/// The same for look-ups.
#[derive(Default)]
pub struct Peers {
    by_address: HashMap<IpAddr, Arc<Peer>>,
    node: Option<Arc<Peer>>,
    /// Inode of the host's network namespace, if ktrace runs in it.
    host: Option<u32>,
    interfaces: Interfaces,
    /// The node's own addresses as they were taken over.
    own: Arc<Vec<IpAddr>>,
}

/// The node's own addresses, as the thread that reads them found them last. The kernel may let it wait: who changes an
/// interface holds a lock that a reader needs.
#[derive(Default)]
struct Interfaces(Arc<Mutex<Arc<Vec<IpAddr>>>>);

impl Peers {
    /// Of a ktrace in this network namespace, on a node of this name.
    pub fn new(node: &str) -> Self {
        let node = Peer::Node { node: node.to_owned(), via: PeerVia::Interfaces };
        let host = host_netns();
        let interfaces = if host.is_some() { Interfaces::watch() } else { Interfaces::default() };
        Self { node: Some(node.into()), host, interfaces, ..Self::default() }
    }

    /// Takes over who has which address now; the first to say so is believed, and pods before interfaces.
    pub fn learn(&mut self, pods: impl Iterator<Item = Arc<Addresses>>) {
        self.by_address.clear();
        for pods in pods {
            let owned = pods.0.iter().filter_map(|(address, pod)| Some((address, pod.as_ref()?)));
            for (address, PodName { namespace, pod }) in owned {
                let peer = || Peer::Pod { namespace: namespace.clone(), pod: pod.clone(), via: PeerVia::Cri };
                self.by_address.entry(*address).or_insert_with(|| peer().into());
            }
        }
        self.own = self.interfaces.addresses();
        if let Some(node) = self.node.as_ref().filter(|_| self.host.is_some()) {
            for address in self.own.iter() {
                self.by_address.entry(*address).or_insert_with(|| Arc::clone(node));
            }
        }
    }

    /// Whether the interfaces have other addresses meanwhile.
    pub fn are_old(&self) -> bool {
        !Arc::ptr_eq(&self.own, &self.interfaces.addresses())
    }

    /// Who is at the remote end.
    pub fn of(&self, id: &Identity) -> Option<Arc<Peer>> {
        let address = id.remote.addr?;
        let is_known_network = Some(id.netns) == self.host || matches!(id.home, Attribution::Resolved(Home::Pod(_)));
        self.by_address.get(&address).filter(|_| is_known_network).cloned()
    }
}

/// The namespace of the kernel's own threads, of which the first is process 2, if it is this one's, too.
fn host_netns() -> Option<u32> {
    let inode = |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|it| it.ino());
    let own = inode("self").filter(|_| preflight::sees_all_processes())?;
    u32::try_from(own).ok().filter(|_| inode("2") == Some(own))
}

impl Interfaces {
    /// Reads them now, and again and again until it is dropped.
    fn watch() -> Self {
        let addresses = Self(Arc::new(Mutex::new(own_addresses().into())));
        let shared = Arc::downgrade(&addresses.0);
        let read = move || {
            while let Some(known) = shared.upgrade() {
                let now = own_addresses();
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if **known != now {
                    *known = now.into();
                }
                drop(known);
                std::thread::sleep(PAUSE);
            }
        };
        // without the thread they stay as they are
        let _ = std::thread::Builder::new().name("interfaces".into()).spawn(read);
        addresses
    }

    fn addresses(&self) -> Arc<Vec<IpAddr>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Those at which others reach this node and nobody else: not of interfaces that are down, on which kube-proxy collects the
/// addresses of services, nor of the loopback interface, where load balancers do.
fn own_addresses() -> Vec<IpAddr> {
    let used = InterfaceFlags::IFF_UP;
    let is_used = |flags: InterfaceFlags| flags.contains(used) && !flags.contains(InterfaceFlags::IFF_LOOPBACK);
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten().filter(|it| is_used(it.flags));
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    });
    addresses.filter(|it| !is_link_local(*it)).take(MOST).collect()
}

/// Every link has some of these.
const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::testing::an_event;
    use ktrace_bundle::workload::Workload;

    use super::*;

    const POD: &str = "10.244.1.5";

    fn name(pod: &str) -> PodName {
        PodName::new("shop", pod).unwrap()
    }

    fn peers(host: Option<u32>, pods: &[(&str, &str)]) -> Peers {
        let mut addresses = Addresses::default();
        pods.iter().for_each(|(address, pod)| addresses.add(address.parse().unwrap(), &name(pod)));
        let interfaces = Interfaces(Arc::new(Mutex::new(own_addresses().into())));
        let mut peers = Peers { host, interfaces, ..Peers::new("node-1") };
        peers.learn(std::iter::once(Arc::new(addresses)));
        peers
    }

    /// An event in a namespace, by a process in a pod or on the host, with this remote end.
    fn event(netns: u32, in_pod: bool, remote: &str) -> Identity {
        let mut id = an_event().build().id;
        (id.netns, id.remote.addr) = (netns, Some(remote.parse().unwrap()));
        id.home = Attribution::Resolved(match in_pod {
            true => Home::Pod(Workload::of_cgroup("u".into()).into()),
            false => Home::Host("docker.service".into()),
        });
        id
    }

    fn pod_of(peers: &Peers, id: &Identity) -> Option<String> {
        match &*peers.of(id)? {
            Peer::Pod { pod, .. } => Some(pod.clone()),
            Peer::Node { node, .. } => Some(node.clone()),
        }
    }

    #[test]
    fn the_end_of_a_pods_and_of_the_hosts_sockets_is_named_and_that_in_another_network_is_not() {
        let peers = peers(Some(1), &[(POD, "api-1")]);
        assert_eq!(pod_of(&peers, &event(1, false, POD)).as_deref(), Some("api-1"));
        assert_eq!(pod_of(&peers, &event(2, true, POD)).as_deref(), Some("api-1"));
        assert_eq!(pod_of(&peers, &event(2, false, POD)), None, "the same address in a network of its own");
        assert_eq!(pod_of(&peers, &event(1, false, "10.244.1.6")), None);
        let mut nowhere = event(1, false, POD);
        nowhere.remote.addr = None;
        assert_eq!(pod_of(&peers, &nowhere), None);
    }

    #[test]
    fn what_several_pods_claim_nobody_has_and_nobody_has_a_loopback_address() {
        let claimed =
            peers(None, &[(POD, "api-1"), (POD, "api-2"), (POD, "api-3"), ("127.0.0.1", "api-3"), ("::", "api-4")]);
        for address in [POD, "127.0.0.1", "::"] {
            assert_eq!(pod_of(&claimed, &event(2, true, address)), None, "{address}");
        }
        let mapped = peers(None, &[("::ffff:10.244.1.5", "api-1"), (POD, "api-1")]);
        assert_eq!(pod_of(&mapped, &event(2, true, POD)).as_deref(), Some("api-1"));
    }

    #[test]
    fn the_node_has_the_addresses_of_its_interfaces_if_ktrace_sees_them() {
        let Some(own) = own_addresses().first().map(ToString::to_string) else { return };
        assert_eq!(pod_of(&peers(Some(1), &[]), &event(1, false, &own)).as_deref(), Some("node-1"));
        assert_eq!(pod_of(&peers(None, &[]), &event(2, true, &own)), None);
    }

    #[test]
    fn what_a_runtime_says_no_more_is_not_known_any_more() {
        let mut peers = peers(None, &[(POD, "api-1")]);
        peers.learn(std::iter::empty());
        assert_eq!(pod_of(&peers, &event(2, true, POD)), None);
    }
}
