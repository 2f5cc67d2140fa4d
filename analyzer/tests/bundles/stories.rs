//! What happened in each case, event by event.

use ktrace_bundle::audit::{AuditEntry, AuditReason, Audited, Explained, Unaudited};
use ktrace_bundle::event::{Event, EventKind, Payload, RetransmitKind, TcpClose};
use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::manifest::{PlanEntry, PlanSource};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::a_socket;

use crate::cases::{DNS, WEB};
use crate::scene::Scene;

pub fn dns_healthy() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for n in 0..40 {
        s.lookup(500 * n, 2 + n % 5);
    }
    s
}

pub fn dns_dead_server() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for n in 0..12 {
        let socket = s.socket();
        s.query(2000 * n, socket).query(2000 * n + 5000, socket);
    }
    s
}

pub fn dns_parallel_resolvers() -> Scene {
    let mut s = Scene::of("crond", 300, DNS);
    for n in 0..20 {
        let socket = s.socket();
        for server in ["10.96.0.10:53", "10.96.0.11:53", "192.0.2.1:53"] {
            s.now_to(server).query(1000 * n, socket).query(1000 * n, socket);
        }
        s.now_to(["10.96.0.10:53", "10.96.0.11:53"][(n % 2) as usize]);
        s.reply(1000 * n + 2, socket).reply(1000 * n + 3, socket);
    }
    s
}

pub fn dns_lost_reply_glibc() -> Scene {
    let mut s = Scene::of("curl", 1847, DNS);
    s.query(1000, 7).query(1001, 7).reply(1003, 7);
    s.query(6002, 7).reply(6004, 7).query(6005, 7).reply(6007, 7);
    s
}

pub fn dns_refused() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for n in 0..3 {
        let socket = s.socket();
        s.query(1000 * n, socket);
        let refused = s.event(1_000_000 * n + 300, socket).udp_recv().error("ECONNREFUSED").build();
        s.push(refused);
        let again = s.event(1_000_000 * n + 500_000, socket).udp_send().error("ECONNREFUSED").build();
        s.push(again);
    }
    s
}

pub fn dns_one_of_many() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for n in 0..60 {
        s.lookup(500 * n, 3);
    }
    let socket = s.socket();
    s.query(12_345, socket);
    s
}

pub fn dns_slow() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for n in 0..40 {
        s.lookup(1000 * n, if n % 4 == 0 { 2000 } else { 3 });
    }
    s
}

pub fn dns_slow_once() -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    for n in 0..40 {
        s.lookup(1000 * n, if n == 17 { 1200 } else { 3 });
    }
    s
}

pub fn slow_reply(event: &Event) -> bool {
    event.payload.kind() == EventKind::UdpRecv && event.boot_ns % 1_000_000_000 < 2_000_000
}

pub fn connect_gave_up() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..6 {
        let socket = s.socket();
        s.syn(3000 * n, socket).gives_up(3000 * n + 500, socket, 500);
    }
    s
}

pub fn connect_timed_out() -> Scene {
    let mut s = Scene::of("curl", 1847, WEB);
    s.syn(100, 7);
    for (n, seconds) in [1, 3, 7, 15, 31].into_iter().enumerate() {
        let again = s.event((100 + 1000 * seconds) * 1000, 7).tcp_retransmit(RetransmitKind::Syn, TcpState::SynSent);
        let again = again.payload(|p| {
            if let Payload::TcpRetransmit(r) = p {
                r.retrans_count = Some(n as u64 + 1);
            }
        });
        s.push(again.build());
    }
    let account = TcpClose { retrans_count: Some(5), tx_segs_count: Some(6), ..TcpClose::default() };
    let end = s.event(55_000_000, 7).closed(TcpState::SynSent, account).error("ETIMEDOUT").build();
    s.push(end);
    s
}

