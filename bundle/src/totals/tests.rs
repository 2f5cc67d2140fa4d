use std::collections::BTreeSet;

use super::*;
use crate::attribution::OwnerSource;
use crate::event::{RetransmitKind, Role, TcpClose};
use crate::testing::{START_BOOT_NS, WINDOW_NS, a_manifest, a_socket, an_event};
use crate::why::Reason;
use crate::workload::{Home, Workload};

fn no_dns() -> DnsPairs {
    DnsPairs::new(BTreeSet::from([53]), 16)
}

fn summary(events: &[Event], sockets: &[SocketRecord]) -> Summary {
    let mut builder = SummaryBuilder::new();
    let is_start = |s: &&SocketRecord| s.when == When::Start;
    sockets.iter().filter(is_start).for_each(|s| builder.push_socket(s));
    events.iter().for_each(|e| builder.push_event(e));
    sockets.iter().filter(|s| !is_start(s)).for_each(|s| builder.push_socket(s));
    builder.build(&a_manifest(events), &no_dns())
}

fn moved(tx_bytes: u64, rx_bytes: u64) -> TcpClose {
    TcpClose { tx_bytes: Some(tx_bytes), rx_bytes: Some(rx_bytes), ..TcpClose::default() }
}

fn talkers(rows: &[crate::summary::TalkerRow]) -> Vec<(&str, u64, u64, u64)> {
    rows.iter().map(|r| (r.key.key.as_str(), r.tx_bytes, r.rx_bytes, r.connection_count)).collect()
}

#[test]
fn connections_of_one_client_to_one_server_are_one_flow() {
    let closed = |port: u16, cookie| {
        let event = an_event().closed(TcpState::LastAck, moved(100, 1)).to("10.0.0.9:80");
        event.from(&format!("10.42.1.15:{port}")).socket(cookie).build()
    };
    let s = summary(&[closed(40_001, 1), closed(40_002, 2)], &[]);
    assert_eq!(talkers(&s.top_talkers.by_flow), [("tcp 10.42.1.15 -> 10.0.0.9:80", 200, 2, 2)]);
    assert_eq!(talkers(&s.top_talkers.by_process), [("api[1847]", 200, 2, 2)]);
}

#[test]
fn bytes_of_open_connections_are_the_difference_of_the_socket_tables() {
    let sockets = [
        a_socket().socket(1).moved(1000, 2000).at_start().build(),
        a_socket().socket(1).moved(1500, 2300).build(),
        a_socket().socket(2).moved(7, 8).build(),
    ];
    let s = summary(&[], &sockets);
    assert_eq!(talkers(&s.top_talkers.by_process), [("api[1847]", 507, 308, 2)]);
}

#[test]
fn bytes_from_before_the_window_do_not_count_for_a_connection_that_closed_in_it() {
    let start = a_socket().socket(1).moved(1000, 2000).at_start().build();
    let close = an_event().closed(TcpState::LastAck, moved(1001, 2002)).socket(1).build();
    assert_eq!(talkers(&summary(&[close], &[start]).top_talkers.by_process), [("api[1847]", 1, 2, 1)]);
}

#[test]
fn the_last_process_context_owner_gets_the_whole_connection() {
    let child = |e: crate::testing::EventBuilder| e.socket(5).role(Role::Server).from("10.0.0.1:80").to("10.0.0.2:999");
    let events = [
        child(an_event().tcp_state(TcpState::SynRecv, TcpState::Established))
            .by("listener", 1)
            .found_by(OwnerSource::Inherited)
            .build(),
        child(an_event().tcp_state(TcpState::Established, TcpState::CloseWait))
            .by("worker", 2)
            .found_by(OwnerSource::Accept)
            .build(),
        child(an_event().closed(TcpState::LastAck, moved(3, 4)))
            .by("listener", 1)
            .found_by(OwnerSource::Inherited)
            .build(),
    ];
    let s = summary(&events, &[]);
    assert_eq!(talkers(&s.top_talkers.by_process), [("worker[2]", 3, 4, 1)]);
    assert_eq!(s.top_talkers.by_process[0].event_count, 3);
    assert_eq!(s.top_talkers.by_flow[0].key.key, "tcp 10.0.0.1:80 -> 10.0.0.2");
}

