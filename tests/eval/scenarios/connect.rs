//! Connects that are not answered, turned down, or answered late.

use super::{Scenario, fault};
use crate::stage::{At, Stage};
use crate::subject::Subject;

const TIMEOUT: &[&[&str]] = &[&["tcp.connect_timeout"]];
const POLICY: &[&[&str]] = &[&["policy.drop"]];
const SLOW: &[&[&str]] = &[&["connect.slow"]];

pub const SCENARIOS: &[Scenario] = &[
    fault("connect_syns_lost", "SYNs vanish elsewhere", TIMEOUT, syns_lost).never(&["policy.drop", "tcp.refused"]),
    fault("connect_replies_lost", "SYN-ACKs vanish elsewhere", TIMEOUT, replies_lost)
        // the server sends its SYN-ACKs again
        .also(&["tcp.retransmits"])
        .never(&["policy.drop"]),
    fault("connect_refused", "nothing listens on the port", &[&["tcp.refused"]], refused)
        .never(&["policy.drop", "tcp.connect_timeout"]),
    fault(
        "connect_refused_by_one_of_many",
        "one of a hundred servers of a client does not listen: 1 % of its connects",
        &[&["tcp.refused"]],
        refused_by_one_of_many,
    ),
    fault(
        "connect_one_silent_peer_among_many",
        "SYNs to one of a dozen servers vanish elsewhere",
        TIMEOUT,
        silent_peer_among_many,
    ),
    fault(
        "connect_one_dead_replica",
        "SYNs to one of five machines with the same service vanish elsewhere",
        &[&["connect.bad_peer"]],
        dead_replica,
    )
    .never(&["policy.drop"]),
    fault(
        "connect_machine_gone",
        "all that is sent to one of three machines vanishes elsewhere, whatever the port",
        &[&["connect.bad_path"]],
        machine_gone,
    )
    .never(&["policy.drop"]),
    fault("connect_dropped_on_the_way", "a rule of the router drops SYNs", POLICY, dropped_on_the_way),
    fault("connect_dropped_at_the_server", "a rule of the server's machine drops SYNs", POLICY, dropped_at_the_server),
    fault(
        "connect_dropped_at_the_client",
        "a rule of the client's own namespace drops SYNs",
        POLICY,
        dropped_at_the_client,
    ),
    fault("connect_replies_dropped_here", "a rule of the router drops SYN-ACKs", POLICY, replies_dropped_here)
        .also(&["tcp.retransmits"]),
    fault("connect_rejected_by_icmp", "a rule of the router answers SYNs with ICMP", POLICY, rejected_by_icmp),
    fault("connect_rejected_by_reset", "a rule of the router answers SYNs with resets", POLICY, rejected_by_reset),
    fault(
        "connect_unreachable_route",
        "the client has a route that says that there is none",
        &[&["tcp.unreachable", "net.no_route"]],
        unreachable_route,
    )
    .never(&["policy.drop"]),
    fault("connect_no_route", "the client has no default route", &[&["net.no_route"]], no_route)
        .never(&["policy.drop"]),
    fault(
        "connect_neighbour_dead",
        "nobody answers for the address in the client's network",
        &[&["net.neighbour_failed"]],
        neighbour_dead,
    )
    .never(&["policy.drop"]),
    fault(
        "connect_reverse_path",
        "the server's machine routes answers another way, and filters by reverse path",
        &[&["net.rp_filter"]],
        reverse_path,
    )
    .never(&["policy.drop"]),
    fault("connect_some_syns_lost", "one SYN of ten vanishes elsewhere", SLOW, some_syns_lost)
        .never(&["tcp.connect_timeout", "policy.drop"]),
    fault("connect_one_syn_in_a_hundred_lost", "1 % of the SYNs vanish elsewhere", SLOW, one_syn_in_a_hundred)
        .never(&["tcp.connect_timeout", "policy.drop"]),
    fault("connect_far_away", "each handshake takes most of a second", SLOW, far_away)
        .never(&["tcp.connect_timeout", "policy.drop"]),
];

