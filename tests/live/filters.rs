//! Filters alone and in pairs, all against the same traffic: a capture without a filter beside those with one. What
//! each of them must hold follows from what the programs said about themselves, and from where the test started them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ktrace_bundle::event::{Event, Payload};
use ktrace_bundle::ledger::DropReason;
use ktrace_traffic::Truth;
use nix::sys::signal::Signal;

use crate::capture::{Bundle, COMPLETE, Capture};
use crate::net::{Lab, Netns, SERVER4, SERVER4_OTHER, SERVER6};
use crate::program::Program;
use crate::requirements::built;
use crate::truth::is_of_a_program;
use crate::workdir::Workdir;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        every_filter_alone_keeps_exactly_what_it_is_for,
        every_pair_of_filters_keeps_exactly_what_both_are_for,
        every_pair_of_excluding_filters_keeps_exactly_what_both_are_for,
        every_filter_with_dns_only_keeps_exactly_what_both_are_for,
    ]
}

const THREADED: u16 = 8080;
const PREFORK: u16 = 8081;
const SINGLE: u16 = 8082;
const CHAT: u16 = 8083;
const ECHO4: u16 = 7007;
const ECHO6: u16 = 7008;
const NOBODY: u16 = 9;

/// A cgroup of version 2 with one below it; removed on drop, when the programs in it have ended.
pub struct Cgroups(pub PathBuf);

impl Cgroups {
    /// Makes both.
    pub fn new() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>()).find(|w| w[2] == "cgroup2").unwrap()[1];
        let outer = Path::new(root).join(format!("ktlive-{}", std::process::id()));
        std::fs::create_dir_all(outer.join("inner")).unwrap();
        Self(outer)
    }

    fn inner(&self) -> PathBuf {
        self.0.join("inner")
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in [self.inner(), self.0.clone()] {
            let gone = || std::fs::remove_dir(&dir).ok();
            crate::wait::until("an empty cgroup", crate::wait::DEADLINE, gone);
        }
    }
}

/// Where a program runs and what it is called.
#[derive(Debug, Clone)]
struct Place {
    netns: u32,
    comm: &'static str,
    cgroup: Option<PathBuf>,
}

/// What an event is about, as told by its program.
#[derive(Debug, Clone)]
struct Fact {
    place: Place,
    pid: u32,
    local: (Option<IpAddr>, u16),
    remote: (Option<IpAddr>, u16),
}

impl Fact {
    fn has_port(&self, ports: &[u16]) -> bool {
        ports.contains(&self.local.1) || ports.contains(&self.remote.1)
    }

    fn has_addr(&self, is_in: impl Fn(IpAddr) -> bool) -> bool {
        [self.local.0, self.remote.0].into_iter().flatten().any(is_in)
    }

    fn is_below(&self, cgroup: &Path) -> bool {
        self.place.cgroup.as_ref().is_some_and(|it| it.starts_with(cgroup))
    }
}

/// A filter, and what it is for.
#[derive(Clone)]
struct Filter {
    flags: Vec<String>,
    keeps: std::rc::Rc<dyn Fn(&Fact) -> bool>,
}

fn filter(flag: &str, value: impl ToString, keeps: impl Fn(&Fact) -> bool + 'static) -> Filter {
    Filter { flags: vec![flag.into(), value.to_string()], keeps: std::rc::Rc::new(keeps) }
}

impl Filter {
    fn and(&self, other: &Self) -> Self {
        let (a, b) = (self.keeps.clone(), other.keeps.clone());
        let flags = [self.flags.clone(), other.flags.clone()].concat();
        Self { flags, keeps: std::rc::Rc::new(move |fact| a(fact) && b(fact)) }
    }
}

/// The programs, running or waiting to begin.
struct Scene {
    lab: Lab,
    cgroups: Cgroups,
    _dir: Workdir,
    servers: Vec<(Place, Program)>,
    clients: Vec<(Place, Program, PathBuf)>,
    chat: Option<(Place, Program)>,
    workers: Vec<u32>,
}

