//! What connection tracking may cost and lose on a busy node: a table of 50,000 entries, and more new flows than the kernel
//! has room to tell of.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ktrace_bundle::event::{Endpoint, Proto};
use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::tracking::Table;
use ktrace_traffic::{Total, Truth};
use nix::sys::signal::Signal;

use crate::analyze::analyze;
use crate::capture::Bundle;
use crate::nat::on_the_node;
use crate::net::{Lab, SERVER4};
use crate::program::{Ended, Program};
use crate::wait::{DEADLINE, PATIENCE, until};
use crate::{Test, tests};

/// Two services, so that twice as many flows have ports of their own; with a backend each, as the router would have to give
/// them others where two flows come from one port to one backend.
const DNAT: &str = "table ip svc {
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr 10.96.0.80 udp dport 7007 dnat to 10.77.2.2:7070
        ip daddr 10.96.0.81 udp dport 7007 dnat to 10.77.2.2:7071
    }
}
";
/// Address of each, and port of its backend.
const SERVICES: [(Ipv4Addr, u16); 2] = [(Ipv4Addr::new(10, 96, 0, 80), 7070), (Ipv4Addr::new(10, 96, 0, 81), 7071)];
const ENTRIES: u64 = 50_000;
/// The reading of a whole table, µs.
const MOST_US: u64 = 200_000;
/// Of so many captures the one that is least disturbed by the rest of the machine says what that takes.
const CAPTURES: usize = 5;
/// What the event path may stand still.
const MAX_STALL_NS: u64 = 100_000_000;
/// Peak of the resident set.
const MAX_RESIDENT: u64 = 64 << 20;
const FLOWS: u64 = 100_000;
const FLOWS_A_SECOND: u64 = 10_000;
/// New flows while ktrace does not run: the kernel keeps what it tells of some 8,000 to 16,000.
const UNREAD_FLOWS: u64 = 35_000;

pub fn tests() -> Vec<Test> {
    tests![
        a_table_of_50_000_entries_is_read_beside_the_event_path,
        flows_of_which_the_kernel_had_no_room_to_tell_are_looked_up,
    ]
}

/// A lab with a server that hears and says nothing, at both addresses.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.nft(DNAT);
    lab.server.run("nft add table inet deaf");
    lab.server.run("nft add chain inet deaf input { type filter hook input priority 0 ; }");
    lab.server.run("nft add rule inet deaf input udp dport 7070-7071 drop");
    lab
}

fn spray(lab: &Lab, count: u64, rate: u64) -> Program {
    let seconds = 120 * *PATIENCE;
    let to = SERVICES.map(|(vip, _)| format!("--to {vip}:7007")).join(" ");
    lab.client.start(&format!("--limit-s {seconds} udp-spray {to} --count {count} --rate {rate}"))
}

/// What the program counted when it was done.
fn total(ended: &Ended) -> Total {
    let truths = ended.truths();
    let Some(Truth::Total(total)) = truths.last() else { panic!("{ended:?}") };
    total.clone()
}

/// Entries in the router's table.
fn entries(lab: &Lab) -> u64 {
    lab.node.run("sysctl -n net.netfilter.nf_conntrack_count").trim().parse().unwrap()
}

fn table<'a>(lab: &Lab, bundle: &'a Bundle) -> &'a Table {
    bundle.tracking.tables.iter().find(|it| it.netns == lab.node.inode()).unwrap()
}

fn source(bundle: &Bundle) -> &SourceReport {
    bundle.manifest.head.sources.iter().find(|it| it.name == "conntrack").unwrap()
}

fn a_table_of_50_000_entries_is_read_beside_the_event_path() {
    let lab = lab();
    // they stay for all captures
    lab.node.run("sysctl -qw net.netfilter.nf_conntrack_udp_timeout=600");
    assert_eq!(total(&spray(&lab, ENTRIES, 0).wait()).send_count, ENTRIES);
    assert!(entries(&lab) >= ENTRIES);
    let took = (0..CAPTURES).map(|_| reading_of_a_capture(&lab)).min();
    assert!(took < Some(MOST_US), "{took:?} µs");
}

