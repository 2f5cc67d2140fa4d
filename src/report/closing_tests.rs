//! Closing lines, word by word.

use std::collections::BTreeMap;

use chrono::DateTime;
use ktrace_bundle::audit::AuditEntry;
use ktrace_bundle::event::EventKind;
use ktrace_bundle::ledger::TypeLedger;
use ktrace_bundle::manifest::{Clocks, Collector, Cost, Head, Host, Schema};

use super::*;
use crate::error::Exit;

const LOUD: Style = Style { quiet: false, with_path: false };

fn a_manifest() -> Manifest {
    let mut ledger = Ledger { observed: 30, ..Ledger::default() };
    for (kind, seen) in [(EventKind::TcpState, 10), (EventKind::UdpSend, 20)] {
        ledger.by_type.insert(kind, TypeLedger { seen, written: seen, ..TypeLedger::default() });
    }
    ledger.total_from_types();
    Manifest {
        head: Head {
            schema: Schema::default(),
            capture_id: "0".repeat(32),
            collector: Collector::default(),
            node: "n1".into(),
            cluster: None,
            labels: BTreeMap::new(),
            start_at: DateTime::UNIX_EPOCH,
            plan: BTreeMap::new(),
            clocks: Clocks::default(),
            host: Host::default(),
            hooks: Vec::new(),
            sources: Vec::new(),
            byte_bound: None,
            command: None,
        },
        end_at: DateTime::UNIX_EPOCH,
        duration_ns: 30_049_000_000,
        ended_by: EndedBy::Deadline,
        complete: true,
        degraded: Vec::new(),
        notes: Vec::new(),
        ledger,
        stdout: None,
        audit: Vec::new(),
        audited: None,
        cost: Cost::default(),
        members: Vec::new(),
    }
}

fn lines(manifest: &Manifest) -> Vec<String> {
    render(manifest, Path::new("./out/k.tgz"), LOUD).lines().map(str::to_owned).collect()
}

#[test]
fn a_complete_capture_closes_with_four_lines() {
    let expected = [
        "saw 30 events in 30.0 s: 20 udp_send, 10 tcp_state",
        "nothing lost",
        "the bundle is ./out/k.tgz",
        "read it with: analyze ./out/k.tgz",
    ];
    assert_eq!(lines(&a_manifest()), expected);
}

#[test]
fn losses_are_told_by_reason_apart_from_what_was_asked() {
    let mut manifest = a_manifest();
    manifest.ledger.dropped =
        BTreeMap::from([(DropReason::EventCap, 7), (DropReason::RingFull, 3), (DropReason::FilteredLate, 2)]);
    manifest.ledger.missed = 4;
    assert_eq!(
        lines(&manifest)[1],
        "lost 10 events: 7 event_cap, 3 ring_full; left out as asked: 2 filtered_late; the kernel skipped at most 4 more"
    );
}

#[test]
fn what_only_the_kernel_counted_and_a_stepped_clock_are_told() {
    let mut manifest = a_manifest();
    let entry = |counter: &str, kernel_delta, ktrace_seen| AuditEntry {
        counter: counter.into(),
        netns: 7,
        kernel_delta,
        ktrace_seen: Some(ktrace_seen),
        explained: Vec::new(),
    };
    manifest.audit = vec![entry("Udp.InDatagrams", 9, 9), entry("Udp.OutDatagrams", 80, 40), entry("X", 2, 1)];
    (manifest.head.clocks.step_count, manifest.head.clocks.max_step_ns) = (Some(1), 3_600_040_000_000);
    assert_eq!(
        lines(&manifest)[2..4],
        [
            "the kernel's own counters disagree: by 40 of 80 `Udp.OutDatagrams` in netns 7, and in 1 more; see `audit` \
             in the manifest",
            "the wall clock was stepped once, by up to 3600.0 s: all times are by its first reading",
        ]
    );
}

