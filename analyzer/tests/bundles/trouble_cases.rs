//! The table of cases about connections in trouble: turned away, cut off, or waiting; see `cases.rs`.

use ktrace_bundle::event::EventKind;

use crate::cases::{Case, Expect, WEB, healthy, top, unjudged};
use crate::trouble_stories::*;

pub const TROUBLE_CASES: &[Case] = &[
    Case {
        name: "listen-overflow",
        story: "A server accepts too slowly. Its queue is full, and a client of the same node waits for its second or third SYN, or gives up.",
        build: listen_overflow,
        expect: Expect::Top {
            rule: "tcp.listen_overflow",
            severity: "critical",
            pid: 71,
            remote: None,
            title: "`slow-accept` (pid 71) turns connections to *:8080 away: 36 segments of handshakes were dropped for want of room, 129 waited to be accepted where 128 may",
        },
    },
    Case {
        name: "listen-overflow-elsewhere",
        story: "The same without any client on this node.",
        build: || overflowing(12, 3),
        expect: Expect::Top {
            rule: "tcp.listen_overflow",
            severity: "warning",
            pid: 71,
            remote: None,
            title: "36 segments",
        },
    },
    Case {
        name: "listen-overflow-once",
        story: "Once in a minute a single SYN finds no room.",
        build: || overflowing(1, 1),
        expect: Expect::Healthy { clear: None },
    },
    Case {
        name: "listen-slow-handshakes",
        story: "Handshakes with a server far away take 280 ms; nobody's queue is full.",
        build: crate::stories::connect_far_away,
        expect: healthy("tcp.listen_overflow"),
    },
    Case {
        name: "listen-overflow-lossy",
        story: "The full queue again, but what tells of it is not in the bundle.",
        build: || listen_overflow().losing(|e| e.payload.kind() == EventKind::ListenOverflow),
        expect: unjudged("tcp.listen_overflow"),
    },
    Case {
        name: "reset-idle-timeout",
        story: "Something on the way forgets connections after 30 s without data: each of the client's next requests is answered with a reset.",
        build: || cut_off(5, 30_000, 30_400),
        expect: top(
            "tcp.reset_by_peer",
            "warning",
            1847,
            WEB,
            "is cut off by 10.42.2.8:8080: 5 of 5 connections ended with a reset of the other end, each about 30.3 s after it was made",
        ),
    },
    Case {
        name: "reset-at-once",
        story: "A load balancer without backends accepts every connection and resets it at once.",
        build: || cut_off(5, 20, 20),
        expect: top("tcp.reset_by_peer", "critical", 1847, WEB, "5 of 5 connections ended with a reset"),
    },
    Case {
        name: "reset-both-ends",
        story: "Client and server are both on this node, and the server closes connections with requests that it has not read.",
        build: reset_both_ends,
        expect: top("tcp.reset_by_peer", "critical", 1847, WEB, "is cut off by 10.42.2.8:8080: 4 of 4 connections"),
    },
    Case {
        name: "reset-health-checks",
        story: "A load balancer asks every second whether a server is there, and leaves with a reset as soon as it is connected.",
        build: health_checks,
        expect: healthy("tcp.reset_by_peer"),
    },
    Case {
        name: "reset-after-close",
        story: "A client closes its connections before the server has sent all: what comes after that is reset.",
        build: reset_after_close,
        expect: healthy("tcp.reset_by_peer"),
    },
    Case {
        name: "reset-at-once-lossy",
        story: "The load balancer without backends again, but neither the resets nor the ends of the connections are in the bundle.",
        build: || cut_off(5, 20, 20).losing(|e| e.payload.kind() == EventKind::TcpReset || is_closed(e)),
        expect: unjudged("tcp.reset_by_peer"),
    },
    Case {
        name: "slow-reader-peer",
        story: "A peer elsewhere does not read what `api` sends: its window is closed for most of the time.",
        build: slow_peer,
        expect: top(
            "tcp.slow_reader",
            "warning",
            1847,
            WEB,
            "10.42.2.8:8080 does not read what `api` (pid 1847) sends to it: its window was closed for up to 18.0 s (60 % of the time) in 1 of 4 connections",
        ),
    },
    Case {
        name: "slow-reader-both-ends",
        story: "The same with the reader on this node: the one that does not read is named, and the sender's waiting is a symptom.",
        build: slow_reader_both_ends,
        expect: top(
            "tcp.slow_reader",
            "warning",
            71,
            "10.42.1.15",
            "`sleepy` (pid 71) does not read what 10.42.1.15 sends to it: its receive buffer was full",
        ),
    },
    Case {
        name: "slow-reader-brief",
        story: "Windows close for a moment now and then, and a send buffer is full all the time: that is what flow control is for.",
        build: brief_stalls,
        expect: healthy("tcp.slow_reader"),
    },
    Case {
        name: "slow-reader-lossy",
        story: "The peer that does not read again, but what tells of it is not in the bundle.",
        build: || slow_peer().losing(|e| e.payload.kind() == EventKind::TcpStall),
        expect: unjudged("tcp.slow_reader"),
    },
    Case {
        name: "became-unreachable",
        story: "The peer of an open connection is gone from its network: what `api` sends is answered with ICMP, 20 s long, and sent again.",
        build: peer_gone,
        expect: top(
            "tcp.became_unreachable",
            "warning",
            1847,
            WEB,
            "`api` (pid 1847) waits for 10.42.2.8:8080, which the network says cannot be reached (`EHOSTUNREACH`): for up to 20.0 s in 1 of 4 connections that were open",
        ),
    },
    Case {
        name: "became-unreachable-brief",
        story: "For a second the network says so, while routes change; then what was sent arrives.",
        build: peer_gone_for_a_moment,
        expect: healthy("tcp.became_unreachable"),
    },
    Case {
        name: "became-unreachable-lossy",
        story: "The peer that is gone again, but what tells of it is not in the bundle.",
        build: || peer_gone().losing(|e| e.payload.kind() == EventKind::TcpStall),
        expect: unjudged("tcp.became_unreachable"),
    },
    Case {
        name: "mtu-hole",
        story: "A tunnel takes 1400 bytes, and the ICMP message that says so is filtered. Handshakes work, and the first large request of each connection is sent again and again; this node drops it.",
        build: || mtu_hole(4, true),
        expect: top(
            "net.mtu_hole",
            "critical",
            1847,
            WEB,
            "gets no large packet through to 10.42.2.8:8080: 4 of 4 connections stood still for up to 6.20 s, and a packet of them was too large in network namespace 4026531840",
        ),
    },
    Case {
        name: "mtu-hole-elsewhere",
        story: "The same with the tunnel on another machine: only that large segments stand still while handshakes go on to work.",
        build: || mtu_hole(4, false),
        expect: Expect::Top {
            rule: "tcp.retransmits",
            severity: "critical",
            pid: 1847,
            remote: Some(WEB),
            title: "had to send 24 of",
        },
    },
    Case {
        name: "mtu-plain-loss",
        story: "A bad link loses a part of all segments: some are sent again, and new ones follow.",
        build: plain_loss,
        expect: Expect::Top {
            rule: "tcp.retransmits",
            severity: "critical",
            pid: 1847,
            remote: Some(WEB),
            title: "had to send",
        },
    },
    Case {
        name: "mtu-found-out",
        story: "A packet is too large once; the sender is told, and goes on with smaller ones.",
        build: mtu_found_out,
        expect: healthy("net.mtu_hole"),
    },
    Case {
        name: "mtu-hole-lossy",
        story: "The tunnel again, but neither the retransmits nor the drops are in the bundle.",
        build: || mtu_hole(4, true).losing(|e| matches!(e.payload.kind(), EventKind::TcpRetransmit | EventKind::Drop)),
        expect: unjudged("net.mtu_hole"),
    },
];
