//! What happened in each case of `pattern_cases.rs`: one end, or one client, compared with the others.

use ktrace_bundle::event::{PacketDir, Proto, Role, TcpClose, When};
use ktrace_bundle::line::parse_endpoint;
use ktrace_bundle::node::{Item, Listener, Sockets};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{a_socket, in_network};

use crate::cases::{DNS, WEB};
use crate::node_stories::{both, own_netns};
use crate::scene::Scene;

/// `api` connects four times to each of five databases; `fails(end, attempt)` says which attempts time out.
pub fn five_databases(attempts: u64, error: &str, fails: impl Fn(u64, u64) -> bool) -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..attempts {
        for end in 1..=5 {
            s.now_to(&format!("10.42.2.{end}:5432"));
            let ms = 1000 * n + 50 * end;
            if fails(end, n) {
                let socket = s.socket();
                s.syn(ms, socket).fails_with(ms + 900, socket, error);
            } else {
                s.healthy_connection(ms);
            }
        }
    }
    s
}

/// Two programs need a service each on 10.42.7.7, where nothing answers; two other addresses do.
pub fn dead_machine() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..4 {
        let ms = 2000 * n;
        for (comm, pid, port) in [("api", 1847, 5432), ("worker", 1900, 6379)] {
            s.now_by(comm, pid).now_to(&format!("10.42.7.7:{port}"));
            let socket = s.socket();
            s.syn(ms, socket).syn_again(ms + 1000, socket).fails_with(ms + 3000, socket, "ETIMEDOUT");
            s.now_to(WEB).healthy_connection(ms + 10).now_to("10.42.2.9:8080").healthy_connection(ms + 20);
        }
    }
    s
}

/// Two programs try an IPv6 address that goes nowhere beside an IPv4 address that works, and take the latter.
pub fn families_race() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..4 {
        let ms = 1000 * n;
        for (comm, pid, port) in [("api", 1847, 5432), ("worker", 1900, 6379)] {
            s.now_by(comm, pid).now_to(&format!("[fd00::7]:{port}"));
            let loser = s.socket();
            s.syn(ms, loser);
            s.now_to(&format!("10.42.2.8:{port}"));
            let winner = s.socket();
            s.syn(ms + 50, winner).established(ms + 52, winner, 2);
            s.now_to(&format!("[fd00::7]:{port}")).gives_up(ms + 53, loser, 53);
            s.now_to(&format!("10.42.2.8:{port}")).closes(ms + 300, winner, 12, 0, 900);
        }
        s.now_to("10.42.2.9:8080").healthy_connection(ms + 20).now_to("10.42.2.10:8080").healthy_connection(ms + 30);
    }
    s
}

/// So many refused attempts, `each_ms` apart.
pub fn refused_again_and_again(n: u64, each_ms: u64) -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for i in 0..n {
        let socket = s.socket();
        s.syn(each_ms * i, socket).fails_with(each_ms * i, socket, "ECONNREFUSED");
    }
    s
}

/// A connection each `each_ms`, `n` of them; who closes first leaves by `FIN_WAIT2`.
pub fn short_connections(n: u64, each_ms: u64) -> Scene {
    let mut s = Scene::of("php", 1847, WEB);
    for i in 0..n {
        let (ms, socket) = (each_ms * i, s.socket());
        s.syn(ms, socket).established(ms + 1, socket, 1);
        let closed = s.event((ms + 9) * 1000, socket).closed(TcpState::FinWait2, TcpClose::default()).build();
        s.push(closed);
    }
    s
}

/// Of ten connections, 10 s long each, so many end in this state with this error.
pub fn ends_with(lost: u64, from: TcpState, error: &str) -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..10 {
        let (ms, socket) = (3000 * n, s.socket());
        s.syn(ms, socket).established(ms + 1, socket, 1);
        if n < lost {
            let account = TcpClose { tx_bytes: Some(900), rx_bytes: Some(0), ..TcpClose::default() };
            let end = s.event((ms + 10_000) * 1000, socket).closed(from, account).error(error).build();
            s.push(end);
        } else {
            s.closes(ms + 10_000, socket, 12, 0, 900);
        }
    }
    s
}

