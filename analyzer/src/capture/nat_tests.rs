//! Flows joined with what connection tracking says of them, and client with server.

use ktrace_bundle::event::{Connect, Payload};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::nat::{Direction, Nat};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{EventBuilder, NETNS, a_manifest, a_nat, a_tracking_report, an_event, start_at};
use ktrace_bundle::tracking::TrackingReport;

use super::tests::{a_report, capture};
use super::*;

const CLIENT: &str = "10.244.1.2:40000";
const VIP: &str = "10.96.0.80:80";
const BACKEND: &str = "10.244.20.2:8080";
const MASQUERADED: &str = "10.0.0.1:1024";

fn end(text: &str) -> Endpoint {
    ktrace_bundle::line::parse_endpoint(text).unwrap()
}

fn record(proto: Proto, socket: u64, local: &str, remote: &str) -> FlowRecord {
    let tuple = Direction { from: end(local), to: end(remote) };
    FlowRecord { socket: Some(socket), ..FlowRecord::new(proto, tuple, NETNS, start_at()) }
}

fn with_flows(events: impl IntoIterator<Item = EventBuilder>, flows: Vec<FlowRecord>) -> Capture {
    let mut builder = Builder::default();
    (1..).zip(events).for_each(|(seq, e)| builder.push(Record::Event(e.seq(seq).build())));
    flows.into_iter().for_each(|f| builder.push(Record::Flow(Box::new(f))));
    builder.finish(&a_report(ktrace_bundle::reader::Form::Directory))
}

fn opens(socket: u64, ms: u64) -> EventBuilder {
    let event = an_event().from(CLIENT).to(VIP).by("curl", 9).socket(socket);
    event.tcp_state(TcpState::Close, TcpState::SynSent).at_ms(ms)
}

/// A server's socket that its kernel has made for a client.
fn accepted(client: &str, ms: u64) -> EventBuilder {
    let event = an_event().from(BACKEND).to(client).by("nginx", 7).socket(77).netns(5).role(Role::Server);
    event.tcp_state(TcpState::SynRecv, TcpState::Established).at_ms(ms)
}

fn masqueraded(state: &'static str) -> Nat {
    a_nat(state, CLIENT, VIP, BACKEND, MASQUERADED)
}

#[test]
fn the_record_of_a_flow_tells_its_connection_where_it_went() {
    let nat = Some(masqueraded("ESTABLISHED").into());
    let flow = FlowRecord { conntrack: nat.clone(), ..record(Proto::Tcp, 1, CLIENT, VIP) };
    let c = with_flows([opens(1, 1), opens(2, 1)], vec![flow]);
    assert_eq!((&c.connections[0].way.nat, &c.connections[1].way.nat), (&nat, &None));
}

#[test]
fn of_a_socket_that_connects_again_the_record_means_the_connection_with_its_ends() {
    let other = "10.0.0.9:80";
    let closes = |ms| opens(1, ms).tcp_state(TcpState::SynSent, TcpState::Close).error("ECONNREFUSED").at_ms(ms);
    let events = [opens(1, 1), closes(2), opens(1, 10).to(other), closes(11).to(other)];
    let flow = |remote, backend| {
        let nat = a_nat("SYN_SENT", CLIENT, remote, backend, CLIENT);
        FlowRecord { conntrack: Some(nat.into()), ..record(Proto::Tcp, 1, CLIENT, remote) }
    };
    let c = with_flows(events, vec![flow(VIP, BACKEND), flow(other, other)]);
    let backends: Vec<_> = c.connections.iter().map(|x| x.way.backend(x.remote)).collect();
    assert_eq!(backends, [end(BACKEND), end(other)]);
}

#[test]
fn a_udp_socket_s_flows_are_told_apart_by_their_remote_ends() {
    let send = |remote: &str| an_event().udp_send().from(CLIENT).to(remote).socket(1).at_ms(1);
    let nat = a_nat("UNREPLIED", CLIENT, "10.96.0.10:53", "10.244.0.7:53", CLIENT);
    let flow = FlowRecord { conntrack: Some(nat.into()), ..record(Proto::Udp, 1, CLIENT, "10.96.0.10:53") };
    let c = with_flows([send("10.96.0.10:53"), send("10.96.0.11:53")], vec![flow]);
    let vips: Vec<_> = c.dns.iter().map(|f| f.way.vip(f.server)).collect();
    assert_eq!(vips, [Some(end("10.96.0.10:53")), None]);
}

