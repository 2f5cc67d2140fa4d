use std::convert::Infallible;
use std::path::Path;

use ktrace_bundle::event::{Event, PacketDir, Proto, RetransmitKind, Role, SocketRecord, TcpClose};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::manifest::{HookOutcome, Manifest};
use ktrace_bundle::nat::{Direction, Nat};
use ktrace_bundle::reader::Form;
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{EventBuilder, NETNS, a_manifest, a_nat, a_socket, an_event, start_at};
use ktrace_bundle::workload::{Home, Workload, WorkloadRecord};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::capture::tests::a_report;

/// What is read twice.
#[derive(Debug, Clone)]
pub(super) struct Bundle {
    events: Vec<Event>,
    others: Vec<Record>,
}

impl Bundle {
    /// Sealed by a capture that saw these events.
    pub(super) fn of(events: impl IntoIterator<Item = Event>) -> Self {
        let events: Vec<Event> = events.into_iter().collect();
        let manifest = Record::Manifest(Box::new(a_manifest(&events)));
        Self { events, others: vec![manifest] }
    }

    fn with(mut self, record: Record) -> Self {
        self.others.push(record);
        self
    }

    fn with_manifest(mut self, change: impl Fn(&mut Manifest)) -> Self {
        for record in &mut self.others {
            if let Record::Manifest(manifest) = record {
                change(manifest);
            }
        }
        self
    }

    /// That of the project's fixtures with this name.
    fn fixture(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/bundles").join(name);
        let mut bundle = Self { events: Vec::new(), others: Vec::new() };
        let sink = &mut |record| match record {
            Record::Event(event) => bundle.events.push(event),
            other => bundle.others.push(other),
        };
        reader::read(&path, &Limits::default(), sink).unwrap();
        bundle
    }
}

fn tell_some(bundle: &Bundle, selector: &Selector, limit: usize) -> Told {
    let read = |sink: &mut dyn FnMut(Record)| {
        let events = bundle.events.iter().cloned().map(Record::Event);
        events.chain(bundle.others.iter().cloned()).for_each(sink);
        Ok::<_, Infallible>(a_report(Form::Directory))
    };
    tell_from(read, selector, limit).unwrap()
}

pub(super) fn tell_all(bundle: &Bundle, selector: &Selector) -> Told {
    tell_some(bundle, selector, 200)
}

fn anything() -> Selector {
    Selector::default()
}

fn of_flow(text: &str) -> Selector {
    Selector { flow: Some(text.parse().unwrap()), ..anything() }
}

fn numbered(events: impl IntoIterator<Item = EventBuilder>) -> Bundle {
    Bundle::of((1..).zip(events).map(|(seq, e)| e.seq(seq).build()))
}

fn text(told: &Told) -> String {
    let mut out = Vec::new();
    text::write(&mut out, told).unwrap();
    String::from_utf8(out).unwrap()
}

fn seqs(story: &Story) -> Vec<u64> {
    story.steps.iter().filter_map(|step| step.seq).collect()
}

const CLIENT: &str = "10.42.1.15:41001";
const VIP: &str = "10.96.0.80:80";
const BACKEND: &str = "10.244.2.2:8080";

fn client(us: u64, old: TcpState, new: TcpState) -> EventBuilder {
    an_event().tcp_state(old, new).by("curl", 4711).from(CLIENT).to(VIP).socket(7).at_us(us)
}

fn server(us: u64, old: TcpState, new: TcpState) -> EventBuilder {
    let event = an_event().tcp_state(old, new).by("nginx", 88).from(BACKEND).to(CLIENT).socket(8).at_us(us);
    event.role(Role::Server).netns(NETNS + 1)
}

/// A connection to a VIP, its server on this node, and what connection tracking says of it.
fn both_ends() -> Bundle {
    use TcpState::{Close, CloseWait, Established, FinWait1, LastAck, SynRecv, SynSent};
    let account = TcpClose { tx_bytes: Some(100), rx_bytes: Some(2048), srtt_us: Some(900), ..TcpClose::default() };
    let direction = Direction { from: end(CLIENT), to: end(VIP) };
    let mut flow = FlowRecord::new(Proto::Tcp, direction, NETNS, start_at());
    flow.socket = Some(7);
    flow.community_id = Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg=".to_owned());
    flow.conntrack = Some(nat().into());
    let closed = client(31_000, LastAck, Close).payload(|p| {
        if let ktrace_bundle::event::Payload::TcpState(change) = p {
            change.close = Some(account);
        }
    });
    let events = [
        client(0, Close, SynSent),
        server(400, SynRecv, Established),
        client(1000, SynSent, Established),
        server(30_000, Established, FinWait1),
        client(30_500, Established, CloseWait),
        closed,
    ];
    numbered(events).with(Record::Flow(Box::new(flow)))
}

