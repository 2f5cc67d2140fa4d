//! Services behind addresses that are nobody's: translated by nftables in the router, where ktrace runs as it does on a node.
//! Who really answered has to be known at both ends.

use std::net::IpAddr;

use ktrace_bundle::event::{Endpoint, Event, Proto, Role};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::nat::{Nat, NatKind};

use crate::capture::{Bundle, Capture};
use crate::net::{Lab, SERVER4, SERVER6};
use crate::program::Program;
use crate::wait::PATIENCE;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![both_ends_of_a_flow_to_a_service_know_who_answered_and_who_asked, both_ends_know_it_behind_a_masquerade,]
}

/// Addresses of services; the clients' router is asked for them.
const VIP4: &str = "10.96.0.80";
const VIP6: &str = "fd96::80";

/// The router translates these.
const DNAT: &str = "table inet svc {
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr 10.96.0.80 tcp dport 80 dnat ip to 10.77.2.2:8080
        ip daddr 10.96.0.80 udp dport 53 dnat ip to 10.77.2.2:5353
        ip6 daddr fd96::80 tcp dport 80 dnat ip6 to [fd77:2::2]:8080
        ip6 daddr fd96::80 udp dport 53 dnat ip6 to [fd77:2::2]:5353
    }
    chain post {
        type nat hook postrouting priority srcnat;
    }
}
";

/// And hides who asks.
const MASQUERADE: &str = "add rule inet svc post ct status dnat masquerade\n";

fn at(addr: impl Into<IpAddr>, port: u16) -> Endpoint {
    Endpoint::new(addr.into(), port)
}

/// A ktrace that runs where the router's tables are.
pub fn on_the_node(lab: &Lab, flags: &[&str]) -> Capture {
    let duration = format!("{}s", 120 * *PATIENCE);
    let command = crate::capture::undisturbed(lab.node.command(env!("CARGO_BIN_EXE_ktrace")));
    Capture::launch(command, &[&["--duration", &duration], flags].concat())
}

/// What connection tracking says of an event: on its own line, or after the join.
pub fn joined<'a>(bundle: &'a Bundle, event: &'a Event) -> Option<&'a Nat> {
    let is_its = |flow: &&FlowRecord| {
        (flow.netns, flow.socket, flow.tuple.to) == (event.id.netns, event.id.socket, event.id.remote)
    };
    let later = || bundle.flows.iter().filter(is_its).find_map(|flow| flow.conntrack.as_deref());
    event.id.nat.as_deref().or_else(later)
}

/// Servers of both protocols and families, each at port 8080 (TCP) or 5353 (UDP).
fn servers(lab: &Lab) -> Vec<Program> {
    let listen = ["tcp-server --listen {}:8080 --then reply", "udp-echo --listen {}:5353"];
    let addresses = [SERVER4.to_string(), format!("[{SERVER6}]")];
    let started = listen.iter().flat_map(|it| addresses.iter().map(|addr| lab.server.start(&it.replace("{}", addr))));
    let started: Vec<_> = started.collect();
    started.iter().for_each(|server| _ = server.ready());
    started
}

fn asks(lab: &Lab) {
    for vip in [VIP4.to_owned(), format!("[{VIP6}]")] {
        Program::run(lab.client.traffic(&format!("tcp-client --to {vip}:80 --mode request")));
        Program::run(lab.client.traffic(&format!("udp-paced --to {vip}:53 --count 2")));
    }
    lab.client.wait_until_quiet();
    lab.server.wait_until_quiet();
}

