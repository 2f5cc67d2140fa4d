//! Any sequence of admissions and refusals balances, whatever the caps are and wherever the disk fails; and what a cap
//! has room for is written.

use std::io::Read as _;
use std::path::Path;

use ktrace_bundle::ledger::Ledger;
use ktrace_bundle::testing::a_manifest;
use ktrace_bundle::writer::{BundleName, WriterCaps};
use proptest::prelude::*;

use super::super::account;
use super::*;
use crate::cgroup::Hierarchy;
use crate::hooks::tests::{bytes_of, context};
use crate::kernel::skel::types::kt_counters;
use crate::plan::PortFilter;
use crate::plan::filters::{self, home::HomeFilters};
use crate::plan::naming::Naming;

/// One thing that can become of an event of the n-th kind, or of the whole capture.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The n-th filter says no.
    Filtered(usize, usize),
    /// The kernel refuses it for the n-th reason.
    Refused(usize, usize),
    /// It comes through the ring.
    Submitted(usize),
    /// It comes through the ring damaged.
    Damaged(usize),
    /// The collector's turn.
    Turn,
    /// Nothing can be written any more.
    Failure,
}

fn steps(failures: u32) -> impl Strategy<Value = Vec<Step>> {
    let kind = 0..EventKind::ALL.len();
    let filters = kt_counters::default().filtered.len();
    let reasons = kt_counters::default().dropped.len();
    let step = prop_oneof![
        2 => (kind.clone(), 0..filters).prop_map(|(k, f)| Step::Filtered(k, f)),
        2 => (kind.clone(), 0..reasons).prop_map(|(k, r)| Step::Refused(k, r)),
        // UDP more often than all the rest
        6 => (1_usize..3).prop_map(Step::Submitted),
        4 => kind.clone().prop_map(Step::Submitted),
        1 => kind.prop_map(Step::Damaged),
        2 => Just(Step::Turn),
        failures => Just(Step::Failure),
    ];
    prop::collection::vec(step, 0..400)
}

/// A capture without a kernel: its counters are counted here.
struct Mock {
    sink: Sink,
    counters: Vec<(EventKind, kt_counters)>,
    records: Vec<Vec<u8>>,
    /// Events that could be decoded: UDP, and all others.
    whole: [u64; 2],
    failed: bool,
}

impl Mock {
    fn new(out: &Path, max_events: u64, max_bytes: u64) -> Self {
        let name = BundleName { node: "n".into(), at: context().utc };
        let writer = BundleWriter::create(out, &name, a_manifest(&[]).head, WriterCaps { max_bytes }).unwrap();
        let dns = DnsPairs::new([53].into(), 100);
        let fixture = |kind: EventKind| {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire");
            bytes_of(&dir.join(format!("{}.hex", kind.as_str())))
        };
        Self {
            sink: Sink::new(
                writer,
                SummaryBuilder::new(),
                dns,
                max_events,
                context(),
                Homes::new(
                    &Naming { pod_logs: "/nonexistent".into(), ..Naming::default() },
                    &HomeFilters::default(),
                    "n",
                ),
                Processes::new(false, false),
            ),
            counters: EventKind::ALL.into_iter().map(|kind| (kind, kt_counters::default())).collect(),
            records: EventKind::ALL.into_iter().map(fixture).collect(),
            whole: [0, 0],
            failed: false,
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Filtered(kind, filter) => {
                self.counters[kind].1.observed += 1;
                self.counters[kind].1.filtered[filter] += 1;
            }
            Step::Refused(kind, reason) => {
                self.seen(kind).dropped[reason] += 1;
            }
            Step::Submitted(kind) => {
                self.seen(kind).submitted += 1;
                self.whole[usize::from(!EventKind::ALL[kind].is_bulk())] += 1;
                self.sink.take(&self.records[kind]);
            }
            Step::Damaged(kind) => {
                self.seen(kind).submitted += 1;
                self.sink.take(&self.records[kind][1..]);
            }
            Step::Turn => self.sink.write_batch(),
            Step::Failure => {
                self.sink.failure = Some(WriteError::GivenUp);
                self.failed = true;
            }
        }
    }

    fn seen(&mut self, kind: usize) -> &mut kt_counters {
        let counters = &mut self.counters[kind].1;
        counters.observed += 1;
        counters.seen += 1;
        counters
    }

    fn ledger(&self) -> Ledger {
        account::ledger(&self.counters, &self.sink.tally, &PortFilter::All, 0, 0)
    }
}

