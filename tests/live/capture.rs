//! Runs ktrace: start and wait until its window is open, stop it, read the bundle. Every bundle that a test gets
//! has passed [`Bundle::open`]: sealed, whole, every line readable, and the ledger in balance with the lines. Unless a
//! test has taken a hook away, it has passed [`Bundle::assert_audited`], too: the hooks saw what the kernel counted.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use ktrace_bundle::audit::{AuditEntry, Unaudited};
use ktrace_bundle::coverage::LossRecord;
use ktrace_bundle::event::{Event, Payload, SocketRecord};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::ledger::{DropReason, Ledger};
use ktrace_bundle::manifest::{Manifest, PartialManifest};
use ktrace_bundle::node::NodeRecord;
use ktrace_bundle::process::ProcessRecord;
use ktrace_bundle::reader::{self, Limits, ReadReport, Record};
use ktrace_bundle::summary::Summary;
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::tracking::{ServicesReport, TrackingReport};
use ktrace_bundle::workload::Workloads;
use nix::sys::signal::Signal;

use crate::program::{Ended, Program, mortal};
use crate::wait::{DEADLINE, PATIENCE, until};
use crate::workdir::Workdir;

/// Exit code of a sealed and complete bundle.
pub const COMPLETE: i32 = 0;
/// Exit code of a sealed bundle in which something is missing.
pub const DEGRADED: i32 = 4;

thread_local! {
    static FORCED: Cell<&'static [&'static str]> = const { Cell::new(&[]) };
}

/// Runs a test whose captures all use these variants, each `hook=variant`, and fail where one cannot be used.
pub fn forcing(variants: &'static [&'static str], test: impl FnOnce()) {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(&[]);
        }
    }
    FORCED.set(variants);
    let _restore = Restore;
    test();
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    program: Program,
    dir: Workdir,
}

/// A command of the ktrace under test that no `KTRACE_*` variable of the caller disturbs.
pub fn ktrace(path: impl AsRef<Path>) -> Command {
    undisturbed(mortal(path.as_ref()))
}

/// The same of a command that becomes ktrace.
pub fn undisturbed(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("KTRACE_")) {
        command.env_remove(name);
    }
    command
}

impl Capture {
    /// Starts a capture that goes on until it is stopped, and waits for its window.
    pub fn start() -> Self {
        Self::with(&["--duration", &format!("{}s", 120 * *PATIENCE)])
    }

    /// The same without the drop hook: as if what the router drops was dropped on another machine.
    pub fn of_drops_elsewhere() -> Self {
        Self::with(&["--duration", &format!("{}s", 120 * *PATIENCE), "--with-drops=false"])
    }

    /// Starts a capture with these flags and waits for its window.
    pub fn with(flags: &[&str]) -> Self {
        Self::under(&[], flags)
    }

    /// The same, run by another program. Where that one does not `exec` it, it cannot be stopped by a signal.
    pub fn under(wrapper: &[&str], flags: &[&str]) -> Self {
        let words: Vec<_> = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_ktrace")]).collect();
        let mut command = ktrace(words[0]);
        command.args(&words[1..]);
        Self::launch(command, flags)
    }

    /// The same by a command that becomes ktrace.
    pub fn launch(mut command: Command, flags: &[&str]) -> Self {
        let dir = Workdir::new();
        let ready = dir.join("ready");
        command.arg("--out-dir").arg(dir.join("out")).arg("--ready-file").arg(&ready).args(flags);
        command.args(FORCED.get().iter().map(|variant| format!("--hook-variant={variant}")));
        let mut program = Program::start(command);
        until("the ready file of ktrace", DEADLINE, || {
            // a short window can be over before its ready file is looked at
            let there = ready.exists();
            if !there {
                program.assert_running();
            }
            there.then_some(())
        });
        assert_eq!(std::fs::read_to_string(&ready).unwrap(), "ready\n");
        Self { program, dir }
    }

    /// Where it writes.
    pub fn dir(&self) -> &Workdir {
        &self.dir
    }

    /// Process id of ktrace.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    /// Ends the window with SIGTERM and returns the bundle, which must be complete.
    pub fn stop(self) -> Bundle {
        let bundle = self.stop_unaudited();
        bundle.assert_audited();
        bundle
    }

    /// The same for a capture with a hook taken away, or a witness of what no hook could see.
    pub fn stop_unaudited(self) -> Bundle {
        self.program.signal(Signal::SIGTERM);
        let bundle = self.end_unaudited();
        let programs = bundle.manifest.head.hooks.iter().flat_map(|hook| &hook.programs);
        let skipped: Vec<_> = programs.filter(|p| p.missed.is_some_and(|n| n > 0)).collect();
        assert_eq!(bundle.exit_code, COMPLETE, "degraded: {:?}, skipped: {skipped:?}", bundle.manifest.degraded);
        assert!(bundle.manifest.complete && bundle.manifest.ledger.dropped_total() == 0, "{:?}", bundle.manifest);
        bundle
    }

