//! "Is zero real?": under the fullest load that this machine makes, caps are exact and the totals are still the truth,
//! which is what the programs that made the load have counted.

use std::collections::BTreeSet;

use ktrace_bundle::event::EventKind;
use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::summary::{TalkerRow, TypeTotal};
use ktrace_bundle::tcp::TcpState::{
    self, Close, CloseWait, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent,
};
use ktrace_traffic::{Total, Truth};

use crate::analyze::analyze;
use crate::capture::{Bundle, Capture, only_entry};
use crate::net::{Lab, Netns};
use crate::program::Program;
use crate::truth::{assert_same_connections, conns};
use crate::wait::boot_ns;
use crate::{Test, tests};

/// Captures under full load with a cap of 100 events.
const REPETITIONS: usize = 20;
/// Captures altogether, if others keep this machine from its full load meanwhile. Each of them must be exact.
const MAX_REPETITIONS: usize = 60;
/// Events that the load must have reached, a second.
const FULL_LOAD: u64 = 200_000;
/// Ports of the two pumps, each with the one above it.
const PORTS: [u16; 2] = [7100, 7200];

pub fn tests() -> Vec<Test> {
    tests![
        a_cap_of_100_events_is_exact_under_full_load_and_the_totals_are_the_truth,
        a_cap_of_one_mebibyte_is_never_exceeded_and_the_totals_are_the_truth,
        a_udp_flood_takes_no_tcp_event_away_and_its_losses_are_counted_to_the_event,
        losses_are_dated_to_the_second_and_analyze_tells_when,
        connections_that_are_only_counted_are_in_the_totals_and_percentiles,
    ]
}

/// Two programs that send datagrams to themselves as fast as they can.
fn pumps(netns: &Netns, duration_ms: u32) -> [Program; 2] {
    PORTS.map(|port| netns.start(&format!("udp-pump --port {port} --duration-ms {duration_ms}")))
}

/// Waits for their end and returns what they did.
fn told(pumps: [Program; 2]) -> [Total; 2] {
    pumps.map(|pump| match pump.wait().truths().pop() {
        Some(Truth::Total(total)) => total,
        other => panic!("the last line of a pump is {other:?}"),
    })
}

/// Prints how many events a second the pumps made, and returns it.
fn rate(told: &[Total; 2]) -> u64 {
    let events: u64 = told.iter().map(|t| t.send_count + t.recv_count).sum();
    let longest = told.iter().map(|t| t.elapsed_ns).max().unwrap();
    let rate = u64::try_from(u128::from(events) * 1_000_000_000 / u128::from(longest)).unwrap();
    eprintln!("{events} events, {rate} a second");
    rate
}

/// `--ports` of the pumps, and of one more.
fn ports(more: u16) -> String {
    let [a, b] = PORTS;
    format!("{a},{},{b},{},{more}", a + 1, b + 1)
}

/// Asserts that the totals by type and by process are what the pumps told, whatever was written.
fn assert_totals(bundle: &Bundle, told: &[Total; 2]) {
    let sum = |of: fn(&Total) -> u64| told.iter().map(of).sum::<u64>();
    let of_type = |kind| bundle.summary.totals.get(&kind).cloned().unwrap_or_default();
    let exact = |t: TypeTotal| (t.event_count, t.bytes);
    assert_eq!(exact(of_type(EventKind::UdpSend)), (sum(|t| t.send_count), Some(sum(|t| t.tx_bytes))));
    assert_eq!(exact(of_type(EventKind::UdpRecv)), (sum(|t| t.recv_count), Some(sum(|t| t.rx_bytes))));

    let ledger = &bundle.manifest.ledger;
    for (kind, account) in &ledger.by_type {
        assert_eq!(of_type(*kind).event_count, account.seen, "{kind:?}");
        assert_eq!(of_type(*kind).written_count, account.written, "{kind:?}");
    }
    let talkers = &bundle.summary.top_talkers;
    for told in told {
        let row = talkers.by_process.iter().find(|r| r.key.pid == Some(told.pid)).expect("a row for each pump");
        assert_eq!(row.event_count, told.send_count + told.recv_count);
        assert_eq!((row.tx_bytes, row.rx_bytes, row.connection_count), (told.tx_bytes, told.rx_bytes, 2));
    }
    for rows in [&talkers.by_process, &talkers.by_flow] {
        let sum = |of: fn(&TalkerRow) -> u64| rows.iter().map(of).sum::<u64>();
        assert_eq!((sum(|r| r.event_count), sum(|r| r.written_count)), (ledger.seen, ledger.written));
        assert_eq!(sum(|r| r.tx_bytes), talkers.total.tx_bytes);
        assert_eq!(sum(|r| r.rx_bytes), talkers.total.rx_bytes);
    }
}