/// Runs a whole capture; returns its ledger and the text of `events.jsonl`.
fn capture(steps: &[Step], max_events: u64, max_bytes: u64) -> (Mock, Ledger, String) {
    let out = tempfile::tempdir().unwrap();
    let mut mock = Mock::new(out.path(), max_events, max_bytes);
    steps.iter().for_each(|step| mock.apply(*step));
    mock.sink.write_batch();
    mock.sink.open_reserve();
    mock.sink.flush();
    let ledger = mock.ledger();
    let lines = std::fs::read_to_string(mock.sink.writer.dir().join("events.jsonl")).unwrap();
    (mock, ledger, lines)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_admissions_and_refusals_balances(
        steps in steps(1), max_events in 1..150_u64, max_bytes in 16_384..120_000_u64,
    ) {
        let (_, ledger, lines) = capture(&steps, max_events, max_bytes);
        prop_assert_eq!(ledger.check(), Ok(()));
        prop_assert_eq!(ledger.written, lines.lines().count() as u64);
        prop_assert!(ledger.written <= max_events && lines.len() as u64 <= max_bytes);
        let observed = steps.iter().filter(|s| !matches!(s, Step::Turn | Step::Failure)).count();
        prop_assert_eq!(ledger.observed, observed as u64);
    }

    #[test]
    fn an_event_cap_is_filled_to_the_last_line_and_keeps_a_quarter_for_what_is_rare(
        steps in steps(0), max_events in 1..150_u64,
    ) {
        let (mock, ledger, _) = capture(&steps, max_events, 1 << 30);
        let [udp, rare] = mock.whole;
        prop_assert!(!mock.failed);
        prop_assert_eq!(ledger.written, max_events.min(udp + rare));
        let written = |kind: &EventKind| ledger.by_type[kind].written;
        let rare_written: u64 = EventKind::ALL.iter().filter(|k| !k.is_bulk()).map(written).sum();
        prop_assert!(rare_written >= rare.min(max_events / 4));
    }

    #[test]
    fn a_byte_cap_is_filled_but_for_less_than_a_line(steps in steps(0), max_bytes in 16_384..120_000_u64) {
        let (_, ledger, lines) = capture(&steps, 1 << 20, max_bytes);
        let refused = ledger.dropped[&DropReason::ByteCap] > mock_refusals(&steps);
        prop_assert!(lines.len() as u64 <= max_bytes);
        prop_assert!(!refused || lines.len() as u64 + 1000 > max_bytes, "{} of {max_bytes} bytes", lines.len());
    }
}

#[test]
fn what_the_reserve_had_room_for_is_on_stdout_too() {
    let out = tempfile::tempdir().unwrap();
    let mut mock = Mock::new(out.path(), 40, 1 << 20);
    let (mut reader, writer) = std::io::pipe().unwrap();
    mock.sink.tee = Some(Tee::to(writer.into()).unwrap());
    let udp = EventKind::ALL.iter().position(|kind| kind.is_bulk()).unwrap();
    (0..50).for_each(|_| mock.apply(Step::Submitted(udp)));
    mock.sink.write_batch();
    assert_eq!(mock.ledger().written, 30);
    mock.sink.open_reserve();
    mock.sink.flush();
    mock.sink.tee.take().unwrap().finish().unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let lines = std::fs::read_to_string(mock.sink.writer.dir().join("events.jsonl")).unwrap();
    assert_eq!((lines.lines().count(), text), (40, lines));
}

/// A datagram of this socket, by a process in this cgroup.
fn datagram(mock: &Mock, boot_ns: u64, cookie: u64, cgroup_id: u64) -> Vec<u8> {
    let udp = EventKind::ALL.iter().position(|kind| kind.is_bulk()).unwrap();
    let mut record = mock.records[udp].clone();
    // struct kt_header: boot_ns, kind, cpu, flow (cookie, …), owner (start_ns, cgroup_id, …)
    for (at, number) in [(0, boot_ns), (16, cookie), (80, cgroup_id)] {
        record[at..at + 8].copy_from_slice(&number.to_ne_bytes());
    }
    record
}