pub fn connect_still_trying() -> Scene {
    let mut s = Scene::of("curl", 1847, WEB);
    s.syn(55_000, 7).syn_again(56_000, 7).syn_again(58_000, 7);
    let end = a_socket().by("curl", 1847).from("10.42.1.15:40007").to(WEB).socket(7).state(TcpState::SynSent);
    s.push_socket(end.build());
    s
}

pub fn connect_happy_eyeballs() -> Scene {
    let mut s = Scene::of("chrome", 5000, WEB);
    for n in 0..20 {
        let (six, four) = (s.socket(), s.socket());
        s.now_to("[2001:db8::8]:443").syn(1000 * n, six);
        s.now_to("203.0.113.8:443").syn(1000 * n + 250, four).established(1000 * n + 270, four, 20);
        s.now_to("[2001:db8::8]:443").gives_up(1000 * n + 271, six, 271);
        s.now_to("203.0.113.8:443").closes(1000 * n + 700, four, 20, 0, 21_000);
    }
    s
}

pub fn refused_port() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..5 {
        let socket = s.socket();
        s.syn(4000 * n, socket).fails_with(4000 * n + 1, socket, "ECONNREFUSED");
    }
    s
}

pub fn refused_ipv6_first() -> Scene {
    let mut s = Scene::of("psql", 800, "[::1]:5432");
    for n in 0..4 {
        let (six, four) = (s.socket(), s.socket());
        s.now_to("[::1]:5432").syn(5000 * n, six).fails_with(5000 * n + 1, six, "ECONNREFUSED");
        s.now_to("127.0.0.1:5432").syn(5000 * n + 1, four).established(5000 * n + 2, four, 1);
        s.closes(5000 * n + 90, four, 14, 0, 40);
    }
    s
}

pub fn unreachable_host() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..4 {
        let socket = s.socket();
        s.syn(5000 * n, socket).fails_with(5000 * n + 3070, socket, "EHOSTUNREACH");
    }
    s
}

pub fn unreachable_ipv6_first() -> Scene {
    let mut s = Scene::of("curl", 800, "[2001:db8::8]:443");
    for n in 0..4 {
        let (six, four) = (s.socket(), s.socket());
        s.now_to("[2001:db8::8]:443");
        let failed = s.event(5_000_000 * n, six).connect().error("ENETUNREACH").build();
        s.push(failed);
        s.now_to("203.0.113.8:443").syn(5000 * n + 1, four).established(5000 * n + 12, four, 11);
        s.closes(5000 * n + 90, four, 14, 0, 11_000);
    }
    s
}

pub fn close_wait_leak() -> Scene {
    let mut s = Scene::of("never-close", 71, WEB);
    for n in 0..25 {
        s.left_in_close_wait(1000 + 1500 * n, 8080, &format!("10.42.3.9:{}", 50_000 + n));
    }
    s
}

pub fn close_wait_brief() -> Scene {
    let mut s = Scene::of("slow-close", 71, WEB);
    for n in 0..25 {
        s.left_in_close_wait(1000 + 1500 * n, 8080, &format!("10.42.3.9:{}", 50_000 + n));
        s.closed_at_last(3000 + 1500 * n);
    }
    s
}

pub fn retransmits(segs: u64, again: u64) -> Scene {
    let mut s = Scene::of("rsync", 1847, WEB);
    for n in 0..3 {
        let socket = s.socket();
        s.syn(100 * n, socket).established(100 * n + 2, socket, 2);
        for i in 0..again.min(10) {
            let lost = s.event((1000 + 500 * i + n) * 1000, socket);
            s.push(lost.tcp_retransmit(RetransmitKind::Data, TcpState::Established).build());
        }
        s.closes(40_000 + n, socket, segs, again, 2300);
    }
    s
}

pub fn is_change(event: &Event, old: TcpState, new: TcpState) -> bool {
    matches!(&event.payload, Payload::TcpState(c) if c.old == old && c.new == new)
}