/// Both ends' events of each of the four flows carry the service, who answered and who asked.
fn assert_both_ends_know(lab: &Lab, bundle: &Bundle, is_masqueraded: bool) {
    let (client, server) = (lab.client.inode(), lab.server.inode());
    let router: [IpAddr; 2] = ["10.77.2.1".parse().unwrap(), "fd77:2::1".parse().unwrap()];
    for (proto, service, port) in [(Proto::Tcp, 80, 8080), (Proto::Udp, 53, 5353)] {
        for (vip, backend, asker) in [(VIP4, SERVER4, "10.77.1.2"), (VIP6, SERVER6, "fd77:1::2")] {
            let (vip, backend) = (at(vip.parse::<IpAddr>().unwrap(), service), at(backend, port));
            let asker: IpAddr = asker.parse().unwrap();
            let of = |e: &&Event| e.id.proto == proto && e.id.role != Some(Role::Listener);
            let asked = bundle.events.iter().filter(of).filter(|e| e.id.netns == client && e.id.remote == vip);
            let seen_by_server = |e: &&Event| match (e.id.remote.addr, is_masqueraded) {
                (Some(remote), false) => remote == asker,
                (Some(remote), true) => router.contains(&remote) && remote.is_ipv4() == asker.is_ipv4(),
                (None, _) => false,
            };
            let answered =
                bundle.events.iter().filter(of).filter(|e| e.id.netns == server && e.id.local.port == Some(port));
            let answered: Vec<_> = answered.filter(seen_by_server).collect();
            let asked: Vec<_> = asked.collect();
            assert!(asked.len() >= 2 && answered.len() >= 4, "{proto:?} {vip}: {} and {}", asked.len(), answered.len());
            for event in asked.into_iter().chain(answered) {
                let nat =
                    joined(bundle, event).unwrap_or_else(|| panic!("{event:?} is nobody's in {:#?}", bundle.flows));
                assert_eq!((nat.original_dst, nat.backend), (Some(vip), Some(backend)), "{event:?}");
                assert_eq!(nat.original.unwrap().from.addr, Some(asker), "{event:?}");
                let kind = if is_masqueraded { NatKind::Both } else { NatKind::Dnat };
                assert_eq!((nat.nat, nat.netns), (kind, lab.node.inode()));
                assert_eq!(nat.original_src.is_some(), is_masqueraded);
            }
        }
    }
}

fn both_ends_of_a_flow_to_a_service_know_who_answered_and_who_asked() {
    let lab = Lab::new();
    lab.nft(DNAT);
    let _servers = servers(&lab);
    let capture = on_the_node(&lab, &["--with-conntrack"]);
    asks(&lab);
    let bundle = capture.stop();
    assert_both_ends_know(&lab, &bundle, false);

    let table = bundle.tracking.tables.iter().find(|it| it.netns == lab.node.inode()).unwrap();
    assert!(table.is_node && table.via.as_deref() == Some("ctnetlink") && table.event_count >= 8, "{table:?}");
    assert_eq!(table.overrun_count, 0);
    let services: Vec<_> = bundle.services.services.iter().map(|it| (it.proto, it.vip, it.backends.len())).collect();
    let [tcp4, tcp6, udp4, udp6] =
        [(VIP4, 80), (VIP6, 80), (VIP4, 53), (VIP6, 53)].map(|(vip, port)| at(vip.parse::<IpAddr>().unwrap(), port));
    let expected = [(Proto::Tcp, tcp4, 1), (Proto::Tcp, tcp6, 1), (Proto::Udp, udp4, 1), (Proto::Udp, udp6, 1)];
    assert_eq!(services, expected);
    for backend in bundle.services.services.iter().flat_map(|it| &it.backends) {
        assert_eq!((backend.attempt_count, backend.failed_count), (1, 0), "{backend:?}");
        assert_eq!((backend.tracked_count, backend.unreplied_count), (1, 0), "{backend:?}");
    }
}

fn both_ends_know_it_behind_a_masquerade() {
    let lab = Lab::new();
    lab.nft(DNAT);
    lab.nft(MASQUERADE);
    let _servers = servers(&lab);
    let capture = on_the_node(&lab, &["--with-conntrack"]);
    asks(&lab);
    assert_both_ends_know(&lab, &capture.stop(), true);
}
