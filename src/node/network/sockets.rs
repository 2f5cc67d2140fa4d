//! The sockets of a namespace: listeners one by one, the others added up.
//!
//! The kernel goes through the tables of the whole machine for each namespace, so all of them have a bound of time together;
//! listeners are few and have tables of their own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::node::{CounterGroup, Item, Listener};

use super::diag::{self, Socket};
use super::tally::{LISTEN, Tally};
use super::{sysctls, tell};
use crate::node::netlink::{Error, Netlink};
use crate::node::out::Out;
use crate::node::rose::Rose;

/// Listeners on the node, and in another namespace.
const MOST: [u64; 2] = [1024, 128];
const FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];
/// If the kernel has chosen none, which it always has.
const RANGE: (u16, u16) = (32_768, 60_999);

/// Families of a protocol that have sockets, by what `sockstat` says: where there are none the kernel need not be asked. `None`: it
/// did not say.
#[derive(Debug, Clone, Copy, Default)]
pub struct InUse {
    /// TCP, v4 and v6.
    pub tcp: Option<[bool; 2]>,
    /// UDP, the same.
    pub udp: Option<[bool; 2]>,
}

impl InUse {
    /// Of the groups of both files.
    pub fn of(groups: &[CounterGroup]) -> Self {
        let count = |group: &str, name: &str| {
            let found = groups.iter().find(|it| it.group == group)?;
            Some(found.counters.get(name).copied().unwrap_or(0))
        };
        let is_there = groups.iter().any(|it| it.group == "sockstat.sockets");
        let any = |v4: &str, v6: &str, waiting: u64| {
            is_there.then(|| [v4, v6].map(|it| waiting + count(it, "inuse").unwrap_or(0) > 0))
        };
        let waiting = count("sockstat.TCP", "tw").unwrap_or(0);
        Self { tcp: any("sockstat.TCP", "sockstat.TCP6", waiting), udp: any("sockstat.UDP", "sockstat.UDP6", 0) }
    }
}

/// The families that are asked for.
fn families(in_use: Option<[bool; 2]>) -> impl Iterator<Item = i32> {
    let in_use = in_use.unwrap_or([true; 2]);
    FAMILIES.into_iter().zip(in_use).filter(|(_, is_there)| *is_there).map(|(family, _)| family)
}

/// Looks at those of the namespace that the socket is of. `left`: time for all of them.
pub fn look(
    diag: &mut Netlink,
    (values, in_use): (&BTreeMap<String, String>, InUse),
    is_node: bool,
    left: &mut Duration,
    out: &mut Out,
    rose: &mut Rose,
) {
    let value = |name: &str| values.get(name).map_or("", String::as_str);
    let range = sysctls::port_range(value("net.ipv4.ip_local_port_range")).unwrap_or(RANGE);
    let mut tally = Tally::new(range);
    listeners(diag, in_use, is_node, &mut tally, out, rose);
    let begin = Instant::now();
    let until = out.until().min(begin + *left);
    let outcome = all(diag, in_use, until, &mut tally);
    *left = left.saturating_sub(begin.elapsed());
    let is_whole = outcome.is_ok();
    tell("sockets", outcome, out);
    // sums of a part would be taken for the whole
    if is_whole {
        let reserved = sysctls::reserved(value("net.ipv4.ip_local_reserved_ports"), range);
        let (sockets, ports) = tally.finish(reserved);
        out.put(Item::Sockets(sockets));
        out.put(Item::Ports(ports));
    }
}

fn listeners(diag: &mut Netlink, in_use: InUse, is_node: bool, tally: &mut Tally, out: &mut Out, rose: &mut Rose) {
    let most = if is_node { MOST[0] } else { MOST[1] };
    let (mut count, mut omitted) = (0, 0);
    let until = out.until();
    for family in families(in_use.tcp) {
        let request = diag::request(family, libc::IPPROTO_TCP, diag::LISTENING, true);
        let outcome = diag.dump(diag::KIND, &request, until, &mut |message| {
            let Some(socket) = diag::socket(message.body).filter(|it| it.state == LISTEN) else { return };
            tally.tcp(&socket);
            if count < most {
                count += 1;
                out.put(Item::Listener(listener(&socket, out, rose)));
            } else {
                omitted += 1;
            }
        });
        tell_of_family("listeners", family, outcome, out);
    }
    out.no_room("listeners", omitted);
}

/// A machine without IPv6 has none of its sockets.
fn tell_of_family(what: &str, family: i32, outcome: Result<(), Error>, out: &mut Out) {
    if !(family == libc::AF_INET6 && matches!(outcome, Err(Error::Refused(nix::errno::Errno::ENOENT)))) {
        tell(what, outcome, out);
    }
}

fn listener(socket: &Socket, out: &Out, rose: &mut Rose) -> Listener {
    let drops = socket.drops.map(u64::from);
    Listener {
        local: Some(socket.local).filter(|it| *it != Endpoint::default()),
        socket: socket.cookie,
        accept_queue: socket.rx_queue.into(),
        backlog: socket.tx_queue.into(),
        drop_count: drops,
        rose: drops.and_then(|drops| rose.one(out.when, ("listener", socket.cookie), drops)),
    }
}

fn all(diag: &mut Netlink, in_use: InUse, until: Instant, tally: &mut Tally) -> Result<(), Error> {
    let is_there = |family, outcome| match outcome {
        Err(Error::Refused(nix::errno::Errno::ENOENT)) if family == libc::AF_INET6 => Ok(()),
        outcome => outcome,
    };
    for family in families(in_use.tcp) {
        // the kernel goes through its tables before anybody reads
        if Instant::now() >= until {
            return Err(Error::Late);
        }
        let request = diag::request(family, libc::IPPROTO_TCP, diag::NOT_LISTENING, false);
        let tcp = &mut |message: crate::node::netlink::Message<'_>| {
            diag::socket(message.body).iter().for_each(|it| tally.tcp(it));
        };
        is_there(family, diag.dump(diag::KIND, &request, until, tcp))?;
    }
    for family in families(in_use.udp) {
        if Instant::now() >= until {
            return Err(Error::Late);
        }
        let request = diag::request(family, libc::IPPROTO_UDP, diag::ALL, false);
        let udp = &mut |message: crate::node::netlink::Message<'_>| {
            diag::socket(message.body).iter().for_each(|it| tally.udp(it));
        };
        is_there(family, diag.dump(diag::KIND, &request, until, udp))?;
    }
    Ok(())
}