    /// Ends the window with SIGTERM; the bundle may lack events, but must say so.
    pub fn stop_under_load(self) -> Bundle {
        self.program.signal(Signal::SIGTERM);
        self.deadline()
    }

    /// Waits for the end of `--duration`; the bundle may lack events, but must say so.
    pub fn deadline(self) -> Bundle {
        let bundle = self.end_unaudited();
        bundle.assert_audited();
        bundle
    }

    /// The same, not held against the kernel's counters yet.
    pub fn end_unaudited(self) -> Bundle {
        let Self { program, dir } = self;
        Bundle::open(program.wait(), dir)
    }

    /// Ends ktrace with SIGKILL and returns where its loose files are.
    pub fn kill(self) -> (Workdir, PathBuf) {
        let Self { program, dir } = self;
        program.signal(Signal::SIGKILL);
        let ended = program.wait();
        assert_eq!(ended.status.code(), None, "{ended:?}");
        let loose = only_entry(&dir.join("out"), |path| path.is_dir());
        (dir, loose)
    }
}

/// The one entry of a directory that `wanted` accepts.
pub fn only_entry(dir: &Path, wanted: impl Fn(&Path) -> bool) -> PathBuf {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| wanted(path)).collect();
    assert_eq!(found.len(), 1, "{found:?} in {}", dir.display());
    found.remove(0)
}

/// A sealed bundle.
#[derive(Debug)]
pub struct Bundle {
    /// Path of the tgz.
    pub path: PathBuf,
    /// Exit code of ktrace.
    pub exit_code: i32,
    /// Events in the order of their lines.
    pub events: Vec<Event>,
    /// Socket records.
    pub sockets: Vec<SocketRecord>,
    /// When events were lost.
    pub losses: Vec<LossRecord>,
    /// What each cgroup of a pod is, by the end.
    pub workloads: Workloads,
    /// The processes behind the sockets, and those above them.
    pub processes: Vec<ProcessRecord>,
    /// What became of each flow.
    pub flows: Vec<FlowRecord>,
    /// How the node looked when the window opened and closed.
    pub node: Vec<NodeRecord>,
    /// The tables of connection tracking.
    pub tracking: TrackingReport,
    /// Who stands behind which address.
    pub services: ServicesReport,
    /// The manifest.
    pub manifest: Manifest,
    /// The summary.
    pub summary: Summary,
    /// Keeps the files.
    pub dir: Workdir,
}

impl Bundle {
    /// The variant by which a hook was attached.
    pub fn variant(&self, hook: &str) -> &str {
        let report = self.manifest.head.hooks.iter().find(|h| h.name == hook).unwrap();
        report.variant.as_deref().unwrap_or_else(|| panic!("not attached: {report:?}"))
    }

    /// The part of a connection's states that the hook's variant can see: not all see how a child begins.
    pub fn visible<'a>(&self, states: &'a [TcpState]) -> &'a [TcpState] {
        match states {
            [TcpState::Listen, rest @ ..] if ["fentry", "kprobe"].contains(&self.variant("tcp_state")) => rest,
            all => all,
        }
    }

    /// Whether UDP is watched where the kernel knows the peer of each datagram, and not by what system calls tell.
    pub fn knows_udp_peers(&self) -> bool {
        self.variant("udp") != "tp_btf"
    }

    fn open(ended: Ended, dir: Workdir) -> Self {
        let exit_code = ended.status.code().unwrap_or_else(|| panic!("ktrace died: {ended:?}"));
        assert!([COMPLETE, DEGRADED].contains(&exit_code), "{ended:?}");
        let [path] = ended.stdout.as_slice() else { panic!("stdout is not one path: {ended:?}") };
        let path = PathBuf::from(path);
        let Contents {
            events,
            sockets,
            losses,
            workloads,
            processes,
            flows,
            node,
            tracking,
            services,
            manifest,
            summary,
            report,
            ..
        } = read(&path);
        let manifest = manifest.expect("a sealed bundle has a manifest");
        let summary = summary.expect("a sealed bundle has a summary");
        assert_sound(&report, &events);
        manifest.ledger.check().unwrap();
        assert_eq!(manifest.ledger.written, events.len() as u64);
        for (hook, variant) in FORCED.get().iter().map(|forced| forced.split_once('=').unwrap()) {
            let report = manifest.head.hooks.iter().find(|h| h.name == hook).unwrap();
            assert_eq!(report.variant.as_deref(), Some(variant), "{report:?}");
        }
        assert_eq!(exit_code == COMPLETE, manifest.complete, "exit code {exit_code}, {:?}", manifest.degraded);
        let loose = only_entry(&dir.join("out"), |path| path.is_dir());
        let lines = std::fs::read(loose.join("events.jsonl")).unwrap().iter().filter(|b| **b == b'\n').count();
        assert_eq!(lines, events.len(), "lines of the loose events.jsonl");
        assert_dated(&losses, &manifest.ledger);
        Self {
            path,
            exit_code,
            events,
            sockets,
            losses,
            workloads,
            processes,
            flows,
            node,
            tracking,
            services,
            manifest,
            summary,
            dir,
        }
    }

    /// Asserts that in every namespace that the audit could see it comes to 0 or is explained.
    pub fn assert_audited(&self) {
        self.assert_audited_but(|_| 0);
    }

    /// The same, but for so much that another witness explains.
    pub fn assert_audited_but(&self, witnessed: impl Fn(&AuditEntry) -> u64) {
        let audited = self.manifest.audited.as_ref().expect("every capture is audited");
        let left: Vec<_> = self.manifest.audit.iter().filter(|e| e.unexplained() > witnessed(e)).collect();
        assert!(left.is_empty(), "the kernel and ktrace disagree: {left:#?}, {audited:?}");
        // namespaces of earlier tests live on in their last sockets; those of this one are there
        let may_be = [Unaudited::NoPermission, Unaudited::Gone];
        assert!(audited.unaudited.keys().all(|why| may_be.contains(why)), "{audited:?}");
        let counted: BTreeSet<_> = self.manifest.audit.iter().map(|e| e.netns).collect();
        let sent = self.events.iter().filter(|e| matches!(&e.payload, Payload::UdpSend(d) if d.error.is_none()));
        let named = crate::net::named();
        for netns in sent.map(|e| e.id.netns).filter(|netns| named.contains(netns)) {
            assert!(counted.contains(&netns), "no audit of {netns}: {audited:?}");
        }
    }
}