fn nat() -> Nat {
    a_nat("TIME_WAIT", CLIENT, VIP, BACKEND, CLIENT)
}

fn end(text: &str) -> Endpoint {
    ktrace_bundle::line::parse_endpoint(text).unwrap()
}

#[test]
fn both_ends_are_one_story_told_from_the_client_s() {
    let told = tell_all(&both_ends(), &anything());
    assert_eq!(
        text(&told),
        "1. `curl` (pid 4711) to 10.96.0.80:80, which is 10.244.2.2:8080 (`nginx` (pid 88)): closed, by the
   other end first, 30.0 ms after its handshake
   2026-01-24 21:57:54.000000 UTC, tcp 10.42.1.15:41001 -> 10.96.0.80:80, netns 4026532001
    +0.000 ms  #1  SYN sent: SYN_SENT
    +0.000 ms      destination translated: 10.96.0.80:80 is 10.244.2.2:8080
    +0.400 ms  #2  other end: handshake complete: ESTABLISHED
    +1.000 ms  #3  handshake complete: ESTABLISHED
   +30.000 ms  #4  other end: FIN sent: FIN_WAIT1
   +30.500 ms  #5  FIN received: CLOSE_WAIT
   +31.000 ms  #6  ended in LAST_ACK: CLOSE
   +31.000 ms  #6  100 B sent, 2.00 KiB received, round trip 900 µs
   closed first by the other end: CLOSE_WAIT: its FIN came first
"
    );
}

