use ktrace_bundle::event::{PacketDir, Payload, Proto, RetransmitKind, Role, StallKind, TcpClose};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{EventBuilder, an_event};

use crate::capture::tests::capture;
use crate::detectors::by_id;
use crate::finding::{Finding, Severity};
use crate::kb::release;

const WEB: &str = "10.0.0.5:8080";

fn found(rule: &str, events: impl IntoIterator<Item = EventBuilder>) -> Vec<Finding> {
    by_id(rule).unwrap().detect(&capture(events), &release()).unwrap()
}

fn told(rule: &str, events: impl IntoIterator<Item = EventBuilder>) -> Vec<Severity> {
    found(rule, events).iter().map(|f| f.severity).collect()
}

fn on(socket: u64, ms: u64) -> EventBuilder {
    an_event().from(&format!("10.42.1.15:{}", 40_000 + socket)).to(WEB).socket(socket).at_ms(ms)
}

fn made(socket: u64, ms: u64) -> EventBuilder {
    on(socket, ms).established_after_ms(1)
}

fn again(socket: u64, ms: u64, sent: u64, again: u64) -> EventBuilder {
    on(socket, ms).tcp_retransmit(RetransmitKind::Data, TcpState::Established).payload(|p| {
        let Payload::TcpRetransmit(r) = p else { panic!() };
        (r.tx_segs_count, r.retrans_count) = (Some(sent), Some(again));
    })
}

/// A connection that sends the same again four times in 3 s.
fn standing(socket: u64, ms: u64) -> Vec<EventBuilder> {
    let times = (1..).zip([200, 600, 1400, 3000]);
    let again = times.map(|(n, after)| again(socket, ms + after, 4 + n, n));
    std::iter::once(made(socket, ms)).chain(again).collect()
}

#[test]
fn one_connection_that_stands_still_alone_may_have_lost_its_peer() {
    assert_eq!(told("net.mtu_hole", standing(1, 1000)), []);
    let two = standing(1, 1000).into_iter().chain(standing(2, 1010));
    assert_eq!(told("net.mtu_hole", two), [Severity::Info]);
}

#[test]
fn handshakes_that_go_on_to_work_make_a_hole_likely() {
    let found = found("net.mtu_hole", standing(1, 1000).into_iter().chain([made(2, 5000)]));
    assert_eq!((found[0].severity, found[0].confidence), (Severity::Warning, 0.5));
}

#[test]
fn loss_of_which_some_gets_through_is_no_hole() {
    let lossy = (1..9).map(|n| again(1, 1000 + 400 * n, 4 + 3 * n, n));
    assert_eq!(told("net.mtu_hole", std::iter::once(made(1, 1000)).chain(lossy).chain([made(2, 9000)])), []);
}

#[test]
fn a_connection_that_recovers_or_whose_packets_somebody_drops_is_no_hole() {
    let account = TcpClose { tx_segs_count: Some(400), retrans_count: Some(4), ..TcpClose::default() };
    let ends = on(1, 9000).closed(TcpState::LastAck, account);
    let recovers = standing(1, 1000).into_iter().chain([made(2, 5000), ends]);
    assert_eq!(told("net.mtu_hole", recovers), []);
    let drop = on(1, 2000).dropped(Proto::Tcp, PacketDir::Sent, "NETFILTER_DROP", 4);
    let blocked = standing(1, 1000).into_iter().chain([made(2, 5000), drop]);
    assert_eq!(told("net.mtu_hole", blocked), []);
}

#[test]
fn a_packet_that_was_too_large_proves_a_hole() {
    let drop = on(1, 2000).dropped(Proto::Tcp, PacketDir::Sent, "PKT_TOO_BIG", 4);
    let found = found("net.mtu_hole", standing(1, 1000).into_iter().chain([drop]));
    assert_eq!((found[0].severity, found[0].confidence), (Severity::Critical, 0.97));
}

fn reset(socket: u64, ms: u64, state: TcpState) -> EventBuilder {
    on(socket, ms).tcp_reset(PacketDir::Received, Some(state))
}

#[test]
fn a_client_that_writes_to_what_the_server_has_closed_is_cut_off() {
    let used_again = |n| {
        let closed = on(n, 5000).tcp_state(TcpState::Established, TcpState::CloseWait);
        [made(n, 1000), closed, reset(n, 5001, TcpState::CloseWait)]
    };
    let found = found("tcp.reset_by_peer", [1, 2].into_iter().flat_map(used_again));
    assert_eq!(found[0].severity, Severity::Warning);
    assert!(found[0].cause.starts_with("the other end had closed before"), "{}", found[0].cause);
}

#[test]
fn one_reset_is_a_note_and_a_reset_without_a_socket_nothing() {
    assert_eq!(told("tcp.reset_by_peer", [made(1, 1000), reset(1, 3000, TcpState::Established)]), [Severity::Info]);
    let nobodys = on(9, 1000).tcp_reset(PacketDir::Sent, None);
    let c = capture([nobodys, reset(8, 1000, TcpState::Listen)]);
    assert_eq!(c.connections, []);
}

#[test]
fn clients_that_leave_a_server_with_a_reset_are_a_note() {
    let served = |n: u64| {
        let at = move |ms| on(n, ms).from(WEB).to(&format!("10.0.0.9:{}", 50_000 + n)).role(Role::Server);
        let account = TcpClose { rx_bytes: Some(300), ..TcpClose::default() };
        let close = at(4001).closed(TcpState::Established, account).error("ECONNRESET");
        let cut = at(4000).tcp_reset(PacketDir::Received, Some(TcpState::Established));
        [at(1000).tcp_state(TcpState::SynRecv, TcpState::Established), cut, close]
    };
    assert_eq!(told("tcp.reset_by_peer", [1, 2].into_iter().flat_map(served)), []);
    assert_eq!(told("tcp.reset_by_peer", (1..4).flat_map(served)), [Severity::Info]);
}

