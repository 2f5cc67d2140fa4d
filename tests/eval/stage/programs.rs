//! Programs that play in a scenario, each under a drawn name, by which the kernel knows it, too.

use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::{At, Stage};
use crate::cgroups::Tree;
use crate::program::{Ended, Program};
use crate::requirements::{built, which};
use crate::subject::Subject;
use crate::workdir::Workdir;

const ACTOR: &str = include_str!("../actor.py");

/// Names of processes, none longer than the 15 bytes that the kernel keeps.
const NAMES: [&str; 32] = [
    "checkout",
    "billing-api",
    "cart",
    "pg-sync",
    "indexer",
    "mailer",
    "ledger-svc",
    "auth",
    "gateway",
    "crawler",
    "orders",
    "stock-feed",
    "search",
    "thumbs",
    "payments",
    "invoice-gen",
    "sessions",
    "webhooks",
    "metrics-relay",
    "geo",
    "quotes",
    "etl-worker",
    "notifier",
    "catalog",
    "reports",
    "uploader",
    "cachewarm",
    "scheduler",
    "audit-log",
    "profile",
    "ratings",
    "shipping",
];

/// The interpreter itself: what is called `python3` may be a script that looks for it.
pub(super) static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut command = Command::new("python3");
    let asked = command.args(["-c", "import os, sys; print(os.path.realpath(sys.executable))"]).output().unwrap();
    String::from_utf8(asked.stdout).unwrap().trim().into()
});

/// A running program under a drawn name.
#[derive(Debug)]
pub struct Actor {
    /// What the kernel calls it.
    pub name: String,
    pub(super) program: Program,
}

impl Actor {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Waits until it has printed as many lines.
    pub fn wait_for_lines(&self, count: usize) {
        self.program.wait_for_lines(count);
    }

    /// Waits until it has ended by itself.
    pub fn wait(self) -> Ended {
        self.program.wait()
    }
}

/// Puts what they need into the scenario's directory.
pub(super) fn install(dir: &Workdir) {
    std::fs::create_dir(dir.join("bin")).unwrap();
    std::fs::write(dir.join("actor.py"), ACTOR).unwrap();
}

impl Stage {
    fn name(&mut self) -> &'static str {
        loop {
            let name = self.rng.one_of(&NAMES);
            if !self.taken_names.contains(&name) {
                self.taken_names.push(name);
                return name;
            }
        }
    }

    /// A path of this program by which the kernel calls it `name`.
    fn link(&self, program: &Path, name: &str) -> PathBuf {
        let path = self.dir.join("bin").join(name);
        if !path.exists() {
            symlink(program, &path).unwrap();
        }
        path
    }

    fn named(&self, at: At, program: &Path, name: &str) -> Command {
        self.at(at).command(self.link(program, name))
    }

    fn actor_under(&self, at: At, name: &str, args: &str) -> Actor {
        let mut command = self.named(at, &PYTHON, name);
        command.args(["-I", "-S"]).arg(self.dir.join("actor.py")).args(args.split_whitespace());
        Actor { name: name.into(), program: Program::start(command) }
    }

    /// `actor.py` with these arguments, under a drawn name.
    pub fn actor(&mut self, at: At, args: &str) -> Actor {
        let name = self.name();
        self.note("process", name);
        self.actor_under(at, name, args)
    }

    /// The same as a process of this name.
    pub fn called(&self, name: &str, at: At, args: &str) -> Actor {
        self.actor_under(at, name, args)
    }

    /// The same with this `resolv.conf`.
    pub fn resolving(&mut self, at: At, resolv_conf: &str, args: &str) -> Actor {
        let (name, conf) = (self.name(), self.dir.join("resolv.conf"));
        self.note("process", name);
        std::fs::write(&conf, resolv_conf).unwrap();
        let python = self.link(&PYTHON, name);
        let mut command = self.at(at).command("unshare");
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(conf).arg(python);
        command.args(["-I", "-S"]).arg(self.dir.join("actor.py")).args(args.split_whitespace());
        Actor { name: name.into(), program: Program::start(command) }
    }

    /// `actor.py` under a drawn name, after this shell has joined cgroups.
    pub fn joined(&mut self, join: &str, at: At, args: &str) -> Actor {
        let name = self.name();
        self.note("process", name);
        let mut command = self.at(at).command("sh");
        command.args(["-c", &format!("{join} exec \"$0\" \"$@\"")]).arg(self.link(&PYTHON, name));
        command.args(["-I", "-S"]).arg(self.dir.join("actor.py")).args(args.split_whitespace());
        Actor { name: name.into(), program: Program::start(command) }
    }

    /// Keeps cgroups until what is in them has ended.
    pub fn keep_cgroups(&mut self, trees: Vec<Tree>) {
        self.cgroups.extend(trees);
    }

    /// `traffic` with these arguments, under a drawn name.
    pub fn traffic(&mut self, at: At, args: &str) -> Actor {
        let name = self.name();
        self.note("process", name);
        let mut command = self.named(at, &built("traffic"), name);
        command.arg("--limit-s=120").args(args.split_whitespace());
        Actor { name: name.into(), program: Program::start(command) }
    }

    /// A server of `actor.py` that stays until the window is closed; its process id.
    pub fn serve(&mut self, at: At, args: &str) -> Subject {
        let server = self.actor(at, args);
        server.wait_for_lines(1);
        let subject = Subject::of(&server);
        self.kept.push(server);
        subject
    }

    /// Keeps a program until the window is closed.
    pub fn keep(&mut self, actor: Actor) {
        self.kept.push(actor);
    }

    /// A real DNS server for every name below `test`, at the server's address.
    pub fn dnsmasq(&mut self, address: IpAddr) {
        let name = self.name();
        let mut command = self.named(At::Server, &which("dnsmasq").expect("dnsmasq"), name);
        let fixed = "--keep-in-foreground --conf-file=/dev/null --pid-file= --user=root --group=root --bind-interfaces \
                     --no-resolv --no-hosts --address=/ok.test/10.1.2.3 --address=/ok.test/fd00::1 --local=/test/";
        command.args(fixed.split_whitespace()).arg(format!("--listen-address={address}"));
        self.kept.push(Actor { name: name.into(), program: Program::start(command) });
        self.lab.server.wait_for_udp_port(53);
    }
}
