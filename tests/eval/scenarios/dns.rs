//! Lookups that get no answer, a late one, or too many questions.

use super::{Scenario, fault};
use crate::stage::{At, Stage};
use crate::subject::Subject;

/// Longer than a query may wait before its silence counts.
const UNANSWERED_MS: u64 = 5_300;
const NO_REPLY: &[&[&str]] = &[&["dns.no_reply"]];
const POLICY: &[&[&str]] = &[&["policy.drop"]];

pub const SCENARIOS: &[Scenario] = &[
    fault("dns_server_dead", "queries to a server that is not there vanish elsewhere", NO_REPLY, server_dead)
        .never(&["policy.drop", "dns.slow"]),
    fault("dns_server_dead_v6", "the same over IPv6", NO_REPLY, server_dead_v6).never(&["policy.drop"]),
    fault(
        "dns_server_dead_for_all",
        "queries of several clients to a server that is not there vanish elsewhere",
        &[&["dns.server_dead"]],
        server_dead_for_all,
    )
    .never(&["policy.drop", "dns.slow"]),
    fault("dns_port_closed", "nothing listens on port 53: queries are refused by ICMP", NO_REPLY, port_closed)
        .never(&["policy.drop", "dns.slow"]),
    fault("dns_replies_lost", "the server answers, and its replies vanish elsewhere", NO_REPLY, replies_lost)
        .never(&["policy.drop"]),
    fault("dns_replies_dropped_here", "a rule of the router drops the replies", POLICY, replies_dropped_here),
    fault(
        "dns_dropped_at_the_server",
        "a rule of the server's machine drops the queries",
        POLICY,
        dropped_at_the_server,
    ),
    fault(
        "dns_blocked_at_the_client",
        "a rule of the client's own namespace forbids queries",
        POLICY,
        blocked_at_the_client,
    ),
    fault("dns_server_slow", "each answer takes most of a second", &[&["dns.slow"]], server_slow)
        .never(&["dns.no_reply"]),
    fault(
        "dns_slow_for_one_client",
        "one of two clients has a long way to the server",
        &[&["dns.slow_for_one"]],
        slow_for_one,
    )
    .never(&["dns.no_reply"]),
    fault(
        "dns_one_of_two_dead",
        "the first of two name servers is dead, and the second answers after the time-out",
        NO_REPLY,
        one_of_two_dead,
    ),
    fault("dns_some_lost", "one query of five vanishes elsewhere", NO_REPLY, some_lost),
    fault(
        "dns_one_in_a_hundred_lost",
        "1 % of the queries of real lookups vanish elsewhere; each costs a time-out",
        &[&["dns.retry_5s", "dns.no_reply"]],
        one_in_a_hundred_lost,
    ),
    fault(
        "dns_search_domains",
        "`ndots:5` and six search domains make seven queries of one",
        &[&["dns.resolver_config"]],
        search_domains,
    )
    .never(&["dns.no_reply"]),
];

fn server_dead(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    stage.vanish(&format!("ip daddr {server} udp dport 53"));
    let (count, timeout) = (stage.draw("lookups", 3..=6), stage.draw("timeout", 300..=600));
    stage.open();
    let client =
        stage.actor(At::Client, &format!("resolve servers={server} count={count} timeout={timeout} attempts=1"));
    told_of_silence(stage, client, server)
}

fn server_dead_for_all(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    stage.vanish(&format!("ip daddr {server} udp dport 53"));
    let (clients, count) = (stage.draw("clients", 2..=4), stage.draw("lookups", 3..=5));
    stage.open();
    let args = format!("resolve servers={server} count={count} timeout=400 attempts=1");
    let place = |i| if i % 2 == 0 { At::Client } else { At::OtherClient };
    let all: Vec<_> = (0..clients).map(|i| stage.actor(place(i), &args)).collect();
    all.into_iter().for_each(|client| _ = client.wait());
    stage.settle(UNANSWERED_MS);
    vec![Subject::anybody().with("remote", server, 53)]
}

fn server_dead_v6(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server6();
    stage.vanish(&format!("ip6 daddr {server} udp dport 53"));
    let count = stage.draw("lookups", 3..=6);
    stage.open();
    let client =
        stage.actor(At::Client, &format!("resolve servers={server} count={count} timeout=400 attempts=1 both=1"));
    told_of_silence(stage, client, server)
}

/// Waits for the client, and until its silence counts.
fn told_of_silence(stage: &Stage, client: crate::stage::Actor, server: std::net::IpAddr) -> Vec<Subject> {
    let subject = Subject::of(&client).with("remote", server, 53);
    client.wait();
    stage.settle(UNANSWERED_MS);
    vec![subject]
}

fn port_closed(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    let (count, pause) = (stage.draw("lookups", 4..=12), stage.draw("pause", 50..=300));
    stage.open();
    let client = stage.actor(At::Client, &format!("resolve servers={server} count={count} pause={pause} attempts=1"));
    let subject = Subject::of(&client).with("remote", server, 53);
    client.wait();
    vec![subject]
}

