//! Stopping: in the middle of full load, by deadline, SIGTERM and SIGKILL. The ledger balances, the bundle is whole,
//! and nothing stays in the kernel.

use std::process::Command;
use std::time::Duration;

use ktrace_bundle::event::Payload;
use ktrace_bundle::manifest::{EndedBy, HookOutcome};
use ktrace_traffic::Datagram;
use nix::sys::signal::Signal;

use crate::analyze::analyze;
use crate::capture::{Capture, Contents, read};
use crate::kernel::{held_by, wait_until_gone};
use crate::net::{Lab, SERVER4};
use crate::program::{Program, mortal};
use crate::truth::{datagrams, udp_events};
use crate::wait::{PATIENCE, boot_ns};
use crate::{Test, tests};

/// Captures that end in full load; on an emulated machine, where each takes a minute, each kind once.
const REPETITIONS: u32 = 50;
const REPETITIONS_EMULATED: u32 = 4;

const SECOND_NS: u64 = 1_000_000_000;

pub fn tests() -> Vec<Test> {
    tests![
        the_ledger_balances_when_the_stop_falls_into_full_load,
        sigterm_seals_a_complete_bundle,
        sigint_seals_a_complete_bundle,
        sigkill_loses_at_most_the_last_second,
        a_sealed_bundle_is_a_plain_tar,
        the_event_cap_is_exact_and_accounted_for,
    ]
}

/// UDP and TCP within the server's namespace: as fast as this machine makes them, or with a pause after each burst of
/// datagrams and each connection.
pub fn load(lab: &Lab, pause_us: u32) -> Vec<Program> {
    let seconds = 600 * *PATIENCE;
    let start = |args: &str| lab.server.start(&format!("--limit-s {seconds} {args}"));
    let echo = start("udp-echo --listen 127.0.0.1:7007 --quiet");
    let server = start("tcp-server --listen 127.0.0.1:8080 --quiet");
    echo.ready();
    server.ready();
    let flood = start(&format!("udp-flood --to 127.0.0.1:7007 --duration-ms {seconds}000 --pause-us {pause_us}"));
    flood.ready();
    let client = format!("tcp-client --to 127.0.0.1:8080 --count 1000 --threads 2 --forever --pause-us {pause_us}");
    vec![echo, server, flood, start(&client)]
}

fn the_ledger_balances_when_the_stop_falls_into_full_load() {
    let lab = Lab::new();
    let mut load = load(&lab, 0);
    let mut seen = 0;
    let repetitions = if *PATIENCE > 1 { REPETITIONS_EMULATED } else { REPETITIONS };
    for i in 0..repetitions {
        // most run into their cap first, for others the ring may be too small: each loss has its reason
        let cap = if i % 10 < 2 { "500000" } else { "4000" };
        // half end by their own clock, half by a signal
        let bundle = if i % 2 == 0 {
            let bundle = Capture::with(&["--duration", "300ms", "--max-events", cap]).deadline();
            let window = Duration::from_nanos(bundle.manifest.duration_ns);
            assert!(
                window < Duration::from_secs(2) * *PATIENCE,
                "a window of 300 ms was open for {window:?} in repetition {i}"
            );
            bundle
        } else {
            Capture::with(&["--duration", "60s", "--max-events", cap]).stop_under_load()
        };
        let ledger = bundle.manifest.ledger;
        for (kind, account) in &ledger.by_type {
            let lines = bundle.events.iter().filter(|e| e.payload.kind() == *kind).count();
            assert_eq!(account.written, lines as u64, "{kind:?} in repetition {i}");
        }
        seen += ledger.seen;
    }
    load.iter_mut().for_each(Program::assert_running);
    assert!(seen > u64::from(repetitions) * 1000, "only {seen} events: that was no load");
}

fn sigterm_seals_a_complete_bundle() {
    seals(Signal::SIGTERM);
}

fn sigint_seals_a_complete_bundle() {
    seals(Signal::SIGINT);
}

