//! What `traffic` prints is the truth that ktrace's live tests build on: here both ends of the same traffic on
//! loopback must tell the same story.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use ktrace_traffic::{Conn, Datagram, Dir, Outcome, Truth};

struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child = traffic(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let Truth::Ready(ready) = next(&mut lines) else { panic!("not ready") };
        Self { child, lines, addr: ready.local }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn traffic(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_traffic"));
    command.args(["--limit-s", "20"]).args(args);
    command
}

fn next(lines: &mut impl BufRead) -> Truth {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    Truth::parse(&line).unwrap()
}

fn run(args: &[&str]) -> Vec<Truth> {
    let output = traffic(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|l| Truth::parse(l).unwrap()).collect()
}

fn conns(truths: impl IntoIterator<Item = Truth>) -> Vec<Conn> {
    let mut conns: Vec<_> = truths
        .into_iter()
        .map(|t| match t {
            Truth::Conn(c) => c,
            other => panic!("{other:?}"),
        })
        .collect();
    conns.sort_by_key(|c| (c.local.min(c.remote), c.local.max(c.remote)));
    conns
}

#[test]
fn both_ends_of_a_request_count_the_same_bytes() {
    for model in ["threaded", "prefork", "single"] {
        let mut server = Server::start(&["tcp-server", "--listen", "127.0.0.1:0", "--model", model]);
        let to = server.addr.to_string();
        let args = ["tcp-client", "--to", &to, "--count", "30", "--processes", "2", "--threads", "3"];
        let mine = conns(run(&args));
        let theirs = conns((0..30).map(|_| next(&mut server.lines)));
        let seen_from_here: Vec<_> = theirs
            .iter()
            .zip(&mine)
            .map(|(c, m)| Conn {
                pid: m.pid,
                tid: m.tid,
                local: c.remote,
                remote: c.local,
                tx_bytes: c.rx_bytes,
                rx_bytes: c.tx_bytes,
            })
            .collect();
        assert_eq!(seen_from_here, mine);
        let mut sent: Vec<_> = mine.iter().map(|c| c.tx_bytes).collect();
        sent.sort_unstable();
        assert_eq!(sent, (100..130).collect::<Vec<_>>());
    }
}

#[test]
fn a_refused_connect_is_data_and_not_a_failure() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let truths = run(&["connect", "--to", &closed.to_string()]);
    let [Truth::Connect(connect)] = truths.as_slice() else { panic!("{truths:?}") };
    assert_eq!((connect.outcome, connect.errno), (Outcome::Failed, Some(libc::ECONNREFUSED)));
}

#[test]
fn an_io_uring_client_and_its_server_see_the_same_datagrams() {
    let mut server = Server::start(&["udp-echo", "--listen", "127.0.0.1:0"]);
    let mine = run(&["udp-uring", "--to", &server.addr.to_string(), "--count", "3"]);
    let theirs: Vec<_> = (0..6).map(|_| next(&mut server.lines)).collect();
    let told = |truths: &[Truth], dir: Dir| -> Vec<_> {
        truths
            .iter()
            .filter_map(|t| match t {
                Truth::Datagram(Datagram { dir: d, bytes, .. }) if *d == dir => *bytes,
                _ => None,
            })
            .collect()
    };
    for (here, there) in [(Dir::Send, Dir::Recv), (Dir::Recv, Dir::Send)] {
        assert_eq!(told(&mine, here), [48, 49, 50]);
        assert_eq!(told(&theirs, there), [48, 49, 50]);
    }
}