fn a_cap_of_100_events_is_exact_under_full_load_and_the_totals_are_the_truth() {
    let lab = Lab::new();
    let mut rates = Vec::new();
    let full = |rates: &[u64]| rates.iter().filter(|r| **r >= FULL_LOAD).count();
    while full(&rates) < REPETITIONS && rates.len() < MAX_REPETITIONS {
        let capture = Capture::with(&["--duration", "120s", "--max-events", "100", "--ports", &ports(1)]);
        let told = told(pumps(&lab.server, 500));
        let bundle = capture.stop_under_load();
        rates.push(rate(&told));
        assert_eq!(bundle.exit_code, 0, "a cap that the user set counts as asked: {:?}", bundle.manifest.degraded);
        assert_eq!(bundle.events.len(), 100);
        assert_totals(&bundle, &told);
    }
    assert!(full(&rates) >= REPETITIONS, "this machine does not reach {FULL_LOAD} events a second: {rates:?}");
}

fn a_cap_of_one_mebibyte_is_never_exceeded_and_the_totals_are_the_truth() {
    let lab = Lab::new();
    let capture = Capture::with(&["--duration", "120s", "--max-bytes", "1MiB", "--ports", &ports(1)]);
    let told = told(pumps(&lab.server, 1000));
    let bundle = capture.stop_under_load();
    assert!(rate(&told) >= FULL_LOAD);
    let loose = only_entry(&bundle.dir.join("out"), |path| path.is_dir());
    let bytes = std::fs::metadata(loose.join("events.jsonl")).unwrap().len();
    assert!(bytes <= 1 << 20 && bytes > (1 << 20) - 1000, "{bytes} bytes");
    assert_totals(&bundle, &told);
}

fn connections_that_are_only_counted_are_in_the_totals_and_percentiles() {
    const COUNT: u64 = 200;
    let lab = Lab::new();
    let server = lab.server.start("tcp-server --listen 127.0.0.1:8080");
    let server_pid = server.ready().pid;
    let capture = Capture::with(&["--duration", "120s", "--max-events", "10", "--ports", "8080"]);
    let begin_ns = boot_ns();
    let client = lab.server.traffic(&format!("tcp-client --to 127.0.0.1:8080 --count {COUNT}"));
    let clients = conns(Program::run(client).truths());
    let servers = conns(server.truths(COUNT as usize));
    lab.server.wait_until_quiet();
    let elapsed_us = (boot_ns() - begin_ns) / 1000;
    let bundle = capture.stop_under_load();

    assert_eq!((bundle.events.len(), bundle.exit_code), (10, 0));
    let talkers = &bundle.summary.top_talkers;
    for (pid, told) in [(clients[0].pid, &clients), (server_pid, &servers)] {
        let row = talkers.by_process.iter().find(|r| r.key.pid == Some(pid)).expect("a row for each process");
        let (tx, rx) = (told.iter().map(|c| c.tx_bytes).sum(), told.iter().map(|c| c.rx_bytes).sum());
        assert_eq!((row.tx_bytes, row.rx_bytes, row.connection_count), (tx, rx, COUNT), "{row:?}");
    }
    let connect = &bundle.summary.connect;
    assert_eq!((connect.handshake_us.n, connect.syscall_us.n, connect.srtt_us.n), (COUNT, COUNT, 2 * COUNT));
    for times in [connect.handshake_us, connect.syscall_us, connect.srtt_us] {
        let rising = [times.p50, times.p90, times.p99, times.max, Some(elapsed_us)];
        assert!(rising.is_sorted() && times.p50 > Some(0), "{times:?} in {elapsed_us} µs");
    }
    // the handshake is a part of the call
    assert!(connect.handshake_us.p50 <= connect.syscall_us.p50, "{connect:?}");
}

