//! The table of cases about translation and connection tracking; see `cases.rs`.

use crate::cases::{Case, Expect, healthy, top, unjudged};
use crate::nat_stories::*;
use crate::scene::Scene;

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
        expect: Expect::Top {
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
    Case {
        name: "nat-backend-slow",
        story: "One of three backends of a VIP is behind a queue: handshakes with it take 180 ms, with the others 1 ms.",
        build: || backend_slow(180),
        expect: top(
            "nat.backend_slow",
            "warning",
            1847,
            VIP,
            "waits 180 ms for backend 10.244.1.5:8080 of VIP 10.96.0.80:80 (median of 10 handshakes); 10.244.1.6:8080: 1.00 ms, 10.244.1.7:8080: 1.00 ms",
        ),
    },
    Case {
        name: "nat-backend-slow-dns",
        story: "One of two DNS servers behind a VIP takes 800 ms for each answer. That half of all answers are slow is a symptom.",
        build: backend_slow_dns,
        expect: top(
            "nat.backend_slow",
            "warning",
            1847,
            DNS_VIP,
            "for backend 10.244.0.7:53 of VIP 10.96.0.10:53 (median of 10 replies); 10.244.0.8:53: 2.90 ms",
        ),
    },
    Case {
        name: "nat-backend-farther",
        story: "One of three backends is in another zone: its handshakes take 12 ms, those of the others 1 ms.",
        build: || backend_slow(12),
        expect: healthy("nat.backend_slow"),
    },
    Case {
        name: "nat-backend-slow-lossy",
        story: "The slow backend again, but its handshakes are not in the bundle.",
        build: || backend_slow(180).losing(slow_backend_s_handshake),
        expect: unjudged("nat.backend_slow"),
    },
    Case {
        name: "nat-hairpin",
        story: "A pod asks its own service. Whenever it is given itself, nothing masquerades the connection, and it times out; with the other two backends it works.",
        build: hairpin,
        expect: top(
            "nat.hairpin",
            "critical",
            1847,
            VIP,
            "gets no answer from VIP 10.96.0.80:80 when it is given itself as the backend 10.42.1.15:8080: 0 of 5 attempts answered",
        ),
    },
    Case {
        name: "nat-hairpin-masqueraded",
        story: "A pod asks its own service, is given itself every third time, and that is masqueraded: it works.",
        build: hairpin_masqueraded,
        expect: healthy("nat.hairpin"),
    },
    Case {
        name: "nat-hairpin-lossy",
        story: "The pod that cannot reach itself again, but what became of the attempts is not in the bundle.",
        build: || hairpin().losing(fails),
        expect: unjudged("nat.hairpin"),
    },
    Case {
        name: "dns-conntrack-race",
        story: "glibc sends A and AAAA at once through a VIP. Three times connection tracking drops one of both, which its counters show, and the lookup takes 5 s.",
        build: || rose(two_queries_at_once(), "insert_failed", 3),
        expect: top(
            "dns.conntrack_race",
            "warning",
            1847,
            DNS_VIP,
            "waits 5.00 s in 3 lookups at VIP 10.96.0.10:53: one of two queries sent at once is dropped by connection tracking, whose `insert_failed` rose by 3",
        ),
    },
    Case {
        name: "dns-conntrack-no-race",
        story: "glibc sends A and AAAA at once through a VIP, and both are answered, while connection tracking dropped a packet of somebody else.",
        build: || {
            let mut s = Scene::of("curl", 1847, DNS_VIP);
            (0..20).for_each(|n| {
                query(&mut s, 2000 * n, "10.244.0.7:53", Some(2));
            });
            rose(s, "insert_failed", 1)
        },
        expect: healthy("dns.conntrack_race"),
    },
    Case {
        name: "dns-conntrack-race-uncounted",
        story: "The lookups that take 5 s again, but the counters did not rise: the packets were lost elsewhere.",
        build: two_queries_at_once,
        expect: top(
            "dns.no_reply",
            "warning",
            1847,
            DNS_VIP,
            "misses replies from the DNS server 10.96.0.10:53: 3 of 30 queries",
        ),
    },
    Case {
        name: "dns-conntrack-race-lossy",
        story: "The lookups that take 5 s again, but nobody could read the counters.",
        build: || conntrack_unread(two_queries_at_once()),
        expect: unjudged("dns.conntrack_race"),
    },
    Case {
        name: "nat-port-exhaustion",
        story: "A rule masquerades with ten ports. Ten connections to one destination hold them all; six more are dropped without an entry, and `insert_failed` rises.",
        build: ports_used_up,
        expect: top(
            "nat.port_exhaustion",
            "critical",
            1847,
            "203.0.113.8:443",
            "192.0.2.1 has used 10 of 10 source ports for the flows of `crawler` (pid 1847) to 203.0.113.8:443; 6 attempts got no port and no answer",
        ),
    },
    Case {
        name: "nat-ports-side-by-side",
        story: "Ten connections to one destination leave with ten ports side by side, and all of them work.",
        build: ports_side_by_side,
        expect: healthy("nat.port_exhaustion"),
    },
    Case {
        name: "nat-port-exhaustion-lossy",
        story: "The ten ports again, but what became of the attempts without one is not in the bundle.",
        build: || ports_used_up().losing(fails),
        expect: unjudged("nat.port_exhaustion"),
    },
    Case {
        name: "conntrack-insert-failed",
        story: "Connection tracking drops two packets of new flows a second, in a table with room.",
        build: || rose(conntrack_busy(), "insert_failed", 130),
        expect: Expect::Top {
            rule: "conntrack.insert_failed",
            severity: "warning",
            pid: 0,
            remote: None,
            title: "the node's table of connection tracking lost packets of new flows: `insert_failed` rose by 130 in 60.0 s",
        },
    },
    Case {
        name: "conntrack-insert-failed-not",
        story: "Packets that belong to no flow are counted as invalid. That happens.",
        build: || rose(conntrack_busy(), "invalid", 130),
        expect: healthy("conntrack.insert_failed"),
    },
    Case {
        name: "conntrack-insert-failed-lossy",
        story: "The dropped packets again, but nobody could read the counters.",
        build: || conntrack_unread(rose(conntrack_busy(), "insert_failed", 130)),
        expect: unjudged("conntrack.insert_failed"),
    },
];
