//! What happened in each case about drops, event by event.

use ktrace_bundle::event::{PacketDir, Proto, RetransmitKind, When};
use ktrace_bundle::manifest::HookOutcome;
use ktrace_bundle::node::{Filter, Item, NodeRecord};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::in_network;
use ktrace_bundle::tracking::ServicesReport;
use ktrace_bundle::why::Reason;

use crate::cases::{DNS, WEB};
use crate::nat_stories::{B5, VIP, service};
use crate::node_stories::own_netns;
use crate::node_stories::without;
use crate::scene::Scene;

/// A capture of a kernel that has nothing to attach this hook to.
pub fn without_hook(mut s: Scene, name: &'static str) -> Scene {
    s.manifest(move |m| {
        for hook in m.head.hooks.iter_mut().filter(|h| h.name == name) {
            (hook.outcome, hook.variant, hook.attached_after_ns) = (HookOutcome::Unsupported, None, None);
        }
    });
    s
}

/// An attempt whose three SYNs are dropped for this reason, as long as the process has patience.
pub fn syns_dropped(s: &mut Scene, ms: u64, dir: PacketDir, reason: &str) {
    let socket = s.socket();
    s.syn(ms, socket).drops(ms, socket, Proto::Tcp, dir, reason, 1);
    for after in [1000, 3000] {
        s.syn_again(ms + after, socket).drops(ms + after, socket, Proto::Tcp, dir, reason, 1);
    }
    s.gives_up(ms + 5000, socket, 5000);
}

pub fn policy_egress() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..4 {
        syns_dropped(&mut s, 6000 * n, PacketDir::Sent, "NETFILTER_DROP");
    }
    s
}

pub fn policy_behind_vip() -> Scene {
    let mut s = Scene::of("curl", 1847, VIP);
    for n in 0..4 {
        let socket = s.socket();
        s.syn(6000 * n, socket).syn_again(6000 * n + 1000, socket).gives_up(6000 * n + 2000, socket, 2000);
        s.now_to(B5).drops(6000 * n + 1000, socket, Proto::Tcp, PacketDir::Forwarded, "NETFILTER_DROP", 2).now_to(VIP);
    }
    s.services(ServicesReport { services: vec![service(VIP, &[(B5, 0, 0)])], ..ServicesReport::default() });
    s
}

pub fn policy_dns_answers() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for n in 0..10 {
        s.lookup(2000 * n, 3);
        let socket = s.socket();
        s.query(2000 * n + 1000, socket);
        s.drops(2000 * n + 1003, socket, Proto::Udp, PacketDir::Received, "SOCKET_FILTER", 1);
    }
    s
}

pub fn policy_mid_stream() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    (0..8).for_each(|n| _ = s.healthy_connection(1000 * n));
    let socket = s.socket();
    s.syn(10_000, socket).established(10_001, socket, 1);
    for ms in [20_000, 20_200, 20_600, 21_400, 23_000, 26_200] {
        let again = s.event(ms * 1000, socket).tcp_retransmit(RetransmitKind::Data, TcpState::Established).build();
        s.push(again).drops(ms, socket, Proto::Tcp, PacketDir::Sent, "NETFILTER_DROP", 1);
    }
    s
}

pub fn policy_late_packets() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..12 {
        s.healthy_connection(1000 * n);
        let socket = s.last_socket();
        s.drops(1000 * n + 31, socket, Proto::Tcp, PacketDir::Received, "NETFILTER_DROP", 1);
    }
    s
}

pub fn policy_strangers() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    (0..8).for_each(|n| _ = s.healthy_connection(1000 * n));
    for n in 0..20 {
        let guest = format!("203.0.113.9:{}", 50_000 + n);
        let at = s.event(1_000_000 * n, 0).from(&format!("10.42.1.15:{}", 20 + n)).to(&guest);
        let drop = at.unowned(Reason::NotFound).dropped(Proto::Tcp, PacketDir::Received, "NETFILTER_DROP", 2);
        s.push(drop.build());
    }
    s
}

pub fn rp_filter() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..4 {
        let (ms, socket) = (4000 * n, s.socket());
        s.syn(ms, socket).syn_again(ms + 1000, socket).gives_up(ms + 2000, socket, 2000);
        for at in [ms + 1, ms + 1001] {
            s.drops(at, socket, Proto::Tcp, PacketDir::Received, "IP_RPFILTER", 1);
        }
    }
    s
}

