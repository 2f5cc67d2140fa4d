//! Clients that are in a hurry, try several ways, or only look.

use super::super::{Scenario, healthy};
use super::{actor, run, serve_all};
use crate::stage::{At, Stage};
use crate::subject::Subject;

pub const SCENARIOS: &[Scenario] = &[
    healthy("healthy_load", "thousands of short connections of several threads", load),
    healthy("healthy_bulk", "transfers of some ten MB both ways", bulk),
    healthy("healthy_burst_of_connects", "a crowd connects at once to a server with room for it", burst_of_connects),
    healthy("healthy_kept_connections", "many requests over a connection each of a crowd", kept_connections),
    healthy("healthy_eyeballs_v6_lost", "SYNs over IPv6 vanish, and IPv4 wins after a moment", eyeballs_v6_lost),
    healthy("healthy_eyeballs_v6_refused", "IPv6 is refused, and IPv4 wins", eyeballs_v6_refused),
    healthy("healthy_eyeballs_both_work", "both families work, and the later one is given up", eyeballs_both_work),
    healthy("healthy_probes_connect_and_close", "health checks connect and close at once", probes_connect_and_close),
    healthy(
        "healthy_probes_connect_and_reset",
        "health checks connect and leave with a reset, as some load balancers do",
        probes_connect_and_reset,
    ),
    healthy(
        "healthy_probes_ask_and_reset",
        "health checks ask, read the answer, and leave with a reset",
        probes_ask_and_reset,
    ),
    healthy("healthy_kubelet_probes", "the kubelet asks over HTTP, and is answered in time", kubelet_probes),
    healthy("healthy_pod_starts", "the kubelet probes a pod that does not listen yet, and then does", pod_starts),
    healthy("healthy_scanner", "somebody tries closed ports one after the other, each once", scanner),
    healthy(
        "healthy_client_leaves_early",
        "a client that does not wait for late answers, and goes on",
        client_leaves_early,
    ),
    healthy("healthy_churn", "a connection for each of many small requests, as many programs do", churn),
];

fn load(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    serve_all(stage, port);
    stage.open();
    run(stage, &format!("tcp-client --to {server}:{port} --count 2500 --threads 4"));
    Vec::new()
}

fn bulk(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, mb) = (stage.server4(), stage.port(), stage.draw("MB", 15..=40));
    serve_all(stage, port);
    stage.open();
    run(stage, &format!("tcp-client --to {server}:{port} --bytes {mb}000000 --reply {mb}000000"));
    Vec::new()
}

fn burst_of_connects(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let count = stage.draw("clients", 40..=100);
    stage.serve(At::Server, &format!("serve at={server} port={port} backlog=512"));
    stage.open();
    actor(stage, &format!("crowd at={server} port={port} count={count} waves=4 pause=300"));
    Vec::new()
}

fn kept_connections(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port} think=5"));
    let clients = stage.draw("clients", 8..=20);
    stage.open();
    actor(stage, &format!("crowd at={server} port={port} count={clients} waves=40 keep=1 pause=60"));
    Vec::new()
}

fn eyeballs_v6_lost(stage: &mut Stage) -> Vec<Subject> {
    let (server, first, port) = (stage.server4(), stage.server6(), stage.port());
    stage.vanish(&format!("ip6 daddr {first} tcp dport {port}"));
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    let (count, head) = (stage.draw("connects", 6..=15), stage.draw("head", 30..=250));
    stage.open();
    actor(stage, &format!("eyeballs at={server} first={first} port={port} count={count} head={head} pause=100"));
    Vec::new()
}

fn eyeballs_v6_refused(stage: &mut Stage) -> Vec<Subject> {
    let (server, first, port) = (stage.server4(), stage.server6(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    let count = stage.draw("connects", 6..=15);
    stage.open();
    actor(stage, &format!("eyeballs at={server} first={first} port={port} count={count} head=5 pause=100"));
    Vec::new()
}

fn eyeballs_both_work(stage: &mut Stage) -> Vec<Subject> {
    let (server, first, port) = (stage.server4(), stage.server6(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    stage.serve(At::Server, &format!("serve at={first} port={port}"));
    stage.open();
    actor(stage, &format!("eyeballs at={server} first={first} port={port} count=15 head=20 pause=100"));
    Vec::new()
}

fn probes_connect_and_close(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    let (count, pause) = (stage.draw("checks", 15..=40), stage.draw("pause", 50..=200));
    stage.open();
    actor(stage, &format!("probe at={server} port={port} count={count} pause={pause}"));
    Vec::new()
}

fn probes_connect_and_reset(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    let (count, pause) = (stage.draw("checks", 15..=40), stage.draw("pause", 50..=200));
    stage.open();
    actor(stage, &format!("probe at={server} port={port} count={count} pause={pause} reset=1"));
    Vec::new()
}

fn probes_ask_and_reset(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port} reply=500"));
    let (count, pause) = (stage.draw("checks", 15..=40), stage.draw("pause", 50..=200));
    stage.open();
    actor(stage, &format!("ask at={server} port={port} count={count} pause={pause} reset=1"));
    Vec::new()
}

fn kubelet_probes(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port} think=300 then=close"));
    stage.open();
    stage.called("kubelet", At::Client, &format!("ask at={server} port={port} count=8 pause=200")).wait();
    Vec::new()
}

fn pod_starts(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let after = stage.draw("after", 700..=1000);
    stage.open();
    let starting = stage.actor(At::Server, &format!("serve at={server} port={port} after={after}"));
    stage.called("kubelet", At::Client, &format!("ask at={server} port={port} count=12 pause=300")).wait();
    stage.keep(starting);
    Vec::new()
}

fn scanner(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let count = stage.draw("ports", 12..=30);
    stage.background(Some(At::OtherClient));
    stage.open();
    actor(stage, &format!("scan at={server} port={port} count={count} pause=30"));
    Vec::new()
}

fn client_leaves_early(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let timeout = stage.draw("timeout", 100..=250);
    stage.serve(At::Server, &format!("serve at={server} port={port} think=400"));
    stage.open();
    actor(stage, &format!("leave at={server} port={port} count=12 timeout={timeout} pause=100"));
    Vec::new()
}

fn churn(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, pause) = (stage.server4(), stage.port(), stage.draw("pause", 10..=20));
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    stage.open();
    actor(stage, &format!("ask at={server} port={port} count=200 pause={pause}"));
    Vec::new()
}
