//! One network namespace, from within: interfaces, addresses, rules, routes, neighbours and qdiscs by rtnetlink; counters and
//! settings by procfs; sockets by `sock_diag`. Each kind is bounded, and what is missing is a line.

mod diag;
mod qdiscs;
mod routing;
mod sockets;
pub mod sysctls;
pub mod tables;
mod tally;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use ktrace_bundle::event::When;
use ktrace_bundle::node::{CounterGroup, Counters, Item, Sysctls};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{Error, Netlink};
use super::nic;
use super::out::Out;
use super::rose::Rose;
use routing::Names;
use sockets::InUse;

/// Most bytes of a file of `/proc/net` that are read; the kernel writes some 5 KiB.
const MOST_BYTES: u64 = 128 << 10;
/// Time that all namespaces' sockets may take together: the kernel goes through those of the whole machine for each.
const SOCKETS: Duration = Duration::from_millis(250);

/// What is asked of rtnetlink: name, request, length of its body, most of them on the node, and in another namespace.
const DUMPS: [(&str, u16, usize, u64, u64); 6] = [
    ("links", libc::RTM_GETLINK, 16, 2048, 128),
    ("addresses", libc::RTM_GETADDR, 8, 2048, 128),
    ("rules", libc::RTM_GETRULE, 12, 1024, 128),
    ("routes", libc::RTM_GETROUTE, 12, 4096, 256),
    ("neighbours", libc::RTM_GETNEIGH, 12, 2048, 128),
    ("qdiscs", libc::RTM_GETQDISC, 20, 2048, 128),
];
/// Neighbours that do not answer have room of their own: they are what is looked for.
const MOST_BAD: u64 = 512;

/// What reads a file of `/proc/net`.
type Reader = fn(&str) -> Vec<CounterGroup>;
const FILES: [(&str, Reader); 6] = [
    ("snmp", tables::in_two_lines),
    ("netstat", tables::in_two_lines),
    ("snmp6", tables::snmp6),
    ("sockstat", tables::sockstat),
    ("sockstat6", tables::sockstat),
    (IPVS, tables::ipvs),
];
/// There only where the kernel has IPVS: that it is not is said of the node, and not of each of its namespaces.
const IPVS: &str = "ip_vs_stats_percpu";

/// Looks at one namespace after the other.
pub struct Network {
    rtnl: Netlink,
    diag: Result<Netlink, String>,
    socket_time: Duration,
}

impl Network {
    /// `may_ask_sockets`: why `sock_diag` must not be asked, if so.
    ///
    /// # Errors
    /// The kernel's: there is no rtnetlink.
    pub fn open(may_ask_sockets: Result<(), String>) -> Result<Self, Errno> {
        let open = || Netlink::open(SockProtocol::NetlinkSockDiag).map_err(|e| e.to_string());
        Ok(Self {
            rtnl: Netlink::open(SockProtocol::NetlinkRoute)?,
            diag: may_ask_sockets.and_then(|()| open()),
            socket_time: SOCKETS,
        })
    }

    /// Looks at the namespace that the thread is in.
    ///
    /// # Errors
    /// The kernel's: it cannot be asked here.
    pub fn look(&mut self, out: &mut Out, rose: &mut Rose, is_node: bool) -> Result<(), Errno> {
        self.rtnl.reopen()?;
        let (mut names, mut hardware) = (Names::new(), Vec::new());
        for dump in DUMPS {
            if out.is_late() {
                out.no_time(dump.0, None);
                continue;
            }
            routes(&mut self.rtnl, dump, is_node, out, rose, (&mut names, &mut hardware));
        }
        let in_use = counters(Path::new("/proc/thread-self/net"), is_node, out, rose);
        let values = settings(out, is_node, names.into_values().collect());
        if is_node {
            hardware.iter().take(nic::MOST).for_each(|dev| nic::look(dev, out, rose));
        }
        if out.is_late() {
            out.no_time("sockets", None);
            return Ok(());
        }
        match &mut self.diag {
            Ok(diag) => {
                diag.reopen()?;
                sockets::look(diag, (&values, in_use), is_node, &mut self.socket_time, out, rose);
            }
            Err(why) => out.absent("sockets", why),
        }
        Ok(())
    }
}

