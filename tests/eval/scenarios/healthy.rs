//! Workloads that are well, though some look ill at first sight.

use super::{Scenario, healthy};
use crate::stage::{At, Stage};
use crate::subject::Subject;

const UNANSWERED_MS: u64 = 5_300;

pub const SCENARIOS: &[Scenario] = &[
    healthy("healthy_load", "thousands of short connections of several threads", load),
    healthy("healthy_bulk", "transfers of some ten MB both ways", bulk),
    healthy("healthy_lookups", "real lookups of both families, all answered", lookups),
    healthy("healthy_names_that_do_not_exist", "names that do not exist, with the default search domains of Kubernetes", names_that_do_not_exist),
    healthy("healthy_parallel_resolvers", "all name servers are asked at once, as musl does, and the later answers are never read", parallel_resolvers),
    healthy("healthy_parallel_resolvers_one_silent", "the same where one of them says nothing: nobody waits for it", parallel_resolvers_one_silent),
    healthy("healthy_address_sorting", "UDP sockets are connected to learn an address, and nothing is sent, as glibc does", address_sorting),
    healthy("healthy_eyeballs_v6_lost", "SYNs over IPv6 vanish, and IPv4 wins after a moment", eyeballs_v6_lost),
    healthy("healthy_eyeballs_v6_refused", "IPv6 is refused, and IPv4 wins", eyeballs_v6_refused),
    healthy("healthy_eyeballs_both_work", "both families work, and the later one is given up", eyeballs_both_work),
    healthy("healthy_probes_connect_and_close", "health checks connect and close at once", probes_connect_and_close),
    healthy("healthy_probes_connect_and_reset", "health checks connect and leave with a reset, as some load balancers do", probes_connect_and_reset),
    healthy("healthy_probes_ask_and_reset", "health checks ask, read the answer, and leave with a reset", probes_ask_and_reset),
    healthy("healthy_kubelet_probes", "the kubelet asks over HTTP, and is answered in time", kubelet_probes),
    healthy("healthy_server_closes_first", "a server closes after each answer, and its client a moment later", server_closes_first),
    healthy("healthy_idle_connections", "connections that stand, and on which nothing moves for seconds", idle_connections),
    healthy("healthy_small_pool_in_close_wait", "two connections of a pool whose server has closed, not yet looked at", small_pool_in_close_wait),
    healthy("healthy_slow_server", "each answer takes most of a second, as it should", slow_server),
    healthy("healthy_distant_server", "a server that is far away: 60 to 120 ms for each packet there", distant_server),
    healthy("healthy_server_restarts", "a server that begins to listen within a second; its client tries again until it does", server_restarts),
    healthy("healthy_burst_of_connects", "a crowd connects at once to a server with room for it", burst_of_connects),
    healthy("healthy_scanner", "somebody tries closed ports one after the other, each once", scanner),
    healthy("healthy_client_leaves_early", "a client that does not wait for late answers, and goes on", client_leaves_early),
    healthy("healthy_three_backends", "a service whose three backends all work, behind a masquerade", three_backends),
    healthy("healthy_one_way_datagrams", "metrics that nobody answers", one_way_datagrams),
    healthy("healthy_reader_pauses", "a server that reads with pauses, but keeps up", reader_pauses),
    healthy("healthy_a_segment_lost", "one segment of some thousand vanishes, as happens", a_segment_lost),
    healthy("healthy_one_syn_lost", "one SYN of some hundred vanishes, as happens", one_syn_lost),
];

/// A server of `traffic` that stays until the window is closed.
fn serve_all(stage: &mut Stage, port: u64) {
    let server = stage.server4();
    let listening = stage.traffic(At::Server, &format!("tcp-server --listen {server}:{port} --quiet"));
    listening.wait_for_lines(1);
    stage.keep(listening);
}

/// `traffic` at the client, to its end.
fn run(stage: &mut Stage, args: &str) {
    let ended = stage.traffic(At::Client, args).wait();
    assert!(ended.status.success(), "{ended:?}");
}

/// `actor.py` at the client, to its end.
fn actor(stage: &mut Stage, args: &str) {
    let ended = stage.actor(At::Client, args).wait();
    assert!(ended.status.success(), "{ended:?}");
}

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

fn lookups(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    stage.dnsmasq(server);
    stage.open();
    let client = stage.resolving(At::Client, &format!("nameserver {server}\n"), "lookup name=a%.ok.test count=60 pause=20");
    client.wait();
    Vec::new()
}

fn names_that_do_not_exist(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    stage.dnsmasq(server);
    let count = stage.draw("lookups", 8..=12);
    stage.open();
    let conf = format!("nameserver {server}\nsearch shop.svc.nx.test svc.nx.test nx.test\noptions ndots:5\n");
    let args = format!("lookup name=no%.such count={count} pause=400 stay=1");
    let client = stage.resolving(At::Client, &conf, &args);
    client.wait_for_lines(1);
    stage.keep(client);
    Vec::new()
}

fn parallel_resolvers(stage: &mut Stage) -> Vec<Subject> {
    let (one, two) = (stage.server4(), stage.server4_second());
    let delay = stage.draw("delay", 30..=200);
    stage.serve(At::Server, &format!("dns at={one}"));
    stage.serve(At::Server, &format!("dns at={two} delay={delay}"));
    let count = stage.draw("lookups", 20..=40);
    stage.open();
    actor(stage, &format!("parallel servers={one},{two} count={count} pause=50"));
    stage.settle(UNANSWERED_MS);
    Vec::new()
}

fn parallel_resolvers_one_silent(stage: &mut Stage) -> Vec<Subject> {
    let (one, two) = (stage.server4(), stage.server4_second());
    stage.vanish(&format!("ip daddr {two} udp dport 53"));
    stage.serve(At::Server, &format!("dns at={one}"));
    let count = stage.draw("lookups", 8..=20);
    stage.open();
    actor(stage, &format!("parallel servers={one},{two} count={count} pause=50"));
    stage.settle(UNANSWERED_MS);
    Vec::new()
}

fn address_sorting(stage: &mut Stage) -> Vec<Subject> {
    let (one, two) = (stage.server4(), stage.server4_second());
    let dark = stage.nobody4();
    stage.serve(At::Server, &format!("dns at={one}"));
    stage.open();
    actor(stage, &format!("resolve servers={one} count=10 pause=20"));
    actor(stage, &format!("sort servers={one},{two},{dark} count=200 pause=5"));
    stage.settle(UNANSWERED_MS);
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

fn burst_of_connects(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let count = stage.draw("clients", 40..=100);
    stage.serve(At::Server, &format!("serve at={server} port={port} backlog=512"));
    stage.open();
    actor(stage, &format!("crowd at={server} port={port} count={count} waves=4 pause=300"));
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

fn one_way_datagrams(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let sink = stage.actor(At::Server, &format!("sink at={server} port={port}"));
    sink.wait_for_lines(1);
    stage.keep(sink);
    stage.open();
    run(stage, &format!("udp-paced --to {server}:{port} --count 400 --interval-us 8000"));
    stage.settle(UNANSWERED_MS - 2000);
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
    stage.vanish(&format!("ip daddr {server} tcp dport {port} tcp flags & (syn | ack) == syn numgen inc mod 1000 == 70"));
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    stage.open();
    actor(stage, &format!("ask at={server} port={port} count=250 pause=4"));
    Vec::new()
}