#[test]
fn udp_bytes_come_from_the_events_and_an_unknown_owner_has_a_row() {
    let events = [
        an_event().udp_send().bytes(45).build(),
        an_event().udp_recv().bytes(112).build(),
        an_event().udp_send().error("EPERM").socket(2).unowned(Reason::Softirq).build(),
        an_event().udp_send().bytes(1).socket(2).unowned(Reason::Softirq).build(),
    ];
    let s = summary(&events, &[]);
    assert_eq!(talkers(&s.top_talkers.by_process), [("api[1847]", 45, 112, 1), ("unattributed", 1, 0, 1)]);
    assert_eq!(s.events, BTreeMap::from([(EventKind::UdpSend, 3), (EventKind::UdpRecv, 1)]));
}

#[test]
fn lists_are_cut_to_twenty_rows_and_say_so() {
    let send = |pid: u32| an_event().by("api", pid).socket(pid.into()).bytes(u64::from(pid)).build();
    let events: Vec<_> = (1..=25).map(send).collect();
    let s = summary(&events, &[]);
    let pids: Vec<_> = s.top_talkers.by_process.iter().filter_map(|r| r.key.pid).collect();
    assert_eq!(pids, (7..=25).rev().collect::<Vec<_>>());
    assert_eq!((s.omitted_count["top_talkers.by_process"], s.omitted_count["top_talkers.by_flow"]), (6, 0));
    let other = s.top_talkers.by_process.last().unwrap();
    assert_eq!((other.key.key.as_str(), other.tx_bytes, other.event_count), ("other", 1 + 2 + 3 + 4 + 5 + 6, 6));
}

#[test]
fn rows_and_other_make_up_the_total_whatever_was_written_and_wherever_it_was_refused() {
    let mut builder = SummaryBuilder::new();
    let send = |pid: u32, bytes| an_event().by("api", pid).socket(pid.into()).bytes(bytes).build();
    builder.push_event(&send(1, 10));
    builder.push_refused(&send(1, 20));
    builder.push_refused(&send(2, 40));
    let numbers = |events, tx_bytes| Numbers { events, tx_bytes, data: 1, ..Numbers::default() };
    let process =
        |pid, n| RefusedProcess { owner: Some((pid, 1_000_000_000 + u64::from(pid), "api".into())), numbers: n };
    let flow = RefusedFlow {
        netns: 1,
        proto: Proto::Udp,
        local: Default::default(),
        remote: Default::default(),
        numbers: numbers(9, 900),
    };
    builder.add_refused(Refused {
        totals: vec![(EventKind::UdpSend, numbers(12, 1200))],
        processes: vec![process(1, numbers(5, 500)), process(3, numbers(4, 400))],
        flows: vec![flow],
        // 1,600 to 1,615 ns
        handshake: vec![(4 * 64 + 100, 2), (1 << 20, 9)],
        ..Refused::default()
    });
    let s = builder.build(&a_manifest(&[]), &no_dns());

    let total = &s.top_talkers.total;
    assert_eq!((total.event_count, total.written_count, total.tx_bytes), (15, 1, 1270));
    for rows in [&s.top_talkers.by_process, &s.top_talkers.by_flow] {
        let sum = |of: fn(&crate::summary::TalkerRow) -> u64| rows.iter().map(of).sum::<u64>();
        assert_eq!((sum(|r| r.event_count), sum(|r| r.written_count), sum(|r| r.tx_bytes)), (15, 1, 1270));
        assert_eq!(rows.last().unwrap().key.key, "other");
    }
    let [first, ..] = s.top_talkers.by_process.as_slice() else { panic!() };
    assert_eq!((first.key.pid, first.event_count, first.written_count, first.tx_bytes), (Some(1), 7, 1, 530));
    assert_eq!((s.connect.handshake_us.n, s.connect.handshake_us.max), (2, Some(1)));
    assert_eq!(s.retransmits.by_flow.iter().map(|r| r.retrans_count).sum::<u64>(), 1);
    let udp = &s.totals[&EventKind::UdpSend];
    assert_eq!((udp.event_count, udp.written_count, udp.bytes, udp.written_bytes), (15, 1, Some(1270), Some(10)));
}

