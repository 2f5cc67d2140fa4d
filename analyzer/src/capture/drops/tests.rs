use ktrace_bundle::event::{Event, EventKind, PacketDir, Payload, Proto};
use ktrace_bundle::reader::{Form, Record};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{EventBuilder, a_manifest, a_nat, an_event};
use ktrace_bundle::tracking::{Backend, Service};

use super::*;
use crate::capture::tests::{a_report, capture};
use crate::capture::{Builder, Capture};

const CLIENT: &str = "10.244.1.2:40000";
const VIP: &str = "10.96.0.80:80";
const BACKEND: &str = "10.244.1.5:8080";

fn end(text: &str) -> Endpoint {
    ktrace_bundle::line::parse_endpoint(text).unwrap()
}

fn syn() -> EventBuilder {
    an_event().from(CLIENT).to(VIP).socket(7).tcp_state(TcpState::Close, TcpState::SynSent).at_ms(1000)
}

fn forwarded(from: &str, to: &str, ms: u64) -> EventBuilder {
    let at = an_event().from(from).to(to).netns(1).at_ms(ms);
    at.dropped(Proto::Tcp, PacketDir::Forwarded, "NETFILTER_DROP", 2)
}

fn hits(capture: &Capture) -> Vec<(Endpoint, bool)> {
    let hits = capture.drops.of_connection(&capture.connections[0], capture.services.as_ref());
    hits.iter().map(|hit| (hit.row.to, hit.is_own)).collect()
}

#[test]
fn drops_of_one_flow_for_one_reason_are_one_row() {
    let received = |ms| {
        forwarded(BACKEND, CLIENT, ms).payload(|p| {
            let Payload::Drop(d) = p else { panic!() };
            d.dir = PacketDir::Received;
        })
    };
    let c = capture([forwarded(CLIENT, VIP, 1000), forwarded(CLIENT, VIP, 2000), received(3000)]);
    let rows: Vec<_> = c.drops.rows().iter().map(|r| (r.from, r.to, r.packets, r.evidence.seqs())).collect();
    assert_eq!(rows, [(end(CLIENT), end(VIP), 4, vec![1, 2]), (end(CLIENT), end(BACKEND), 2, vec![3])]);
}

#[test]
fn a_drop_is_found_by_either_end_in_any_namespace() {
    let c = capture([syn(), forwarded(CLIENT, VIP, 1000), forwarded(VIP, CLIENT, 1200)]);
    assert_eq!(hits(&c), [(end(CLIENT), false), (end(VIP), true)]);
    let others = [forwarded("10.244.1.2:40001", VIP, 1000), forwarded(CLIENT, "10.96.0.80:81", 1000)];
    assert_eq!(hits(&capture([syn()].into_iter().chain(others))), []);
}

#[test]
fn a_drop_after_translation_is_found_by_the_entry() {
    let nat = a_nat("SYN_SENT", CLIENT, VIP, BACKEND, "10.0.0.1:1024");
    let after = [forwarded(CLIENT, BACKEND, 1000), forwarded("10.0.0.1:1024", BACKEND, 1001)];
    let c = capture([syn().nat(nat)].into_iter().chain(after));
    assert_eq!(hits(&c), [(end(BACKEND), true), (end(BACKEND), true)]);
}

#[test]
fn a_drop_that_left_no_entry_is_found_by_the_backends_of_what_was_asked() {
    let of = |backend: &str| {
        let events: Vec<Event> = [syn(), forwarded(CLIENT, backend, 1000)].map(EventBuilder::build).to_vec();
        let manifest = a_manifest(&events);
        let mut builder = Builder::default();
        events.into_iter().for_each(|e| builder.push(Record::Event(e)));
        let backend = Backend {
            end: end(BACKEND),
            from: Vec::new(),
            attempt_count: 0,
            failed_count: 0,
            tracked_count: 0,
            unreplied_count: 0,
        };
        let service = Service { proto: Proto::Tcp, vip: end(VIP), name: None, backends: vec![backend] };
        let services = ServicesReport { services: vec![service], ..ServicesReport::default() };
        builder.push(Record::Services(Box::new(services)));
        builder.push(Record::Manifest(Box::new(manifest)));
        hits(&builder.finish(&a_report(Form::Tgz))).len()
    };
    assert_eq!((of(BACKEND), of("10.244.1.6:8080")), (1, 0));
}

#[test]
fn a_port_that_is_used_again_is_another_flow() {
    let closed = syn().tcp_state(TcpState::SynSent, TcpState::Close).at_ms(1500);
    assert_eq!(hits(&capture([syn(), closed.clone(), forwarded(CLIENT, VIP, 9000)])), []);
    assert_eq!(hits(&capture([syn(), closed, forwarded(CLIENT, VIP, 2000)])).len(), 1);
    assert_eq!(hits(&capture([syn(), forwarded(CLIENT, VIP, 9000)])).len(), 1, "one that still waits");
}

#[test]
fn loopback_addresses_mean_something_in_their_own_namespace_only() {
    let syn = syn().from("127.0.0.1:40000").to("127.0.0.1:80");
    let drop = |netns| forwarded("127.0.0.1:40000", "127.0.0.1:80", 1000).netns(netns);
    assert_eq!(hits(&capture([syn.clone(), drop(1)])), []);
    assert_eq!(hits(&capture([syn, drop(ktrace_bundle::testing::NETNS)])).len(), 1);
}

#[test]
fn a_udp_socket_without_an_address_is_found_by_its_port() {
    let query = an_event().udp_send().from("*:40000").to("10.96.0.10:53").at_ms(1000);
    let drop = |from: &str| {
        let at = an_event().from(from).to("10.96.0.10:53").at_ms(1000);
        at.dropped(Proto::Udp, PacketDir::Sent, "TC_EGRESS", 1)
    };
    let n = |from: &str| {
        let c = capture([query.clone(), drop(from)]);
        c.drops.of_udp(&c.dns[0], None).len()
    };
    assert_eq!((n(CLIENT), n("10.244.1.2:40001")), (1, 0));
}

#[test]
fn drops_of_a_flood_are_found_without_the_client_s_port() {
    let c = capture([syn(), forwarded("10.244.1.2", VIP, 1000), forwarded(VIP, "10.244.1.2", 1000)]);
    assert_eq!(hits(&c), [(end("10.244.1.2"), false), (end(VIP), true)]);
    assert_eq!(hits(&capture([syn(), forwarded("10.244.1.3", VIP, 1000)])), []);
}

#[test]
fn what_does_not_fit_is_coverage() {
    let mut builder = Builder { max_flows: 1, ..Builder::default() };
    for n in 0..3 {
        let drop = forwarded(CLIENT, &format!("10.0.0.9:{}", 80 + n), 1000).build();
        builder.push(Record::Event(drop));
        builder.push(Record::Event(an_event().listen_overflow(1).socket(n).build()));
    }
    let c = builder.finish(&a_report(Form::Tgz));
    assert_eq!((c.drops.rows().len(), c.overflows.len()), (1, 1));
    assert_eq!(c.coverage.overflow, [("drops", 2), ("listeners", 2)]);
    assert_eq!(c.events[&EventKind::Drop], 3);
}
