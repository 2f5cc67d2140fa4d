//! What happened in each case about translation, event by event.

use ktrace_bundle::event::{Endpoint, Event, Payload, Proto, Role};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::line::parse_endpoint;
use ktrace_bundle::nat::{Direction, Nat};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{NETNS, a_nat, an_event, start_at};
use ktrace_bundle::tracking::{Backend, Service, ServicesReport};
use ktrace_bundle::workload::{Home, Workload};

use crate::scene::Scene;

pub const VIP: &str = "10.96.0.80:80";
pub const OTHER_VIP: &str = "10.96.0.81:80";
pub const DNS_VIP: &str = "10.96.0.10:53";
pub const B5: &str = "10.244.1.5:8080";
pub const B6: &str = "10.244.1.6:8080";
pub const B7: &str = "10.244.1.7:8080";

/// What becomes of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Handshake of so many ms.
    Works(u64),
    Refused,
    /// Given up after so many ms.
    GivenUp(u64),
}

pub fn end(text: &str) -> Endpoint {
    parse_endpoint(text).unwrap()
}

/// A record of the flow of this socket to where the scene talks.
pub fn flow(s: &Scene, proto: Proto, socket: u64, conntrack: Option<Nat>) -> FlowRecord {
    let tuple = Direction { from: end(&s.local(socket)), to: end(s.remote()) };
    let conntrack = conntrack.map(Into::into);
    FlowRecord { socket: Some(socket), conntrack, ..FlowRecord::new(proto, tuple, NETNS, start_at()) }
}

/// An attempt to connect to where the scene talks, which `backend` gets and sees as one from `seen_as`, or else from the client.
pub fn attempt(s: &mut Scene, ms: u64, backend: &str, seen_as: Option<&str>, fate: Fate) -> u64 {
    let socket = s.socket();
    happens(s, ms, socket, fate);
    let state = match fate {
        Fate::Works(_) => "TIME_WAIT",
        Fate::Refused => "CLOSE",
        Fate::GivenUp(_) => "SYN_SENT",
    };
    let (local, vip) = (s.local(socket), s.remote().to_owned());
    let nat = a_nat(state, &local, &vip, backend, seen_as.unwrap_or(&local));
    s.push_flow(flow(s, Proto::Tcp, socket, Some(nat)));
    socket
}

pub fn happens(s: &mut Scene, ms: u64, socket: u64, fate: Fate) {
    s.syn(ms, socket);
    match fate {
        Fate::Works(after) => {
            s.established(ms + after, socket, after).closes(ms + after + 30, socket, 12, 0, 1000 * after)
        }
        Fate::Refused => s.fails_with(ms + 1, socket, "ECONNREFUSED"),
        Fate::GivenUp(after) => s.gives_up(ms + after, socket, after),
    };
}

/// Attempts to the backends in turn, of which the first has this fate.
fn in_turn(s: &mut Scene, first: Fate) {
    for n in 0..14 {
        attempt(s, 3000 * n, B5, None, first);
    }
    for n in 0..22 {
        attempt(s, 2000 * n + 7, B6, None, Fate::Works(1));
    }
    for n in 0..20 {
        attempt(s, 2000 * n + 11, B7, None, Fate::Works(1));
    }
}

/// A container of a pod.
pub fn pod(namespace: &str, pod: &str, container: &str) -> Home {
    let workload = Workload::of_cgroup("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10".into());
    let named = |name: &str| Some(name.to_owned());
    Home::Pod(Workload { namespace: named(namespace), pod: named(pod), container: named(container), ..workload }.into())
}

/// The server's side of what the scene's process sent: its socket sees the packets as they arrive.
fn served(s: &mut Scene, ms: u64, server: &str, client: &str) {
    let socket = s.socket() + 100_000;
    let event =
        an_event().by("nginx", 88).from(server).to(client).socket(socket).netns(4_026_532_900).role(Role::Server);
    let event = event.home(pod("shop", "web-2", "nginx")).tcp_state(TcpState::SynRecv, TcpState::Established);
    s.push(event.at_ms(ms).build());
}

pub fn backend_dead() -> Scene {
    let mut s = Scene::of("curl", 1847, VIP);
    in_turn(&mut s, Fate::GivenUp(1000));
    s.services(ServicesReport { services: vec![service(VIP, &[(B5, 0, 0)])], ..ServicesReport::default() });
    s
}

/// One healthy connection through a masquerading VIP, both ends of which are on this node; then the server goes away.
pub fn backend_dead_masqueraded() -> Scene {
    let mut s = Scene::of("curl", 1847, VIP);
    let mut port = 20_000;
    for (vip, offset) in [(VIP, 0), (OTHER_VIP, 500)] {
        s.now_to(vip);
        for n in 0..6 {
            for (backend, fate) in [(B5, Fate::Refused), (B6, Fate::Works(1))] {
                port += 1;
                let seen_as = format!("192.168.0.1:{port}");
                attempt(&mut s, 5000 * n + offset, backend, Some(&seen_as), fate);
            }
        }
    }
    s
}

