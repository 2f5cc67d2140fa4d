//! Programs that do not treat their sockets well: listeners without room, connections that nobody closes, ports used up.

use super::{Scenario, fault};
use crate::stage::{At, Stage};
use crate::subject::Subject;

const OVERFLOW: &[&[&str]] = &[&["tcp.listen_overflow"]];
const LEAK: &[&[&str]] = &[&["tcp.close_wait_leak"]];

pub const SCENARIOS: &[Scenario] = &[
    fault("socket_backlog_full", "a server does not accept, and its queue has room for few", OVERFLOW, backlog_full)
        .never(&["policy.drop"]),
    fault(
        "socket_backlog_full_in_bursts",
        "a server with a short queue accepts slowly, and clients come in bursts",
        OVERFLOW,
        bursts,
    )
    .never(&["policy.drop"]),
    fault(
        "socket_accepts_late",
        "a server does not accept, though its queue still has room",
        &[&["tcp.slow_accept"]],
        accepts_late,
    )
    .never(&["tcp.listen_overflow", "tcp.connect_timeout"]),
    fault(
        "socket_server_never_closes",
        "a server keeps connections that its clients have closed",
        LEAK,
        server_never_closes,
    ),
    fault(
        "socket_client_never_closes",
        "a client keeps connections that its server has closed",
        LEAK,
        client_never_closes,
    ),
    fault(
        "socket_ports_used_up",
        "a client keeps more connections open than it has ports",
        &[&["net.ephemeral_ports_exhausted"]],
        ports_used_up,
    ),
    fault(
        "socket_retry_storm",
        "a client tries a refused connect again at once, some thousand times",
        &[&["connect.retry_storm", "tcp.refused"]],
        retry_storm,
    ),
];

fn backlog_full(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, backlog) = (stage.server4(), stage.port(), stage.draw("backlog", 1..=4));
    let listener = stage.serve(At::Server, &format!("serve at={server} port={port} backlog={backlog} accept=100000"));
    let count = stage.draw("clients", 10..=20);
    stage.open();
    let client = stage.actor(At::Client, &format!("crowd at={server} port={port} count={count} timeout=2500"));
    client.wait();
    vec![listener.with("local", server, port)]
}

fn bursts(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, backlog) = (stage.server4(), stage.port(), stage.draw("backlog", 2..=5));
    let accept = stage.draw("accept", 80..=150);
    let listener = stage.serve(At::Server, &format!("serve at={server} port={port} backlog={backlog} accept={accept}"));
    let count = stage.draw("clients", 16..=24);
    stage.open();
    let client = stage.actor(At::Client, &format!("crowd at={server} port={port} count={count} waves=2 timeout=4000"));
    client.wait();
    vec![listener.with("local", server, port)]
}

fn accepts_late(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, backlog) = (stage.server4(), stage.port(), stage.draw("backlog", 12..=16));
    let listener = stage.serve(At::Server, &format!("serve at={server} port={port} backlog={backlog} accept=100000"));
    let client = stage.actor(At::Client, &format!("hold at={server} port={port} count={}", backlog - 2));
    client.wait_for_lines(1);
    stage.keep(client);
    stage.open();
    stage.settle(4000);
    vec![listener]
}

fn server_never_closes(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, count) = (stage.server4(), stage.port(), stage.draw("connections", 5..=20));
    let listener = stage.serve(At::Server, &format!("hoard at={server} port={port}"));
    stage.open();
    let client = stage.actor(At::Client, &format!("probe at={server} port={port} count={count}"));
    client.wait();
    stage.settle(4000);
    vec![listener.at_port(port)]
}

fn client_never_closes(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, count) = (stage.server4(), stage.port(), stage.draw("connections", 12..=24));
    stage.serve(At::Server, &format!("serve at={server} port={port} then=close"));
    stage.open();
    let client = stage.actor(At::Client, &format!("hold at={server} port={port} count={count} say=1"));
    client.wait_for_lines(1);
    let subject = Subject::of(&client).with("remote", server, port);
    stage.settle(4000);
    stage.keep(client);
    vec![subject]
}

fn ports_used_up(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, first) = (stage.server4(), stage.port(), stage.draw("first", 20_000..=40_000));
    let ports = stage.draw("ports", 20..=40);
    stage.background(Some(At::OtherClient));
    stage.lab.client_sysctl("net.ipv4.ip_local_port_range", &format!("{first} {}", first + ports - 1));
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    stage.open();
    let client = stage.actor(At::Client, &format!("hold at={server} port={port} count={} say=1", ports + 20));
    client.wait_for_lines(1);
    let subject = Subject::of(&client).with("remote", server, port);
    stage.keep(client);
    vec![subject]
}

fn retry_storm(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, count) = (stage.server4(), stage.port(), stage.draw("tries", 1500..=3000));
    stage.open();
    let client = stage.actor(At::Client, &format!("ask at={server} port={port} count={count} pause=1"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}
