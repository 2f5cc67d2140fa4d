//! Services behind addresses that are nobody's: one backend of three is ill, or the translation itself.

use std::net::IpAddr;

use super::{Scenario, fault};
use crate::stage::{At, Stage};
use crate::subject::Subject;

const DEAD: &[&[&str]] = &[&["nat.backend_dead"]];
const SLOW: &[&[&str]] = &[&["nat.backend_slow"]];
const UNANSWERED_MS: u64 = 5_300;

pub const SCENARIOS: &[Scenario] = &[
    fault("nat_backend_silent", "SYNs to one of three backends vanish elsewhere", DEAD, backend_silent)
        .never(&["policy.drop"]),
    fault("nat_backend_silent_masqueraded", "the same behind a masquerade", DEAD, backend_silent_masqueraded)
        .never(&["policy.drop"]),
    fault("nat_backend_refuses", "one of three backends does not listen", DEAD, backend_refuses)
        .never(&["policy.drop"]),
    fault("nat_backend_ill", "half of the SYNs to one of three backends vanish elsewhere", DEAD, backend_ill),
    fault("nat_dns_backend_silent", "queries to one of three DNS servers vanish elsewhere", DEAD, dns_backend_silent)
        .never(&["policy.drop"]),
    fault("nat_dns_backend_slow", "one of three DNS servers answers late", SLOW, dns_backend_slow)
        .never(&["nat.backend_dead"]),
    fault("nat_backend_far_away", "the handshakes of one of three backends take long", SLOW, backend_far_away)
        .never(&["nat.backend_dead"]),
    fault(
        "nat_only_backend_silent",
        "a service has one backend, and nothing comes back",
        &[&["nat.unreplied"]],
        only_backend,
    )
    .never(&["policy.drop"]),
    fault("nat_hairpin", "a client is sent to itself, and nobody rewrites its address", &[&["nat.hairpin"]], hairpin),
    fault(
        "nat_masquerade_ports_used_up",
        "a masquerade has few ports for many connections",
        &[&["nat.port_exhaustion"]],
        ports_used_up,
    ),
    fault(
        "nat_race_of_lookups",
        "two clients behind one address send two queries each at the same moments",
        &[&["dns.conntrack_race"]],
        race,
    ),
];

/// A service with three backends at the server, of which each new flow gets the next.
struct Service {
    vip: IpAddr,
    port: u64,
    backends: [u64; 3],
}

/// An address that is nobody's.
fn vip(stage: &mut Stage) -> IpAddr {
    let byte = |n: u64| u8::try_from(n).unwrap();
    let vip = IpAddr::from([10, 96, byte(stage.rng.range(0..=200)), byte(stage.rng.range(1..=250))]);
    stage.note("vip", vip);
    vip
}

impl Service {
    fn new(stage: &mut Stage, proto: &str, port: u64, is_masqueraded: bool) -> Self {
        let server = stage.server4();
        let vip = vip(stage);
        let backends = [stage.port(), stage.port(), stage.port()];
        let [a, b, c] = backends;
        stage.lab.nft(&format!(
            "table ip svc {{
                chain pre {{
                    type nat hook prerouting priority dstnat;
                    ip daddr {vip} {proto} dport {port} dnat to {server} : numgen inc mod 3 map {{ 0 : {a}, 1 : {b}, 2 : {c} }}
                }}
                chain post {{ type nat hook postrouting priority srcnat; }}
            }}"
        ));
        if is_masqueraded {
            stage.lab.nft("add rule ip svc post ct status dnat masquerade\n");
        }
        Self { vip, port, backends }
    }

    /// Starts TCP servers at the first so many backends.
    fn serve(&self, stage: &mut Stage, count: usize) {
        let server = stage.server4();
        for port in &self.backends[..count] {
            stage.serve(At::Server, &format!("serve at={server} port={port}"));
        }
    }

    /// Requests one after the other, each given up after a while.
    fn ask(&self, stage: &mut Stage, count: u64) -> Subject {
        let Self { vip, port, .. } = self;
        let client = stage.actor(At::Client, &format!("ask at={vip} port={port} count={count} timeout=450"));
        let subject = Subject::of(&client);
        client.wait();
        subject
    }

    /// Whom a finding about the last backend must name.
    fn last(&self, stage: &Stage, subject: Subject) -> Vec<Subject> {
        vec![subject.with("backend", stage.server4(), self.backends[2]).saying(format!("{}:{}", self.vip, self.port))]
    }
}

fn backend_silent(stage: &mut Stage) -> Vec<Subject> {
    silent(stage, false)
}

fn backend_silent_masqueraded(stage: &mut Stage) -> Vec<Subject> {
    silent(stage, true)
}

fn silent(stage: &mut Stage, is_masqueraded: bool) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let service = Service::new(stage, "tcp", port, is_masqueraded);
    stage.vanish(&format!("ip daddr {server} tcp dport {}", service.backends[2]));
    service.serve(stage, 3);
    let count = 3 * stage.draw("rounds", 4..=7);
    stage.open();
    let client = service.ask(stage, count);
    service.last(stage, client)
}

fn backend_refuses(stage: &mut Stage) -> Vec<Subject> {
    let port = stage.port();
    let service = Service::new(stage, "tcp", port, false);
    service.serve(stage, 2);
    let count = 3 * stage.draw("rounds", 4..=12);
    stage.open();
    let client = service.ask(stage, count);
    service.last(stage, client)
}