/// The socket names the backend, and the call what was asked.
pub fn backend_dead_by_socket() -> Scene {
    let mut s = Scene::of("curl", 1847, VIP);
    for n in 0..8 {
        for (backend, fate) in [(B5, Fate::GivenUp(1000)), (B6, Fate::Works(1)), (B7, Fate::Works(1))] {
            s.now_to(backend);
            let socket = s.socket();
            happens(&mut s, 3000 * n, socket, fate);
            let call = s.event(3_000_000 * n + 20, socket).connect().error("EINPROGRESS").payload(|p| {
                if let Payload::Connect(c) = p {
                    (c.asked, c.nonblocking, c.syscall_ns) = (Some(end(VIP)), true, 20_000);
                }
            });
            s.push(call.build());
            let record = FlowRecord { asked: Some(end(VIP)), ..flow(&s, Proto::Tcp, socket, None) };
            s.push_flow(record);
        }
    }
    s
}

/// A query to the VIP that this backend gets.
pub fn query(s: &mut Scene, ms: u64, backend: &str, after_ms: Option<u64>) -> u64 {
    let socket = s.socket();
    s.query(ms, socket);
    if let Some(after) = after_ms {
        s.reply(ms + after, socket);
    }
    let state = if after_ms.is_some() { "REPLIED" } else { "UNREPLIED" };
    let (local, vip) = (s.local(socket), s.remote().to_owned());
    s.push_flow(flow(s, Proto::Udp, socket, Some(a_nat(state, &local, &vip, backend, &local))));
    socket
}

pub fn backend_dead_dns() -> Scene {
    let mut s = Scene::of("api", 1847, DNS_VIP);
    for n in 0..10 {
        query(&mut s, 4000 * n, "10.244.0.7:53", None);
        query(&mut s, 4000 * n + 2500, "10.244.0.8:53", Some(2));
    }
    s
}

/// A service with backends: address, flows that passed, and those of them without an answer.
pub fn service(vip: &str, backends: &[(&str, u64, u64)]) -> Service {
    let backend = |(to, tracked_count, unreplied_count): &(&str, u64, u64)| {
        let from = vec!["conntrack".to_owned()];
        Backend { from, tracked_count: *tracked_count, unreplied_count: *unreplied_count, ..Backend::new(end(to)) }
    };
    let backends = backends.iter().map(backend).collect();
    Service { proto: Proto::Tcp, vip: end(vip), name: Some("shop/api:http".to_owned()), backends }
}

pub fn backend_dead_passing() -> Scene {
    let mut s = Scene::of("api", 1847, "10.42.2.8:8080");
    for n in 0..30 {
        s.healthy_connection(1000 * n);
    }
    let service = service(VIP, &[(B5, 14, 14), (B6, 22, 0), (B7, 20, 1)]);
    s.services(ServicesReport { services: vec![service], ..ServicesReport::default() });
    s
}

pub fn backend_refused_once() -> Scene {
    let mut s = Scene::of("curl", 1847, VIP);
    for n in 0..22 {
        for (i, backend) in [(0, B5), (1, B6), (2, B7)] {
            let fate = if (n, i) == (10, 0) { Fate::Refused } else { Fate::Works(1) };
            attempt(&mut s, 2000 * n + i, backend, None, fate);
        }
    }
    s
}

/// Both ends of each connection are on this node, and handshakes are slow.
pub fn both_ends() -> Scene {
    let mut s = Scene::of("curl", 1847, VIP);
    for n in 0..12 {
        let seen_as = format!("192.168.0.1:{}", 20_000 + n);
        attempt(&mut s, 2000 * n, "10.244.20.2:8080", Some(&seen_as), Fate::Works(700));
        served(&mut s, 2000 * n + 1, "10.244.20.2:8080", &seen_as);
    }
    s
}

pub fn unreplied() -> Scene {
    let mut s = Scene::of("curl", 1847, VIP);
    for n in 0..6 {
        attempt(&mut s, 4000 * n, B5, None, Fate::GivenUp(2000));
    }
    s
}

pub fn unreplied_once() -> Scene {
    let mut s = Scene::of("api", 1847, DNS_VIP);
    for n in 0..60 {
        query(&mut s, 500 * n, "10.244.0.7:53", Some(2));
    }
    query(&mut s, 12_345, "10.244.0.7:53", None);
    s
}

/// A failed attempt.
pub fn fails(event: &Event) -> bool {
    matches!(&event.payload, Payload::TcpState(c) if c.old == TcpState::SynSent && c.new == TcpState::Close)
}

/// Clients cannot connect, and of their flows there is no entry.
pub fn conntrack_full() -> Scene {
    let mut s = Scene::of("api", 1847, "10.42.2.8:8080");
    for n in 0..10 {
        s.healthy_connection(1000 * n);
    }
    for n in 0..4 {
        let socket = s.socket();
        s.syn(20_000 + 4000 * n, socket).gives_up(22_000 + 4000 * n, socket, 2000);
    }
    s.tracking(|report| {
        let table = &mut report.tables[0];
        table.highest_count = Some(262_144);
        table.difference.extend([("drop".to_owned(), 412), ("early_drop".to_owned(), 3021)]);
    });
    s
}

