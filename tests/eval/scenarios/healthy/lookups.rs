//! Resolvers of all kinds, and other datagrams.

use super::super::{Scenario, healthy};
use super::{UNANSWERED_MS, actor, run};
use crate::stage::{At, Stage};
use crate::subject::Subject;

pub const SCENARIOS: &[Scenario] = &[
    healthy("healthy_lookups", "real lookups of both families, all answered", lookups),
    healthy("healthy_lookups_v6", "lookups over IPv6, all answered, A and AAAA at once", lookups_v6),
    healthy("healthy_lookups_take_a_moment", "each answer takes some 30 ms", lookups_take_a_moment),
    healthy(
        "healthy_names_that_do_not_exist",
        "names that do not exist, with the default search domains of Kubernetes",
        names_that_do_not_exist,
    ),
    healthy(
        "healthy_parallel_resolvers",
        "all name servers are asked at once, as musl does, and the later answers are never read",
        parallel_resolvers,
    ),
    healthy(
        "healthy_parallel_resolvers_one_silent",
        "the same where one of them says nothing: nobody waits for it",
        parallel_resolvers_one_silent,
    ),
    healthy(
        "healthy_address_sorting",
        "UDP sockets are connected to learn an address, and nothing is sent, as glibc does",
        address_sorting,
    ),
    healthy("healthy_one_way_datagrams", "metrics that nobody answers", one_way_datagrams),
];

fn lookups(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    stage.dnsmasq(server);
    stage.open();
    let client =
        stage.resolving(At::Client, &format!("nameserver {server}\n"), "lookup name=a%.ok.test count=60 pause=20");
    client.wait();
    Vec::new()
}

fn lookups_v6(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server6();
    stage.serve(At::Server, &format!("dns at={server}"));
    stage.open();
    actor(stage, &format!("resolve servers={server} count=60 pause=30 both=1"));
    Vec::new()
}

fn lookups_take_a_moment(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    let delay = stage.draw("delay", 20..=45);
    stage.serve(At::Server, &format!("dns at={server} delay={delay}"));
    stage.open();
    actor(stage, &format!("resolve servers={server} count=40 pause=30"));
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
