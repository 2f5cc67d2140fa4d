//! Where a scenario plays: a client, a router and a server with addresses, ports and names of their own, other traffic that is
//! well, and two captures of it all in the router's namespace: one that sees everything, and one with a cap so low that it does
//! not. What is drawn is written down.

mod faults;
mod programs;

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use nix::sys::signal::Signal;

use crate::capture::{Bundle, Capture, undisturbed};
use crate::cgroups::Tree;
use crate::net::{Lab, Netns, link};
use crate::rng::Rng;
use crate::wait::{boot_ns, until_boot_ns};
use crate::workdir::Workdir;

pub use programs::Actor;

const MS: u64 = 1_000_000;
/// One of the namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Where clients run.
    Client,
    /// Another machine with clients, behind the same router.
    OtherClient,
    /// Where packets are forwarded, dropped and translated.
    Node,
    /// Where servers run.
    Server,
}

/// See the module. What runs is ended before the namespaces go.
#[derive(Debug)]
pub struct Stage {
    kept: Vec<Actor>,
    cgroups: Vec<Tree>,
    captures: Option<(Capture, Option<Capture>)>,
    /// Client, router and server.
    pub lab: Lab,
    other: Netns,
    dir: Workdir,
    /// Draws what the scenario wants drawn.
    pub rng: Rng,
    digits: [[u8; 2]; 3],
    taken_names: Vec<&'static str>,
    taken_ports: Vec<u64>,
    drawn: Vec<String>,
    has_twin: bool,
    background: Option<At>,
    is_far_set_up: bool,
}

