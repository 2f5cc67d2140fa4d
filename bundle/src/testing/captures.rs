//! Whole captures for tests: head, ledger and manifest of one that saw everything, and the bundle that it sealed.

use std::collections::BTreeMap;
use std::path::Path;

use super::{NETNS, START_BOOT_NS, WINDOW_NS, at, start_at};
use crate::audit::Audited;
use crate::dns::DnsPairs;
use crate::event::{Event, LINE_VERSION, SocketRecord, When};
use crate::ledger::{Ledger, TypeLedger};
use crate::manifest::{
    ClockSample, Clocks, Collector, Cost, EndedBy, Head, HookOutcome, HookReport, Host, Manifest, PlanEntry,
    PlanSource, Schema, SourceReport,
};
use crate::node::{Item, NodeRecord};
use crate::totals::SummaryBuilder;
use crate::tracking::{ServicesReport, Table, TableCounts, TrackingReport};
use crate::writer::{BundleName, BundleWriter, Sealed, WriterCaps};

/// Every hook of a built capture.
const HOOKS: [&str; 8] = ["tcp_state", "udp", "connect", "tcp_retransmit", "tcp_reset", "tcp_wait", "drop", "sockets"];

/// What is known before the first event: every hook attached, connection tracking answers, a window that opens at
/// [`START_BOOT_NS`].
pub fn a_head() -> Head {
    let hook = |name: &str| HookReport {
        name: name.to_owned(),
        outcome: HookOutcome::Attached,
        variant: Some("tp_btf".to_owned()),
        tried: Vec::new(),
        programs: Vec::new(),
        attached_after_ns: Some(1_000_000),
        limits: Vec::new(),
    };
    let duration = PlanEntry { value: "60s".into(), from: PlanSource::Flag };
    Head {
        schema: Schema::default(),
        capture_id: "00112233445566778899aabbccddeeff".to_owned(),
        collector: Collector {
            version: "0.1.0".to_owned(),
            commit: None,
            target: "x86_64-unknown-linux-gnu".to_owned(),
        },
        node: "node-1".to_owned(),
        cluster: None,
        labels: BTreeMap::new(),
        start_at: start_at(),
        plan: BTreeMap::from([("duration".to_owned(), duration)]),
        clocks: Clocks {
            start_boot_ns: START_BOOT_NS,
            samples: vec![ClockSample { boot_ns: START_BOOT_NS, utc: start_at() }],
            ..Clocks::default()
        },
        host: Host { kernel: "6.12.0".to_owned(), arch: "x86_64".to_owned(), boot_id: None, btf: None },
        hooks: HOOKS.map(hook).to_vec(),
        sources: vec![SourceReport {
            name: "conntrack".to_owned(),
            outcome: "answered".to_owned(),
            ..SourceReport::default()
        }],
        byte_bound: None,
        command: None,
    }
}

/// The node's table of connection tracking, and how it was doing: fine.
pub fn a_tracking_report() -> TrackingReport {
    let counters = ["drop", "early_drop", "insert_failed", "invalid", "search_restart"];
    let counters: BTreeMap<String, u64> = counters.map(|name| (name.to_owned(), 3)).into();
    let counts = |count| Some(TableCounts { count: Some(count), counters: counters.clone() });
    let table = Table {
        netns: NETNS,
        is_node: true,
        via: Some("ctnetlink".to_owned()),
        max: Some(262_144),
        start: counts(1200),
        end: counts(1210),
        difference: counters.keys().map(|name| (name.clone(), 0)).collect(),
        highest_count: Some(1300),
        ..Table::default()
    };
    TrackingReport { tables: vec![table], ..TrackingReport::default() }
}

/// A ledger that balances and in which every one of these events was written.
pub fn a_ledger(events: &[Event]) -> Ledger {
    let mut ledger = Ledger::default();
    for event in events {
        let t: &mut TypeLedger = ledger.by_type.entry(event.payload.kind()).or_default();
        (t.seen, t.written) = (t.seen + 1, t.written + 1);
    }
    ledger.total_from_types();
    ledger.observed = ledger.seen;
    ledger
}

/// The manifest of a complete 60 s capture of these events, without members.
pub fn a_manifest(events: &[Event]) -> Manifest {
    let mut head = a_head();
    head.clocks.end_boot_ns = Some(START_BOOT_NS + WINDOW_NS);
    Manifest {
        head,
        end_at: at(START_BOOT_NS + WINDOW_NS),
        duration_ns: WINDOW_NS,
        ended_by: EndedBy::Deadline,
        complete: true,
        degraded: Vec::new(),
        notes: Vec::new(),
        ledger: a_ledger(events),
        stdout: None,
        audit: Vec::new(),
        audited: Some(Audited { netns_count: 2, ..Audited::default() }),
        cost: Cost::default(),
        members: Vec::new(),
    }
}

/// A sealed bundle in `out_dir` of what a collector would have written for these records: DNS replies
/// annotated (port 53), `seq` set, summary and members filled in. `manifest` is [`a_manifest`] or a change of it.
pub fn a_bundle(out_dir: &Path, events: &mut [Event], sockets: &[SocketRecord], manifest: Manifest) -> Sealed {
    a_bundle_on(out_dir, events, sockets, &[], manifest)
}

/// What is seen of the network namespace [`NETNS`] (for another one set `netns`) at one of the two looks.
pub fn in_network(when: When, item: Item) -> NodeRecord {
    NodeRecord { netns: Some(NETNS), ..of_host(when, item) }
}

/// What is seen of the machine at one of the two looks.
pub fn of_host(when: When, item: Item) -> NodeRecord {
    let boot_ns = match when {
        When::Start => START_BOOT_NS,
        When::End => START_BOOT_NS + WINDOW_NS,
    };
    NodeRecord { v: LINE_VERSION, when, ts: at(boot_ns), boot_ns, netns: None, item }
}

/// The same as [`a_bundle`], of a node that looked like this: [`in_network`], [`of_host`].
pub fn a_bundle_on(
    out_dir: &Path,
    events: &mut [Event],
    sockets: &[SocketRecord],
    node: &[NodeRecord],
    manifest: Manifest,
) -> Sealed {
    let name = BundleName { node: manifest.head.node.clone(), at: manifest.head.start_at };
    let caps = WriterCaps { max_bytes: 1 << 30 };
    let mut writer = BundleWriter::create(out_dir, &name, manifest.head.clone(), caps).expect("a writable directory");
    let (mut dns, mut totals) = (DnsPairs::new([53].into(), 1 << 16), SummaryBuilder::new());
    let push_sockets = |writer: &mut BundleWriter, totals: &mut SummaryBuilder, when| {
        for socket in sockets.iter().filter(|s| s.when == when) {
            totals.push_socket(socket);
            writer.push_socket(socket).expect("a writable file");
        }
    };
    push_sockets(&mut writer, &mut totals, When::Start);
    for event in events {
        dns.annotate(event, writer.next_seq());
        writer.push(event).expect("a writable file");
        totals.push_event(event);
    }
    push_sockets(&mut writer, &mut totals, When::End);
    for record in node {
        writer.push_node(record).expect("a writable file");
    }
    writer.set_tracking(a_tracking_report(), ServicesReport::default());
    let summary = totals.build(&manifest, &dns);
    writer.seal(manifest, &summary).expect("a writable directory")
}
