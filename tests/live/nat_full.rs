//! A table of connection tracking that is full: new flows are dropped without a word, and the finding says so. How many
//! entries a table may have is one number for the whole machine: only for machines that are the tests' own.

use crate::analyze::analyze;
use crate::capture::Capture;
use crate::nat::on_the_node;
use crate::net::{Lab, SERVER4};
use crate::program::{Program, mortal};
use crate::requirements::built;
use crate::wait::{DEADLINE, until};
use crate::{Test, tests};

/// Set by who gives this run a machine of its own.
pub const MAY_SET: &str = "KTRACE_LIVE_MAY_SET_LIMITS";
const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const MOST: u64 = 60;
const DNAT: &str = "table ip svc {
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr 10.96.0.80 tcp dport 80 dnat to 10.77.2.2:8080
    }
}
";

pub fn tests() -> Vec<Test> {
    let why = || Some("it sets how many entries the machine's tables may have: a virtual one runs it".to_owned());
    let is_forbidden = move || why().filter(|_| std::env::var_os(MAY_SET).is_none());
    tests![a_table_without_room_is_named, the_machines_own_table_without_room_is_named]
        .into_iter()
        .map(|test| test.unless(is_forbidden))
        .collect()
}

/// The machine's limit; as it was before on drop.
struct Limited(String);

impl Limited {
    fn to(most: u64) -> Self {
        let before = std::fs::read_to_string(LIMIT).unwrap();
        std::fs::write(LIMIT, most.to_string()).unwrap();
        Self(before)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Err(e) = std::fs::write(LIMIT, self.0.trim()) {
            eprintln!("cannot set {LIMIT} back: {e}");
        }
    }
}

/// A counter of the router's table, over all processors, as the kernel's own file has it.
fn counted(lab: &Lab, name: &str) -> u64 {
    sum(&lab.node.run("cat /proc/net/stat/nf_conntrack"), name)
}

fn sum(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    let column = lines.next().unwrap().split_whitespace().position(|it| it == name).unwrap();
    lines.map(|line| u64::from_str_radix(line.split_whitespace().nth(column).unwrap(), 16).unwrap()).sum()
}

fn a_table_without_room_is_named() {
    let lab = Lab::new();
    lab.nft(DNAT);
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then hold --quiet"));
    server.ready();
    let _limited = Limited::to(MOST);
    let capture = on_the_node(&lab, &["--with-conntrack"]);
    // connections that stand are not thrown out for others
    let many = 2 * MOST;
    let client =
        lab.client.start(&format!("tcp-client --to 10.96.0.80:80 --mode listen --count {many} --threads {many}"));
    until("packets of new flows that are dropped", DEADLINE, || (counted(&lab, "drop") >= MOST / 2).then_some(()));
    let bundle = capture.stop_under_load();
    drop(client);

    let table = bundle.tracking.tables.iter().find(|it| it.netns == lab.node.inode()).unwrap();
    assert_eq!(table.max, Some(MOST), "{table:?}");
    assert!(table.highest_count.unwrap() * 100 >= MOST * 95, "{table:?}");
    assert!(table.difference["drop"] >= MOST / 2, "{table:?}");
    assert!(["early_drop", "insert_failed"].iter().all(|it| table.difference.contains_key(*it)), "{table:?}");
    let report = analyze(&bundle.path);
    let findings = report.findings(&[lab.client.inode(), lab.server.inode(), lab.node.inode()]);
    let first = findings.first().unwrap_or_else(|| panic!("nothing found: {}", report.text()));
    assert_eq!((first.rule().as_str(), first.severity().as_str()), ("conntrack.full", "critical"), "{}", report.text());
}

/// The same of the machine's own namespace: connections to itself.
fn the_machines_own_table_without_room_is_named() {
    let run = |line: &str| {
        let mut words = line.split_whitespace();
        assert!(mortal(words.next().unwrap()).args(words).status().unwrap().success(), "{line}");
    };
    run("nft add table inet ktfull");
    run("nft add chain inet ktfull output { type filter hook output priority 0 ; }");
    run("nft add rule inet ktfull output ct state new accept");
    let traffic = |args: &str| {
        let mut command = mortal(built("traffic"));
        command.args(["--limit-s=600"]).args(args.split_whitespace());
        Program::start(command)
    };
    let server = traffic("tcp-server --listen 127.0.0.1:8080 --then hold --quiet");
    server.ready();
    let limited = Limited::to(MOST);
    let capture = Capture::with(&["--duration", "600s", "--with-conntrack"]);
    let client = traffic(&format!("tcp-client --to 127.0.0.1:8080 --mode listen --count {0} --threads {0}", 2 * MOST));
    let own = || std::fs::read_to_string("/proc/net/stat/nf_conntrack").unwrap();
    until("packets of new flows that are dropped", DEADLINE, || (sum(&own(), "drop") >= MOST / 2).then_some(()));
    let bundle = capture.stop_under_load();
    drop((client, limited));
    run("nft delete table inet ktfull");
    let table = bundle.tracking.tables.iter().find(|it| it.is_node).unwrap();
    assert_eq!(table.max, Some(MOST), "{table:?}");
    assert!(table.highest_count.unwrap() * 100 >= MOST * 95 && table.difference["drop"] >= MOST / 2, "{table:?}");
    let report = analyze(&bundle.path);
    let findings = report.findings(&[table.netns]);
    let first = findings.first().unwrap_or_else(|| panic!("nothing found: {}", report.text()));
    assert_eq!((first.rule().as_str(), first.severity().as_str()), ("conntrack.full", "critical"), "{}", report.text());
}