#[test]
fn the_reasons_of_a_degraded_capture_come_last_also_when_quiet() {
    let mut manifest = a_manifest();
    manifest.degraded = vec!["hook `udp` failed: \u{1b}[31m".into()];
    let reason = "degraded: hook `udp` failed: \\u{1b}[31m";
    assert_eq!(lines(&manifest).last().unwrap(), reason);
    assert_eq!(render(&manifest, Path::new("k.tgz"), Style { quiet: true, with_path: false }), format!("{reason}\n"));
}

#[test]
fn a_capture_that_saw_nothing_and_was_stopped_says_so() {
    let mut manifest = a_manifest();
    manifest.ledger = Ledger::default();
    manifest.ended_by = EndedBy::Signal;
    assert_eq!(lines(&manifest)[0], "saw 0 events in 30.0 s, until a signal");
}

#[test]
fn a_path_that_a_shell_would_read_is_quoted() {
    let text = render(&a_manifest(), Path::new("/tmp/it's $HOME/k.tgz"), LOUD);
    assert!(text.ends_with("analyze '/tmp/it'\\''s $HOME/k.tgz'\n"), "{text}");
    let text = render(&a_manifest(), Path::new("-x/k.tgz"), LOUD);
    assert!(text.ends_with("analyze ./-x/k.tgz\n"), "{text}");
}

#[test]
fn the_exit_code_follows_from_the_manifest() {
    let with = |ended_by, complete| Exit::of(&Manifest { ended_by, complete, ..a_manifest() }, false);
    assert_eq!(with(EndedBy::Signal, true), Exit::Complete);
    assert_eq!(with(EndedBy::Deadline, false), Exit::Degraded);
    assert_eq!(with(EndedBy::DiskFull, false), Exit::Error);
    let ok = |ended_by| Exit::of(&Manifest { ended_by, complete: false, ..a_manifest() }, true);
    assert_eq!((ok(EndedBy::Deadline), ok(EndedBy::Error)), (Exit::Complete, Exit::Error));
}

#[test]
fn behind_a_command_the_path_is_the_last_line_unless_there_is_a_reason() {
    let mut manifest = a_manifest();
    manifest.ended_by = EndedBy::Command;
    let argv = vec!["curl".into(), "-s".into()];
    manifest.head.command = Some(CommandReport { argv, exit_code: Some(137), ..CommandReport::default() });
    let lines = |manifest: &Manifest, quiet| -> Vec<String> {
        let text = render(manifest, Path::new("k.tgz"), Style { quiet, with_path: true });
        text.lines().map(str::to_owned).collect()
    };
    let expected = [
        "saw 30 events in 30.0 s, until the command ended: 20 udp_send, 10 tcp_state",
        "nothing lost",
        "`curl` ended by signal 9 (exit code 137)",
        "the bundle is k.tgz",
        "read it with: analyze k.tgz",
        "k.tgz",
    ];
    assert_eq!(lines(&manifest, false), expected);
    manifest.notes = vec!["n".into()];
    manifest.degraded = vec!["d".into()];
    assert_eq!(lines(&manifest, false)[5..], ["k.tgz", "note: n", "degraded: d"]);
    assert_eq!(lines(&manifest, true), ["k.tgz", "degraded: d"]);
}

#[test]
fn filters_that_left_nothing_are_named() {
    let closing = |seen: u64, late: u64| {
        let mut manifest = a_manifest();
        manifest.ledger = Ledger { observed: 30, seen, ..Ledger::default() };
        manifest.ledger.filtered = [("self", 20), ("dns_only", 4), ("pid", 3)].map(|(k, n)| (k.to_owned(), n)).into();
        manifest.ledger.dropped.insert(DropReason::FilteredLate, late);
        render(&manifest, Path::new("b.tgz"), LOUD).lines().last().unwrap().to_owned()
    };
    let hint = "hint: none of 30 events passed the filters; `--dns-only` refused 4 of them";
    assert_eq!(closing(0, 0), hint);
    assert_eq!(closing(3, 3), hint);
    assert_eq!(closing(3, 2), "read it with: analyze b.tgz");
}