pub fn conntrack_busy() -> Scene {
    let mut s = Scene::of("api", 1847, "10.42.2.8:8080");
    s.healthy_connection(1000);
    s.tracking(|report| report.tables[0].highest_count = Some(230_000));
    s
}

/// The table could not be read.
pub fn conntrack_unread(mut s: Scene) -> Scene {
    s.tracking(|report| {
        let table = &mut report.tables[0];
        (table.via, table.highest_count) = (None, None);
        (table.start, table.end) = (None, None);
        table.difference.clear();
        table.error = Some("ctnetlink needs CAP_NET_ADMIN, and there is no `/proc/net/nf_conntrack`".to_owned());
    });
    s
}

/// One backend takes so many ms to answer a SYN, the others 1 ms.
pub fn backend_slow(ms: u64) -> Scene {
    let mut s = Scene::of("curl", 1847, VIP);
    for n in 0..10 {
        for (backend, took) in [(B5, ms), (B6, 1), (B7, 1)] {
            attempt(&mut s, 2000 * n, backend, None, Fate::Works(took));
        }
    }
    s
}

pub fn backend_slow_dns() -> Scene {
    let mut s = Scene::of("api", 1847, DNS_VIP);
    for n in 0..10 {
        query(&mut s, 3000 * n, "10.244.0.7:53", Some(800));
        query(&mut s, 3000 * n + 1500, "10.244.0.8:53", Some(2));
    }
    s
}

pub fn slow_backend_s_handshake(event: &Event) -> bool {
    matches!(&event.payload, Payload::TcpState(c) if c.handshake_ns.is_some_and(|ns| ns > 2_000_000))
}

/// A pod is one of the backends of its own service, and is given itself every third time.
fn asks_itself(own: Fate, seen_as: Option<&str>) -> Scene {
    let mut s = Scene::of("api", 1847, VIP);
    for n in 0..5 {
        for (backend, fate) in [("10.42.1.15:8080", own), (B6, Fate::Works(1)), (B7, Fate::Works(1))] {
            attempt(&mut s, 4000 * n, backend, seen_as.filter(|_| backend != B6 && backend != B7), fate);
        }
    }
    s
}

pub fn hairpin() -> Scene {
    asks_itself(Fate::GivenUp(2000), None)
}

pub fn hairpin_masqueraded() -> Scene {
    asks_itself(Fate::Works(1), Some("10.42.1.1:1024"))
}

/// `counter` of the node's table rose by so much.
pub fn rose(mut s: Scene, counter: &str, n: u64) -> Scene {
    let counter = counter.to_owned();
    s.tracking(|report| {
        report.tables[0].difference.insert(counter, n);
    });
    s
}

/// glibc asks for A and AAAA at once; now and then one of both gets no answer, and it asks both again after 5 s.
pub fn two_queries_at_once() -> Scene {
    let mut s = Scene::of("curl", 1847, DNS_VIP);
    for n in 0..12 {
        let (ms, socket) = (4000 * n, s.socket());
        s.query(ms, socket).query(ms + 1, socket).reply(ms + 3, socket);
        if n % 4 == 1 {
            s.query(ms + 5002, socket).reply(ms + 5004, socket).query(ms + 5005, socket).reply(ms + 5007, socket);
        } else {
            s.reply(ms + 4, socket);
        }
        let local = s.local(socket);
        let nat = a_nat("ASSURED", &local, DNS_VIP, "10.244.0.7:53", &local);
        s.push_flow(flow(&s, Proto::Udp, socket, Some(nat)));
    }
    s
}

/// A rule masquerades with ten ports only; of sixteen clients six find none, and their SYNs are dropped.
pub fn ports_used_up() -> Scene {
    let mut s = Scene::of("crawler", 1847, "203.0.113.8:443");
    for n in 0..10 {
        attempt(&mut s, 500 * n, "203.0.113.8:443", Some(&format!("192.0.2.1:{}", 40_000 + n)), Fate::Works(20));
    }
    for n in 0..6 {
        let socket = s.socket();
        happens(&mut s, 10_000 + 3000 * n, socket, Fate::GivenUp(2000));
        s.push_flow(flow(&s, Proto::Tcp, socket, None));
    }
    rose(s, "insert_failed", 6)
}

/// The same ten flows, and nobody is without a port.
pub fn ports_side_by_side() -> Scene {
    let mut s = Scene::of("crawler", 1847, "203.0.113.8:443");
    for n in 0..10 {
        attempt(&mut s, 500 * n, "203.0.113.8:443", Some(&format!("192.0.2.1:{}", 40_000 + n)), Fate::Works(20));
    }
    s
}
