//! The sockets of a namespace: listeners one by one, the others added up.
//!
//! The kernel goes through the tables of the whole machine for each namespace, so all of them have a bound of time together;
//! listeners are few and have tables of their own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::node::{Item, Listener};

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

/// Looks at those of the namespace that the socket is of. `left`: time for all of them.
pub fn look(
    diag: &mut Netlink,
    values: &BTreeMap<String, String>,
    is_node: bool,
    left: &mut Duration,
    out: &mut Out,
    rose: &mut Rose,
) {
    let value = |name: &str| values.get(name).map_or("", String::as_str);
    let range = sysctls::port_range(value("net.ipv4.ip_local_port_range")).unwrap_or(RANGE);
    let mut tally = Tally::new(range);
    listeners(diag, is_node, &mut tally, out, rose);
    let begin = Instant::now();
    let until = out.until().min(begin + *left);
    let outcome = all(diag, until, &mut tally);
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

fn listeners(diag: &mut Netlink, is_node: bool, tally: &mut Tally, out: &mut Out, rose: &mut Rose) {
    let most = if is_node { MOST[0] } else { MOST[1] };
    let (mut count, mut omitted) = (0, 0);
    let until = out.until();
    for family in FAMILIES {
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

fn all(diag: &mut Netlink, until: Instant, tally: &mut Tally) -> Result<(), Error> {
    let is_there = |family, outcome| match outcome {
        Err(Error::Refused(nix::errno::Errno::ENOENT)) if family == libc::AF_INET6 => Ok(()),
        outcome => outcome,
    };
    for family in FAMILIES {
        let request = diag::request(family, libc::IPPROTO_TCP, diag::NOT_LISTENING, false);
        let tcp = &mut |message: crate::node::netlink::Message<'_>| {
            diag::socket(message.body).iter().for_each(|it| tally.tcp(it));
        };
        is_there(family, diag.dump(diag::KIND, &request, until, tcp))?;
        let request = diag::request(family, libc::IPPROTO_UDP, diag::ALL, false);
        let udp = &mut |message: crate::node::netlink::Message<'_>| {
            diag::socket(message.body).iter().for_each(|it| tally.udp(it));
        };
        is_there(family, diag.dump(diag::KIND, &request, until, udp))?;
    }
    Ok(())
}
