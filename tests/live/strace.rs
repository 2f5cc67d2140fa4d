//! What programs that are not ours did on their UDP sockets, told by strace: the log of `-f -yy -v -s 0` → truth.
//! Only finished calls on UDP sockets count; a call whose line was torn by another thread's fails the test.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ktrace_traffic::{Datagram, Dir};

use crate::net::Netns;
use crate::program::Program;

const CALLS: &str = "trace=execve,sendto,sendmsg,sendmmsg,recvfrom,recvmsg,recvmmsg";

/// A command under strace.
#[derive(Debug)]
pub struct Traced {
    command: Command,
    log: PathBuf,
}

impl Traced {
    /// `program` in `netns`, its calls logged to `log`.
    pub fn new(netns: &Netns, log: PathBuf, program: impl AsRef<OsStr>) -> Self {
        let mut command = netns.command("strace");
        command.args(["-f", "-yy", "-v", "-s", "0", "-o"]).arg(&log).args(["-e", CALLS]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        Self { command, log }
    }

    /// Appends arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Starts it; the second half is where [`read_log`] finds its calls.
    pub fn start(self) -> (Program, PathBuf) {
        (Program::start(self.command), self.log)
    }

    /// Runs it to its end and returns what it did.
    pub fn run(self) -> Vec<Datagram> {
        let (program, log) = self.start();
        let ended = program.wait();
        assert!(ended.status.success(), "{ended:?}");
        read_log(&log)
    }
}

/// The datagrams of a log so far.
pub fn read_log(log: &Path) -> Vec<Datagram> {
    let text = std::fs::read_to_string(log).unwrap();
    let pid = text.split_whitespace().next().unwrap().parse().unwrap();
    text.lines().filter(|l| l.contains("<UDP")).flat_map(|l| parse(pid, l)).collect()
}

/// `TID call(FD<UDP:[LOCAL->REMOTE]>, …) = N` or `… = -1 ERRNO (…)`.
fn parse(pid: u32, line: &str) -> Vec<Datagram> {
    assert!(!line.contains("<unfinished") && !line.contains("resumed>"), "a torn line: {line}");
    let (tid, rest) = line.split_once(' ').unwrap();
    let (call, arguments) = rest.trim_start().split_once('(').unwrap();
    let (arguments, result) = arguments.rsplit_once(" = ").unwrap();
    let result: i64 = result.split_whitespace().next().unwrap().parse().unwrap();
    let peeked = arguments.contains("MSG_PEEK");
    if result < 0 || peeked || (result == 0 && call.ends_with("mmsg")) {
        return Vec::new();
    }
    let (local, connected) = ends(arguments);
    let lengths = match call {
        "sendmmsg" | "recvmmsg" => message_lengths(arguments),
        _ => vec![result.try_into().unwrap()],
    };
    let dir = if call.starts_with("send") { Dir::Send } else { Dir::Recv };
    let datagram = |bytes| Datagram {
        dir,
        call: call.into(),
        pid,
        tid: tid.parse().unwrap(),
        local,
        remote: connected.or_else(|| named(arguments)),
        bytes: Some(bytes),
        errno: None,
        begin_ns: 0,
        end_ns: u64::MAX,
    };
    lengths.into_iter().map(datagram).collect()
}

/// `14<UDPv6:[[::1]:51555->[::1]:53]>`: the socket's ends; an unbound socket has only an inode number there.
fn ends(arguments: &str) -> (SocketAddr, Option<SocketAddr>) {
    let (_, rest) = arguments.split_once(":[").unwrap();
    let (inside, _) = rest.split_once("]>").unwrap();
    match inside.split_once("->") {
        Some((local, remote)) => (local.parse().unwrap(), Some(remote.parse().unwrap())),
        None => (inside.parse().unwrap(), None),
    }
}

/// The address in the call's arguments.
fn named(arguments: &str) -> Option<SocketAddr> {
    let after = |mark: &str| arguments.split_once(mark).map(|(_, rest)| rest);
    let port = after("_port=htons(")?.split(')').next()?.parse().ok()?;
    let addr = after("sin_addr=inet_addr(\"").or_else(|| after("inet_pton(AF_INET6, \""))?;
    Some(SocketAddr::new(addr.split('"').next()?.parse().ok()?, port))
}

fn message_lengths(arguments: &str) -> Vec<u64> {
    let lengths = arguments.split("msg_len=").skip(1);
    lengths.map(|l| l.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()).collect()
}