#[test]
fn every_name_of_a_flow_finds_the_same_story() {
    let bundle = both_ends();
    let whole = tell_all(&bundle, &anything()).stories;
    let selectors = [
        of_flow(VIP),
        of_flow(BACKEND),
        of_flow(CLIENT),
        of_flow("1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        Selector { comm: Some("nginx".into()), ..anything() },
        Selector { pid: Some(4711), ..anything() },
        Selector { seq: Some(2), ..anything() },
        Selector { seq: Some(6), pid: Some(4711), ..anything() },
    ];
    for selector in selectors {
        assert_eq!(tell_all(&bundle, &selector).stories, whole, "{selector:?}");
    }
    for selector in [
        of_flow("udp 10.96.0.80:80"),
        of_flow("1:AAAA"),
        Selector { pid: Some(1), ..anything() },
        Selector { seq: Some(99), ..anything() },
        Selector { comm: Some("curl".into()), pid: Some(88), ..anything() },
    ] {
        assert_eq!(tell_all(&bundle, &selector).stories, [], "{selector:?}");
    }
}

#[test]
fn a_pod_is_found_by_a_name_that_came_after_its_lines() {
    let uid = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
    let nameless = Home::Pod(Workload::of_cgroup(uid.into()).into());
    let named =
        Workload { namespace: Some("shop".into()), pod: Some("web-1".into()), ..Workload::of_cgroup(uid.into()) };
    let record = WorkloadRecord { v: 1, cgroup_id: 7712, k8s: named, created_at: None, ended_at: None, why: [].into() };
    let event = client(0, TcpState::Close, TcpState::SynSent).home(nameless);
    let bundle = numbered([event]).with(Record::Workload(record));
    let of_pod = |name: &str| Selector { pod: Some(name.parse().unwrap()), ..anything() };
    let told = tell_all(&bundle, &of_pod("shop/web-1"));
    assert_eq!(told.stories[0].who.in_words(), "`curl` (pid 4711) in shop/web-1");
    assert_eq!(tell_all(&bundle, &of_pod("other/web-1")).stories, []);
}

#[test]
fn a_socket_that_connects_again_has_two_stories() {
    use TcpState::{Close, SynSent};
    let again = |us| [client(us, Close, SynSent), client(us + 500, SynSent, Close).error("ECONNREFUSED")];
    let told = tell_all(&numbered([again(0), again(2_000_000)].concat()), &anything());
    assert_eq!(told.stories.iter().map(seqs).collect::<Vec<_>>(), [[1, 2], [3, 4]]);
    assert_eq!(told.stories[1].outcome.text, "refused after 500 µs");
    assert_eq!(told.stories[1].closed_first, None, "it was never open");
    let second = tell_all(&numbered([again(0), again(2_000_000)].concat()), &Selector { seq: Some(4), ..anything() });
    assert_eq!(second.stories, [told.stories[1].clone()]);
}

#[test]
fn packets_that_were_dropped_after_translation_are_steps_of_the_flow() {
    let dropped = an_event().dropped(Proto::Tcp, PacketDir::Forwarded, "NETFILTER_DROP", 3).from(CLIENT).to(BACKEND);
    let dropped = dropped.socket(0).netns(1).at_us(200).seq(2);
    let mut dropped = dropped.unowned(ktrace_bundle::why::Reason::NotFound).build();
    dropped.id.socket = None;
    let syn = client(0, TcpState::Close, TcpState::SynSent).nat(nat()).seq(1).build();
    let bundle = Bundle::of([syn, dropped]);
    let told = tell_all(&bundle, &Selector { seq: Some(2), ..anything() });
    assert_eq!(told.stories.iter().map(seqs).collect::<Vec<_>>(), [[1, 2]]);
    let what = &told.stories[0].steps[2].what;
    let said = "kernel dropped 3 packets (180 B) forwarded 10.42.1.15:41001 to 10.244.2.2:8080: NETFILTER_DROP in \
                ip_rcv_finish_core at eth0, added up over 200 µs";
    assert_eq!(what, said);
}

#[test]
fn packets_without_any_socket_are_a_story_of_their_own() {
    let event = an_event().dropped(Proto::Udp, PacketDir::Received, "NO_SOCKET", 1).seq(1).build();
    let told = tell_all(&Bundle::of([event]), &of_flow("10.96.0.10:53"));
    assert_eq!((told.stories.len(), told.stories[0].outcome.kind), (1, "no_socket"));
}

#[test]
fn a_full_listener_is_a_step_of_a_handshake_that_was_in_trouble_only() {
    let full = |us| {
        let event = an_event().listen_overflow(3).from("*:8080").to("*").socket(70).by("nginx", 88);
        event.role(Role::Listener).netns(NETNS + 1).at_us(us)
    };
    let to_backend = |e: EventBuilder| e.to(BACKEND);
    let bundle = |again: bool| {
        let mut events = vec![
            to_backend(client(0, TcpState::Close, TcpState::SynSent)),
            server(100, TcpState::SynRecv, TcpState::Established).to("10.42.9.9:1").socket(71),
            full(500_000),
        ];
        if again {
            let syn = an_event().tcp_retransmit(RetransmitKind::Syn, TcpState::SynSent).by("curl", 4711);
            events.push(syn.from(CLIENT).to(BACKEND).socket(7).at_us(1_000_000));
        }
        events.push(to_backend(client(1_001_000, TcpState::SynSent, TcpState::Established)));
        numbered(events)
    };
    let of_curl = Selector { comm: Some("curl".into()), ..anything() };
    assert_eq!(seqs(&tell_all(&bundle(true), &of_curl).stories[0]), [1, 3, 4, 5]);
    assert_eq!(seqs(&tell_all(&bundle(false), &of_curl).stories[0]), [1, 4]);
    let by_line = tell_all(&bundle(true), &Selector { seq: Some(3), ..anything() });
    assert_eq!(by_line.stories.iter().map(seqs).collect::<Vec<_>>(), [[1, 3, 4, 5]]);
}

#[test]
fn what_was_not_measured_is_said_and_how_it_ended_is_not_guessed() {
    let events = || numbered([client(0, TcpState::Close, TcpState::SynSent)]);
    let whole = tell_all(&events(), &anything());
    assert_eq!(whole.stories[0].outcome.text, "not answered 60.0 s later, when the window closed, no SYN sent again");
    assert_eq!(whole.stories[0].gaps, [] as [String; 0]);
    let without = events().with_manifest(|m| {
        for hook in m.head.hooks.iter_mut().filter(|h| h.name == "drop" || h.name == "tcp_reset") {
            hook.outcome = HookOutcome::NotRequested;
        }
    });
    let told = tell_all(&without, &anything());
    let gaps = ["dropped packets: hook `drop` was not requested", "resets: hook `tcp_reset` was not requested"];
    assert_eq!(told.stories[0].gaps, gaps);
    let lossy = events().with_manifest(|m| {
        let of_type = m.ledger.by_type.entry(ktrace_bundle::event::EventKind::TcpState).or_default();
        of_type.dropped.insert(ktrace_bundle::ledger::DropReason::RingFull, 2);
    });
    let told = tell_all(&lossy, &anything());
    assert_eq!(told.stories[0].outcome.kind, "unknown");
    assert!(told.stories[0].gaps[0].starts_with("some of the state changes: 2 `tcp_state` events are missing"));
}

#[test]
fn sockets_that_no_event_tells_of_come_last() {
    let idle: SocketRecord = a_socket().from("10.42.1.15:50000").to("10.42.2.9:80").socket(9).at_start().build();
    let bundle = numbered([client(5_000_000, TcpState::Close, TcpState::SynSent)]).with(Record::Socket(idle));
    let told = tell_all(&bundle, &anything());
    assert_eq!(told.stories.iter().map(|s| s.remote).collect::<Vec<_>>(), [end(VIP), end("10.42.2.9:80")]);
    assert!(told.stories[1].gaps[0].starts_with("its beginning: "), "{:?}", told.stories[1].gaps);
}

#[test]
fn many_lines_and_many_stories_are_cut_and_counted() {
    let again = |us| {
        let event = an_event().tcp_retransmit(RetransmitKind::Data, TcpState::Established);
        event.by("curl", 4711).from(CLIENT).to(VIP).socket(7).at_us(us)
    };
    let told = tell_all(&numbered((0..200).map(|n| again(n * 1000))), &anything());
    let story = &told.stories[0];
    assert_eq!((story.steps.len(), story.omitted_count), (50, 150));
    assert_eq!((seqs(story)[39], seqs(story)[40]), (40, 191), "the first and the last ones stay");
    let syn = |n: u64| client(n * 1000, TcpState::Close, TcpState::SynSent).socket(100 + n);
    let told = tell_some(&numbered((0..30).map(syn)), &anything(), 5);
    assert_eq!((told.stories.len(), told.more), (5, 25));
    assert_eq!(told.stories.iter().map(seqs).collect::<Vec<_>>(), [[1], [2], [3], [4], [5]]);
}

#[test]
fn names_cannot_steer_the_terminal_and_lines_are_short() {
    let events = [client(0, TcpState::Close, TcpState::SynSent).by("a\u{1b}[31m\nb", 4711)];
    let told = tell_all(&numbered(events), &anything());
    let text = text(&told);
    assert!(text.starts_with(r"1. `a\u{1b}[31m\u{a}b` (pid 4711) to "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

/// Bundles of every kind of line that a story can be made of.
const SHUFFLED: [&str; 12] = [
    "nat-both-ends",
    "dns-dead-server",
    "dns-parallel-resolvers",
    "dns-lost-reply-glibc",
    "connect-timed-out",
    "policy-behind-vip",
    "policy-strangers",
    "reset-both-ends",
    "mtu-hole",
    "listen-overflow",
    "close-wait-leak",
    "slow-reader-both-ends",
];

#[test]
fn any_order_of_lines_tells_the_same() {
    for name in SHUFFLED {
        let bundle = Bundle::fixture(name);
        let expected = tell_all(&bundle, &anything());
        assert!(!expected.stories.is_empty(), "{name}");
        let some = tell_some(&bundle, &anything(), 3);
        let mut runner = TestRunner::new(Config { cases: 8, ..Config::default() });
        let shuffled = Just(bundle.events.clone()).prop_shuffle();
        let outcome = runner.run(&shuffled, |events| {
            let bundle = Bundle { events, ..bundle.clone() };
            let told = tell_all(&bundle, &anything());
            prop_assert_eq!(&told.stories, &expected.stories);
            prop_assert_eq!(text(&told), text(&expected));
            let told = tell_some(&bundle, &anything(), 3);
            prop_assert_eq!((told.stories, told.more), (some.stories.clone(), some.more));
            Ok(())
        });
        outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn steps_are_in_the_order_of_the_kernel() {
    for name in SHUFFLED {
        for story in tell_all(&Bundle::fixture(name), &anything()).stories {
            assert!(story.steps.is_sorted_by_key(|step| step.boot_ns), "{name}: {story:?}");
            assert_eq!(story.steps.first().map(|step| step.since_start_ns), Some(0), "{name}");
        }
    }
}
