//! Two faults at once, and one small fault beside much that works.

use super::{Scenario, fault};
use crate::stage::{At, Stage};
use crate::subject::Subject;

pub const SCENARIOS: &[Scenario] = &[
    fault(
        "mixed_dead_dns_and_refused_port",
        "in one namespace one process has a dead DNS server, and another a server that does not listen",
        &[&["dns.no_reply"], &["tcp.refused"]],
        dead_dns_and_refused_port,
    )
    .never(&["policy.drop"]),
    fault(
        "mixed_lost_syns_and_slow_dns",
        "in one namespace SYNs vanish, in another one DNS is slow",
        &[&["tcp.connect_timeout"], &["dns.slow"]],
        lost_syns_and_slow_dns,
    )
    .never(&["policy.drop"]),
    fault(
        "mixed_rule_and_leak",
        "a rule drops the SYNs of one namespace, and a server does not close the connections of another",
        &[&["policy.drop"], &["tcp.close_wait_leak"]],
        rule_and_leak,
    ),
    fault(
        "mixed_resets_and_loss",
        "one server cuts connections, and segments to another one vanish",
        &[&["tcp.reset_by_peer"], &["tcp.retransmits"]],
        resets_and_loss,
    )
    .never(&["policy.drop", "net.mtu_hole"]),
    fault(
        "mixed_two_faults_of_one_process",
        "one process has a dead DNS server and a server that does not listen",
        &[&["dns.no_reply"], &["tcp.refused"]],
        two_faults_of_one_process,
    ),
    fault(
        "mixed_refused_port_beside_load",
        "a few refused connects beside a hundred times as many that work",
        &[&["tcp.refused"]],
        refused_beside_load,
    ),
    fault(
        "mixed_dead_dns_beside_lookups",
        "a few lookups of one process vanish beside a hundred times as many that are answered",
        &[&["dns.no_reply"]],
        dead_dns_beside_lookups,
    ),
];

const UNANSWERED_MS: u64 = 5_300;

fn dead_dns_and_refused_port(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.vanish(&format!("ip daddr {server} udp dport 53"));
    let (lookups, connects) = (stage.draw("lookups", 3..=6), stage.draw("connects", 4..=12));
    stage.open();
    let resolver = stage.actor(At::Client, &format!("resolve servers={server} count={lookups} timeout=400 attempts=1"));
    let client = stage.actor(At::Client, &format!("ask at={server} port={port} count={connects} pause=100"));
    let subjects =
        vec![Subject::of(&resolver).with("remote", server, 53), Subject::of(&client).with("remote", server, port)];
    resolver.wait();
    client.wait();
    stage.settle(UNANSWERED_MS);
    subjects
}

fn lost_syns_and_slow_dns(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.vanish(&format!("ip daddr {server} tcp dport {port}"));
    let delay = stage.draw("delay", 550..=800);
    stage.serve(At::Server, &format!("dns at={server} delay={delay}"));
    stage.open();
    let client = stage.traffic(At::Client, &format!("connect --to {server}:{port} --timeout-ms 1400 --count 3"));
    let resolver = stage.actor(At::OtherClient, &format!("resolve servers={server} count=7 timeout=4000"));
    let subjects =
        vec![Subject::of(&client).with("remote", server, port), Subject::of(&resolver).with("remote", server, 53)];
    client.wait();
    resolver.wait();
    subjects
}

fn rule_and_leak(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, other) = (stage.server4(), stage.port(), stage.port());
    stage.lab.fault(&format!("ip daddr {server} tcp dport {port} counter drop"));
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    let leaking = stage.serve(At::Server, &format!("hoard at={server} port={other}"));
    let count = stage.draw("connections", 6..=20);
    stage.open();
    stage.actor(At::OtherClient, &format!("probe at={server} port={other} count={count}")).wait();
    let client = stage.traffic(At::Client, &format!("connect --to {server}:{port} --timeout-ms 1400 --count 3"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject, leaking.at_port(other)]
}

fn resets_and_loss(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, other) = (stage.server4(), stage.port(), stage.port());
    let one_of = stage.draw("one of", 7..=12);
    stage.vanish(&format!("ip daddr {server} tcp dport {other} meta length > 100 numgen inc mod {one_of} == 3"));
    stage.serve(At::Server, &format!("serve at={server} port={port} abort=1"));
    let listening = stage.traffic(At::Server, &format!("tcp-server --listen {server}:{other} --quiet"));
    listening.wait_for_lines(1);
    stage.keep(listening);
    stage.open();
    let cut = stage.actor(At::Client, &format!("ask at={server} port={port} count=10 pause=100"));
    let lossy = stage.traffic(At::OtherClient, &format!("tcp-client --to {server}:{other} --count 4 --bytes 1000000"));
    let subjects =
        vec![Subject::of(&cut).with("remote", server, port), Subject::of(&lossy).with("remote", server, other)];
    cut.wait();
    lossy.wait();
    subjects
}

fn two_faults_of_one_process(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.vanish(&format!("ip daddr {server} udp dport 53"));
    let count = stage.draw("rounds", 4..=6);
    stage.open();
    let client =
        stage.actor(At::Client, &format!("both at={server} port={port} count={count} servers={server} timeout=350"));
    let subjects =
        vec![Subject::of(&client).with("remote", server, 53), Subject::of(&client).with("remote", server, port)];
    client.wait();
    stage.settle(UNANSWERED_MS);
    subjects
}

fn refused_beside_load(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, closed) = (stage.server4(), stage.port(), stage.port());
    let listening = stage.traffic(At::Server, &format!("tcp-server --listen {server}:{port} --quiet"));
    listening.wait_for_lines(1);
    stage.keep(listening);
    stage.open();
    let load =
        stage.traffic(At::Client, &format!("tcp-client --to {server}:{port} --count 1000 --threads 2 --pause-us 6000"));
    let client = stage.actor(At::Client, &format!("ask at={server} port={closed} count=10 pause=250"));
    let subject = Subject::of(&client).with("remote", server, closed);
    client.wait();
    load.wait();
    vec![subject]
}

fn dead_dns_beside_lookups(stage: &mut Stage) -> Vec<Subject> {
    let (dead, alive) = (stage.server4(), stage.server4_second());
    stage.vanish(&format!("ip daddr {dead} udp dport 53"));
    stage.serve(At::Server, &format!("dns at={alive}"));
    stage.open();
    let busy = stage.actor(At::Client, &format!("resolve servers={alive} count=400 pause=3 both=1"));
    let silent = stage.actor(At::Client, &format!("resolve servers={dead} count=4 timeout=350 attempts=1"));
    let subject = Subject::of(&silent).with("remote", dead, 53);
    silent.wait();
    busy.wait();
    stage.settle(UNANSWERED_MS);
    vec![subject]
}