impl Scene {
    fn new() -> Self {
        let (lab, dir, cgroups) = (Lab::new(), Workdir::new(), Cgroups::new());
        let (outer, inner) = (Some(cgroups.0.clone()), Some(cgroups.inner()));
        let server = |comm, cgroup: &Option<PathBuf>, args: &str| {
            let place = Place { netns: lab.server.inode(), comm, cgroup: cgroup.clone() };
            let program = Program::start(command(&lab.server, &dir, &place, None, args));
            program.ready();
            (place, program)
        };
        let servers = vec![
            server("kt-threads", &outer, &format!("tcp-server --listen {SERVER4}:{THREADED}")),
            server(
                "kt-fork",
                &None,
                &format!("tcp-server --listen {SERVER4_OTHER}:{PREFORK} --model prefork --workers 2"),
            ),
            server(
                "kt-single",
                &inner,
                &format!("tcp-server --listen [{SERVER6}]:{SINGLE} --model single --then close"),
            ),
            server("kt-echo", &outer, &format!("udp-echo --listen {SERVER4}:{ECHO4}")),
            server("kt-echo", &None, &format!("udp-echo --listen [{SERVER6}]:{ECHO6}")),
            server("kt-chat", &inner, &format!("tcp-server --listen {SERVER4}:{CHAT} --then echo")),
        ];
        let workers = children(servers[1].1.pid());
        let here = |comm, cgroup: &Option<PathBuf>| Place { netns: lab.client.inode(), comm, cgroup: cgroup.clone() };
        let client = |name: &str, place: Place, args: &str| {
            let fifo = dir.join(name);
            nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let program = Program::start(command(&lab.client, &dir, &place, Some(&fifo), args));
            (place, program, fifo)
        };
        let clients = vec![
            client(
                "1",
                here("kt-alpha", &outer),
                &format!("tcp-client --to {SERVER4}:{THREADED} --count 6 --threads 2"),
            ),
            client(
                "2",
                here("kt-alpha", &None),
                &format!("tcp-client --to {SERVER4_OTHER}:{PREFORK} --count 8 --threads 4"),
            ),
            client(
                "3",
                here("kt-beta", &inner),
                &format!("tcp-client --to [{SERVER6}]:{SINGLE} --count 3 --mode listen"),
            ),
            client("4", here("kt-beta", &None), &format!("udp-paced --to [::ffff:{SERVER4}]:{ECHO4} --count 5")),
            client("5", here("kt-alpha", &inner), &format!("udp-paced --to [{SERVER6}]:{ECHO6} --count 4 --connected")),
            client("6", here("kt-gamma", &outer), &format!("connect --to {SERVER4}:{NOBODY} --count 2 --blocking")),
        ];
        let chat = here("kt-gamma", &inner);
        // it is connected, and then suspended in its pause
        let talk = format!("tcp-chat --to {SERVER4}:{CHAT} --rounds 1 --interval-ms 3000");
        let chatter = Program::start(command(&lab.client, &dir, &chat, None, &talk));
        chatter.ready();
        chatter.signal(Signal::SIGSTOP);
        Self { chat: Some((chat, chatter)), lab, cgroups, _dir: dir, servers, clients, workers }
    }

    /// One filter, or two, for each flag.
    fn filters(&self) -> Vec<Vec<Filter>> {
        let in_net = |a: IpAddr, net: [u8; 2]| matches!(a, IpAddr::V4(v4) if v4.octets().starts_with(&net));
        let (alpha, worker) = (self.clients[0].1.pid(), self.workers[0]);
        let [client, server] = self.lab.inodes();
        let client_file = format!("/proc/{}/ns/net", self.clients[0].1.pid());
        let (outer, inner) = (self.cgroups.0.clone(), self.cgroups.inner());
        let inner_id = std::fs::metadata(&inner).unwrap().ino();
        let (outer_shown, inner_shown) = (outer.display().to_string(), inner.display().to_string());
        let (outer_too, inner_too) = (outer.clone(), inner.clone());
        vec![
            vec![
                filter("--pid", format!("{worker},{alpha}"), move |f| [worker, alpha].contains(&f.pid)),
                filter("--pid", format!("!{worker}"), move |f| f.pid != worker),
            ],
            vec![
                filter("--comm", "kt-alpha,kt-single,kt-echo", |f| {
                    ["kt-alpha", "kt-single", "kt-echo"].contains(&f.place.comm)
                }),
                filter("--comm", "!kt-fork", |f| f.place.comm != "kt-fork"),
            ],
            vec![
                filter("--cidr", "10.77.0.0/16,!10.77.2.3", move |f| {
                    f.has_addr(|a| in_net(a, [10, 77])) && !f.has_addr(|a| a == SERVER4_OTHER)
                }),
                filter("--cidr", "::/0", |f| f.has_addr(|a| a.is_ipv6())),
                filter("--cidr", "!10.77.1.2/32", |f| !f.has_addr(|a| a == IpAddr::from([10, 77, 1, 2]))),
            ],
            vec![
                filter("--netns", client_file, move |f| f.place.netns == client),
                filter("--netns", format!("!{server}"), move |f| f.place.netns != server),
            ],
            vec![
                filter("--cgroup", format!("{outer_shown},!{inner_shown}"), move |f| {
                    f.is_below(&outer) && !f.is_below(&inner)
                }),
                filter("--cgroup", format!("!{outer_shown},{inner_id}"), move |f| {
                    f.is_below(&inner_too) && f.is_below(&outer_too)
                }),
            ],
            vec![
                filter("--ports", "8080,8081,7007", |f| f.has_port(&[THREADED, PREFORK, ECHO4])),
                filter("--ports", "!8081,!9", |f| !f.has_port(&[PREFORK, NOBODY])),
                filter("--dns-only=true", "--dns-ports=7008,8082", |f| f.has_port(&[ECHO6, SINGLE])),
            ],
        ]
    }

