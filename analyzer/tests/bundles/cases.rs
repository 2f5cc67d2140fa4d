//! The table of cases: what happened, told in one paragraph, and what the analyzer must make of it.
//!
//! Expectations are written by hand. Every rule has a positive, a near miss, and a lossy twin of the positive.

use ktrace_bundle::event::EventKind;
use ktrace_bundle::tcp::TcpState;

use crate::drop_cases::DROP_CASES;
use crate::nat_cases::NAT_CASES;
use crate::node_cases::NODE_CASES;
use crate::pattern_cases::PATTERN_CASES;
use crate::scene::Scene;
use crate::stories::*;
use crate::trouble_cases::TROUBLE_CASES;

/// What must come out.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// The first finding.
    Top { rule: &'static str, severity: &'static str, pid: u64, remote: Option<&'static str>, title: &'static str },
    /// Nothing worse than info, and this rule among those that are clear, or `None` if it may say info.
    Healthy { clear: Option<&'static str> },
    /// This rule is explained by the first finding, which is this cause.
    Under { rule: &'static str, cause: &'static str },
    /// This rule found nothing, whatever others did.
    Clear { rule: &'static str },
    /// This rule could not judge, and found nothing.
    Inconclusive { rule: &'static str },
}

/// A case.
pub struct Case {
    pub name: &'static str,
    pub story: &'static str,
    pub build: fn() -> Scene,
    pub expect: Expect,
}

pub const DNS: &str = "10.96.0.10:53";
pub const WEB: &str = "10.42.2.8:8080";

pub const fn top(
    rule: &'static str,
    severity: &'static str,
    pid: u64,
    remote: &'static str,
    title: &'static str,
) -> Expect {
    Expect::Top { rule, severity, pid, remote: Some(remote), title }
}

pub const fn healthy(rule: &'static str) -> Expect {
    Expect::Healthy { clear: Some(rule) }
}

pub const fn unjudged(rule: &'static str) -> Expect {
    Expect::Inconclusive { rule }
}

/// Every case.
pub fn all() -> impl Iterator<Item = &'static Case> {
    CASES.iter().chain(NAT_CASES).chain(DROP_CASES).chain(TROUBLE_CASES).chain(NODE_CASES).chain(PATTERN_CASES)
}

const CASES: &[Case] = &[
    Case {
        name: "dns-dead-server",
        story: "`api` asks a DNS server that is down, twelve lookups, each tried twice on its own socket. Nothing ever comes back.",
        build: dns_dead_server,
        expect: top(
            "dns.no_reply",
            "critical",
            1847,
            DNS,
            "gets no reply from the DNS server 10.96.0.10:53: 24 of 24 queries unanswered",
        ),
    },
    Case {
        name: "dns-parallel-resolvers",
        story: "musl asks three servers at once from one socket and takes the first answer; the other two servers answer too late to be read. Healthy.",
        build: dns_parallel_resolvers,
        expect: healthy("dns.no_reply"),
    },
    Case {
        name: "dns-dead-server-lossy",
        story: "The lookups of a healthy `api`, but the ring was full and the replies are not in the bundle: whether they came is not known.",
        build: || dns_healthy().losing(|e| e.payload.kind() == EventKind::UdpRecv),
        expect: unjudged("dns.no_reply"),
    },
    Case {
        name: "dns-lost-reply-glibc",
        story: "glibc sends A and AAAA on one socket; one reply is lost. Five seconds later both are asked again and answered: four queries, three replies, and a user who waited 5 s.",
        build: dns_lost_reply_glibc,
        expect: top(
            "dns.no_reply",
            "warning",
            1847,
            DNS,
            "misses replies from the DNS server 10.96.0.10:53: 1 of 4 queries unanswered",
        ),
    },
    Case {
        name: "dns-refused",
        story: "Nothing listens on the server's port: each query comes back as ECONNREFUSED.",
        build: dns_refused,
        expect: top(
            "dns.no_reply",
            "critical",
            1847,
            DNS,
            "is refused by the DNS server 10.96.0.10:53: 6 of 6 queries failed",
        ),
    },
    Case {
        name: "dns-one-of-many-unanswered",
        story: "One query of sixty-one gets no reply. That happens.",
        build: dns_one_of_many,
        expect: healthy("dns.no_reply"),
    },
    Case {
        name: "dns-slow",
        story: "One lookup in four takes 2 s, because the server waits for a slow upstream.",
        build: dns_slow,
        expect: top(
            "dns.slow",
            "warning",
            1847,
            DNS,
            "waits long for the DNS server 10.96.0.10:53: 10 of 40 replies took 500 ms or longer, up to 2.00 s",
        ),
    },
    Case {
        name: "dns-slow-once",
        story: "One reply of forty takes 1.2 s, the others a few ms.",
        build: dns_slow_once,
        expect: healthy("dns.slow"),
    },
    Case {
        name: "dns-slow-lossy",
        story: "The slow server again, but the slow replies are not in the bundle.",
        build: || dns_slow().losing(slow_reply),
        expect: unjudged("dns.slow"),
    },
    Case {
        name: "connect-gave-up",
        story: "SYNs to 10.42.2.8:8080 are dropped. The application waits half a second, before the kernel would send a second SYN, and gives up. Six times.",
        build: connect_gave_up,
        expect: top(
            "tcp.connect_timeout",
            "critical",
            1847,
            WEB,
            "gets no answer when it connects to 10.42.2.8:8080: 6 of 6 attempts (6 given up by the process after up to 500 ms)",
        ),
    },
    Case {
        name: "connect-timed-out",
        story: "One blocking connect to a filtered port: five SYNs are sent again, then the kernel gives up with ETIMEDOUT. The retransmits are a symptom, not a second finding.",
        build: connect_timed_out,
        expect: top("tcp.connect_timeout", "critical", 1847, WEB, "1 of 1 attempt (1 timed out in the kernel)"),
    },
    Case {
        name: "connect-still-trying",
        story: "The window closes while a connection attempt hangs, three SYNs sent.",
        build: connect_still_trying,
        expect: top("tcp.connect_timeout", "warning", 1847, WEB, "1 still hanging when the window closed"),
    },
    Case {
        name: "connect-happy-eyeballs",
        story: "A client races IPv6 and IPv4, as RFC 8305 has it. IPv4 wins, and the IPv6 attempt is cancelled at that moment. Healthy, twenty times.",
        build: connect_happy_eyeballs,
        expect: healthy("tcp.connect_timeout"),
    },
    Case {
        name: "connect-gave-up-lossy",
        story: "The dropped SYNs again, but what became of the attempts is not in the bundle.",
        build: || connect_gave_up().losing(|e| is_change(e, TcpState::SynSent, TcpState::Close)),
        expect: unjudged("tcp.connect_timeout"),
    },
    Case {
        name: "refused-port",
        story: "The server is not running: every connection is answered with a reset.",
        build: refused_port,
        expect: top("tcp.refused", "critical", 1847, WEB, "is refused by 10.42.2.8:8080: 5 of 5 attempts"),
    },
    Case {
        name: "refused-ipv6-first",
        story: "`localhost` resolves to ::1 first, where nothing listens, and then to 127.0.0.1, where it works at once.",
        build: refused_ipv6_first,
        expect: Expect::Healthy { clear: None },
    },
    Case {
        name: "refused-port-lossy",
        story: "The refused connections again, but the state changes that say so are not in the bundle.",
        build: || refused_port().losing(|e| e.payload.kind() == EventKind::TcpState),
        expect: unjudged("tcp.refused"),
    },
    Case {
        name: "unreachable-host",
        story: "The host does not exist: after 3 s without a neighbour entry each attempt fails with EHOSTUNREACH.",
        build: unreachable_host,
        expect: top(
            "tcp.unreachable",
            "critical",
            1847,
            WEB,
            "cannot reach 10.42.2.8:8080: 4 of 4 attempts failed with `EHOSTUNREACH`",
        ),
    },
    Case {
        name: "unreachable-ipv6-first",
        story: "A name has IPv6 and IPv4 addresses, and this machine has no IPv6 route. IPv4 works at once.",
        build: unreachable_ipv6_first,
        expect: Expect::Healthy { clear: None },
    },
    Case {
        name: "unreachable-host-lossy",
        story: "The missing host again, but the state changes that say so are not in the bundle.",
        build: || unreachable_host().losing(|e| e.payload.kind() == EventKind::TcpState),
        expect: unjudged("tcp.unreachable"),
    },
    Case {
        name: "close-wait-leak",
        story: "A server never closes: 25 clients have come and gone, and their connections stay in CLOSE_WAIT.",
        build: close_wait_leak,
        expect: Expect::Top {
            rule: "tcp.close_wait_leak",
            severity: "warning",
            pid: 71,
            remote: None,
            title: "has not closed 25 connections on its port 8080",
        },
    },
    Case {
        name: "close-wait-brief",
        story: "The server takes two seconds to notice that its clients have closed, and then closes every connection.",
        build: close_wait_brief,
        expect: healthy("tcp.close_wait_leak"),
    },
    Case {
        name: "close-wait-leak-lossy",
        story: "The server that never closes again, but the ends of the connections are not in the bundle.",
        build: || close_wait_leak().losing(|e| is_change(e, TcpState::Established, TcpState::CloseWait)),
        expect: unjudged("tcp.close_wait_leak"),
    },
    Case {
        name: "retransmits-loss",
        story: "A bad link: 8 % of the segments of three long connections are sent again.",
        build: || retransmits(400, 32),
        expect: top(
            "tcp.retransmits",
            "warning",
            1847,
            WEB,
            "had to send 96 of 1200 segments again to 10.42.2.8:8080 (8 %)",
        ),
    },
    Case {
        name: "retransmits-rare",
        story: "Two of 1200 segments are sent again on three long connections.",
        build: || retransmits(400, 1),
        expect: healthy("tcp.retransmits"),
    },
    Case {
        name: "retransmits-loss-lossy",
        story: "The bad link again, but neither the retransmits nor the ends of the connections are in the bundle.",
        build: || retransmits(400, 32).losing(|e| is_close(e) || e.payload.kind() == EventKind::TcpRetransmit),
        expect: unjudged("tcp.retransmits"),
    },
    Case {
        name: "connect-slow-lost-syn",
        story: "A non-blocking connect whose first SYN is lost: the system call returns after 31 µs, the handshake takes 1.02 s.",
        build: connect_slow_lost_syn,
        expect: top(
            "connect.slow",
            "warning",
            1847,
            WEB,
            "connects slowly to 10.42.2.8:8080: 1 of 11 handshakes lost their first SYN and took up to 1.02 s",
        ),
    },
    Case {
        name: "connect-far-away",
        story: "Handshakes with a host on the other side of the world take 280 ms.",
        build: connect_far_away,
        expect: healthy("connect.slow"),
    },
    Case {
        name: "connect-slow-lossy",
        story: "The lost SYN again, but the handshake's end is not in the bundle.",
        build: || connect_slow_lost_syn().losing(slow_handshake),
        expect: unjudged("connect.slow"),
    },
    Case {
        name: "rtt-queue",
        story: "A policer queues: round trips of four connections take 1.4 s.",
        build: || rtt(1_400_000),
        expect: top(
            "tcp.rtt_high",
            "warning",
            1847,
            WEB,
            "waits 1.40 s for a round trip to 10.42.2.8:8080 (median of 4 connections)",
        ),
    },
    Case {
        name: "rtt-far-away",
        story: "Round trips to the other side of the world take 280 ms.",
        build: || rtt(280_000),
        expect: healthy("tcp.rtt_high"),
    },
    Case {
        name: "rtt-queue-lossy",
        story: "The queue again, but the accounts of the connections are not in the bundle.",
        build: || rtt(1_400_000).losing(is_close),
        expect: unjudged("tcp.rtt_high"),
    },
    Case {
        name: "evidence-lost",
        story: "Healthy traffic, but the ring was full at times: nine of a hundred events are missing.",
        build: evidence_lost,
        expect: Expect::Top {
            rule: "evidence.lossy",
            severity: "warning",
            pid: 0,
            remote: None,
            title: "9 events were dropped (ring_full, 9 %)",
        },
    },
    Case {
        name: "evidence-unseen",
        story: "The lookups of a healthy `api`, but another tool took the program for sends away half-way: the kernel counted 40 sent datagrams more than the hook saw.",
        build: evidence_unseen,
        expect: Expect::Top {
            rule: "evidence.incomplete",
            severity: "warning",
            pid: 0,
            remote: None,
            title: "disagree in network namespace 4026532110: 40 of 80 `Udp.OutDatagrams` were not seen",
        },
    },
    Case {
        name: "evidence-explained-difference",
        story: "The kernel counted more than the hooks saw, and all of it is explained: three datagrams while the window closed, two sends that waited for more.",
        build: evidence_explained,
        expect: healthy("evidence.incomplete"),
    },
    Case {
        name: "evidence-unseen-lossy",
        story: "The lookups of a healthy `api`; its namespace ended within the window, and took its counters with it.",
        build: evidence_unaudited,
        expect: unjudged("evidence.incomplete"),
    },
    Case {
        name: "evidence-clock-stepped",
        story: "Healthy lookups while somebody sets the clock back by an hour: the times of the events go on.",
        build: evidence_clock_stepped,
        expect: Expect::Healthy { clear: None },
    },
    Case {
        name: "evidence-capped-as-asked",
        story: "Healthy traffic, and the user asked for no more than 90 events.",
        build: evidence_capped,
        expect: Expect::Healthy { clear: None },
    },
];