/// One dump of rtnetlink.
fn routes(
    rtnl: &mut Netlink,
    (what, kind, length, most, most_elsewhere): (&str, u16, usize, u64, u64),
    is_node: bool,
    out: &mut Out,
    rose: &mut Rose,
    (names, hardware): (&mut Names, &mut Vec<String>),
) {
    let most = if is_node { most } else { most_elsewhere };
    let (mut count, mut bad, mut omitted, mut odd) = (0, 0, 0, 0);
    let until = out.until();
    let outcome = rtnl.dump(kind, &vec![0; length], until, &mut |message| match routing::item(
        message.kind,
        message.body,
        names,
    ) {
        Err(()) => odd += 1,
        Ok(None) => {}
        Ok(Some(item)) => {
            let has_room = if is_bad(&item) { bad < MOST_BAD } else { count < most };
            *(if is_bad(&item) { &mut bad } else { &mut count }) += 1;
            if has_room {
                hardware.extend(hardware_of(&item));
                out.put(risen(item, out.netns(), out.when, rose));
            } else {
                omitted += 1;
            }
        }
    });
    out.no_room(what, omitted);
    tell(what, outcome, out);
    if odd > 0 {
        out.absent(what, format_args!("{odd} of them were not understood"));
    }
}

/// Says why an answer is not whole, if it is not.
fn tell(what: &str, outcome: Result<(), Error>, out: &mut Out) {
    match outcome {
        Ok(()) => {}
        Err(Error::Late) => out.no_time(what, None),
        Err(error) => out.absent(what, error),
    }
}

/// A neighbour that does not answer.
fn is_bad(item: &Item) -> bool {
    matches!(item, Item::Neighbour(it) if ["failed", "incomplete"].contains(&it.state.as_str()))
}

/// The name of an interface that is no software's.
fn hardware_of(item: &Item) -> Option<String> {
    match item {
        Item::Link(link) if link.kind.is_none() && link.dev != "lo" => Some(link.dev.clone()),
        _ => None,
    }
}

/// With what its counters gained.
fn risen(item: Item, netns: Option<u32>, when: When, rose: &mut Rose) -> Item {
    match item {
        Item::Link(mut it) => {
            it.rose = rose.counters(when, ("link", netns, it.index), &it.counters);
            Item::Link(it)
        }
        Item::Qdisc(mut it) => {
            let mut counters: Counters = it.counters.clone();
            counters.retain(|name, _| !qdiscs::LEVELS.contains(&name.as_str()));
            it.rose = rose.counters(when, ("qdisc", netns, &it.dev, &it.handle, &it.parent), &counters);
            Item::Qdisc(it)
        }
        other => other,
    }
}

/// The tables of counters below a `/proc/PID/net`.
fn counters(root: &Path, is_node: bool, out: &mut Out, rose: &mut Rose) -> InUse {
    let mut of_sockets = Vec::new();
    for (name, read) in FILES {
        match text(&root.join(name), MOST_BYTES) {
            Ok(text) => {
                let groups = read(&text);
                of_sockets.extend(groups.iter().filter(|it| it.group.starts_with("sockstat.")).cloned());
                groups.into_iter().for_each(|group| put_group(group, out, rose));
            }
            Err(e) if name == IPVS && !is_node && e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => out.absent(&format!("/proc/net/{name}"), e),
        }
    }
    InUse::of(&of_sockets)
}

/// Groups that are told only where they count something: few have any use for them.
const RARE: [&str; 4] = ["UdpLite", "UdpLite6", "MPTcpExt", "IcmpMsg"];

/// Adds a group of counters with what they gained.
pub fn put_group(mut group: CounterGroup, out: &mut Out, rose: &mut Rose) {
    if !tables::is_level(&group.group) {
        group.rose = rose.counters(out.when, ("counters", out.netns(), &group.group), &tables::counting(&group));
    }
    if !(group.counters.is_empty() && RARE.contains(&group.group.as_str())) {
        out.put(Item::Counters(group));
    }
}

fn settings(out: &mut Out, is_node: bool, mut devices: Vec<String>) -> BTreeMap<String, String> {
    devices.sort_unstable();
    let values = sysctls::read(Path::new("/proc/sys"), is_node, &devices);
    let pairs: Vec<_> = values.iter().collect();
    for some in pairs.chunks(sysctls::ON_A_LINE) {
        let values = some.iter().map(|(name, value)| ((*name).clone(), (*value).clone())).collect();
        out.put(Item::Sysctls(Sysctls { values }));
    }
    values
}

/// A file, as far as it may be long; bytes that are no UTF-8 are replaced.
///
/// # Errors
/// It cannot be read, or is longer.
pub fn text(path: &Path, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    })
}

#[cfg(test)]
#[path = "network/golden_tests.rs"]
mod golden_tests;