    /// Lets the clients go, and waits until everything has been told and every connection is over.
    fn play(&mut self) -> Vec<Fact> {
        let mut facts = Vec::new();
        let (place, chat) = self.chat.take().unwrap();
        chat.signal(Signal::SIGCONT);
        facts.extend(chat.wait().truths().into_iter().filter_map(|t| fact(&place, t)));
        let mut counts = [0; 6];
        for (place, program, fifo) in std::mem::take(&mut self.clients) {
            std::fs::write(fifo, "go\n").unwrap();
            facts.extend(program.wait().truths().into_iter().filter_map(|t| fact(&place, t)));
        }
        let count = |ports: [u16; 2]| facts.iter().filter(|f| ports.contains(&f.remote.1)).count();
        for (n, port) in [THREADED, PREFORK, SINGLE, ECHO4, ECHO6, CHAT].into_iter().enumerate() {
            // an echo server tells both that it received and that it answered
            counts[n] = count([port, port]) * if port < 8000 { 2 } else { 1 };
        }
        for ((place, program), count) in self.servers.iter().zip(counts) {
            facts.extend(program.truths(count).into_iter().filter_map(|t| fact(place, t)));
        }
        self.lab.client.wait_until_quiet();
        self.lab.server.wait_until_quiet();
        facts
    }
}

/// `traffic` under another name, in a namespace and a cgroup; with a FIFO it waits until somebody writes into that.
fn command(netns: &Netns, dir: &Workdir, place: &Place, fifo: Option<&Path>, args: &str) -> Command {
    let copy = dir.join(place.comm);
    if !copy.exists() {
        std::fs::copy(built("traffic"), &copy).unwrap();
    }
    let enter = place.cgroup.as_ref().map_or(String::new(), |c| format!("echo $$ > {}/cgroup.procs && ", c.display()));
    let wait = fifo.map_or(String::new(), |fifo| format!("read _ < {} && ", fifo.display()));
    let mut command = netns.command("sh");
    command.args(["-c", &format!("{enter}{wait}exec setpriv --pdeathsig KILL {} {args}", copy.display())]);
    command
}

fn children(pid: u32) -> Vec<u32> {
    crate::wait::until("two workers", crate::wait::DEADLINE, || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let pids: Vec<_> = text.split_whitespace().map(|p| p.parse().unwrap()).collect();
        (pids.len() == 2).then_some(pids)
    })
}

fn fact(place: &Place, truth: Truth) -> Option<Fact> {
    let end = |addr: SocketAddr| (Some(addr.ip().to_canonical()).filter(|ip| !ip.is_unspecified()), addr.port());
    let (pid, local, remote) = match truth {
        Truth::Conn(c) => (c.pid, end(c.local), end(c.remote)),
        Truth::Datagram(d) => (d.pid, end(d.local), end(d.remote?)),
        // the kernel takes its address back, and gives no port to `getsockname`
        Truth::Connect(c) => (c.pid, (Some(IpAddr::from([10, 77, 1, 2])), 0), end(c.remote)),
        Truth::Ready(_) | Truth::Total(_) => return None,
    };
    Some(Fact { place: place.clone(), pid, local, remote })
}

/// What tells one event from another in every capture.
fn key(event: &Event) -> String {
    let id = &event.id;
    let what = match &event.payload {
        Payload::TcpState(s) => format!("{:?} {:?}", s.old, s.new),
        Payload::UdpSend(d) | Payload::UdpRecv(d) => format!("{:?}", d.bytes),
        Payload::Connect(c) => format!("{:?} {:?}", c.error, id.remote),
        Payload::TcpRetransmit(r) => format!("{:?} {:?}", r.kind, r.retrans_count),
        Payload::TcpReset(r) => format!("{:?} {:?}", r.dir, r.state),
        Payload::TcpStall(s) => format!("{:?}", s.kind),
        Payload::ListenOverflow(o) => format!("{}", o.count),
        Payload::Drop(d) => format!("{:?} {:?} {:?}", d.dir, d.reason, d.symbol),
    };
    format!("netns {} socket {:?} {} {what}", id.netns, id.socket, event.payload.kind().as_str())
}

