//! The table of cases about packets that the kernel threw away; see `cases.rs`.

use ktrace_bundle::event::EventKind;

use crate::cases::{Case, DNS, Expect, WEB, healthy, top, unjudged};
use crate::drop_stories::*;
use crate::nat_stories::VIP;
use crate::scene::{Scene, is_drop};
use crate::stories::unreachable_ipv6_first;

pub const DROP_CASES: &[Case] = &[
    Case {
        name: "policy-egress",
        story: "A rule on the way out drops what `api` sends to one destination: SYNs are sent three times, and the process gives up.",
        build: policy_egress,
        expect: top(
            "policy.drop",
            "critical",
            1847,
            WEB,
            "gets nothing through to 10.42.2.8:8080: netfilter drops its packets in the node's network namespace, 12 packets of 4 of 4 attempts",
        ),
    },
    Case {
        name: "policy-behind-vip",
        story: "The SYNs to a VIP are translated and then dropped on their way through the node, so connection tracking keeps no entry of them: what stands behind the VIP is known by the rules.",
        build: policy_behind_vip,
        expect: top(
            "policy.drop",
            "critical",
            1847,
            VIP,
            "gets nothing through to 10.96.0.80:80: netfilter drops its packets in the node's network namespace",
        ),
    },
    Case {
        name: "policy-dns-answers",
        story: "A BPF program of the cgroup drops the answers to every second lookup.",
        build: policy_dns_answers,
        expect: top(
            "policy.drop",
            "warning",
            1847,
            DNS,
            "does not always get through to 10.96.0.10:53: a filter of the receiving socket, or a BPF program of its cgroup, drops the answers in the node's network namespace, 10 packets of 10 of 20 queries",
        ),
    },
    Case {
        name: "policy-mid-stream",
        story: "A rule is added while a connection stands: its data is sent again and again.",
        build: policy_mid_stream,
        expect: top("policy.drop", "warning", 1847, WEB, "6 packets of 1 connection"),
    },
    Case {
        name: "policy-late-packets",
        story: "Healthy connections; a rule drops the last packet of each, which connection tracking does not know any more. That happens.",
        build: policy_late_packets,
        expect: healthy("policy.drop"),
    },
    Case {
        name: "policy-strangers",
        story: "A host firewall drops what a scanner sends to the ports of this node.",
        build: policy_strangers,
        expect: Expect::Healthy { clear: None },
    },
    Case {
        name: "policy-egress-lossy",
        story: "The rule on the way out again, but the drops are not in the bundle.",
        build: || policy_egress().losing(is_drop),
        expect: unjudged("policy.drop"),
    },
    Case {
        name: "policy-without-drops",
        story: "Lookups of a healthy `api`, on a kernel that does not say what it drops.",
        build: || without_hook(Scene::of("api", 1847, DNS), "drop"),
        expect: unjudged("policy.drop"),
    },
    Case {
        name: "rp-filter-asymmetric",
        story: "The SYN-ACKs of a server come back by another interface than the one that the route to it names, and reverse path filtering drops them.",
        build: rp_filter,
        expect: top(
            "net.rp_filter",
            "critical",
            1847,
            WEB,
            "gets no answer from 10.42.2.8:8080: reverse path filtering drops the answers in the node's network namespace, 8 packets of 4 of 4 attempts",
        ),
    },
    Case {
        name: "rp-filter-forged",
        story: "Healthy connections, while packets with forged senders arrive, each from another one.",
        build: rp_filter_forged,
        expect: Expect::Healthy { clear: None },
    },
    Case {
        name: "rp-filter-asymmetric-lossy",
        story: "The answers by another interface again, but the drops are not in the bundle.",
        build: || rp_filter().losing(is_drop),
        expect: unjudged("net.rp_filter"),
    },
    Case {
        name: "neighbour-dead",
        story: "A host of the same network is switched off: nobody answers for its address, and after 3 s each attempt fails with EHOSTUNREACH.",
        build: neighbour_dead,
        expect: top(
            "net.neighbour_failed",
            "critical",
            1847,
            WEB,
            "cannot reach 10.42.2.8:8080: the next hop of its packets does not answer in the node's network namespace, 8 packets of 4 of 4 attempts",
        ),
    },
    Case {
        name: "neighbour-burst",
        story: "A burst of datagrams while the neighbour was being asked: some do not fit into the queue, the others are answered.",
        build: neighbour_burst,
        expect: healthy("net.neighbour_failed"),
    },
    Case {
        name: "neighbour-dead-lossy",
        story: "The host that is switched off again, but the drops are not in the bundle.",
        build: || neighbour_dead().losing(is_drop),
        expect: unjudged("net.neighbour_failed"),
    },
    Case {
        name: "no-route-here",
        story: "The default route is gone: each connect(2) fails at once with ENETUNREACH.",
        build: no_route_here,
        expect: top(
            "net.no_route",
            "critical",
            1847,
            WEB,
            "has no route to 10.42.2.8:8080: 4 of 4 attempts failed with `ENETUNREACH`",
        ),
    },
    Case {
        name: "no-route-forwarded",
        story: "A pod's SYNs leave it, and the node has no route for them: it drops them and says so by ICMP.",
        build: no_route_forwarded,
        expect: top(
            "net.no_route",
            "critical",
            1847,
            WEB,
            "cannot reach 10.42.2.8:8080: network namespace 4026531840 has no route for its packets, 4 packets of 4 of 4 attempts",
        ),
    },
    Case {
        name: "no-route-dns",
        story: "The queries of `api` cannot be sent: there is no route to its DNS server.",
        build: no_route_dns,
        expect: top(
            "net.no_route",
            "critical",
            1847,
            DNS,
            "has no route to 10.96.0.10:53: 6 of 6 queries failed with `ENETUNREACH`",
        ),
    },
    Case {
        name: "no-route-ipv6",
        story: "A name has IPv6 and IPv4 addresses, and this machine has no IPv6 route. IPv4 works at once.",
        build: unreachable_ipv6_first,
        expect: healthy("net.no_route"),
    },
    Case {
        name: "no-route-here-lossy",
        story: "The default route that is gone again, but what the connects returned is not in the bundle.",
        build: || no_route_here().losing(|e| e.payload.kind() == EventKind::Connect),
        expect: unjudged("net.no_route"),
    },
    Case {
        name: "policy-rule",
        story: "The rule on the way out again, and the node's rules were read: of those that drop there, one counted as much.",
        build: policy_rule,
        expect: top(
            "policy.drop",
            "critical",
            1847,
            WEB,
            "netfilter drops its packets in the node's network namespace",
        ),
    },
    Case {
        name: "policy-rule-alone",
        story: "The counter of a rule that drops rises, and nobody watched what is dropped.",
        build: policy_rule_alone,
        expect: Expect::Top {
            rule: "policy.counter",
            severity: "info",
            pid: 1,
            remote: None,
            title: "dropped 77 packets, it is not known whose: `ct state invalid counter drop`",
        },
    },
    Case {
        name: "policy-rule-alone-unjudged",
        story: "The same: what was dropped was not watched, so nobody knows whether it was a process's.",
        build: policy_rule_alone,
        expect: unjudged("policy.drop"),
    },
    Case {
        name: "policy-rule-watched",
        story: "The counter of a rule that drops rises, and the packets that were dropped were watched: they are nobody's here.",
        build: policy_rule_watched,
        expect: healthy("policy.counter"),
    },
    Case {
        name: "policy-rule-unread",
        story: "Nobody watched what is dropped, and nobody could read the rules.",
        build: policy_rule_unread,
        expect: unjudged("policy.counter"),
    },
];
