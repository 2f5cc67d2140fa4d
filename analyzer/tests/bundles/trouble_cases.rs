//! The table of cases about connections in trouble: turned away, cut off, or waiting; see `cases.rs`.

use ktrace_bundle::event::EventKind;

use crate::cases::{Case, Expect, healthy, unjudged};
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
];