/// The fact that an event of an unfiltered capture is about, by the ports of its socket: a client has none of its own
/// when it begins.
fn fact_of<'a>(facts: &'a [Fact], all: &[&Event], event: &Event) -> &'a Fact {
    let same = all.iter().filter(|e| e.id.socket == event.id.socket);
    let lport = same.filter_map(|e| e.id.local.port).next().unwrap_or(0);
    let rport = event.id.remote.port.unwrap_or(0);
    let mut found = facts.iter().filter(|f| {
        let is_local = f.local.1 == lport || (rport == NOBODY && f.remote.1 == NOBODY);
        f.place.netns == event.id.netns && is_local && f.remote.1 == rport
    });
    found.next().unwrap_or_else(|| panic!("nobody told of {event:?}"))
}

fn count<'a>(events: impl Iterator<Item = &'a Event>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    events.for_each(|event| *counts.entry(key(event)).or_default() += 1);
    counts
}

/// Ends a capture that lost nothing but what its filters refused late.
pub fn stop(capture: Capture) -> Bundle {
    let bundle = capture.stop_under_load();
    assert_eq!(bundle.exit_code, COMPLETE, "degraded: {:?}", bundle.manifest.degraded);
    let dropped = bundle.manifest.ledger.dropped.iter().filter(|(r, n)| **n > 0 && **r != DropReason::FilteredLate);
    assert_eq!(dropped.count(), 0, "{:?}", bundle.manifest.ledger);
    bundle
}

/// Every capture holds exactly what its filter is for, of the same traffic.
fn compare(choose: impl Fn(&[Vec<Filter>]) -> Vec<Filter>) {
    let mut scene = Scene::new();
    let filters = choose(&scene.filters());
    let netns = scene.lab.inodes();
    let start = |flags: &[String]| {
        let fixed = ["--duration", "120s", "--ring-bytes", "256KiB"].map(str::to_owned);
        Capture::with(&fixed.iter().chain(flags).map(String::as_str).collect::<Vec<_>>())
    };
    let control = start(&[]);
    let captures: Vec<_> = filters.iter().map(|f| start(&f.flags)).collect();
    let facts = scene.play();
    let control = stop(control);
    let is_told = |e: &&Event| netns.contains(&e.id.netns) && is_of_a_program(e);
    let seen: Vec<_> = control.events.iter().filter(is_told).collect();
    let ends = |f: &Fact| (f.place.netns, f.local.1, f.remote.1);
    let in_control: BTreeSet<_> = seen.iter().map(|e| ends(fact_of(&facts, &seen, e))).collect();
    assert_eq!(in_control, facts.iter().map(ends).collect(), "what was told and what an unfiltered capture holds");
    for (filter, capture) in filters.iter().zip(captures) {
        let bundle = stop(capture);
        let recorded = count(bundle.events.iter().filter(is_told));
        let expected = count(seen.iter().copied().filter(|e| (filter.keeps)(fact_of(&facts, &seen, e))));
        let differ = |a: &BTreeMap<String, u64>, b: &BTreeMap<String, u64>| -> Vec<String> {
            a.iter().filter(|(k, n)| b.get(*k) != Some(n)).map(|(k, n)| format!("{n} x {k}")).take(8).collect()
        };
        let (missing, extra) = (differ(&expected, &recorded), differ(&recorded, &expected));
        assert!(missing.is_empty() && extra.is_empty(), "{:?}: missing {missing:#?} extra {extra:#?}", filter.flags);
        assert!(recorded.len() < count(seen.iter().copied()).len(), "{:?} leaves nothing out", filter.flags);
    }
}

fn every_filter_alone_keeps_exactly_what_it_is_for() {
    compare(|by_flag| by_flag.concat());
}

/// The first, then the second filter of each flag with those of every other one.
fn pairs(by_flag: &[Vec<Filter>], which: usize) -> Vec<Filter> {
    let of = |flag: &Vec<Filter>| flag[which].clone();
    let with_the_rest = |n: usize| by_flag[n + 1..].iter().map(move |other| of(&by_flag[n]).and(&of(other)));
    (0..by_flag.len()).flat_map(with_the_rest).collect()
}

fn every_pair_of_filters_keeps_exactly_what_both_are_for() {
    compare(|by_flag| pairs(by_flag, 0));
}

fn every_pair_of_excluding_filters_keeps_exactly_what_both_are_for() {
    compare(|by_flag| pairs(by_flag, 1));
}

/// `--ports` is not among them: the two exclude each other.
fn every_filter_with_dns_only_keeps_exactly_what_both_are_for() {
    compare(|by_flag| {
        let (ports, others) = by_flag.split_last().unwrap();
        others.iter().map(|other| ports[2].clone().and(&other[0])).collect()
    });
}
