//! What looking at the node may cost: 50,000 sockets in 200 namespaces, while the events go on.

use std::time::Instant;

use ktrace_bundle::event::When;
use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::node::{Item, MAX_NETWORK};

use crate::capture::{Bundle, Capture};
use crate::net::{Lab, Netns, SERVER4};
use crate::program::Program;
use crate::wait::PATIENCE;
use crate::{Test, tests};

/// With those of the lab and the machine's own.
const NAMESPACES: usize = 196;
/// Each process has ten sockets.
const PROCESSES: usize = 5000;
/// What a look may add to the start of a capture, and to its end, µs: what the capture says it waited. How long it takes altogether
/// depends more on what else the machine does.
const MOST_US: u64 = 150_000;
/// What the event path may stand still.
const MAX_STALL_NS: u64 = 100_000_000;
/// Peak of the resident set.
const MAX_RESIDENT: u64 = 64 << 20;
/// Of so many captures the one that is least disturbed by the rest of the machine says what it takes.
const CAPTURES: usize = 4;

pub fn tests() -> Vec<Test> {
    tests![two_hundred_namespaces_and_50_000_sockets_are_looked_at_beside_the_event_path]
}

/// How long a capture took to open its window, and to end, ms.
fn times(flags: &[&str], busy: impl Fn()) -> (u128, u128, Bundle) {
    let duration = format!("{}s", 120 * *PATIENCE);
    let begin = Instant::now();
    let capture = Capture::with(&[&["--duration", &duration], flags].concat());
    let opened = begin.elapsed().as_millis();
    busy();
    let begin = Instant::now();
    let bundle = capture.stop();
    (opened, begin.elapsed().as_millis(), bundle)
}

fn source<'a>(bundle: &'a Bundle, name: &str) -> &'a SourceReport {
    bundle.manifest.head.sources.iter().find(|it| it.name == name).unwrap()
}

fn two_hundred_namespaces_and_50_000_sockets_are_looked_at_beside_the_event_path() {
    let lab = Lab::new();
    let namespaces: Vec<_> = (0..NAMESPACES).map(|_| Netns::alone()).collect();
    let holders: Vec<_> =
        namespaces.iter().map(|it| it.start("--limit-s 600 udp-echo --listen 127.0.0.1:5353")).collect();
    holders.iter().for_each(|it| _ = it.ready());
    let crowd = lab.client.start(&format!("--limit-s 600 crowd --processes {PROCESSES}"));
    crowd.truths(PROCESSES);
    let busy = || {
        Program::run(lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 200")));
    };
    let least = |flags: &[&str]| {
        let all: Vec<_> = (0..CAPTURES).map(|_| times(flags, busy)).collect();
        let [start, end] = [all.iter().map(|it| it.0).min().unwrap(), all.iter().map(|it| it.1).min().unwrap()];
        (start, end, all)
    };
    let (start, end, _) = least(&["--with-node=false", "--with-conntrack=false"]);
    let (start_with, end_with, captures) = least(&["--with-conntrack=false"]);
    eprintln!("start {start} ms, with the node {start_with} ms; end {end} ms, with the node {end_with} ms");
    for (_, _, bundle) in &captures {
        judge(bundle, &namespaces);
    }
}

/// What was looked at and what was cut add up, and nothing had to wait for it.
fn judge(bundle: &Bundle, namespaces: &[Netns]) {
    let cost = &bundle.manifest.cost;
    let sources = ["node_network", "node_host", "node_filters"].map(|name| source(bundle, name));
    let lines = |when| bundle.node.iter().filter(|it| it.when == when).count();
    eprintln!("{} and {} lines, {cost:?}", lines(When::Start), lines(When::End));
    for when in [When::Start, When::End] {
        let of = |it: &&ktrace_bundle::node::NodeRecord| it.when == when;
        let looked = bundle.node.iter().filter(of).filter(|it| matches!(it.item, Item::Netns(_))).count();
        let cut: u64 = bundle
            .node
            .iter()
            .filter(of)
            .map(|it| match &it.item {
                Item::Omitted(it) if it.what == "namespaces" => it.count.unwrap(),
                _ => 0,
            })
            .sum();
        let sockets = bundle.node.iter().filter(of).filter(|it| matches!(it.item, Item::Sockets(_))).count();
        eprintln!("{when:?}: {looked} namespaces looked at, {sockets} with their sockets, {cut} cut");
        assert!(looked as u64 + cut >= namespaces.len() as u64, "{looked} and {cut}");
        assert!(looked > 1, "{looked}");
    }
    for source in sources {
        eprintln!("{}: {:?} us, {:?} lines, {:?}", source.name, source.latency_us, source.entries, source.error);
        assert_eq!(source.outcome, "answered", "{source:?}");
        // the window waits for the first look, and the end for the last one, no longer than this; of the machine it is what
        // reading it took, beside
        let is_waited_for = source.name != "node_host";
        assert!(!is_waited_for || source.latency_us.unwrap() <= MOST_US, "{source:?}");
    }
    assert!(cost.longest_stall_ns.unwrap() < MAX_STALL_NS, "{cost:?}");
    assert!(cost.peak_rss_bytes <= MAX_RESIDENT, "{cost:?}");
    assert!((bundle.node.len() as u64) < MAX_NETWORK);
}
