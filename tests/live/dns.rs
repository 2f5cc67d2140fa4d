//! DNS servers and clients for the other tests, and what pairing queries with replies must and must not say.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use ktrace_bundle::event::{Event, Payload};
use ktrace_traffic::{Datagram, Dir};

use crate::capture::Capture;
use crate::net::{Lab, Netns, SERVER4, SERVER6};
use crate::program::Program;
use crate::strace::{Traced, read_log};
use crate::truth::{datagram, datagrams, udp_events};
use crate::wait::{DEADLINE, until};
use crate::workdir::Workdir;
use crate::{Test, tests};

/// The script of [`client`].
const CLIENT: &str = include_str!("client.py");

/// The port that everybody queries.
pub const PORT: u16 = 53;

/// Names that [`Dnsmasq`] answers.
pub const NAMES: &[&str] = &["ok.test", "a.ok.test", "bb.ok.test", "ccc.ok.test"];

pub fn tests() -> Vec<Test> {
    tests![
        an_rtt_lies_within_what_the_client_measured,
        the_rtt_of_v6_queries_is_measured_too,
        a_lost_reply_never_becomes_a_slow_answer,
        a_query_without_an_answer_is_no_pair,
    ]
}

/// A running dnsmasq that answers for `ok.test` on all of the server's addresses, and denies `nx.test`.
#[derive(Debug)]
pub struct Dnsmasq {
    program: Program,
    log: PathBuf,
}

impl Dnsmasq {
    /// Starts it and waits until it listens.
    pub fn start(netns: &Netns) -> Program {
        let mut command = netns.command("dnsmasq");
        command.args(arguments());
        let program = Program::start(command);
        netns.wait_for_udp_port(PORT);
        program
    }

    /// Starts it under strace.
    pub fn traced(netns: &Netns, dir: &Workdir) -> Self {
        let (program, log) = Traced::new(netns, dir.join("dnsmasq.strace"), "dnsmasq").args(arguments()).start();
        netns.wait_for_udp_port(PORT);
        Self { program, log }
    }

    /// What it did, once it has sent as many datagrams as `answers`.
    pub fn told(&self, answers: usize) -> Vec<Datagram> {
        until("the answers in the log of strace", DEADLINE, || {
            let told = read_log(&self.log);
            (told.iter().filter(|d| d.dir == Dir::Send).count() >= answers).then_some(told)
        })
    }

    /// Process id of strace, its parent.
    pub fn parent(&self) -> u32 {
        self.program.pid()
    }
}

fn arguments() -> Vec<String> {
    let listen = format!("--listen-address=127.0.0.1,{SERVER4},10.77.2.3,{SERVER6}");
    let port = format!("--port={PORT}");
    let fixed = "--keep-in-foreground --conf-file=/dev/null --pid-file= --user=root --group=root --bind-interfaces --no-resolv \
                 --no-hosts --address=/ok.test/10.1.2.3 --address=/ok.test/fd00::1 --local=/nx.test/";
    fixed.split_whitespace().map(str::to_owned).chain([listen, port]).collect()
}

/// The Python client in a namespace.
pub fn client(netns: &Netns, mode: &str, server: IpAddr, port: u16, names: &[&str]) -> Command {
    let mut command = netns.command("python3");
    command.args(["-I", "-S", "-c", CLIENT, mode, &server.to_string(), &port.to_string()]).args(names);
    command
}

/// Runs [`client`] against port 53 and returns what it did.
pub fn ask(netns: &Netns, mode: &str, server: IpAddr, names: &[&str]) -> Vec<Datagram> {
    datagrams(Program::run(client(netns, mode, server, PORT, names)).truths())
}