fn replies_lost(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    stage.vanish(&format!("ip saddr {server} udp sport 53"));
    stage.serve(At::Server, &format!("dns at={server}"));
    let count = stage.draw("lookups", 3..=6);
    stage.open();
    let client = stage.actor(At::Client, &format!("resolve servers={server} count={count} timeout=400 attempts=1"));
    told_of_silence(stage, client, server)
}

fn replies_dropped_here(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    stage.lab.fault(&format!("ip saddr {server} udp sport 53 counter drop"));
    stage.serve(At::Server, &format!("dns at={server}"));
    let count = stage.draw("lookups", 3..=6);
    stage.open();
    let client = stage.actor(At::Client, &format!("resolve servers={server} count={count} timeout=400 attempts=1"));
    told_of_silence(stage, client, server)
}

fn dropped_at_the_server(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    stage.filter(At::Server, "input", &format!("ip daddr {server} udp dport 53 counter drop"));
    stage.serve(At::Server, &format!("dns at={server}"));
    let count = stage.draw("lookups", 3..=6);
    stage.open();
    let client = stage.actor(At::Client, &format!("resolve servers={server} count={count} timeout=400 attempts=1"));
    told_of_silence(stage, client, server)
}

fn blocked_at_the_client(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    stage.filter(At::Client, "output", &format!("ip daddr {server} udp dport 53 counter drop"));
    stage.serve(At::Server, &format!("dns at={server}"));
    let count = stage.draw("lookups", 4..=8);
    stage.open();
    let client = stage.actor(At::Client, &format!("resolve servers={server} count={count} pause=100 attempts=1"));
    let subject = Subject::of(&client).with("remote", server, 53);
    client.wait();
    vec![subject]
}

fn server_slow(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    let delay = stage.draw("delay", 550..=900);
    stage.serve(At::Server, &format!("dns at={server} delay={delay}"));
    stage.open();
    let client = stage.actor(At::Client, &format!("resolve servers={server} count=6 timeout=4000"));
    let subject = Subject::of(&client).with("remote", server, 53);
    client.wait();
    vec![subject]
}

fn slow_for_one(stage: &mut Stage) -> Vec<Subject> {
    let (server, client) = (stage.server4(), stage.client4());
    let delay = stage.draw("delay", 550..=800);
    stage.slow_down(delay, &format!("ip saddr {client} ip daddr {server} udp dport 53"));
    stage.serve(At::Server, &format!("dns at={server}"));
    stage.open();
    let fast = stage.actor(At::OtherClient, &format!("resolve servers={server} count=60 pause=50"));
    let slow = stage.actor(At::Client, &format!("resolve servers={server} count=8 timeout=4000"));
    let subject = Subject::of(&slow).with("remote", server, 53);
    slow.wait();
    fast.wait();
    vec![subject]
}

fn one_of_two_dead(stage: &mut Stage) -> Vec<Subject> {
    let (dead, alive) = (stage.server4(), stage.server4_second());
    stage.vanish(&format!("ip daddr {dead} udp dport 53"));
    stage.dnsmasq(alive);
    let count = stage.draw("lookups", 3..=5);
    stage.open();
    let conf = format!("nameserver {dead}\nnameserver {alive}\noptions timeout:1 attempts:2\n");
    let client = stage.resolving(At::Client, &conf, &format!("lookup name=a%.ok.test count={count}"));
    told_of_silence(stage, client, dead)
}

fn some_lost(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    let lost = stage.draw("lost place", 0..=4);
    stage.vanish(&format!("ip daddr {server} udp dport 53 numgen inc mod 5 == {lost}"));
    stage.serve(At::Server, &format!("dns at={server}"));
    let count = stage.draw("lookups", 25..=45);
    stage.open();
    let client = stage.actor(At::Client, &format!("resolve servers={server} count={count} timeout=150 attempts=1"));
    told_of_silence(stage, client, server)
}

fn one_in_a_hundred_lost(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    let lost = stage.draw("lost place", 20..=90);
    stage.vanish(&format!("ip daddr {server} udp dport 53 numgen inc mod 100 == {lost}"));
    stage.dnsmasq(server);
    stage.open();
    let conf = format!("nameserver {server}\noptions timeout:2 attempts:3\n");
    let client = stage.resolving(At::Client, &conf, "lookup name=a%.ok.test count=150 pause=5");
    told_of_silence(stage, client, server)
}

fn search_domains(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    stage.dnsmasq(server);
    let count = stage.draw("lookups", 60..=90);
    stage.open();
    let domain = |i: usize| format!("a-rather-long-part{}.z{i}.nx.test", "x".repeat(12 - 2 * i));
    let domains = (0..6).map(domain).collect::<Vec<_>>().join(" ");
    let conf = format!("nameserver {server}\nsearch {domains}\noptions ndots:5 timeout:2\n");
    let client = stage.resolving(At::Client, &conf, &format!("lookup name=svc%.shop count={count} stay=1"));
    client.wait_for_lines(1);
    let subject = Subject::anybody().with("remote", server, 53);
    stage.keep(client);
    vec![subject]
}