pub fn rp_filter_forged() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    (0..8).for_each(|n| _ = s.healthy_connection(1000 * n));
    for n in 0..20 {
        let forged = format!("192.0.2.{n}:{}", 50_000 + n);
        let at = s.event(1_000_000 * n, 0).to(&forged).unowned(Reason::NotFound);
        s.push(at.dropped(Proto::Tcp, PacketDir::Received, "IP_RPFILTER", 1).build());
    }
    s
}

pub fn neighbour_dead() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..4 {
        let (ms, socket) = (5000 * n, s.socket());
        s.syn(ms, socket).syn_again(ms + 1000, socket).fails_with(ms + 3070, socket, "EHOSTUNREACH");
        s.drops(ms + 3070, socket, Proto::Tcp, PacketDir::Sent, "NEIGH_FAILED", 2);
    }
    s
}

pub fn neighbour_burst() -> Scene {
    let mut s = Scene::of("statsd", 1847, "10.42.1.99:8125");
    let socket = s.socket();
    for n in 0..120 {
        s.query(n, socket);
    }
    s.drops(119, socket, Proto::Udp, PacketDir::Sent, "NEIGH_QUEUEFULL", 19);
    (0..101).for_each(|n| _ = s.reply(200 + n, socket));
    s
}

pub fn no_route_here() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..4 {
        let socket = s.socket();
        let failed = s.event(5_000_000 * n, socket).connect().error("ENETUNREACH").build();
        s.push(failed);
    }
    s
}

pub fn no_route_forwarded() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..4 {
        let (ms, socket) = (5000 * n, s.socket());
        let at = s.event(1000 * ms + 40, socket).netns(4_026_531_840).unowned(Reason::NotFound);
        let drop = at.dropped(Proto::Tcp, PacketDir::Forwarded, "IP_INNOROUTES", 1).build();
        s.syn(ms, socket).push(drop).fails_with(ms + 1, socket, "ENETUNREACH");
    }
    s
}

pub fn no_route_dns() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for n in 0..6 {
        let socket = s.socket();
        let failed = s.event(1_000_000 * n, socket).udp_send().error("ENETUNREACH").build();
        s.push(failed);
    }
    s
}

/// Rules of the node's packet filter: one that drops by port, one that drops what is of no flow, one that lets pass.
fn rules(dropped: u64) -> Vec<NodeRecord> {
    let rule = |number, verdict: &str, text: &str, packets, rose| Filter {
        tool: "nftables".to_owned(),
        family: "inet".to_owned(),
        table: "host".to_owned(),
        chain: "out".to_owned(),
        hook: Some("output".to_owned()),
        number: Some(number),
        verdict: verdict.to_owned(),
        text: text.to_owned(),
        packets: Some(packets),
        rose,
    };
    let look = |when, rose: bool| {
        let rules = [
            rule(4, "drop", "tcp dport 8080 counter drop", dropped, rose.then_some(dropped)),
            rule(5, "drop", "ct state invalid counter drop", 977, rose.then_some(77)),
            rule(6, "accept", "counter accept", 9000, rose.then_some(900)),
        ];
        rules.map(|rule| in_network(when, Item::Filter(rule)))
    };
    let rules = [look(When::Start, false), look(When::End, true)].into_iter().flatten();
    own_netns().into_iter().chain(rules).collect()
}

pub fn policy_rule() -> Scene {
    let mut s = policy_egress();
    s.node(rules(12));
    s
}

/// Lookups of a healthy `api`, while a rule drops what is nobody's.
pub fn policy_rule_watched() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    s.lookup(1000, 3).node(rules(12));
    s
}

/// Drops were not to be watched.
fn unwatched(mut s: Scene) -> Scene {
    s.manifest(|m| {
        for hook in m.head.hooks.iter_mut().filter(|h| h.name == "drop") {
            (hook.outcome, hook.variant, hook.attached_after_ns) = (HookOutcome::NotRequested, None, None);
        }
    });
    s
}

pub fn policy_rule_alone() -> Scene {
    unwatched(policy_rule_watched())
}

pub fn policy_rule_unread() -> Scene {
    unwatched(without("nft"))
}