pub fn is_close(event: &Event) -> bool {
    matches!(&event.payload, Payload::TcpState(c) if c.new == TcpState::Close)
}

pub fn connect_slow_lost_syn() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..10 {
        s.healthy_connection(1000 * n);
    }
    let connect = s.event(20_000_031, 7).connect().error("EINPROGRESS").payload(|p| {
        if let Payload::Connect(c) = p {
            (c.syscall_ns, c.nonblocking) = (31_000, true);
        }
    });
    s.syn(20_000, 7).push(connect.build()).syn_again(21_010, 7);
    let late = s.event(21_020_672, 7).established_after_ms(1020).payload(|p| {
        if let Payload::TcpState(c) = p {
            c.syn_retrans_count = Some(1);
        }
    });
    s.push(late.build()).closes(22_000, 7, 15, 1, 900);
    s
}

pub fn slow_handshake(event: &Event) -> bool {
    event.id.socket == Some(7) && event.payload.kind() != EventKind::Connect
}

pub fn connect_far_away() -> Scene {
    let mut s = Scene::of("api", 1847, "203.0.113.8:443");
    for n in 0..10 {
        let socket = s.socket();
        s.syn(2000 * n, socket).established(2000 * n + 280, socket, 280).closes(2000 * n + 900, socket, 12, 0, 280_000);
    }
    s
}

pub fn rtt(srtt_us: u64) -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..4 {
        let socket = s.socket();
        s.syn(100 * n, socket).established(100 * n + 30, socket, 30).closes(30_000 + n, socket, 60, 0, srtt_us);
    }
    s
}

pub fn evidence_lost() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..30 {
        s.healthy_connection(1000 * n);
    }
    s.now_to(DNS);
    for n in 0..5 {
        s.lookup(40_000 + 100 * n, 2);
    }
    s.losing(|e| e.id.socket.is_some_and(|cookie| cookie % 10 == 0))
}

pub fn evidence_capped() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..30 {
        s.healthy_connection(1000 * n);
    }
    s.manifest(|m| {
        let by_flag = PlanEntry { value: 90.into(), from: PlanSource::Flag };
        m.head.plan.insert("max-events".to_owned(), by_flag);
        let t = m.ledger.by_type.entry(EventKind::TcpState).or_default();
        t.seen += 40;
        t.dropped.insert(DropReason::EventCap, 40);
        m.ledger.total_from_types();
        m.ledger.observed = m.ledger.seen;
    });
    s
}

/// An entry of the audit about sent datagrams.
fn sent(kernel_delta: u64, ktrace_seen: u64, explained: Vec<Explained>) -> AuditEntry {
    let (counter, netns) = ("Udp.OutDatagrams".to_owned(), 4_026_532_110);
    AuditEntry { counter, netns, kernel_delta, ktrace_seen: Some(ktrace_seen), explained }
}

pub fn evidence_unseen() -> Scene {
    let mut s = dns_healthy();
    s.manifest(|m| m.audit = vec![sent(80, 40, Vec::new())]);
    s
}

pub fn evidence_explained() -> Scene {
    let mut s = dns_healthy();
    let explained = |reason, count, at_most| Explained { reason, count, at_most };
    s.manifest(move |m| {
        let reasons = vec![explained(AuditReason::Edges, 3, 3), explained(AuditReason::Corked, 2, 7)];
        m.audit = vec![sent(45, 40, reasons)];
    });
    s
}

pub fn evidence_unaudited() -> Scene {
    let mut s = dns_healthy();
    s.manifest(|m| m.audited = Some(Audited { netns_count: 1, unaudited: [(Unaudited::Gone, 1)].into() }));
    s
}

pub fn evidence_clock_stepped() -> Scene {
    let mut s = dns_healthy();
    s.manifest(|m| (m.head.clocks.step_count, m.head.clocks.max_step_ns) = (Some(1), 3_600_000_000_000));
    s
}