/// All that a bundle says.
#[derive(Debug)]
pub struct Contents {
    /// Events in the order of their lines.
    pub events: Vec<Event>,
    /// Socket records.
    pub sockets: Vec<SocketRecord>,
    /// When events were lost.
    pub losses: Vec<LossRecord>,
    /// What each cgroup of a pod is, by the end.
    pub workloads: Workloads,
    /// The processes behind the sockets, and those above them.
    pub processes: Vec<ProcessRecord>,
    /// What became of each flow.
    pub flows: Vec<FlowRecord>,
    /// How the node looked when the window opened and closed.
    pub node: Vec<NodeRecord>,
    /// The tables of connection tracking.
    pub tracking: TrackingReport,
    /// Who stands behind which address.
    pub services: ServicesReport,
    /// Of a sealed bundle.
    pub manifest: Option<Manifest>,
    /// Of a sealed bundle.
    pub summary: Option<Summary>,
    /// Of a crashed run.
    pub partial: Option<PartialManifest>,
    /// How the reading went.
    pub report: ReadReport,
}

/// Reads a tgz, or a directory of loose files.
pub fn read(path: &Path) -> Contents {
    let (mut events, mut sockets, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let (mut processes, mut workloads, mut node) = (Vec::new(), Workloads::default(), Vec::new());
    let (mut flows, mut tracking, mut services) = (Vec::new(), TrackingReport::default(), ServicesReport::default());
    let (mut manifest, mut summary, mut partial) = (None, None, None);
    let report = reader::read(path, &Limits::default(), &mut |record| match record {
        Record::Event(e) => events.push(e),
        Record::Loss(loss) => losses.push(loss),
        Record::Workload(workload) => workloads.add(workload),
        Record::Process(process) => processes.push(*process),
        Record::Flow(flow) => flows.push(*flow),
        Record::Node(it) => node.push(*it),
        Record::Tracking(it) => tracking = *it,
        Record::Services(it) => services = *it,
        Record::Socket(s) => sockets.push(s),
        Record::Manifest(m) => manifest = Some(*m),
        Record::Partial(p) => partial = Some(*p),
        Record::Summary(s) => summary = Some(*s),
    })
    .unwrap();
    Contents {
        events,
        sockets,
        losses,
        workloads,
        processes,
        flows,
        node,
        tracking,
        services,
        manifest,
        summary,
        partial,
        report,
    }
}

/// Asserts that `coverage.jsonl` has a date for every event that was lost, or says that it has none.
fn assert_dated(losses: &[LossRecord], ledger: &Ledger) {
    for reason in DropReason::ALL {
        let dated: u64 = losses.iter().filter_map(|loss| loss.dropped.get(&reason)).sum();
        assert_eq!(dated, ledger.dropped[&reason], "{reason:?} in coverage.jsonl and in the ledger");
    }
    assert_eq!(losses.iter().map(|loss| loss.missed).sum::<u64>(), ledger.missed);
}

/// Asserts that every line could be read, that nothing contradicts itself, and that `seq` counts the lines.
pub fn assert_sound(report: &ReadReport, events: &[Event]) {
    assert_eq!(report.cut, None);
    assert_eq!((report.bad_lines, report.unknown_keys, report.unknown_members), (0, 0, 0), "{report:?}");
    assert!(report.unknown_types.is_empty() && report.integrity.is_empty(), "{report:?}");
    assert!(events.iter().zip(1..).all(|(e, line)| e.seq == line), "`seq` is not the line number");
}
