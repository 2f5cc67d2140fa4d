//! Servers and paths: slow, far away, idle, beginning and ending.

use super::super::{Scenario, healthy};
use super::{actor, run, serve_all};
use crate::stage::{At, Stage};
use crate::subject::Subject;

pub const SCENARIOS: &[Scenario] = &[
    healthy(
        "healthy_server_closes_first",
        "a server closes after each answer, and its client a moment later",
        server_closes_first,
    ),
    healthy(
        "healthy_idle_connections",
        "connections that stand, and on which nothing moves for seconds",
        idle_connections,
    ),
    healthy(
        "healthy_small_pool_in_close_wait",
        "two connections of a pool whose server has closed, not yet looked at",
        small_pool_in_close_wait,
    ),
    healthy("healthy_slow_server", "each answer takes most of a second, as it should", slow_server),
    healthy("healthy_distant_server", "a server that is far away: 60 to 120 ms for each packet there", distant_server),
    healthy(
        "healthy_server_restarts",
        "a server that begins to listen within a second; its client tries again until it does",
        server_restarts,
    ),
    healthy("healthy_three_backends", "a service whose three backends all work, behind a masquerade", three_backends),
    healthy("healthy_reader_pauses", "a server that reads with pauses, but keeps up", reader_pauses),
    healthy("healthy_a_segment_lost", "one segment of some thousand vanishes, as happens", a_segment_lost),
    healthy("healthy_one_syn_lost", "one SYN of some hundred vanishes, as happens", one_syn_lost),
    healthy("healthy_long_poll", "requests that are answered after seconds, when there is news", long_poll),
    healthy("healthy_shaped_link", "a link that is shaped to some Mbit, with room for what waits", shaped_link),
    healthy(
        "healthy_rules_that_let_pass",
        "rules that would drop, if anybody sent what they are for",
        rules_that_let_pass,
    ),
    healthy("healthy_server_stops", "a server ends when its clients are done", server_stops),
];

fn server_closes_first(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port} then=close"));
    let count = stage.draw("requests", 60..=120);
    stage.open();
    actor(stage, &format!("ask at={server} port={port} count={count} pause=20"));
    Vec::new()
}

fn idle_connections(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    let sessions = stage.draw("sessions", 4..=10);
    stage.open();
    actor(stage, &format!("sessions at={server} port={port} sessions={sessions} pause=50 idle=4500"));
    Vec::new()
}

fn small_pool_in_close_wait(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port} then=close"));
    stage.open();
    let client = stage.actor(At::Client, &format!("hold at={server} port={port} count=2 say=1"));
    client.wait_for_lines(1);
    stage.settle(4000);
    stage.keep(client);
    Vec::new()
}

fn slow_server(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let think = stage.draw("think", 500..=900);
    stage.serve(At::Server, &format!("serve at={server} port={port} think={think}"));
    stage.open();
    actor(stage, &format!("crowd at={server} port={port} count=5 waves=5"));
    Vec::new()
}

fn distant_server(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let delay = stage.draw("delay", 60..=120);
    stage.slow_down(delay, &format!("ip daddr {server} tcp dport {port}"));
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    stage.open();
    actor(stage, &format!("ask at={server} port={port} count=12"));
    Vec::new()
}

fn server_restarts(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let (after, pause) = (stage.draw("after", 500..=900), stage.draw("pause", 240..=300));
    stage.open();
    let starting = stage.actor(At::Server, &format!("serve at={server} port={port} after={after}"));
    actor(stage, &format!("ask at={server} port={port} count=20 pause={pause}"));
    stage.keep(starting);
    Vec::new()
}

fn three_backends(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let backends = [stage.port(), stage.port(), stage.port()];
    for backend in backends {
        stage.serve(At::Server, &format!("serve at={server} port={backend}"));
    }
    let [a, b, c] = backends;
    let map = format!("numgen inc mod 3 map {{ 0 : {a}, 1 : {b}, 2 : {c} }}");
    stage.lab.translate(&format!("ip daddr 10.96.0.80 tcp dport {port} dnat to {server} : {map}"));
    stage.lab.nft("add chain ip lab post { type nat hook postrouting priority srcnat; }\n");
    stage.lab.nft("add rule ip lab post ct status dnat masquerade\n");
    stage.open();
    actor(stage, &format!("ask at=10.96.0.80 port={port} count=60 pause=20"));
    Vec::new()
}

fn reader_pauses(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.serve(At::Server, &format!("deaf at={server} port={port} sip=200000 every=250"));
    stage.open();
    actor(stage, &format!("pour at={server} port={port} for=4500 ping=20000 pause=50"));
    Vec::new()
}

fn a_segment_lost(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    serve_all(stage, port);
    stage.vanish(&format!("ip daddr {server} tcp dport {port} meta length > 100 numgen inc mod 1500 == 700"));
    stage.open();
    run(stage, &format!("tcp-client --to {server}:{port} --count 4 --bytes 4000000"));
    Vec::new()
}

fn one_syn_lost(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.vanish(&format!(
        "ip daddr {server} tcp dport {port} tcp flags & (syn | ack) == syn numgen inc mod 1000 == 70"
    ));
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    stage.open();
    actor(stage, &format!("ask at={server} port={port} count=250 pause=4"));
    Vec::new()
}

fn long_poll(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let think = stage.draw("think", 3000..=4500);
    stage.serve(At::Server, &format!("serve at={server} port={port} think={think}"));
    let clients = stage.draw("clients", 3..=12);
    stage.open();
    actor(stage, &format!("crowd at={server} port={port} count={clients} timeout=9000"));
    Vec::new()
}

fn shaped_link(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let rate = stage.draw("mbit", 20..=60);
    stage.background(Some(At::OtherClient));
    stage.lab.client.run(&format!("tc qdisc add dev eth0 root tbf rate {rate}mbit burst 10000 limit 4000000"));
    serve_all(stage, port);
    stage.open();
    run(stage, &format!("tcp-client --to {server}:{port} --count 3 --bytes 3000000"));
    Vec::new()
}

fn rules_that_let_pass(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.lab.fault("tcp dport 23 counter drop");
    stage.filter(At::Server, "input", "ct state invalid counter drop");
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    stage.open();
    actor(stage, &format!("ask at={server} port={port} count=60 pause=40"));
    Vec::new()
}

fn server_stops(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let count = stage.draw("requests", 20..=60);
    let stopping = stage.actor(At::Server, &format!("serve at={server} port={port}"));
    stopping.wait_for_lines(1);
    stage.open();
    actor(stage, &format!("ask at={server} port={port} count={count} pause=30"));
    drop(stopping);
    stage.settle(1000);
    Vec::new()
}