fn losses_are_dated_to_the_second_and_analyze_tells_when() {
    let lab = Lab::new();
    let capture = Capture::with(&["--duration", "120s", "--max-events", "4000", "--ports", &ports(7007)]);
    // some two seconds in which everything is written, then a second in which most is not
    let paced = lab.server.traffic("udp-paced --to 127.0.0.1:7007 --count 2000 --interval-us 1000");
    assert!(Program::run(paced).status.success());
    let begin_ns = boot_ns();
    let pump = lab.server.traffic("udp-pump --port 7100 --duration-ms 1000");
    assert!(Program::run(pump).status.success());
    let end_ns = boot_ns();
    let bundle = capture.stop_under_load();

    // an interval is a second, and the turn of the loop in which it is noticed that it is over
    const INTERVAL_NS: u64 = 1_600_000_000;
    let opened_ns = bundle.manifest.head.clocks.start_boot_ns;
    let dated: Vec<_> = bundle.losses.iter().filter(|loss| !loss.undated).collect();
    assert!(!dated.is_empty() && dated.len() <= 3, "{dated:#?}");
    for loss in dated {
        assert!(loss.to_ns - loss.from_ns <= INTERVAL_NS, "{loss:?}");
        assert!(opened_ns + loss.to_ns > begin_ns && opened_ns + loss.from_ns < end_ns, "{loss:?}");
        assert_eq!(loss.hook, "udp");
    }
    let begin_s = (begin_ns - opened_ns) / 1_000_000_000;
    let report = analyze(&bundle.path);
    let title = report.findings(&[]).iter().find(|f| f.rule() == "evidence.lossy").expect("a finding").title();
    let told = |s: u64| title.contains(&format!("dropped between +{s} s and +"));
    assert!(told(begin_s) || told(begin_s.saturating_sub(1)), "lost from +{begin_s} s on: {title}");
}

fn a_udp_flood_takes_no_tcp_event_away_and_its_losses_are_counted_to_the_event() {
    const CLIENT: &[TcpState] = &[Close, SynSent, Established, FinWait1, FinWait2, Close];
    const SERVER: &[TcpState] = &[Listen, SynRecv, Established, CloseWait, LastAck, Close];
    let lab = Lab::new();
    let server = lab.server.start("tcp-server --listen 127.0.0.1:8080");
    server.ready();
    let capture = Capture::with(&["--duration", "120s", "--ports", &ports(8080)]);
    let pumps = pumps(&lab.server, 10_000);
    let client = lab.server.traffic("tcp-client --to 127.0.0.1:8080 --count 100 --pause-us 90000");
    let mut connections = conns(Program::run(client).truths());
    connections.extend(conns(server.truths(100)));
    let told = told(pumps);
    lab.server.wait_until_quiet();
    let bundle = capture.stop_under_load();

    assert!(rate(&told) >= FULL_LOAD);
    assert_totals(&bundle, &told);
    let ledger = &bundle.manifest.ledger;
    eprintln!("written {}, dropped {:?}", ledger.written, ledger.dropped);
    for kind in [EventKind::TcpState, EventKind::Connect, EventKind::TcpRetransmit] {
        assert_eq!(ledger.by_type[&kind].dropped, Default::default(), "{kind:?}");
    }
    assert!(ledger.dropped[&DropReason::EventCap] > 0, "the flood ran into its cap");
    let (clients, servers): (Vec<_>, Vec<_>) = connections.into_iter().partition(|c| c.remote.port() == 8080);
    assert_eq!((clients.len(), servers.len()), (100, 100));
    // both ends are in one namespace: the server's sockets are those whose own port is the listener's
    let (of_servers, of_clients): (Vec<_>, Vec<_>) =
        bundle.events.into_iter().partition(|e| e.id.local.port == Some(8080));
    let netns = lab.server.inode();
    assert_same_connections(&of_clients, netns, &clients, CLIENT, &BTreeSet::new());
    assert_same_connections(&of_servers, netns, &servers, SERVER, &BTreeSet::new());
}
