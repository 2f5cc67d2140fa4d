//! Two clients behind one address whose first packets meet in the router: connection tracking takes the first one in and
//! drops the other. The finding says so, and what it does to a resolver.

use ktrace_traffic::{Total, Truth};

use crate::analyze::{Report, analyze};
use crate::capture::{Bundle, COMPLETE};
use crate::dns::Dnsmasq;
use crate::nat::on_the_node;
use crate::net::Lab;
use crate::program::Program;
use crate::{Test, tests};

/// The port that a client comes from is kept as long as nobody else is known to have it.
const MASQUERADED: &str = "table ip svc {
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr 10.96.0.80 udp dport { 53, 5353 } dnat to 10.77.2.2:53
    }
    chain post {
        type nat hook postrouting priority srcnat;
        ct status dnat masquerade
    }
}
";

/// Of each client: the server has room for all queries at once.
const LOOKUPS: u64 = 50;

pub fn tests() -> Vec<Test> {
    tests![
        lookups_that_wait_because_their_entry_could_not_be_made_are_named,
        entries_that_could_not_be_made_are_named,
        lookups_without_a_race_are_healthy,
    ]
}

/// Some lookups of two clients at this port of the service, at the same moments or each client's in its own time.
fn look_up(port: u16, is_race: bool) -> (Lab, Bundle, Total) {
    let lab = Lab::new();
    lab.nft(MASQUERADED);
    lab.client.run("ip addr add 10.77.1.3/24 dev eth0");
    let _dnsmasq = Dnsmasq::start(&lab.server);
    let capture = on_the_node(&lab, &["--with-conntrack"]);
    let from = if is_race { "10.77.1.2 10.77.1.3" } else { "10.77.1.2" };
    let args = format!("udp-race --to 10.96.0.80:{port} --count {LOOKUPS} --from {from}");
    let ended = Program::run(lab.client.traffic(&args));
    let truths = ended.truths();
    let Some(Truth::Total(total)) = truths.last() else { panic!("{ended:?}") };
    let bundle = capture.stop();
    assert_eq!(bundle.exit_code, COMPLETE);
    (lab, bundle, total.clone())
}

fn failed(lab: &Lab, bundle: &Bundle) -> u64 {
    let table = bundle.tracking.tables.iter().find(|it| it.netns == lab.node.inode()).unwrap();
    table.difference["insert_failed"]
}

/// Rules about connection tracking and translation that found something in the namespaces of the lab.
fn rules(lab: &Lab, report: &Report) -> Vec<String> {
    let mut netns = lab.inodes().to_vec();
    netns.push(lab.node.inode());
    let rules = report.findings(&netns).into_iter().map(|it| it.rule());
    rules.filter(|it| ["conntrack.", "nat.", "dns."].iter().any(|begin| it.starts_with(begin))).collect()
}

fn lookups_that_wait_because_their_entry_could_not_be_made_are_named() {
    let (lab, bundle, total) = look_up(53, true);
    let failed = failed(&lab, &bundle);
    let (asked, again) = (4 * LOOKUPS, total.send_count - 4 * LOOKUPS);
    eprintln!("{failed} entries of {asked} queries could not be made, {again} queries were sent again");
    assert!(failed > 0 && again > 0, "{failed}, {total:?}");
    // what was asked again was answered
    assert!(total.recv_count >= asked, "{total:?}");
    let report = analyze(&bundle.path);
    assert_eq!(rules(&lab, &report).first().map(String::as_str), Some("dns.conntrack_race"), "{}", report.text());
}

fn entries_that_could_not_be_made_are_named() {
    let (lab, bundle, _) = look_up(5353, true);
    assert!(failed(&lab, &bundle) > 0);
    let report = analyze(&bundle.path);
    assert!(rules(&lab, &report).contains(&"conntrack.insert_failed".to_owned()), "{}", report.text());
}

fn lookups_without_a_race_are_healthy() {
    let (lab, bundle, total) = look_up(53, false);
    assert_eq!((failed(&lab, &bundle), total.send_count, total.recv_count), (0, 2 * LOOKUPS, 2 * LOOKUPS));
    let report = analyze(&bundle.path);
    assert_eq!(rules(&lab, &report), [] as [String; 0], "{}", report.text());
}