#[test]
fn a_query_to_a_backend_is_dns_if_the_vip_that_was_asked_is_a_dns_server_s() {
    let send = an_event().udp_send().from(CLIENT).to("10.244.0.7:5353").socket(1).at_ms(1);
    let flow = FlowRecord { asked: Some(end("10.96.0.10:53")), ..record(Proto::Udp, 1, CLIENT, "10.244.0.7:5353") };
    let c = with_flows([send], vec![flow]);
    assert_eq!((c.dns.len(), c.udp.len()), (1, 0));
    assert_eq!(c.dns[0].way.vip(c.dns[0].server), Some(end("10.96.0.10:53")));
}

#[test]
fn what_was_asked_is_told_by_the_call_too() {
    let call = an_event().from(CLIENT).to(BACKEND).socket(1).connect().payload(|p| {
        *p = Payload::Connect(Connect { asked: Some(end(VIP)), ..Connect::default() });
    });
    let c = with_flows([call], Vec::new());
    assert_eq!(c.connections[0].way.vip(c.connections[0].remote), Some(end(VIP)));
}

#[test]
fn both_ends_of_a_translated_connection_find_each_other() {
    let c = capture([opens(1, 1).nat(masqueraded("SYN_SENT")), accepted(MASQUERADED, 2)]);
    let [client, server] = c.connections.as_slice() else { panic!("{:?}", c.connections) };
    let name =
        |end: Option<&FarEnd>| end.and_then(|e| e.owner).and_then(|id| c.processes.get(id)).map(|p| p.comm.clone());
    assert_eq!(name(c.ends.server_of(client)).as_deref(), Some("nginx"));
    assert_eq!(name(c.ends.client_of(server)).as_deref(), Some("curl"));
    assert_eq!((c.ends.server_of(server), c.ends.client_of(client)), (None, None));
}

#[test]
fn ends_of_another_time_another_client_or_another_server_are_not_joined() {
    let joined = |server: EventBuilder| {
        let c = capture([opens(1, 1).nat(masqueraded("SYN_SENT")), server]);
        c.ends.server_of(&c.connections[0]).is_some()
    };
    assert!(joined(accepted(MASQUERADED, 900)));
    assert!(!joined(accepted(MASQUERADED, 9000)));
    assert!(!joined(accepted(CLIENT, 2)), "the server sees whom it is told to see");
    assert!(!joined(accepted(MASQUERADED, 2).from("10.244.20.3:8080")));
}

#[test]
fn a_udp_server_on_a_wildcard_address_is_found_by_its_client() {
    let send = an_event().udp_send().from("*:40000").to("10.96.0.10:53").by("dig", 9).socket(1);
    let send = send.nat(a_nat("REPLIED", CLIENT, "10.96.0.10:53", "10.244.0.7:53", CLIENT));
    let recv = an_event().udp_recv().from("*:53").to(CLIENT).by("coredns", 7).socket(2).netns(5).role(Role::Server);
    let c = capture([send.at_ms(1), recv.at_ms(2)]);
    assert_eq!(c.ends.server_of_flow(&c.dns[0]).map(|e| e.netns), Some(5));
}

/// What is missing for this need, and whether that leaves the verdict alone.
fn gap(need: TrackingNeed, outcome: Option<(&str, &str)>, report: Option<TrackingReport>) -> (Option<String>, bool) {
    let mut manifest = a_manifest(&[]);
    let source = |(outcome, error): (&str, &str)| SourceReport {
        name: "conntrack".to_owned(),
        outcome: outcome.to_owned(),
        error: (!error.is_empty()).then(|| error.to_owned()),
        ..SourceReport::default()
    };
    manifest.head.sources = outcome.map(source).into_iter().collect();
    let mut builder = Builder::default();
    builder.push(Record::Manifest(Box::new(manifest)));
    report.into_iter().for_each(|r| builder.push(Record::Tracking(Box::new(r))));
    let needs = Needs { tracking: need, ..Needs::NOTHING };
    let coverage = builder.finish(&a_report(ktrace_bundle::reader::Form::Tgz)).coverage;
    (coverage.gap(&needs), coverage.gap_is_by_plan(&needs))
}

