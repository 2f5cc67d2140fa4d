//! Connections that stand, and lose data, stand still, or are cut off.

use super::{Scenario, fault};
use crate::stage::{At, Stage};
use crate::subject::Subject;

const LOSS: &[&[&str]] = &[&["tcp.retransmits"]];
const RESET: &[&[&str]] = &[&["tcp.reset_by_peer"]];
const UNREAD: &[&[&str]] = &[&["tcp.slow_reader"]];

pub const SCENARIOS: &[Scenario] = &[
    fault("tcp_loss_on_transfers", "one full segment of a dozen vanishes elsewhere", LOSS, loss_on_transfers)
        .never(&["policy.drop", "net.mtu_hole"]),
    fault("tcp_loss_of_two_percent", "one full segment of 45 to 60 vanishes elsewhere", LOSS, loss_of_two_percent)
        .never(&["policy.drop", "net.mtu_hole"]),
    fault(
        "tcp_loss_between_requests",
        "one request of seven is lost, and sent again after its time",
        LOSS,
        loss_in_a_chat,
    )
    .never(&["policy.drop", "net.mtu_hole"]),
    fault(
        "tcp_loss_by_a_rule",
        "a rule of the router drops one full segment of ten",
        &[&["policy.drop"]],
        loss_by_a_rule,
    ),
    fault(
        "tcp_mtu_hole",
        "an interface on the way takes less, and what says so is dropped",
        &[&["net.mtu_hole"]],
        mtu_hole,
    ),
    fault("tcp_reader_stands_still", "a server accepts and reads nothing", UNREAD, reader_stands_still)
        .never(&["tcp.retransmits"]),
    fault("tcp_reader_is_slow", "a server reads a sip now and then", UNREAD, reader_is_slow),
    fault("tcp_reset_after_each_request", "a server cuts each connection once it has read", RESET, reset_each)
        .never(&["tcp.refused"]),
    fault("tcp_reset_now_and_then", "a server cuts one connection of five", RESET, reset_some).never(&["tcp.refused"]),
    fault(
        "tcp_idle_connections_reset",
        "a server cuts connections on which nothing moved for some seconds",
        RESET,
        idle_reset,
    ),
    fault(
        "tcp_pool_outlives_its_server",
        "a client asks again on connections that the server closed while they were idle",
        &[&["tcp.keepalive_race"]],
        pool_outlives,
    ),
    fault(
        "tcp_peer_vanishes",
        "a peer with which connections stand goes away without a word",
        &[&["tcp.half_open"]],
        peer_vanishes,
    )
    // the client tries to connect again
    .also(&["tcp.connect_timeout"])
    .never(&["policy.drop"]),
    fault(
        "tcp_shaper_overflows",
        "the client's interface is shaped to less than is sent",
        &[&["net.qdisc_drops"]],
        shaper,
    ),
];

const SYN: &str = "tcp flags & (syn | ack) == syn";