#[test]
fn outcomes_of_connecting_are_counted_by_error() {
    let events = [
        an_event().tcp_state(TcpState::Close, TcpState::SynSent).build(),
        an_event().tcp_state(TcpState::SynSent, TcpState::Close).error("ECONNREFUSED").build(),
        an_event().tcp_state(TcpState::Close, TcpState::SynSent).build(),
        an_event().tcp_state(TcpState::SynSent, TcpState::Close).build(),
        an_event().tcp_state(TcpState::Close, TcpState::SynSent).build(),
        an_event().established_after_ms(2).build(),
        an_event().connect().error("EINPROGRESS").build(),
        an_event().connect().build(),
    ];
    let c = summary(&events, &[]).connect;
    assert_eq!((c.attempts, c.gave_up), (3, 1));
    assert_eq!(c.errors, BTreeMap::from([("ECONNREFUSED".to_owned(), 1)]));
    assert_eq!(c.syscall_errors, BTreeMap::from([("EINPROGRESS".to_owned(), 1)]));
    assert_eq!((c.handshake_us.max, c.syscall_us.max), (Some(2000), Some(1000)));
}

#[test]
fn retransmits_are_counted_by_kind_with_the_segments_they_are_a_share_of() {
    let again = |kind| an_event().tcp_retransmit(kind, TcpState::Established).socket(3).build();
    let close = TcpClose { tx_segs_count: Some(50), ..moved(1, 1) };
    let events = [
        again(RetransmitKind::Data),
        again(RetransmitKind::Data),
        again(RetransmitKind::Probe),
        an_event().closed(TcpState::LastAck, close).socket(3).build(),
    ];
    let row = &summary(&events, &[]).retransmits.by_process[0];
    assert_eq!((row.retrans_count, row.data_count, row.probe_count, row.tx_segs_count), (3, 2, 1, 50));
}

#[test]
fn close_wait_is_counted_per_owner_and_flow_at_both_ends_of_the_window() {
    let socket = |n: u64| a_socket().state(TcpState::CloseWait).socket(n).from(&format!("10.0.0.1:{}", 4000 + n));
    let sockets = [socket(1).at_start().build(), socket(1).build(), socket(2).build()];
    let s = summary(&[], &sockets);
    let row = &s.close_wait[0];
    assert_eq!((row.comm.as_deref(), row.start_count, row.end_count), (Some("api"), 1, 2));
    assert_eq!((s.close_wait.len(), row.flow.as_str()), (1, "10.0.0.1 -> 10.96.0.10:53"));
    assert_eq!(s.tcp_states.at_end, BTreeMap::from([(TcpState::CloseWait, 2)]));
}

#[test]
fn what_no_hook_saw_is_named() {
    let mut manifest = a_manifest(&[]);
    manifest.head.hooks[1].outcome = HookOutcome::Unsupported;
    manifest.head.hooks[0].limits.push("no states of TIME_WAIT sockets".to_owned());
    manifest.head.hooks.truncate(4);
    let s = SummaryBuilder::new().build(&manifest, &no_dns());
    assert_eq!(
        s.not_measured,
        [
            "UDP traffic and DNS over UDP (hook `udp`: not offered by this kernel)",
            "who resets connections, and why (hook `tcp_reset`: not reported)",
            "connections that wait for somebody to read, and listeners without room (hook `tcp_wait`: not reported)",
            "packets that the kernel throws away, and why (hook `drop`: not reported)",
            "sockets that moved nothing in the window, and the bytes of connections that stayed open (hook `sockets`: not reported)",
            "no states of TIME_WAIT sockets (hook `tcp_state`)",
            "DNS answer codes (payload is never read)",
        ]
    );
}