#[test]
fn connection_tracking_that_did_not_answer_is_a_gap_with_its_reason() {
    let of = |outcome, error| gap(TrackingNeed::Flows, Some((outcome, error)), None);
    let told = |text: &str, by_plan| (Some(text.to_owned()), by_plan);
    assert_eq!(of("answered", ""), (None, false));
    assert_eq!(of("not_requested", ""), told("connection tracking was not requested", true));
    assert_eq!(
        of("absent", "not active in netns 4"),
        told("there is no connection tracking: not active in netns 4", true)
    );
    assert_eq!(of("absent", "CAP_NET_ADMIN"), told("there is no connection tracking: CAP_NET_ADMIN", false));
    assert_eq!(of("failed", "a\u{1b}b"), told("connection tracking could not be read: a\\u{1b}b", false));
    assert_eq!(gap(TrackingNeed::Flows, None, None), told("this capture did not ask connection tracking", true));
    assert_eq!(gap(TrackingNeed::Nothing, None, None), (None, false));
}

#[test]
fn tables_that_were_not_read_are_a_gap_for_the_rules_that_need_them() {
    let of = |need, change: fn(&mut TrackingReport)| {
        let mut report = a_tracking_report();
        change(&mut report);
        gap(need, Some(("answered", "")), Some(report)).0
    };
    let uncounted = |r: &mut TrackingReport| {
        let table = &mut r.tables[0];
        table.start.as_mut().unwrap().counters.clear();
        table.error = Some("only /proc".to_owned());
    };
    let unread = |r: &mut TrackingReport| (r.tables[0].via, r.tables[0].error) = (None, Some("EPERM".to_owned()));
    assert_eq!(of(TrackingNeed::Counters, |_| ()), None);
    assert_eq!(of(TrackingNeed::Tables, uncounted), None);
    let text = "the counters of connection tracking could not be read: only /proc";
    assert_eq!(of(TrackingNeed::Counters, uncounted).as_deref(), Some(text));
    let text = "the node's table of connection tracking could not be read: EPERM";
    assert_eq!(of(TrackingNeed::Tables, unread).as_deref(), Some(text));
    assert_eq!(of(TrackingNeed::Flows, unread), None);
    let text = "no table of connection tracking could be read";
    assert_eq!(of(TrackingNeed::Tables, |r| r.tables.clear()).as_deref(), Some(text));
}

#[test]
fn flows_of_which_connection_tracking_could_not_tell_are_a_gap() {
    let of = |why: &str, overruns: u64| {
        let flow =
            FlowRecord { why: [("conntrack".to_owned(), why.to_owned())].into(), ..record(Proto::Tcp, 1, CLIENT, VIP) };
        let mut report = a_tracking_report();
        report.tables[0].overrun_count = overruns;
        let mut builder = Builder::default();
        builder.push(Record::Manifest(Box::new(a_manifest(&[]))));
        builder.push(Record::Flow(Box::new(flow)));
        builder.push(Record::Tracking(Box::new(report)));
        let needs = Needs { tracking: TrackingNeed::Flows, ..Needs::NOTHING };
        builder.finish(&a_report(ktrace_bundle::reader::Form::Tgz)).coverage.gap(&needs)
    };
    assert_eq!((of("not_found", 0), of("inactive", 0)), (None, None));
    assert_eq!(of("overflow", 0).as_deref(), Some("connection tracking could not tell of 1 flow"));
    let text = "connection tracking could not tell of 1 flow: the kernel had more to tell than there was room for";
    assert_eq!(of("not_found", 1).as_deref(), Some(text));
}