/// Transfers to the server, side by side, and whose they are.
fn transfers(stage: &mut Stage, port: u64, how: &str) -> Vec<Subject> {
    let server = stage.server4();
    let listening = stage.traffic(At::Server, &format!("tcp-server --listen {server}:{port} --quiet"));
    listening.wait_for_lines(1);
    stage.keep(listening);
    stage.open();
    let client = stage.traffic(At::Client, &format!("tcp-client --to {server}:{port} {how}"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn loss(stage: &mut Stage, port: u64, one_of: u64) {
    let server = stage.server4();
    stage.vanish(&format!("ip daddr {server} tcp dport {port} meta length > 100 numgen inc mod {one_of} == 3"));
}

fn loss_on_transfers(stage: &mut Stage) -> Vec<Subject> {
    let (port, one_of) = (stage.port(), stage.draw("one of", 7..=14));
    loss(stage, port, one_of);
    transfers(stage, port, "--count 4 --bytes 1000000")
}

fn loss_of_two_percent(stage: &mut Stage) -> Vec<Subject> {
    let (port, one_of) = (stage.port(), stage.draw("one of", 45..=60));
    loss(stage, port, one_of);
    transfers(stage, port, "--count 4 --bytes 2000000")
}

fn loss_by_a_rule(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let rule = "meta length > 100 numgen inc mod 10 == 3 counter drop";
    stage.lab.fault(&format!("ip daddr {server} tcp dport {port} {rule}"));
    transfers(stage, port, "--count 4 --bytes 1000000")
}

fn loss_in_a_chat(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    loss(stage, port, 7);
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    let (count, pause) = (stage.draw("requests", 28..=40), stage.draw("pause", 60..=100));
    stage.open();
    let client =
        stage.actor(At::Client, &format!("ask at={server} port={port} count={count} pause={pause} keep=1 bytes=200"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn mtu_hole(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, mtu) = (stage.server4(), stage.port(), stage.draw("mtu", 700..=1300));
    stage.lab.node.run(&format!("ip link set sv0 mtu {mtu}"));
    stage.lab.nft("add chain inet fault out { type filter hook output priority 0; }\n");
    stage.lab.nft("add rule inet fault out icmp type destination-unreachable counter drop\n");
    stage.serve(At::Server, &format!("deaf at={server} port={port} sip=65536 every=1"));
    stage.background(None);
    stage.open();
    let client = stage.actor(At::Client, &format!("pour at={server} port={port} for=5000"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn reader_stands_still(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let reader = stage.serve(At::Server, &format!("deaf at={server} port={port}"));
    stage.open();
    let client = stage.actor(At::Client, &format!("pour at={server} port={port} for=6000 stay=1"));
    client.wait_for_lines(1);
    stage.keep(client);
    vec![blamed(&reader)]
}

/// The reader is the one to blame, whichever end the finding is about.
fn blamed(reader: &Subject) -> Subject {
    let (comm, pid) = (reader.comm.as_deref().unwrap(), reader.pid.unwrap());
    Subject::anybody().saying(format!("`{comm}` (pid {pid}) does not read"))
}

fn reader_is_slow(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let (sip, every) = (stage.draw("sip", 500..=3000), stage.draw("every", 150..=400));
    let reader = stage.serve(At::Server, &format!("deaf at={server} port={port} sip={sip} every={every}"));
    stage.open();
    let client = stage.actor(At::Client, &format!("pour at={server} port={port} for=6000 stay=1"));
    client.wait_for_lines(1);
    stage.keep(client);
    vec![blamed(&reader)]
}

fn reset_each(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, count) = (stage.server4(), stage.port(), stage.draw("requests", 5..=15));
    stage.serve(At::Server, &format!("serve at={server} port={port} abort=1"));
    stage.open();
    let client = stage.actor(At::Client, &format!("ask at={server} port={port} count={count} pause=100"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn reset_some(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, count) = (stage.server4(), stage.port(), stage.draw("requests", 40..=60));
    stage.serve(At::Server, &format!("serve at={server} port={port} abort=5"));
    stage.open();
    let client = stage.actor(At::Client, &format!("ask at={server} port={port} count={count} pause=30"));
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn idle_reset(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, idle) = (stage.server4(), stage.port(), stage.draw("idle", 5200..=6000));
    stage.serve(At::Server, &format!("serve at={server} port={port} idle={idle}"));
    let sessions = stage.draw("sessions", 4..=6);
    stage.open();
    let args = format!("sessions at={server} port={port} sessions={sessions} pause=300 idle=7000");
    let client = stage.actor(At::Client, &args);
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn pool_outlives(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, idle) = (stage.server4(), stage.port(), stage.draw("idle", 900..=1400));
    stage.serve(At::Server, &format!("serve at={server} port={port} idle={idle} gently=1"));
    let sessions = stage.draw("sessions", 5..=9);
    stage.open();
    let args = format!("sessions at={server} port={port} sessions={sessions} pause=100 idle={}", idle + 600);
    let client = stage.actor(At::Client, &args);
    let subject = Subject::of(&client).with("remote", server, port);
    client.wait();
    vec![subject]
}

fn peer_vanishes(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    let pause = stage.draw("pause", 100..=300);
    // the kernel gives up after seconds, not a quarter of an hour
    stage.lab.client_sysctl("net.ipv4.tcp_retries2", "2");
    // so that the far network is there before the window opens
    stage.vanish(&format!("ip daddr {server} tcp dport {} {SYN}", port + 1));
    stage.open();
    let args = format!("crowd at={server} port={port} count=4 waves=1000 keep=1 pause={pause} timeout=6000");
    let client = stage.actor(At::Client, &args);
    let subject = Subject::of(&client).with("remote", server, port);
    stage.settle(1200);
    stage.vanish(&format!("ip daddr {server} tcp dport {port}"));
    stage.settle(5000);
    stage.keep(client);
    vec![subject]
}

fn shaper(stage: &mut Stage) -> Vec<Subject> {
    let (port, rate) = (stage.port(), stage.draw("mbit", 3..=6));
    stage.background(Some(At::OtherClient));
    stage.lab.client.run(&format!("tc qdisc add dev eth0 root tbf rate {rate}mbit burst 3000 limit 6000"));
    transfers(stage, port, "--count 24 --bytes 100000 --processes 4 --threads 3");
    vec![Subject::anybody().saying("eth0")]
}
