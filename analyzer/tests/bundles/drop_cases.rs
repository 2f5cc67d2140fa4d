//! The table of cases about packets that the kernel threw away; see `cases.rs`.

use crate::cases::{Case, DNS, Expect, WEB, healthy, top, unjudged};
use crate::drop_stories::*;
use crate::nat_stories::VIP;
use crate::scene::{Scene, is_drop};

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
];