/// The slowest reading of a whole table of a capture, µs; the rest of it is as good as any other.
fn reading_of_a_capture(lab: &Lab) -> u64 {
    let capture = on_the_node(lab, &["--with-conntrack"]);
    // a socket without an address of its own: the table is read for it
    Program::run(lab.client.traffic(&format!("udp-paced --to {}:7007 --count 500", SERVICES[0].0))).truths();
    let bundle = capture.stop();
    let (source, table) = (source(&bundle), table(lab, &bundle));
    let cost = &bundle.manifest.cost;
    let took = source.latency_us.unwrap();
    eprintln!("{took} µs, {cost:?}");
    assert!(table.start.as_ref().and_then(|it| it.count) >= Some(ENTRIES), "{table:?}");
    assert_eq!((source.outcome.as_str(), table.via.as_deref()), ("answered", Some("ctnetlink")));
    assert!(cost.longest_stall_ns.unwrap() < MAX_STALL_NS, "{cost:?}");
    assert!(cost.peak_rss_bytes <= MAX_RESIDENT, "{cost:?}");
    took
}

fn flows_of_which_the_kernel_had_no_room_to_tell_are_looked_up() {
    let lab = lab();
    let flags = ["--with-conntrack", "--max-events", "400000", "--ring-bytes", "128MiB"];
    let capture = on_the_node(&lab, &flags);
    let client = spray(&lab, FLOWS, FLOWS_A_SECOND);
    until("flows that are told of", DEADLINE, || (entries(&lab) >= FLOWS_A_SECOND).then_some(()));
    capture.signal(Signal::SIGSTOP);
    let stopped = entries(&lab);
    until("flows that nobody reads of", DEADLINE, || (entries(&lab) >= stopped + UNREAD_FLOWS).then_some(()));
    capture.signal(Signal::SIGCONT);
    let sent = total(&client.wait());
    let bundle = capture.stop();

    eprintln!("{} flows in {:?}", sent.send_count, Duration::from_nanos(sent.elapsed_ns));
    assert_eq!(sent.send_count, FLOWS);
    let (source, table) = (source(&bundle), table(&lab, &bundle));
    eprintln!("{} events, {} overruns, {:?}", table.event_count, table.overrun_count, bundle.manifest.cost);
    assert!(table.overrun_count >= 1, "{table:?}");
    let error = table.error.as_deref().unwrap();
    assert!(error.contains("more to tell than there was room for"), "{error}");
    assert_eq!((source.error.as_deref(), source.outcome.as_str()), (Some(error), "answered"));
    assert!(source.errors >= Some(table.overrun_count), "{source:?}");
    assert_all_resolved(&lab, &bundle);
    // what ktrace missed is nothing that the node suffers from
    let report = analyze(&bundle.path);
    let findings = report.findings(&[lab.node.inode()]);
    assert!(findings.iter().all(|it| !it.rule().starts_with("conntrack.")), "{}", report.text());
}

/// Each flow of the client is there once, and has its backend: on its line, or on a later one that says nothing else.
fn assert_all_resolved(lab: &Lab, bundle: &Bundle) {
    let netns = lab.client.inode();
    let mut flows: BTreeMap<_, (u64, Vec<_>)> = BTreeMap::new();
    for flow in bundle.flows.iter().filter(|it| it.netns == netns && it.proto == Proto::Udp) {
        let known = flows.entry((flow.socket, flow.tuple.to.addr)).or_default();
        known.0 += flow.event_count;
        known.1.extend(flow.conntrack.as_ref().map(|nat| (nat.original_dst, nat.backend)));
    }
    assert_eq!(flows.len() as u64, FLOWS);
    let right = SERVICES.map(|(vip, port)| (Some(Endpoint::new(vip.into(), 7007)), Some(Endpoint::new(SERVER4, port))));
    let is_right = |(vip, (events, told)): (&Option<IpAddr>, &(u64, Vec<_>))| {
        let is_its = |it: &(Option<Endpoint>, _)| right.contains(it) && it.0.and_then(|end| end.addr) == *vip;
        *events == 1 && !told.is_empty() && told.iter().all(is_its)
    };
    let odd: Vec<_> = flows.iter().filter(|((_, vip), it)| !is_right((vip, it))).collect();
    assert!(odd.is_empty(), "{} of {FLOWS}: {:?}", odd.len(), &odd[..odd.len().min(5)]);
}
