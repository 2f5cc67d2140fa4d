//! `ktrace doctor` as somebody on call runs it: one command while something is wrong, and one true sentence about it on the
//! first screen within 15 s. Nothing is left behind, whatever ends it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ktrace_bundle::manifest::EndedBy;
use nix::sys::signal::Signal;

use crate::capture::{ktrace, only_entry, read, undisturbed};
use crate::dns::{self, Dnsmasq, NAMES};
use crate::nat_backends::{ELSEWHERE, deafen, listening, translate};
use crate::net::{Lab, Netns, SERVER4};
use crate::program::{Ended, Program, mortal};
use crate::wait::{DEADLINE, PATIENCE, until};
use crate::workdir::Workdir;
use crate::{Test, tests};

/// What somebody on call waits for at most.
const IN_TIME: Duration = Duration::from_secs(15);
const SCREEN: usize = 24;
const COLUMNS: usize = 100;

pub fn tests() -> Vec<Test> {
    tests![
        a_resolver_that_is_dead_is_named_in_time,
        a_backend_that_is_dead_is_named_in_time,
        a_backend_that_is_silent_is_named_in_time,
        a_port_that_refuses_is_named_in_time,
        a_second_fault_is_not_hidden_by_the_first,
        a_healthy_network_is_called_so,
        a_signal_ends_it_with_a_report_and_nothing_is_left,
        a_second_signal_ends_it_at_once_and_nothing_is_left,
        a_bundle_that_is_to_be_kept_is_kept,
        without_rights_the_error_is_that_of_a_capture,
    ]
}

/// A running doctor.
struct Doctor {
    program: Program,
    begin: Instant,
    dir: Workdir,
}

/// What it said.
struct Diagnosis {
    ended: Ended,
    /// The first screen as one line.
    screen: String,
    /// From its start to its first sentence.
    took: Duration,
}

impl Doctor {
    /// Starts it where the client is or, in a namespace, where a node would be.
    fn start(within: Option<&Netns>, flags: &[&str]) -> Self {
        let path = env!("CARGO_BIN_EXE_ktrace");
        let command = within.map_or_else(|| ktrace(path), |netns| undisturbed(netns.command(path)));
        Self::launch(command, flags)
    }

    fn launch(mut command: Command, flags: &[&str]) -> Self {
        let dir = Workdir::new();
        std::fs::create_dir(dir.join("tmp")).unwrap();
        command.arg("doctor").args(flags).env("TMPDIR", dir.join("tmp"));
        command.arg("--ready-file").arg(dir.join("ready"));
        let begin = Instant::now();
        Self { program: Program::start(command), begin, dir }
    }

    /// Waits for its window; then it has a bundle, and files that somebody could leave behind.
    fn is_watching(&self) -> PathBuf {
        until("the window of the doctor", DEADLINE, || self.dir.join("ready").exists().then_some(()));
        let scratch = only_entry(&self.dir.join("tmp"), |path| path.is_dir());
        only_entry(&scratch, |path| path.is_dir())
    }

    /// Waits for the end, and asserts that nothing is left of it.
    fn end(self) -> Diagnosis {
        self.program.wait_for_lines(1);
        let took = self.begin.elapsed();
        let ended = self.program.wait();
        assert_eq!(left_behind(&self.dir), Vec::<PathBuf>::new());
        assert!(ended.stdout.len() <= SCREEN, "{ended:#?}");
        // a path is not broken
        let fits = |line: &String| line.chars().count() <= COLUMNS || line.ends_with(".bundle.tgz");
        assert!(ended.stdout.iter().all(fits), "{ended:#?}");
        let words: Vec<_> = ended.stdout.iter().take(SCREEN).flat_map(|line| line.split_whitespace()).collect();
        Diagnosis { screen: words.join(" "), ended, took }
    }
}

/// Files and processes that are left of a doctor that used this directory.
fn left_behind(dir: &Workdir) -> Vec<PathBuf> {
    let tmp = dir.join("tmp");
    let entries = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let words = |process: &Path| std::fs::read(process.join("cmdline")).unwrap_or_default();
    let is_about_it = |process: &PathBuf| String::from_utf8_lossy(&words(process)).contains(tmp.to_str().unwrap());
    entries(&tmp).chain(entries(Path::new("/proc")).filter(is_about_it)).collect()
}

