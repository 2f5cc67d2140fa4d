//! The table of cases about translation and connection tracking; see `cases.rs`.

use crate::cases::{Case, healthy, top, unjudged};
use crate::nat_stories::*;

pub const NAT_CASES: &[Case] = &[
    Case {
        name: "nat-backend-dead",
        story: "A VIP stands for three backends. One of them is gone: SYNs to it stay without an answer, and the client gives up after 1 s each time.",
        build: backend_dead,
        expect: top(
            "nat.backend_dead",
            "critical",
            1847,
            VIP,
            "gets no answer from backend 10.244.1.5:8080 of VIP 10.96.0.80:80 (shop/api:http): 0 of 14 attempts answered; 10.244.1.6:8080: 22 of 22, 10.244.1.7:8080: 20 of 20",
        ),
    },
    Case {
        name: "nat-backend-dead-masqueraded",
        story: "Two VIPs stand for the same two backends, and the node masquerades. On one backend nothing listens any more: it is one finding that names both VIPs.",
        build: backend_dead_masqueraded,
        expect: top(
            "nat.backend_dead",
            "critical",
            1847,
            VIP,
            "is turned down by backend 10.244.1.5:8080 of VIP 10.96.0.80:80 and VIP 10.96.0.81:80: 0 of 12 attempts answered; 10.244.1.6:8080: 12 of 12",
        ),
    },
    Case {
        name: "nat-backend-dead-by-socket",
        story: "The same without DNAT: a program in the kernel sends the socket to a backend, and the call says what was asked.",
        build: backend_dead_by_socket,
        expect: top(
            "nat.backend_dead",
            "critical",
            1847,
            B5,
            "gets no answer from backend 10.244.1.5:8080 of VIP 10.96.0.80:80: 0 of 8 attempts answered; 10.244.1.6:8080: 8 of 8, 10.244.1.7:8080: 8 of 8",
        ),
    },
    Case {
        name: "nat-backend-dead-dns",
        story: "The address of the cluster's DNS stands for two servers, and one of them is dead: every second lookup fails.",
        build: backend_dead_dns,
        expect: top(
            "nat.backend_dead",
            "critical",
            1847,
            DNS_VIP,
            "gets no answer from backend 10.244.0.7:53 of VIP 10.96.0.10:53: 0 of 10 queries answered; 10.244.0.8:53: 10 of 10",
        ),
    },
    Case {
        name: "nat-backend-dead-passing",
        story: "No client of this node asks the VIP, but the packets of others pass it: connection tracking saw no answer of one of three backends.",
        build: backend_dead_passing,
        expect: top(
            "nat.backend_dead",
            "critical",
            0,
            VIP,
            "backend 10.244.1.5:8080 of VIP 10.96.0.80:80 (shop/api:http) does not answer what passes this node: 0 of 14 flows answered; 10.244.1.6:8080: 22 of 22, 10.244.1.7:8080: 19 of 20",
        ),
    },
    Case {
        name: "nat-backend-refused-once",
        story: "A VIP with three healthy backends; a single attempt of sixty-six is refused. That happens.",
        build: backend_refused_once,
        expect: healthy("nat.backend_dead"),
    },
    Case {
        name: "nat-backend-dead-lossy",
        story: "The dead backend again, but what became of the attempts is not in the bundle.",
        build: || backend_dead().losing(fails),
        expect: unjudged("nat.backend_dead"),
    },
    Case {
        name: "nat-both-ends",
        story: "Client and server are both on this node, behind a VIP and a masquerade. Handshakes are slow, and the finding tells who is at the other end.",
        build: both_ends,
        expect: top(
            "connect.slow",
            "warning",
            1847,
            VIP,
            "connects slowly to 10.96.0.80:80: 12 of 12 handshakes took 500 ms or longer",
        ),
    },
    Case {
        name: "nat-unreplied",
        story: "The only backend of a VIP is gone: SYNs are translated, and nothing comes back.",
        build: unreplied,
        expect: top(
            "nat.unreplied",
            "critical",
            1847,
            VIP,
            "gets no answer from VIP 10.96.0.80:80: 6 of 6 attempts were translated to 10.244.1.5:8080 and nothing came back",
        ),
    },
    Case {
        name: "nat-unreplied-once",
        story: "One lookup of sixty-one stays without a reply. That happens.",
        build: unreplied_once,
        expect: healthy("nat.unreplied"),
    },
    Case {
        name: "nat-unreplied-lossy",
        story: "The backend that is gone again, but what became of the attempts is not in the bundle.",
        build: || unreplied().losing(fails),
        expect: unjudged("nat.unreplied"),
    },
    Case {
        name: "conntrack-full",
        story: "The node's table of connection tracking is full. New connections of `api` time out, and there is no entry of them.",
        build: conntrack_full,
        expect: crate::cases::Expect::Top {
            rule: "conntrack.full",
            severity: "critical",
            pid: 0,
            remote: None,
            title: "the node's table of connection tracking is full: 262144 of 262144 entries, and `drop` rose by 412, `early_drop` rose by 3021",
        },
    },
    Case {
        name: "conntrack-busy",
        story: "The node's table of connection tracking holds 230,000 of 262,144 entries.",
        build: conntrack_busy,
        expect: healthy("conntrack.full"),
    },
    Case {
        name: "conntrack-full-lossy",
        story: "The full table again, but nothing was allowed to read it.",
        build: || conntrack_unread(conntrack_full()),
        expect: unjudged("conntrack.full"),
    },
];
