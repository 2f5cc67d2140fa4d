//! `--sample`: each flow of UDP whole or not at all, TCP always, and sums that say how sure they are.

use std::collections::BTreeMap;

use ktrace_bundle::event::EventKind;
use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::summary::Estimate;

use crate::analyze::analyze;
use crate::capture::Capture;
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::truth::{conns, datagram, udp_events};
use crate::{Test, tests};

const SOCKETS: u64 = 500;
const SENDS: u64 = 4;
const ONE_IN: u64 = 10;

pub fn tests() -> Vec<Test> {
    tests![a_sample_has_whole_flows_and_its_sums_are_as_right_as_they_say]
}

/// Sockets that ask and wait for each answer; prints the bytes that they sent in all.
fn askers() -> String {
    format!(
        "import socket\n\
         total = 0\n\
         for i in range({SOCKETS}):\n\
         \x20   s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)\n\
         \x20   for j in range({SENDS}):\n\
         \x20       text = b'x' * (20 + 7 * i % 400)\n\
         \x20       total += s.sendto(text, ('{SERVER4}', 53)); assert s.recvfrom(1000)[0] == text\n\
         print(total)"
    )
}

fn a_sample_has_whole_flows_and_its_sums_are_as_right_as_they_say() {
    let lab = Lab::new();
    let echo = lab.server.start(&format!("udp-echo --listen {SERVER4}:53 --quiet"));
    echo.ready();
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080"));
    server.ready();
    let filter = format!("{},{}", lab.client.inode(), lab.client.inode());
    let sample = ONE_IN.to_string();
    let capture = Capture::with(&["--duration", "120s", "--sample", &sample, "--netns", &filter]);
    let mut client = lab.client.command("python3");
    client.args(["-c", &askers()]);
    let asked = Program::run(client);
    assert!(asked.status.success(), "{asked:?}");
    let bytes: u64 = asked.stdout[0].parse().unwrap();
    let connected =
        conns(Program::run(lab.client.traffic(&format!("tcp-client --to {SERVER4}:8080 --count 20"))).truths());
    lab.client.wait_until_quiet();
    let bundle = capture.stop_under_load();
    assert_eq!((bundle.exit_code, connected.len()), (0, 20), "a sample that was asked for counts as asked");

    let sends = SOCKETS * SENDS;
    let ledger = &bundle.manifest.ledger;
    for kind in [EventKind::UdpSend, EventKind::UdpRecv] {
        let account = &ledger.by_type[&kind];
        assert_eq!(account.seen, sends, "{kind:?}");
        assert_eq!(account.written + account.dropped[&DropReason::Sampled], sends, "{kind:?}");
        assert_eq!(bundle.summary.totals[&kind].bytes, Some(bytes), "the exact total of {kind:?}");
    }
    assert_eq!(ledger.by_type[&EventKind::TcpState].seen, ledger.by_type[&EventKind::TcpState].written);
    assert_eq!(ledger.by_type[&EventKind::Connect].written, 20);

    let mut flows: BTreeMap<u64, u64> = BTreeMap::new();
    for event in udp_events(&bundle.events, lab.client.inode()) {
        assert_eq!(datagram(event).unwrap().1.sample, Some(ONE_IN));
        *flows.entry(event.id.socket.unwrap()).or_default() += 1;
    }
    assert!(flows.values().all(|lines| *lines == 2 * SENDS), "torn flows: {flows:?}");
    // 50 of 500 are expected; one sample in a million is further away than five standard deviations of 6.7
    assert!((17..=83).contains(&flows.len()), "{} of {SOCKETS} sockets were sampled", flows.len());

    let sampling = bundle.summary.sampling.as_ref().expect("sums as estimated");
    assert_eq!((sampling.one_in, sampling.flow_count), (ONE_IN, flows.len() as u64));
    let holds = |e: &Estimate, truth: u64| e.standard_error > 0 && e.estimated.abs_diff(truth) <= 5 * e.standard_error;
    assert!(holds(&sampling.udp_send, sends) && holds(&sampling.udp_recv, sends), "{sampling:?}, truth {sends}");
    assert!(holds(&sampling.tx_bytes, bytes) && holds(&sampling.rx_bytes, bytes), "{sampling:?}, truth {bytes}");

    let gap = bundle.summary.not_measured.iter().any(|s| s.contains("1 in 10 was recorded"));
    assert!(gap, "{:?}", bundle.summary.not_measured);

    let report = analyze(&bundle.path);
    let rules: Vec<_> = report.findings(&lab.inodes()).iter().map(|f| f.rule()).collect();
    assert!(!rules.contains(&"dns.no_reply".into()), "every query was answered: {rules:?}");
}