impl Diagnosis {
    /// This sentence is on the first screen, came in time, and the capture did not last as long as it might have.
    fn names(&self, sentence: &str) {
        assert!(self.screen.contains(sentence), "no `{sentence}`: {:#?}", self.ended);
        assert!(self.took <= IN_TIME, "took {:?}: {:#?}", self.took, self.ended);
        assert!(self.screen.contains(" of 15 s: the evidence sufficed"), "{:#?}", self.ended);
        assert_eq!(self.ended.status.code(), Some(0), "{:#?}", self.ended);
    }
}

/// Asks a server for ten seconds and more, and waits for each answer in vain.
fn asks_in_vain(lab: &Lab) -> Program {
    let names: Vec<_> = NAMES.iter().copied().cycle().take(120).collect();
    Program::start(dns::client(&lab.client, "timeout", SERVER4, dns::PORT, &names))
}

/// A server that takes the first query and hangs.
fn hangs(lab: &Lab) -> Program {
    let server = lab.server.start(&format!("udp-echo --listen {SERVER4}:53 --delay-ms 600000 --quiet"));
    server.ready();
    server
}

fn connects(lab: &Lab, to: &str) -> Program {
    lab.client.start(&format!("connect --to {to} --timeout-ms 400 --interval-ms 200 --count 150"))
}

fn a_resolver_that_is_dead_is_named_in_time() {
    let lab = Lab::new();
    let _server = hangs(&lab);
    let client = asks_in_vain(&lab);
    let diagnosis = Doctor::start(None, &[]).end();
    diagnosis.names(&format!("(pid {}) gets no reply from the DNS server {SERVER4}:53: ", client.pid()));
    assert!(diagnosis.screen.contains("`python3"), "{}", diagnosis.screen);
    assert!(diagnosis.screen.contains(&format!("nsenter -t {} -n ip route get {SERVER4} #", client.pid())));
}

fn a_backend_that_is_dead_is_named_in_time() {
    let lab = Lab::new();
    translate(&lab, "");
    let _servers = listening(&lab, &[8081, 8082]);
    let client = connects(&lab, "10.96.0.81:80");
    let diagnosis = Doctor::start(Some(&lab.node), &[]).end();
    diagnosis.names(&format!("`traffic` (pid {}) is turned down by backend {SERVER4}:8083 of ", client.pid()));
    assert!(diagnosis.screen.contains("10.96.0.81:80: 0 of "), "{}", diagnosis.screen);
    assert!(!diagnosis.screen.contains("is refused by"), "a symptom stands beside its cause: {}", diagnosis.screen);
}

fn a_backend_that_is_silent_is_named_in_time() {
    let lab = Lab::new();
    translate(&lab, "");
    deafen(&lab, "tcp dport 8083");
    let _servers = listening(&lab, &[8081, 8082, 8083]);
    let client = connects(&lab, "10.96.0.81:80");
    let diagnosis = Doctor::start(Some(&lab.node), ELSEWHERE).end();
    diagnosis.names(&format!("`traffic` (pid {}) gets no answer from backend {SERVER4}:8083 of ", client.pid()));
}

fn a_port_that_refuses_is_named_in_time() {
    let lab = Lab::new();
    let client = connects(&lab, &format!("{SERVER4}:8081"));
    let diagnosis = Doctor::start(None, &[]).end();
    diagnosis.names(&format!("`traffic` (pid {}) is refused by {SERVER4}:8081: ", client.pid()));
}

/// The refused port is clear after a second, the resolver only after five: both must be told.
fn a_second_fault_is_not_hidden_by_the_first() {
    let lab = Lab::new();
    let _server = hangs(&lab);
    let refused = connects(&lab, &format!("{SERVER4}:8081"));
    let asks = asks_in_vain(&lab);
    let diagnosis = Doctor::start(None, &[]).end();
    diagnosis.names(&format!("(pid {}) is refused by {SERVER4}:8081: ", refused.pid()));
    diagnosis.names(&format!("(pid {}) gets no reply from the DNS server {SERVER4}:53: ", asks.pid()));
}