#[test]
fn the_largest_summary_stays_below_64_kib_and_survives_the_round_trip() {
    let mut builder = SummaryBuilder::new();
    let mut dns = no_dns();
    for n in 0..40_u16 {
        let hostile = "\u{1b}".repeat(300);
        let [hi, lo] = n.to_be_bytes();
        let local = format!("[2001:db8:1111:2222:3333:4444:5555:{:x}]:4000", u16::from(hi) << 8 | u16::from(lo));
        let server = format!("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:{n:x}]:53");
        let of = |e: crate::testing::EventBuilder| {
            e.by(&hostile, 4_000_000_000 + u32::from(n)).from(&local).to(&server).socket(n.into())
        };
        let mut events = [
            of(an_event().udp_send()).build(),
            of(an_event().tcp_retransmit(RetransmitKind::Data, TcpState::Established)).build(),
            of(an_event().closed(TcpState::LastAck, moved(u64::MAX, u64::MAX))).build(),
        ];
        for event in &mut events {
            dns.annotate(event, 1);
            builder.push_event(event);
        }
        let socket = a_socket().state(TcpState::CloseWait).by(&hostile, n.into()).from(&local).to(&server);
        builder.push_socket(&socket.socket(n.into()).build());
    }
    let mut manifest = a_manifest(&[]);
    manifest.degraded = vec!["x".repeat(10_000); 100];
    manifest.head.hooks[0].limits = vec!["y".repeat(10_000); 100];
    let s = builder.build(&manifest, &dns);
    assert_eq!((s.dns_suspects.len(), s.omitted_count["dns_suspects"]), (16, 0));
    let text = serde_json::to_vec(&s).unwrap();
    assert!(text.len() <= 64 << 10, "{} bytes", text.len());
    assert_eq!(serde_json::from_slice::<Summary>(&text).unwrap(), s);
}

#[test]
fn dns_is_judged_by_the_end_of_the_window() {
    let mut dns = no_dns();
    dns.annotate(&mut an_event().udp_send().at_ms(10).build(), 1);
    let s = SummaryBuilder::new().build(&a_manifest(&[]), &dns);
    assert_eq!((s.dns.counts.sent, s.dns.counts.unanswered), (1, 1));
    assert_eq!(s.dns_suspects[0].server, "10.96.0.10:53");
    assert_eq!(dns.counts(START_BOOT_NS + WINDOW_NS).unanswered, 1);
}

#[test]
fn processes_add_up_to_their_pods_and_to_the_host() {
    let pod = |n: u8, name: Option<&str>| {
        let workload = Workload::of_cgroup(format!("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b1{n}"));
        let pod = name.map(str::to_owned);
        Home::Pod(Workload { namespace: pod.as_ref().map(|_| "shop".to_owned()), pod, ..workload }.into())
    };
    let sent = |pid: u32, bytes: u64, home: Option<Home>| {
        let event = an_event().udp_send().bytes(bytes).by("api", pid).socket(u64::from(pid));
        home.into_iter().fold(event, |event, home| event.home(home)).build()
    };
    let s = summary(
        &[
            // its name is known later
            sent(1, 1, Some(pod(1, None))),
            sent(1, 2, Some(pod(1, Some("api-1")))),
            sent(2, 4, Some(pod(1, None))),
            sent(3, 8, Some(pod(2, None))),
            sent(4, 16, Some(Home::Host("a.service".into()))),
            sent(5, 32, Some(Home::Host("b.service".into()))),
            sent(6, 64, None),
        ],
        &[],
    );
    let rows = talkers(&s.top_talkers.by_pod);
    let expected = [
        ("unattributed", 64, 0, 1),
        ("host", 48, 0, 2),
        ("pod 0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b12", 8, 0, 1),
        ("shop/api-1", 7, 0, 2),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn a_name_that_comes_after_all_events_is_in_the_summary() {
    let nameless = Workload::of_cgroup("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b11".into());
    let named = Workload { namespace: Some("shop".into()), pod: Some("api-1".into()), ..nameless.clone() };
    let event = an_event().udp_send().bytes(1).by("api", 1).home(Home::Pod(nameless.into())).build();
    let mut builder = SummaryBuilder::new();
    builder.push_event(&event);
    builder.learn(&named);
    let s = builder.build(&a_manifest(&[event]), &no_dns());
    assert_eq!(talkers(&s.top_talkers.by_pod), [("shop/api-1", 1, 0, 1)]);
}