/// A few connects to this port of the server, each given up after a while.
fn connects(stage: &mut Stage, port: u64) -> Vec<Subject> {
    let server = stage.server4();
    let (count, timeout) = (stage.draw("connects", 3..=4), stage.draw("timeout", 1200..=1600));
    stage.open();
    let client =
        stage.traffic(At::Client, &format!("connect --to {server}:{port} --timeout-ms {timeout} --count {count}"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn serve(stage: &mut Stage, port: u64) {
    let server = stage.server4();
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
}

fn syns_lost(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.vanish(&format!("ip daddr {server} tcp dport {port}"));
    serve(stage, port);
    connects(stage, port)
}

fn replies_lost(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.vanish(&format!("ip saddr {server} tcp sport {port}"));
    serve(stage, port);
    connects(stage, port)
}

fn refused(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let (count, pause) = (stage.draw("connects", 4..=20), stage.draw("pause", 50..=250));
    stage.open();
    let client = stage.actor(At::Client, &format!("ask at={server} port={port} count={count} pause={pause}"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn refused_by_one_of_many(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    serve(stage, port);
    let bad = stage.port();
    stage.open();
    let args = format!("ask at={server} port={port} count=396 pause=8 odd={bad} odd_every=100");
    let client = stage.actor(At::Client, &args);
    let subject = Subject::of(&client).with("remote", server, bad);
    client.wait();
    vec![subject]
}

fn silent_peer_among_many(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    serve(stage, port);
    let bad = stage.port();
    stage.vanish(&format!("ip daddr {server} tcp dport {bad}"));
    let timeout = stage.draw("timeout", 1100..=1400);
    stage.open();
    let args = format!("ask at={server} port={port} count=36 pause=20 odd={bad} odd_every=12 timeout={timeout}");
    let client = stage.actor(At::Client, &args);
    let subject = Subject::of(&client).with("remote", server, bad);
    client.wait();
    vec![subject]
}

fn dead_replica(stage: &mut Stage) -> Vec<Subject> {
    let (port, peers) = (stage.port(), stage.servers4());
    let bad = peers[usize::try_from(stage.draw("dead replica", 0..=4)).unwrap()];
    for peer in &peers {
        stage.serve(At::Server, &format!("serve at={peer} port={port}"));
    }
    stage.vanish(&format!("ip daddr {bad} tcp dport {port}"));
    let (rounds, timeout) = (stage.draw("rounds", 4..=6), stage.draw("timeout", 450..=700));
    stage.open();
    let all = peers.map(|peer| peer.to_string()).join(",");
    let args = format!("ask at={bad} peers={all} port={port} count={} pause=10 timeout={timeout}", 5 * rounds);
    let client = stage.actor(At::Client, &args);
    let subject = Subject::of(&client).with("remote", bad, port);
    client.wait();
    vec![subject]
}

fn machine_gone(stage: &mut Stage) -> Vec<Subject> {
    let (one, other) = (stage.port(), stage.port());
    let [a, gone, b, ..] = stage.servers4();
    stage.background(Some(At::OtherClient));
    stage.vanish(&format!("ip daddr {gone}"));
    for (peer, port) in [(a, one), (b, one), (a, other), (b, other)] {
        stage.serve(At::Server, &format!("serve at={peer} port={port}"));
    }
    stage.open();
    let mut ask = |port| {
        let args = format!("ask at={gone} peers={a},{gone},{b} port={port} count=12 pause=10 timeout=1100");
        stage.actor(At::Client, &args)
    };
    let clients = [ask(one), ask(other)];
    clients.into_iter().for_each(|client| _ = client.wait());
    vec![Subject::anybody().saying(gone.to_string())]
}

fn dropped_on_the_way(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.lab.fault(&format!("ip daddr {server} tcp dport {port} counter drop"));
    serve(stage, port);
    connects(stage, port)
}

fn dropped_at_the_server(stage: &mut Stage) -> Vec<Subject> {
    let port = stage.port();
    stage.filter(At::Server, "input", &format!("tcp dport {port} counter drop"));
    serve(stage, port);
    connects(stage, port)
}

fn dropped_at_the_client(stage: &mut Stage) -> Vec<Subject> {
    let port = stage.port();
    stage.filter(At::Client, "output", &format!("tcp dport {port} counter drop"));
    serve(stage, port);
    connects(stage, port)
}

fn replies_dropped_here(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.lab.fault(&format!("ip saddr {server} tcp sport {port} counter drop"));
    serve(stage, port);
    connects(stage, port)
}

fn rejected_by_icmp(stage: &mut Stage) -> Vec<Subject> {
    let port = stage.port();
    stage.lab.fault(&format!("tcp dport {port} counter reject with icmp type host-prohibited"));
    serve(stage, port);
    connects(stage, port)
}

fn rejected_by_reset(stage: &mut Stage) -> Vec<Subject> {
    let port = stage.port();
    stage.lab.fault(&format!("tcp dport {port} counter reject with tcp reset"));
    serve(stage, port);
    connects(stage, port)
}

fn unreachable_route(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.lab.client.run(&format!("ip route add unreachable {server}/32"));
    serve(stage, port);
    connects(stage, port)
}

fn no_route(stage: &mut Stage) -> Vec<Subject> {
    let port = stage.port();
    stage.background(Some(At::OtherClient));
    stage.lab.client.run("ip route del default");
    serve(stage, port);
    connects(stage, port)
}

fn neighbour_dead(stage: &mut Stage) -> Vec<Subject> {
    let (nobody, port) = (stage.nobody4(), stage.port());
    let count = stage.draw("connects", 2..=3);
    stage.open();
    let client = stage.traffic(At::Client, &format!("connect --to {nobody}:{port} --blocking --count {count}"));
    let subject = Subject::of(&client).with("remote", nobody, port);
    client.wait();
    vec![subject]
}

fn reverse_path(stage: &mut Stage) -> Vec<Subject> {
    let (client, port) = (stage.client4(), stage.port());
    stage.background(Some(At::OtherClient));
    let server = &stage.lab.server;
    server.run("ip link add away type veth peer name far");
    server.run("ip link set away up");
    server.run("ip link set far up");
    server.run(&format!("ip route add {client}/32 dev away"));
    for of in ["all", "eth0"] {
        server.sysctl(&format!("net.ipv4.conf.{of}.rp_filter"), "1");
    }
    serve(stage, port);
    connects(stage, port)
}

fn some_syns_lost(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, lost) = (stage.server4(), stage.port(), stage.draw("lost place", 0..=9));
    let syn = "tcp flags & (syn | ack) == syn";
    stage.vanish(&format!("ip daddr {server} tcp dport {port} {syn} numgen inc mod 10 == {lost}"));
    serve(stage, port);
    stage.open();
    let client = stage.actor(At::Client, &format!("ask at={server} port={port} count=40 pause=10"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn one_syn_in_a_hundred(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, lost) = (stage.server4(), stage.port(), stage.draw("lost place", 0..=85));
    let syn = "tcp flags & (syn | ack) == syn";
    stage.vanish(&format!("ip daddr {server} tcp dport {port} {syn} numgen inc mod 100 == {lost}"));
    serve(stage, port);
    stage.open();
    let client = stage.actor(At::Client, &format!("ask at={server} port={port} count=290 pause=5"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn far_away(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, delay) = (stage.server4(), stage.port(), stage.draw("delay", 600..=800));
    let syn = "tcp flags & (syn | ack) == syn";
    stage.slow_down(delay, &format!("ip daddr {server} tcp dport {port} {syn}"));
    serve(stage, port);
    stage.open();
    let client = stage.actor(At::Client, &format!("ask at={server} port={port} count=6"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}