#[test]
fn a_reader_of_this_node_is_named_by_who_waits_for_it() {
    let server = |ms| on(7, ms).from(WEB).to("10.42.1.15:40001").role(Role::Server).by("sleepy", 71).netns(5);
    let waits = (0..10).map(|n| on(1, 2000 + 1000 * n).tcp_stall(StallKind::ZeroWindow, 1000, 9000));
    let events = [made(1, 1000), server(1001).tcp_state(TcpState::SynRecv, TcpState::Established)];
    let found = found("tcp.slow_reader", events.into_iter().chain(waits));
    let title = &found[0].title;
    assert!(title.starts_with("`sleepy` (pid 71) does not read what `api` (pid 1847) sends to it by"), "{title}");
}

#[test]
fn connections_of_a_full_listener_are_found_by_its_address_and_port() {
    let listener = |local: &str| an_event().from(local).to("*").role(Role::Listener).by("slow", 71).socket(99);
    let failed = |remote: &str| {
        let syn = on(1, 1000).to(remote).tcp_state(TcpState::Close, TcpState::SynSent);
        [syn, on(1, 4000).to(remote).closed(TcpState::SynSent, TcpClose::default()).error("ETIMEDOUT")]
    };
    let severity = |local: &str, remote: &str| {
        let overflow = listener(local).at_ms(900).listen_overflow(5);
        told("tcp.listen_overflow", failed(remote).into_iter().chain([overflow]))[0]
    };
    assert_eq!(severity("10.0.0.5:8080", WEB), Severity::Critical);
    assert_eq!(severity("10.0.0.6:8080", WEB), Severity::Warning);
    assert_eq!(severity("*:8080", WEB), Severity::Warning, "an address of somebody else");
    assert_eq!(severity("*:8080", "10.42.1.15:8080"), Severity::Critical, "an address of this namespace");
    assert_eq!(severity("*:8080", "127.0.0.1:8080"), Severity::Critical);
    assert_eq!(severity("*:8081", "127.0.0.1:8080"), Severity::Warning);
}

#[test]
fn a_listener_with_room_may_drop_for_another_reason() {
    let syn = on(1, 1000).tcp_state(TcpState::Close, TcpState::SynSent);
    let failed = [syn, on(1, 4000).closed(TcpState::SynSent, TcpClose::default()).error("ETIMEDOUT")];
    let listener = an_event().from(WEB).to("*").role(Role::Listener).by("slow", 71).socket(99).at_ms(900);
    let overflow = listener.listen_overflow(5).payload(|p| {
        let Payload::ListenOverflow(o) = p else { panic!() };
        o.accept_queue = Some(3);
    });
    let found = found("tcp.listen_overflow", failed.into_iter().chain([overflow]));
    assert_eq!((found[0].severity, found[0].confidence), (Severity::Warning, 0.6));
    assert_eq!(found[0].covers, Some(vec![found[0].subject.key()]));
    assert!(found[0].title.ends_with("were dropped, 3 waited to be accepted where 128 may"), "{}", found[0].title);
}

#[test]
fn what_a_client_sends_again_until_its_server_has_room_is_explained_by_the_listener() {
    let listener = an_event().from(WEB).to("*").role(Role::Listener).by("slow", 71).socket(99).at_ms(900);
    let overflow = listener.listen_overflow(5).payload(|p| {
        let Payload::ListenOverflow(o) = p else { panic!() };
        o.accept_queue = Some(3);
    });
    let covered = |server_ms: u64| {
        let server = an_event().from(WEB).to("10.42.1.15:40001").role(Role::Server).by("slow", 71).socket(7);
        let server = server.at_ms(server_ms).tcp_state(TcpState::SynRecv, TcpState::Established);
        let all = [made(1, 1000), again(1, 1250, 2, 1), server, overflow.clone()];
        found("tcp.listen_overflow", all)[0].covers.as_ref().unwrap().len()
    };
    assert_eq!(covered(1252), 2, "the listener, and the client that it had no room for");
    assert_eq!(covered(1001), 1, "it had the connection when the client did");
}

#[test]
fn syns_that_come_again_as_their_answers_were_lost_are_a_note() {
    let listener = an_event().from(WEB).to("*").role(Role::Listener).by("slow", 71).socket(99).at_ms(900);
    let overflow = || {
        listener.clone().listen_overflow(5).payload(|p| {
            let Payload::ListenOverflow(o) = p else { panic!() };
            o.accept_queue = Some(0);
        })
    };
    let server = an_event().from(WEB).to("10.42.1.15:40001").role(Role::Server).by("slow", 71).socket(7);
    let again = |n: u64| server.clone().tcp_retransmit(RetransmitKind::Synack, TcpState::SynRecv).at_ms(1000 * n);
    let severity = |sent: u64| told("tcp.listen_overflow", (1..=sent).map(again).chain([overflow()]))[0];
    assert_eq!(severity(5), Severity::Info);
    assert_eq!(severity(4), Severity::Warning);
}

#[test]
fn a_threshold_that_is_set_decides() {
    let alone = capture(standing(1, 1000));
    let hole = by_id("net.mtu_hole").unwrap();
    let mut kb = release();
    assert_eq!(hole.detect(&alone, &kb).unwrap(), []);
    kb.set("net.mtu_hole.min_standing=1").unwrap();
    assert_eq!(hole.detect(&alone, &kb).unwrap().len(), 1);
}