impl Stage {
    /// Namespaces with drawn addresses; `has_twin` wants the second capture.
    pub fn new(mut rng: Rng, has_twin: bool) -> Self {
        let first = rng.range(10..=90);
        let mut digits = || [u8::try_from(first).unwrap(), u8::try_from(rng.range(1..=250)).unwrap()];
        let (client, mut server, mut other) = (digits(), digits(), digits());
        server[0] += 1;
        other[0] += 2;
        let lab = Lab::at(client, server);
        let netns = Netns::alone();
        link(&lab.node, &netns, "cl1", other);
        let [a, b] = server;
        lab.server.ip(&(3..=7).map(|last| format!("addr add 10.{a}.{b}.{last}/24 dev eth0\n")).collect::<String>());
        for device in ["all", "default", "cl0", "cl1", "sv0"] {
            lab.node.sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), "0");
        }
        let dir = Workdir::new();
        programs::install(&dir);
        Self {
            kept: Vec::new(),
            cgroups: Vec::new(),
            captures: None,
            lab,
            other: netns,
            dir,
            rng,
            digits: [client, server, other],
            taken_names: Vec::new(),
            taken_ports: Vec::new(),
            drawn: vec![format!("{}->{}", v4(client, 2), v4(server, 2))],
            has_twin,
            background: Some(At::Client),
            is_far_set_up: false,
        }
    }

    /// A namespace.
    pub fn at(&self, at: At) -> &Netns {
        match at {
            At::Client => &self.lab.client,
            At::OtherClient => &self.other,
            At::Node => &self.lab.node,
            At::Server => &self.lab.server,
        }
    }

    /// Inode numbers of all of them.
    pub fn inodes(&self) -> Vec<u64> {
        [At::Client, At::OtherClient, At::Node, At::Server].map(|at| u64::from(self.at(at).inode())).to_vec()
    }

    /// The client's address.
    pub fn client4(&self) -> IpAddr {
        v4(self.digits[0], 2)
    }

    /// An address of the client's network that nobody has.
    pub fn nobody4(&mut self) -> IpAddr {
        v4(self.digits[0], u8::try_from(self.rng.range(20..=200)).unwrap())
    }

    /// The server's address.
    pub fn server4(&self) -> IpAddr {
        v4(self.digits[1], 2)
    }

    /// The server's second address, that of the traffic that is well.
    pub fn server4_other(&self) -> IpAddr {
        v4(self.digits[1], 3)
    }

    /// The server's third address, of a second server of the same kind.
    pub fn server4_second(&self) -> IpAddr {
        v4(self.digits[1], 4)
    }

    /// Five addresses of the server, as if they were machines, without that of the traffic that is well.
    pub fn servers4(&self) -> [IpAddr; 5] {
        [2, 4, 5, 6, 7].map(|last| v4(self.digits[1], last))
    }

    /// The server's v6 address.
    pub fn server6(&self) -> IpAddr {
        let [a, b] = self.digits[1].map(|digits| u16::from_str_radix(&digits.to_string(), 16).unwrap());
        IpAddr::V6(Ipv6Addr::new(0xfd00 | a, b, 0, 0, 0, 0, 0, 2))
    }

    /// Draws a number and writes down what it is.
    pub fn draw(&mut self, what: &str, range: RangeInclusive<u64>) -> u64 {
        let drawn = self.rng.range(range);
        self.note(what, drawn);
        drawn
    }

    /// Writes down what was drawn.
    pub fn note(&mut self, what: &str, drawn: impl Display) {
        self.drawn.push(format!("{what} {drawn}"));
    }

    /// What was drawn, in the order of drawing.
    pub fn drawn(&self) -> String {
        self.drawn.join(", ")
    }

    /// A port of a server that no other server of this scenario has.
    pub fn port(&mut self) -> u64 {
        loop {
            let port = self.rng.range(1024..=9899);
            // room for whoever takes several in a row
            if self.taken_ports.iter().all(|taken| taken.abs_diff(port) > 32) {
                self.taken_ports.push(port);
                self.note("port", port);
                return port;
            }
        }
    }

    /// The traffic that is well has its client on another machine than the faulty one, or there is none.
    pub fn background(&mut self, at: Option<At>) {
        self.background = at;
    }

    /// Begins the traffic that is well, then opens the window of the capture and of its twin.
    pub fn open(&mut self) {
        if let Some(at) = self.background {
            self.begin_background(at);
        }
        let ktrace = |flags: &[&str]| {
            let command = undisturbed(self.lab.node.command(env!("CARGO_BIN_EXE_ktrace")));
            Capture::launch(command, &[&["--duration", "120s"], flags].concat())
        };
        let cap = 1 << self.rng.range(2..=5);
        let twin = self.has_twin.then(|| ktrace(&["--max-events", &format!("{cap}")]));
        let capture = ktrace(&[]);
        self.captures = Some((capture, twin));
    }

    fn begin_background(&mut self, at: At) {
        let (server, port, pause) = (self.server4_other(), self.port(), self.rng.range(30..=250));
        let kind = self.rng.range(0..=2);
        match kind {
            0 => {
                self.serve(At::Server, &format!("serve at={server} port={port} reply=2000"));
                let args = format!("ask at={server} port={port} count=100000 pause={pause}");
                let client = self.actor(at, &args);
                self.kept.push(client);
            }
            1 => {
                self.serve(At::Server, &format!("serve at={server} port={port} think=3"));
                let args = format!("ask at={server} port={port} count=100000 pause={pause} keep=1");
                let client = self.actor(at, &args);
                self.kept.push(client);
            }
            _ => {
                self.serve(At::Server, &format!("dns at={server} delay=2"));
                let args = format!("resolve servers={server} count=100000 pause={pause}");
                let client = self.actor(at, &args);
                self.kept.push(client);
            }
        }
        let what = ["short connections", "a kept connection", "lookups"][usize::try_from(kind).unwrap()];
        self.note("background", format!("{what} every {pause} ms"));
    }

    /// Lets the window stay open for so long.
    pub fn settle(&self, ms: u64) {
        until_boot_ns(boot_ns() + ms * MS);
    }

    /// Closes both windows and returns what they saw.
    pub fn close(&mut self) -> (Bundle, Option<Bundle>) {
        let (capture, twin) = self.captures.take().expect("the scenario opens the window");
        capture.signal(Signal::SIGTERM);
        if let Some(twin) = &twin {
            twin.signal(Signal::SIGTERM);
        }
        (capture.end_unaudited(), twin.map(Capture::end_unaudited))
    }
}

fn v4([a, b]: [u8; 2], last: u8) -> IpAddr {
    Ipv4Addr::new(10, a, b, last).into()
}