#[test]
fn events_of_a_container_wait_for_its_name_and_nothing_is_lost_or_out_of_order_by_it() {
    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
    const CGROUP: u64 = 1 << 60;
    let (out, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    ["pods", "containers"].iter().for_each(|it| std::fs::create_dir(logs.path().join(it)).unwrap());
    let mut mock = Mock::new(out.path(), 100, 1 << 20);
    mock.sink.homes = Homes::of_pod((Hierarchy::V2, CGROUP), UID, logs.path(), &HomeFilters::default());
    let submit = |mock: &mut Mock, boot_ns, cookie, cgroup| {
        let record = datagram(mock, boot_ns, cookie, cgroup);
        let udp = EventKind::ALL.iter().position(|kind| kind.is_bulk()).unwrap();
        mock.seen(udp).submitted += 1;
        mock.sink.take(&record);
    };
    // two of the container's socket and one without a socket, then others
    submit(&mut mock, 1_000_000, 1, CGROUP);
    submit(&mut mock, 2_000_000, 1, CGROUP);
    submit(&mut mock, 3_000_000, 0, CGROUP);
    submit(&mut mock, 4_000_000, 2, CGROUP + 1);
    mock.sink.write_batch();
    let mut ledger = mock.ledger();
    assert_eq!((ledger.written, ledger.dropped[&DropReason::Undecodable]), (2, 2));
    account::leave_out_what_is_under_way(&mut ledger);
    assert_eq!(ledger.dropped_total(), 0, "what waits is not lost");

    std::fs::create_dir(logs.path().join(format!("pods/shop_api-1_{UID}"))).unwrap();
    mock.sink.homes.wait_for_last_names();
    submit(&mut mock, 200_000_000, 2, CGROUP + 1);
    mock.sink.write_batch();
    mock.sink.settle_overdue(None, |_| None);
    mock.sink.flush();
    let ledger = mock.ledger();
    assert_eq!((ledger.check(), ledger.written, ledger.dropped_total()), (Ok(()), 5, 0));
    assert_eq!(mock.sink.writer.max_disorder_ns(), 0);
    let lines = std::fs::read_to_string(mock.sink.writer.dir().join("events.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_socket: Vec<_> = lines.iter().filter(|it| it["socket"] == 1).collect();
    assert_eq!(of_socket.iter().map(|it| it["boot_ns"].as_u64().unwrap()).collect::<Vec<_>>(), [1_000_000, 2_000_000]);
    assert!(of_socket.iter().all(|it| it["k8s"]["pod"] == "api-1"), "{of_socket:?}");
}

#[test]
fn what_the_kernel_asks_about_a_pod_is_answered_as_soon_as_its_name_is_there() {
    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
    const CGROUP: u64 = 1 << 60;
    // struct kt_flow.flags: KT_FLOW_UNDECIDED, KT_FLOW_UNNAMED
    const UNDECIDED: u8 = 4;
    const UNNAMED: u8 = 16;
    for (pods, name, written) in [("api-*", Some("api-1"), 3), ("!api-*", Some("api-1"), 0), ("web-*", None, 3)] {
        let (out, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        ["pods", "containers"].iter().for_each(|it| std::fs::create_dir(logs.path().join(it)).unwrap());
        let mut mock = Mock::new(out.path(), 100, 1 << 20);
        let filters = HomeFilters { pod: filters::name(pods).unwrap(), ..HomeFilters::default() };
        mock.sink.homes = Homes::of_pod((Hierarchy::V2, CGROUP), UID, logs.path(), &filters);
        // one that nobody owned yet, the one that tells whose it is, and the one that follows
        for (boot_ns, flag) in [(1, UNDECIDED), (2, UNNAMED), (3, UNNAMED)] {
            let mut record = datagram(&mock, boot_ns, 1, CGROUP);
            record[68] = flag;
            let udp = EventKind::ALL.iter().position(|kind| kind.is_bulk()).unwrap();
            mock.seen(udp).submitted += 1;
            mock.sink.take(&record);
        }
        mock.sink.write_batch();
        assert_eq!(mock.ledger().written, 0, "{pods}: they wait");
        if let Some(name) = name {
            std::fs::create_dir(logs.path().join(format!("pods/shop_{name}_{UID}"))).unwrap();
        }
        mock.sink.homes.wait_for_last_names();
        mock.sink.settle_overdue(None, |_| None);
        let ledger = mock.ledger();
        let late = ledger.dropped[&DropReason::FilteredLate];
        assert_eq!((ledger.check(), ledger.written, late), (Ok(()), written, 3 - written), "{pods}");
        assert_eq!(mock.sink.unjudged, if name.is_some() { 0 } else { 3 }, "{pods}");
        let told = mock.sink.homes.decided().len();
        assert_eq!((told, mock.sink.homes.decided().len()), (usize::from(name.is_some()), 0), "{pods}: told once");
    }
}

/// What the kernel refused for the byte cap in these steps.
fn mock_refusals(steps: &[Step]) -> u64 {
    steps.iter().filter(|s| matches!(s, Step::Refused(_, 1))).count() as u64
}
