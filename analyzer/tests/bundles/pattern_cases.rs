//! The table of cases about one end, or one client, among others; see `cases.rs`.

use ktrace_bundle::event::EventKind;
use ktrace_bundle::tcp::TcpState;

use crate::cases::{Case, DNS, Expect, WEB, healthy, top, unjudged};
use crate::pattern_stories::*;
use crate::trouble_stories::{is_closed, reset_after_close};

const BAD_DATABASE: &str = "10.42.2.3:5432";

pub const PATTERN_CASES: &[Case] = &[
    Case {
        name: "bad-peer",
        story: "Of five databases one does not answer; the others work.",
        build: || five_databases(4, "ETIMEDOUT", |end, _| end == 3),
        expect: top(
            "connect.bad_peer",
            "critical",
            1847,
            BAD_DATABASE,
            "of 5 ends that `api` (pid 1847) connects to, only 10.42.2.3:5432 fails: 4 of 4 attempts; the others 0 of 16",
        ),
    },
    Case {
        name: "bad-peer-once",
        story: "One of five databases refuses one of six attempts, as it restarts.",
        build: || five_databases(6, "ECONNREFUSED", |end, n| end == 3 && n == 2),
        expect: healthy("connect.bad_peer"),
    },
    Case {
        name: "bad-peer-lossy",
        story: "The bad database again, but how its attempts ended is not in the bundle.",
        build: || {
            let timed_out = |e: &ktrace_bundle::event::Event| is_closed(e) && e.id.remote.to_string() == BAD_DATABASE;
            five_databases(4, "ETIMEDOUT", |end, _| end == 3).losing(timed_out)
        },
        expect: unjudged("connect.bad_peer"),
    },
    Case {
        name: "bad-path",
        story: "A machine is down: two programs, each on a port of its own, get no answer from it. Other machines answer.",
        build: dead_machine,
        expect: top(
            "connect.bad_path",
            "critical",
            1847,
            "10.42.7.7",
            "nothing gets through to 10.42.7.7, for `api` (pid 1847) and 1 other target, on port 5432, port 6379: 8 of 8 attempts unanswered",
        ),
    },
    Case {
        name: "bad-path-policy",
        story: "The same, but it is a rule on this node that throws the attempts of both programs away.",
        build: dead_machine_by_policy,
        expect: Expect::Under { rule: "connect.bad_path", cause: "policy.drop" },
    },
    Case {
        name: "bad-path-race",
        story: "Two programs try an IPv6 address that leads nowhere, and take the IPv4 address that answers: happy eyeballs.",
        build: families_race,
        expect: healthy("connect.bad_path"),
    },
    Case {
        name: "bad-path-lossy",
        story: "The dead machine again, but the ends of the attempts are not in the bundle.",
        build: || dead_machine().losing(|e| is_closed(e) && e.id.remote.to_string().starts_with("10.42.7.7")),
        expect: unjudged("connect.bad_path"),
    },
    Case {
        name: "retry-storm",
        story: "A client without any pause between its attempts is refused 60 times in half a second.",
        build: || refused_again_and_again(60, 8),
        expect: Expect::Under { rule: "connect.retry_storm", cause: "tcp.refused" },
    },
    Case {
        name: "retry-patient",
        story: "A client that is refused waits half a second before it tries again, and again.",
        build: || refused_again_and_again(60, 500),
        expect: Expect::Clear { rule: "connect.retry_storm" },
    },
    Case {
        name: "retry-storm-lossy",
        story: "The storm again, but most ends of its attempts are not in the bundle.",
        build: || refused_again_and_again(60, 8).losing(|e| is_closed(e) && e.id.socket != Some(1001)),
        expect: unjudged("connect.retry_storm"),
    },
    Case {
        name: "churn",
        story: "A program opens a connection for each request, 50 in a second, and closes first.",
        build: || short_connections(150, 20),
        expect: top(
            "tcp.churn",
            "info",
            1847,
            WEB,
            "makes a new connection to 10.42.2.8:8080 50 times a second, each of 1.00 s at most: it closes first, so about 3020 of its 28232 ports towards that end would be in `TIME_WAIT` after a minute (10.7 %)",
        ),
    },
    Case {
        name: "churn-slow",
        story: "The same, four in a second.",
        build: || short_connections(110, 250),
        expect: healthy("tcp.churn"),
    },
    Case {
        name: "churn-lossy",
        story: "Fifty in a second again, but their ends are not in the bundle.",
        build: || short_connections(150, 20).losing(is_closed),
        expect: unjudged("tcp.churn"),
    },
    Case {
        name: "half-open",
        story: "A firewall on the way forgot six of ten connections: what is sent on them is never acknowledged, and they time out.",
        build: || ends_with(6, TcpState::Established, "ETIMEDOUT"),
        expect: top(
            "tcp.half_open",
            "critical",
            1847,
            WEB,
            "`api` (pid 1847) lost 6 connections with 10.42.2.8:8080, which stopped answering: 6 of 10 that ended timed out after they had been made",
        ),
    },
    Case {
        name: "half-closed",
        story: "Two connections time out after the process has closed them: nobody waits for their last segment.",
        build: || ends_with(2, TcpState::FinWait1, "ETIMEDOUT"),
        expect: healthy("tcp.half_open"),
    },
    Case {
        name: "half-open-lossy",
        story: "The forgotten connections again, but their ends are not in the bundle.",
        build: || ends_with(6, TcpState::Established, "ETIMEDOUT").losing(is_closed),
        expect: unjudged("tcp.half_open"),
    },
    Case {
        name: "keepalive-race",
        story: "A server closes idle connections after 5 s; a proxy goes on using four of ten, and each of these requests is reset.",
        build: || late_requests(4),
        expect: top(
            "tcp.keepalive_race",
            "warning",
            1847,
            WEB,
            "`proxy` (pid 1847) sends on connections that 10.42.2.8:8080 has already closed: 4 of 10 connections were reset, each about 5.00 s after it was made",
        ),
    },
    Case {
        name: "keepalive-closed-by-client",
        story: "A client closes its connections before the server has sent all: what comes after that is reset.",
        build: reset_after_close,
        expect: healthy("tcp.keepalive_race"),
    },
    Case {
        name: "keepalive-race-lossy",
        story: "The late requests again, but the resets are not in the bundle.",
        build: || late_requests(4).losing(|e| e.payload.kind() == EventKind::TcpReset || is_closed(e)),
        expect: unjudged("tcp.keepalive_race"),
    },
    Case {
        name: "dns-server-dead",
        story: "The first of two DNS servers is down. Three programs wait 5 s for it before they ask the second.",
        build: dead_dns_server,
        expect: top(
            "dns.server_dead",
            "critical",
            1847,
            DNS,
            "the DNS server 10.96.0.10:53 answers nobody: 9 queries of `api` (pid 1847) and 2 other clients unanswered; 10.96.0.11:53 answered 9",
        ),
    },
    Case {
        name: "dns-server-slower",
        story: "Two programs ask both servers at once, and the same one always answers first.",
        build: parallel_resolvers,
        expect: healthy("dns.server_dead"),
    },
    Case {
        name: "dns-server-dead-lossy",
        story: "The dead server again; replies are among what the capture lost.",
        build: || dead_dns_server().losing(|e| e.payload.kind() == EventKind::UdpRecv),
        expect: unjudged("dns.server_dead"),
    },
    Case {
        name: "dns-slow-for-one",
        story: "Three programs ask one DNS server; one of them waits 700 ms for each reply, the others 4 ms.",
        build: || three_clients(700),
        expect: top(
            "dns.slow_for_one",
            "warning",
            1847,
            DNS,
            "`api` (pid 1847) alone waits long for the DNS server 10.96.0.10:53: 10 of 10 replies slow, up to 701 ms; of 20 replies to 2 other clients 0 (0 %)",
        ),
    },
    Case {
        name: "dns-fast-for-all",
        story: "The same three programs, and 40 ms for the one.",
        build: || three_clients(40),
        expect: healthy("dns.slow_for_one"),
    },
    Case {
        name: "dns-slow-for-one-lossy",
        story: "The slow client again, but its replies are not in the bundle.",
        build: || three_clients(700).losing(|e| e.payload.kind() == EventKind::UdpRecv),
        expect: unjudged("dns.slow_for_one"),
    },
    Case {
        name: "dns-retry",
        story: "Three of thirty queries are lost, and asked again after the resolver's 5 s.",
        build: || asked_again(3),
        expect: Expect::Under { rule: "dns.retry_5s", cause: "dns.no_reply" },
    },
    Case {
        name: "dns-retry-once",
        story: "One of thirty is.",
        build: || asked_again(1),
        expect: healthy("dns.retry_5s"),
    },
    Case {
        name: "dns-retry-lossy",
        story: "The retries again, but most queries are not in the bundle.",
        build: || asked_again(3).losing(|e| e.payload.kind() == EventKind::UdpSend),
        expect: unjudged("dns.retry_5s"),
    },
    Case {
        name: "slow-accept",
        story: "A server is busy with one request while others wait: 40 of 64 at one look, 50 at the other.",
        build: || waiting(40, 50),
        expect: Expect::Top {
            rule: "tcp.slow_accept",
            severity: "warning",
            pid: 71,
            remote: None,
            title: "`slow` (pid 71) is slow to accept connections on *:8080: 50 of 64 that may waited when the window opened and when it closed (78.1 %)",
        },
    },
    Case {
        name: "slow-accept-burst",
        story: "Three connections wait at one look, none at the other.",
        build: || waiting(0, 3),
        expect: healthy("tcp.slow_accept"),
    },
    Case {
        name: "slow-accept-unread",
        story: "The listeners of this machine were not looked at.",
        build: || crate::node_stories::without("sock_diag"),
        expect: unjudged("tcp.slow_accept"),
    },
    Case {
        name: "top-talker",
        story: "Of 200 new connections one program makes 180.",
        build: || talkers(200, 90),
        expect: Expect::Top {
            rule: "node.top_talkers",
            severity: "info",
            pid: 1847,
            remote: None,
            title: "makes 180 of 200 new connections of this node (90 %), 180 of them to 10.42.2.8:8080",
        },
    },
    Case {
        name: "top-talker-even",
        story: "Of 200 new connections it makes 100.",
        build: || talkers(200, 50),
        expect: healthy("node.top_talkers"),
    },
    Case {
        name: "top-talker-lossy",
        story: "Of the 200, most are not in the bundle.",
        build: || talkers(200, 90).losing(|e| e.id.socket.is_some_and(|s| s > 1020)),
        expect: unjudged("node.top_talkers"),
    },
];