fn seals(signal: Signal) {
    let lab = Lab::new();
    let capture = Capture::with(&["--duration", "120s"]);
    let held = held_by(capture.pid());
    assert!(["prog", "map", "link"].iter().all(|kind| held.iter().any(|(k, _)| k == kind)), "{held:?}");
    let sender = lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 20"));
    let told = datagrams(Program::run(sender).truths());
    capture.signal(signal);
    let bundle = capture.deadline();
    assert_eq!((bundle.exit_code, bundle.manifest.ended_by), (0, EndedBy::Signal));
    assert_eq!(udp_events(&bundle.events, lab.client.inode()).len(), told.len());
    wait_until_gone(&held);
}

/// The sends that must be there: those that were over a second before the end.
fn must_be_there(told: &[Datagram], end_ns: u64) -> Vec<u64> {
    told.iter().filter(|d| d.end_ns + SECOND_NS < end_ns && d.errno.is_none()).filter_map(|d| d.bytes).collect()
}

fn sigkill_loses_at_most_the_last_second() {
    let lab = Lab::new();
    let _load = load(&lab, 20_000);
    let capture = Capture::with(&["--duration", "2m", "--max-events", "10000000"]);
    let held = held_by(capture.pid());
    let sender = lab.client.start(&format!("udp-paced --to {SERVER4}:7007 --count 100000"));
    // a millisecond each: the window is open for 3 s or more
    sender.truths(2500);
    let killed_ns = boot_ns();
    let (_dir, loose) = capture.kill();
    let told = datagrams(sender.truths(2500));
    let Contents { events, partial, manifest, report, .. } = read(&loose);

    assert_eq!((manifest, report.bad_lines), (None, 0));
    let partial = partial.expect("a crashed run has its plan and hooks");
    assert_eq!(partial.head.plan["duration"].value, "2m");
    assert!(partial.head.hooks.iter().any(|h| h.name == "udp" && h.outcome == HookOutcome::Attached));
    assert!(partial.checkpoint.is_some());
    let recorded: Vec<_> = udp_events(&events, lab.client.inode())
        .into_iter()
        .filter_map(|e| match &e.payload {
            Payload::UdpSend(d) => d.bytes,
            _ => None,
        })
        .collect();
    let needed = must_be_there(&told, killed_ns);
    assert!(needed.len() > 500, "only {} sends are older than a second", needed.len());
    assert!(recorded.starts_with(&needed), "{} of {} are there", recorded.len(), needed.len());
    let analyzed = analyze(&loose);
    assert!([0, 5].contains(&analyzed.exit_code), "{}", analyzed.exit_code);
    wait_until_gone(&held);
}

fn a_sealed_bundle_is_a_plain_tar() {
    let lab = Lab::new();
    let capture = Capture::start();
    let sender = lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 50"));
    assert!(Program::run(sender).status.success());
    let bundle = capture.stop();
    let output = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    output(mortal("gzip").arg("-t").arg(&bundle.path));
    let events = output(mortal("tar").args(["--wildcards", "-xzOf"]).arg(&bundle.path).arg("*/events.jsonl"));
    let lines = String::from_utf8(events).unwrap();
    assert_eq!(lines.lines().count() as u64, bundle.manifest.ledger.written);
    for (line, number) in lines.lines().zip(1_u64..) {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(json["seq"], number);
    }
}

fn the_event_cap_is_exact_and_accounted_for() {
    let lab = Lab::new();
    let capture = Capture::with(&["--duration", "120s", "--max-events", "100"]);
    let sender = lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 500 --interval-us 100"));
    let told = datagrams(Program::run(sender).truths());
    let bundle = capture.stop_under_load();
    assert_eq!(told.len(), 500);
    assert_eq!(bundle.events.len(), 100);
    let ledger = bundle.manifest.ledger;
    assert!(ledger.seen >= 500 && ledger.dropped_total() >= 400, "{ledger:?}");
    assert_eq!(bundle.exit_code, 0, "a cap that the user set counts as asked");
}