fn backend_ill(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let service = Service::new(stage, "tcp", port, false);
    let ill = service.backends[2];
    let syn = "tcp flags & (syn | ack) == syn";
    stage.vanish(&format!("ip daddr {server} tcp dport {ill} {syn} numgen inc mod 2 == 0"));
    service.serve(stage, 3);
    let count = 3 * stage.draw("rounds", 12..=20);
    stage.open();
    let client = service.ask(stage, count);
    service.last(stage, client)
}

fn serve_dns(stage: &mut Stage, service: &Service, delays: [u64; 3]) {
    let server = stage.server4();
    for (port, delay) in service.backends.into_iter().zip(delays) {
        stage.serve(At::Server, &format!("dns at={server} port={port} delay={delay}"));
    }
}

fn resolve(stage: &mut Stage, service: &Service, count: u64, timeout: u64) -> Subject {
    let vip = service.vip;
    let client = stage.actor(At::Client, &format!("resolve servers={vip} count={count} timeout={timeout} attempts=1"));
    let subject = Subject::of(&client);
    client.wait();
    subject
}

fn dns_backend_silent(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    let service = Service::new(stage, "udp", 53, false);
    stage.vanish(&format!("ip daddr {server} udp dport {}", service.backends[2]));
    serve_dns(stage, &service, [0, 0, 0]);
    let count = 3 * stage.draw("rounds", 4..=7);
    stage.open();
    let client = resolve(stage, &service, count, 250);
    stage.settle(UNANSWERED_MS);
    service.last(stage, client)
}

fn dns_backend_slow(stage: &mut Stage) -> Vec<Subject> {
    let service = Service::new(stage, "udp", 53, true);
    let delay = stage.draw("delay", 200..=400);
    serve_dns(stage, &service, [2, 1, delay]);
    let count = 3 * stage.draw("rounds", 7..=11);
    stage.open();
    let client = resolve(stage, &service, count, 3000);
    service.last(stage, client)
}

fn backend_far_away(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let service = Service::new(stage, "tcp", port, false);
    let delay = stage.draw("delay", 120..=300);
    // on the way back, where what returns from the far network is not translated again
    stage.slow_down_untracked(delay, &format!("ip saddr {server} tcp sport {}", service.backends[2]));
    service.serve(stage, 3);
    let count = 3 * stage.draw("rounds", 6..=9);
    stage.open();
    let client = service.ask(stage, count);
    service.last(stage, client)
}

fn only_backend(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, backend) = (stage.server4(), stage.port(), stage.port());
    let vip = vip(stage);
    stage.lab.translate(&format!("ip daddr {vip} tcp dport {port} dnat to {server}:{backend}"));
    stage.vanish(&format!("ip daddr {server} tcp dport {backend}"));
    stage.open();
    let client = stage.actor(At::Client, &format!("ask at={vip} port={port} count=4 timeout=1200"));
    let subject = Subject::of(&client).with("remote", vip, port);
    client.wait();
    vec![subject]
}

fn hairpin(stage: &mut Stage) -> Vec<Subject> {
    let (client, port, backend) = (stage.client4(), stage.port(), stage.port());
    let vip = vip(stage);
    stage.lab.translate(&format!("ip daddr {vip} tcp dport {port} dnat to {client}:{backend}"));
    stage.serve(At::Client, &format!("serve at={client} port={backend}"));
    stage.open();
    let client = stage.actor(At::Client, &format!("ask at={vip} port={port} count=4 timeout=1200"));
    let subject = Subject::of(&client).with("remote", vip, port);
    client.wait();
    vec![subject]
}

fn ports_used_up(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, first) = (stage.server4(), stage.port(), stage.draw("first", 40_000..=50_000));
    let last = first + stage.draw("ports", 10..=24) - 1;
    stage.lab.nft(&format!(
        "table ip svc {{ chain post {{
            type nat hook postrouting priority srcnat;
            ip daddr {server} tcp dport {port} masquerade to :{first}-{last};
        }}; }}"
    ));
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    stage.open();
    let count = last - first + 6;
    let client = stage.actor(At::Client, &format!("hold at={server} port={port} count={count} say=1 timeout=900"));
    client.wait_for_lines(1);
    let subject = Subject::anybody().with("remote", server, port);
    stage.keep(client);
    vec![subject]
}

fn race(stage: &mut Stage) -> Vec<Subject> {
    let server = stage.server4();
    let client = stage.client4();
    let vip = vip(stage);
    stage.lab.nft(&format!(
        "table ip svc {{
            chain pre {{ type nat hook prerouting priority dstnat; ip daddr {vip} udp dport 53 dnat to {server}:53; }}
            chain post {{ type nat hook postrouting priority srcnat; ct status dnat masquerade; }}
        }}"
    ));
    let IpAddr::V4(v4) = client else { panic!("{client} is the client's v4 address") };
    let [a, b, c, _] = v4.octets();
    stage.lab.client.ip(&format!("addr add {a}.{b}.{c}.3/24 dev eth0\n"));
    stage.dnsmasq(server);
    stage.open();
    let from = format!("{client} {a}.{b}.{c}.3");
    let racer = stage.traffic(At::Client, &format!("udp-race --to {vip}:53 --count 50 --from {from}"));
    let subject = Subject::of(&racer).with("remote", vip, 53);
    racer.wait();
    vec![subject]
}