/// A proxy takes connections from its pool that the server has closed after 5 s: so many of ten.
pub fn late_requests(n: u64) -> Scene {
    let mut s = Scene::of("proxy", 1847, WEB);
    for i in 0..10 {
        let (ms, socket) = (2000 * i, s.socket());
        s.syn(ms, socket).established(ms + 1, socket, 1);
        let at = |after: u64| s.event((ms + after) * 1000, socket);
        let closed = at(5001).tcp_state(TcpState::Established, TcpState::CloseWait).build();
        if i < n {
            let reset = at(7000).tcp_reset(PacketDir::Received, Some(TcpState::CloseWait)).build();
            let end = at(7001).closed(TcpState::CloseWait, TcpClose::default()).error("EPIPE").build();
            s.push(closed).push(reset).push(end);
        } else {
            s.push(closed).closes(ms + 5003, socket, 12, 0, 900);
        }
    }
    s
}

/// Three programs ask the first DNS server, which answers none of them, and then the second, which does.
pub fn dead_dns_server() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for (comm, pid) in [("api", 1847), ("web", 1900), ("cron", 1950)] {
        s.now_by(comm, pid);
        for n in 0..3 {
            let (ms, socket) = (11_000 * n, s.socket());
            s.now_to(DNS).query(ms, socket);
            s.now_to("10.96.0.11:53").query(ms + 5000, socket).reply(ms + 5002, socket);
        }
    }
    s
}

/// Two programs ask both DNS servers at once, and the same one is always faster.
pub fn parallel_resolvers() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for (comm, pid) in [("api", 1847), ("web", 1900)] {
        s.now_by(comm, pid);
        for n in 0..6 {
            let (ms, socket) = (2000 * n, s.socket());
            s.now_to("10.96.0.11:53").query(ms, socket);
            s.now_to(DNS).query(ms, socket).reply(ms + 2, socket);
        }
    }
    s
}

/// Three programs ask one DNS server ten times each; `api` waits so long.
pub fn three_clients(api_ms: u64) -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for (comm, pid, wait) in [("api", 1847, api_ms), ("web", 1900, 3), ("cron", 1950, 4)] {
        s.now_by(comm, pid);
        (0..10).for_each(|n| _ = s.lookup(2000 * n, wait));
    }
    s
}

/// Of thirty lookups so many are asked again after 5 s.
pub fn asked_again(n: u64) -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for i in 0..30 {
        let (ms, socket) = (1500 * i, s.socket());
        if i < n {
            s.query(ms, socket).query(ms + 5005, socket).reply(ms + 5007, socket);
        } else {
            s.query(ms, socket).reply(ms + 2, socket);
        }
    }
    s
}

/// A listener with so many connections that wait, at both looks, where 64 may.
pub fn waiting(start: u64, end: u64) -> Scene {
    let mut s = Scene::of("slow", 71, "*");
    let listening = a_socket().by("slow", 71).from("*:8080").to("*").role(Role::Listener).at_start();
    s.push_socket(listening.with(|s| s.state = Some(TcpState::Listen)).build());
    let listener = |accept_queue| {
        let local = parse_endpoint("*:8080");
        Item::Listener(Listener { local, socket: 9, accept_queue, backlog: 64, drop_count: Some(0), rose: None })
    };
    s.node(own_netns()).node(both(&Item::Sockets(Sockets::default()), in_network));
    s.node([in_network(When::Start, listener(start)), in_network(When::End, listener(end))]);
    s
}

/// Of this many new connections `wrk` makes the share that is given, per hundred.
pub fn talkers(n: u64, per_100: u64) -> Scene {
    let mut s = Scene::of("wrk", 1847, WEB);
    for i in 0..n {
        let is_most = i % 100 < per_100;
        if is_most {
            s.now_by("wrk", 1847)
        } else {
            s.now_by("cron", 1900)
        };
        let socket = s.socket();
        s.syn(100 * i, socket).established(100 * i + 1, socket, 1);
    }
    s
}

/// What a router of this node throws away of two programs' attempts to reach the same address.
pub fn dead_machine_by_policy() -> Scene {
    let mut s = dead_machine();
    let mut socket = 1000;
    for n in 0..4 {
        for (comm, pid, port) in [("api", 1847, 5432), ("worker", 1900, 6379)] {
            socket += 1;
            s.now_by(comm, pid).now_to(&format!("10.42.7.7:{port}"));
            s.drops(2000 * n, socket, Proto::Tcp, PacketDir::Sent, "NETFILTER_DROP", 3);
            socket += 2;
        }
    }
    s
}