/// A glibc lookup of both address families on one socket; glibc asks again after `timeout_s`, once.
pub fn getent(lab: &Lab, dir: &Workdir, name: &str, timeout_s: u32) -> Program {
    let conf = dir.join("resolv.conf");
    std::fs::write(&conf, format!("nameserver {SERVER4}\noptions timeout:{timeout_s} attempts:2\n")).unwrap();
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec getent ahosts \"$1\"";
    let mut command = lab.client.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(conf).arg(name);
    Program::start(command)
}

fn an_rtt_lies_within_what_the_client_measured() {
    rtts(SERVER4);
}

fn the_rtt_of_v6_queries_is_measured_too() {
    rtts(SERVER6);
}

fn rtts(server: IpAddr) {
    let lab = Lab::new();
    lab.delay();
    let _dnsmasq = Dnsmasq::start(&lab.server);
    let capture = Capture::start();
    let told = ["sendto", "connected"].map(|mode| ask(&lab.client, mode, server, NAMES)).concat();
    let bundle = capture.stop();

    let events = udp_events(&bundle.events, lab.client.inode());
    assert_eq!(events.len(), told.len());
    for (events, told) in events.chunks(2).zip(told.chunks(2)) {
        let ([sent, got], [query, reply]) = (events, told) else { panic!("not in pairs") };
        for (event, told) in [(sent, query), (got, reply)] {
            assert!((told.begin_ns..=told.end_ns).contains(&event.boot_ns), "{told:?} is not the time of {event:?}");
        }
        let Payload::UdpRecv(d) = &got.payload else { panic!("{got:?}") };
        let rtt = d.dns_rtt_ns.unwrap_or_else(|| panic!("no RTT: {got:?}"));
        assert_eq!(d.query_seq, Some(sent.seq));
        let shortest = reply.begin_ns - query.end_ns;
        let longest = reply.end_ns - query.begin_ns;
        assert!((shortest..=longest).contains(&rtt), "{rtt} ns, the client saw {shortest} to {longest}");
    }
}

/// Replies of a namespace that claim an RTT.
fn rtt_events(events: &[Event], netns: u32) -> Vec<(&Event, u64)> {
    let of = |e| datagram(e).and_then(|(_, d)| d.dns_rtt_ns);
    udp_events(events, netns).into_iter().filter_map(|e| Some((e, of(e)?))).collect()
}

fn a_lost_reply_never_becomes_a_slow_answer() {
    let lab = Lab::new();
    let dir = Workdir::new();
    let _dnsmasq = Dnsmasq::start(&lab.server);
    // of A and AAAA on one socket the first reply is lost; glibc asks again after 2 s
    lab.fault("udp sport 53 numgen inc mod 1000 == 0 counter drop");
    let capture = Capture::start();
    let lookup = getent(&lab, &dir, "ok.test", 2).wait();
    let bundle = capture.stop();

    assert!(lookup.status.success(), "{lookup:?}");
    assert_eq!(lab.faulted_packets(), 1);
    let events = udp_events(&bundle.events, lab.client.inode());
    let sends = events.iter().filter(|e| matches!(e.payload, Payload::UdpSend(_))).count();
    assert_eq!((sends, events.len() - sends), (4, 3), "glibc sends both again and gets three answers");
    let slow: Vec<_> =
        rtt_events(&bundle.events, lab.client.inode()).into_iter().filter(|r| r.1 > 1_000_000_000).collect();
    assert!(slow.is_empty(), "no answer took a second: {slow:?}");
}

fn a_query_without_an_answer_is_no_pair() {
    let lab = Lab::new();
    let _dnsmasq = Dnsmasq::start(&lab.server);
    lab.fault("udp dport 53 counter drop");
    let capture = Capture::start();
    let told = ask(&lab.client, "timeout", SERVER4, &NAMES[..2]);
    let bundle = capture.stop();
    assert_eq!((told.len(), lab.faulted_packets()), (2, 2));
    assert_eq!(udp_events(&bundle.events, lab.client.inode()).len(), 2);
    assert!(rtt_events(&bundle.events, lab.client.inode()).is_empty());
}