fn a_healthy_network_is_called_so() {
    let lab = Lab::new();
    let _server = Dnsmasq::start(&lab.server);
    let _listening = listening(&lab, &[8080]);
    let netns = lab.inodes().map(|inode| inode.to_string()).join(",");
    // the machine that runs the tests has a life of its own
    let ours = ["--netns", &netns, "--with-node=false", "--fail-on", "warning", "--duration", "6s"];
    let doctor = Doctor::start(None, &ours);
    doctor.is_watching();
    for _ in 0..5 {
        assert!(Program::run(dns::client(&lab.client, "sendto", SERVER4, dns::PORT, NAMES)).status.success());
        let request = lab.client.traffic(&format!("tcp-client --to {SERVER4}:8080 --mode listen"));
        assert!(Program::run(request).status.success());
    }
    let diagnosis = doctor.end();
    assert_eq!(diagnosis.ended.status.code(), Some(0), "{:#?}", diagnosis.ended);
    assert!(diagnosis.screen.starts_with("ok: "), "{:#?}", diagnosis.ended);
    assert!(diagnosis.screen.contains("20 DNS queries (20 answered)"), "{:#?}", diagnosis.ended);
    assert!(diagnosis.screen.contains(" for 6 s"), "{:#?}", diagnosis.ended);
}

fn a_signal_ends_it_with_a_report_and_nothing_is_left() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let lab = Lab::new();
        let doctor = Doctor::start(None, &["--duration", &format!("{}s", 120 * *PATIENCE)]);
        doctor.is_watching();
        Program::run(lab.client.traffic(&format!("connect --to {SERVER4}:8081 --count 5")));
        doctor.program.signal(signal);
        let diagnosis = doctor.end();
        assert!(diagnosis.screen.contains(&format!("is refused by {SERVER4}:8081: 5 of 5 attempts")), "{signal}");
        assert!(diagnosis.screen.contains(" s: a signal"), "{signal}: {}", diagnosis.screen);
        assert_eq!(diagnosis.ended.status.code(), Some(0), "{signal}: {:#?}", diagnosis.ended);
    }
}

fn a_second_signal_ends_it_at_once_and_nothing_is_left() {
    // two of a kind can become one on their way
    for signals in [[Signal::SIGINT, Signal::SIGTERM], [Signal::SIGTERM, Signal::SIGHUP]] {
        let doctor = Doctor::start(None, &["--duration", &format!("{}s", 120 * *PATIENCE)]);
        doctor.is_watching();
        signals.into_iter().for_each(|signal| doctor.program.signal(signal));
        let Doctor { program, dir, .. } = doctor;
        let ended = program.wait();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        until("nothing that is left", DEADLINE, || left_behind(&dir).is_empty().then_some(()));
    }
}

fn a_bundle_that_is_to_be_kept_is_kept() {
    let lab = Lab::new();
    let kept = Workdir::new();
    let _client = connects(&lab, &format!("{SERVER4}:8081"));
    let diagnosis = Doctor::start(None, &["--out-dir", kept.join("out").to_str().unwrap()]).end();
    let bundle = only_entry(&kept.join("out"), |path| path.is_file());
    assert!(diagnosis.screen.contains(&format!("all of it: analyze {}", bundle.display())), "{}", diagnosis.screen);
    let manifest = read(&bundle).manifest.unwrap();
    assert_eq!((manifest.ended_by, manifest.complete), (EndedBy::Evidence, true), "{manifest:?}");
    assert!((6_500_000_000..15_000_000_000).contains(&manifest.duration_ns), "{} ns", manifest.duration_ns);
}

fn without_rights_the_error_is_that_of_a_capture() {
    let dir = Workdir::new();
    std::fs::create_dir(dir.join("tmp")).unwrap();
    let run = |args: &[&str]| {
        let mut command = undisturbed(mortal("setpriv"));
        command.args(["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_ktrace")]).args(args);
        command.env("TMPDIR", dir.join("tmp"));
        Program::run(command)
    };
    let capture = run(&["--out-dir", dir.join("out").to_str().unwrap()]);
    let doctor = run(&["doctor"]);
    assert_eq!((doctor.status.code(), &doctor.stderr), (Some(1), &capture.stderr));
    assert!(doctor.stderr.iter().any(|line| line.starts_with("hint: run as root")), "{doctor:?}");
    assert!(doctor.stdout.is_empty(), "{doctor:?}");
    assert_eq!(left_behind(&dir), Vec::<PathBuf>::new());
}
