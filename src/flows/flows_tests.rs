//! Flows without connection tracking: what is added up, what leaves, and when.

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::line::parse_endpoint;
use ktrace_bundle::testing::an_event;

use super::*;

fn end(text: &str) -> Endpoint {
    parse_endpoint(text).unwrap()
}

/// A datagram from this port of the same socket.
fn sent(port: u16) -> Event {
    an_event().udp_send().from(&format!("10.0.0.1:{port}")).to("10.96.0.10:53").socket(port.into()).build()
}

#[test]
fn events_of_one_socket_and_one_remote_end_are_one_flow() {
    let mut flows = Flows::new(false);
    for to in ["10.96.0.10:53", "10.96.0.10:53", "10.96.0.11:53"] {
        flows.see(&mut an_event().udp_send().to(to).build());
    }
    flows.see(&mut an_event().udp_send().to("*:53").build());
    let lines = flows.finish(DateTime::UNIX_EPOCH).lines;
    let counted: Vec<_> = lines.iter().map(|it| (it.tuple.to, it.send_count)).collect();
    assert_eq!(counted, [(end("10.96.0.10:53"), Some(2)), (end("10.96.0.11:53"), Some(1))]);
    assert!(lines.iter().all(|it| it.why["conntrack"] == "not_requested" && it.community_id.is_some()), "{lines:?}");
}

#[test]
fn a_connection_leaves_when_it_has_closed() {
    let mut flows = Flows::new(false);
    let mut open = an_event().tcp_state(TcpState::SynSent, TcpState::Established).build();
    let mut close = an_event().tcp_state(TcpState::LastAck, TcpState::Close).build();
    flows.see(&mut open);
    assert_eq!(flows.turn(open.at), []);
    flows.see(&mut close);
    let lines = flows.turn(close.at);
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((line.state, line.is_connected, line.event_count), (Some(TcpState::Close), Some(true), 2));
    assert!(flows.open.is_empty() && flows.finish(close.at).lines.is_empty());
}

#[test]
fn there_is_room_for_the_next_and_each_flow_has_its_line() {
    let mut flows = Flows::new(false);
    let many = MOST as u16 + 100;
    let mut lines = Vec::new();
    for port in 1..=many {
        flows.see(&mut sent(port));
        flows.see(&mut sent(1)); // one that is never silent
        lines.extend(flows.turn(DateTime::UNIX_EPOCH));
        assert!(flows.open.len() <= MOST && flows.order.len() <= 2 * MOST + 1);
    }
    assert_eq!(lines.len(), 100);
    lines.extend(flows.finish(DateTime::UNIX_EPOCH).lines);
    let count: u64 = lines.iter().map(|it| it.event_count).sum();
    assert_eq!((lines.len(), count), (usize::from(many), 2 * u64::from(many)));
    assert!(lines.iter().any(|it| it.event_count == u64::from(many) + 1));
}
