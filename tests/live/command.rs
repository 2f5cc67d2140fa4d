//! `ktrace -- CMD ARGS…`: the command's traffic from the first packet on, its exit code, its signals, its terminal.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ktrace_bundle::event::{Event, Payload};
use ktrace_bundle::manifest::{CommandReport, EndedBy, Manifest};
use ktrace_bundle::tcp::TcpState;
use ktrace_traffic::Truth;
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

use crate::capture::{assert_sound, ktrace, only_entry, read};
use crate::net::{Lab, SERVER4};
use crate::program::{Ended, Program, mortal};
use crate::workdir::Workdir;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        every_connection_of_a_command_is_in_its_bundle,
        the_exit_code_of_a_command_is_told_and_ktrace_has_its_own,
        a_command_inherits_no_descriptor_and_no_signal_setting,
        sigterm_is_handed_on_and_its_end_is_captured,
        sigint_is_handed_on_and_its_end_is_captured,
        a_command_that_ignores_the_signal_is_left_alone,
        a_duration_ends_the_capture_and_not_the_command,
        a_command_that_cannot_start_leaves_a_sealed_bundle_that_says_so,
    ]
}

/// What came of a capture with a command.
struct Outcome {
    ended: Ended,
    events: Vec<Event>,
    manifest: Manifest,
    _dir: Workdir,
}

impl Outcome {
    fn command(&self) -> &CommandReport {
        self.manifest.head.command.as_ref().expect("a command in the manifest")
    }
}

/// A ktrace that runs `command`.
struct Run {
    program: Program,
    dir: Workdir,
}

impl Run {
    fn start(flags: &[&str], command: impl IntoIterator<Item = std::ffi::OsString>) -> Self {
        let dir = Workdir::new();
        // out of the terminal's foreground, whose Ctrl-C would be the command's as well
        let mut line = ktrace("setsid");
        line.arg(env!("CARGO_BIN_EXE_ktrace")).arg("--out-dir").arg(dir.join("out"));
        line.arg("--ready-file").arg(dir.join("ready")).args(flags).arg("--").args(command);
        Self { program: Program::start(line), dir }
    }

    fn words(flags: &[&str], command: &[&str]) -> Self {
        Self::start(flags, command.iter().map(Into::into))
    }

    fn wait(self) -> Outcome {
        let Self { program, dir } = self;
        let ended = program.wait();
        let path = only_entry(&dir.join("out"), |path| path.extension().is_some_and(|it| it == "tgz"));
        let contents = read(&path);
        assert_sound(&contents.report, &contents.events);
        let manifest = contents.manifest.expect("a sealed bundle has a manifest");
        manifest.ledger.check().unwrap();
        let notes = manifest.notes.len() + manifest.degraded.len();
        let line = ended.stderr.iter().rev().nth(notes).expect("a path on stderr");
        assert_eq!(PathBuf::from(line), path, "the last line before the reasons: {ended:?}");
        Outcome { ended, events: contents.events, manifest, _dir: dir }
    }
}

fn every_connection_of_a_command_is_in_its_bundle() {
    let lab = Lab::new();
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080"));
    server.ready();
    let client = lab.client.traffic(&format!("tcp-client --to {SERVER4}:8080 --count 20"));
    let words = std::iter::once(client.get_program()).chain(client.get_args());
    let outcome = Run::start(&[], words.map(Into::into)).wait();

    assert_eq!(outcome.ended.status.code(), Some(0), "{:?}", outcome.ended);
    assert_eq!((outcome.manifest.ended_by, outcome.command().exit_code), (EndedBy::Command, Some(0)));
    let told = outcome.ended.stdout.iter().map(|line| Truth::parse(line).unwrap());
    let conns: Vec<_> = told.filter_map(|t| if let Truth::Conn(conn) = t { Some(conn) } else { None }).collect();
    assert_eq!(conns.len(), 20);
    let established: BTreeSet<_> = outcome
        .events
        .iter()
        .filter(|e| matches!(&e.payload, Payload::TcpState(c) if (c.old, c.new) == (TcpState::SynSent, TcpState::Established)))
        .filter_map(|e| Some((e.id.netns, e.id.local.port?, e.id.owner.value()?.pid)))
        .collect();
    let netns = lab.client.inode();
    let expected: BTreeSet<_> = conns.iter().map(|c| (netns, c.local.port(), c.pid)).collect();
    assert!(established.is_superset(&expected), "{expected:?} in {established:?}");
    assert_eq!(outcome.command().pid, conns.first().map(|c| c.pid));
}

fn the_exit_code_of_a_command_is_told_and_ktrace_has_its_own() {
    for (script, code) in [("exit 7", 7), ("kill -9 $$", 137)] {
        let outcome = Run::words(&["--quiet"], &["sh", "-c", script]).wait();
        assert_eq!(outcome.ended.status.code(), Some(0), "{:?}", outcome.ended);
        let report = outcome.command();
        assert_eq!((report.exit_code, report.argv.join(" ")), (Some(code), format!("sh -c {script}")));
        assert_eq!((outcome.manifest.ended_by, outcome.manifest.complete), (EndedBy::Command, true));
        assert_eq!((outcome.ended.stdout.len(), outcome.ended.stderr.len()), (0, 1), "{:?}", outcome.ended);
    }
}

fn a_command_inherits_no_descriptor_and_no_signal_setting() {
    is_as_if_alone();
    // as below `nohup` or a shell's `&`
    // SAFETY: no handler is set, and what was set before is set again.
    let before = unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }.unwrap();
    is_as_if_alone();
    // SAFETY: as above.
    unsafe { signal(Signal::SIGINT, before) }.unwrap();
}

/// Signals 32 and 33 are glibc's: posix_spawn(3) has a program ignore them, and its first thread takes the second one back.
fn without_the_libcs_own(lines: Vec<String>) -> Vec<String> {
    let of = |line: String| match line.split_once(":\t") {
        Some((name, mask)) => format!("{name} {:x}", u64::from_str_radix(mask, 16).unwrap() & !(0b11 << 31)),
        None => line,
    };
    lines.into_iter().map(of).collect()
}

fn is_as_if_alone() {
    let script = "ls /proc/$$/fd; grep -E '^Sig(Blk|Ign|Cgt):' /proc/self/status";
    let inside = without_the_libcs_own(Run::words(&[], &["sh", "-c", script]).wait().ended.stdout);
    let mut alone = mortal("setsid");
    alone.args(["sh", "-c", script]);
    let alone = without_the_libcs_own(Program::run(alone).stdout);
    assert_eq!(inside, alone);
    assert!(["0", "1", "2"].iter().all(|fd| inside.iter().any(|line| line == fd)), "{inside:?}");
}

fn sigterm_is_handed_on_and_its_end_is_captured() {
    handed_on(Signal::SIGTERM, 143);
}

fn sigint_is_handed_on_and_its_end_is_captured() {
    handed_on(Signal::SIGINT, 130);
}

fn handed_on(signal: Signal, code: i32) {
    let run = Run::words(&[], &["sh", "-c", "echo started; exec sleep 60"]);
    run.program.wait_for_lines(1);
    run.program.signal(signal);
    let outcome = run.wait();
    assert_eq!(outcome.ended.status.code(), Some(0), "{:?}", outcome.ended);
    assert_eq!((outcome.manifest.ended_by, outcome.command().exit_code), (EndedBy::Signal, Some(code)));
    let reason = "note: the capture ended early: ktrace was sent a signal";
    assert_eq!(outcome.ended.stderr.last().unwrap(), reason);
}

/// Asserts that the command goes on, and ends it.
fn goes_on(outcome: &Outcome) {
    let report = outcome.command();
    let pid = report.pid.unwrap();
    assert_eq!(report.exit_code, None);
    let note = format!("the command still runs as process {pid}");
    assert!(outcome.manifest.notes.contains(&note), "{:?}", outcome.manifest.notes);
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
}

fn a_command_that_ignores_the_signal_is_left_alone() {
    let script = "trap '' TERM; echo started; exec sleep 60 >/dev/null 2>&1";
    let run = Run::words(&[], &["sh", "-c", script]);
    run.program.wait_for_lines(1);
    run.program.signal(Signal::SIGTERM);
    let outcome = run.wait();
    assert_eq!((outcome.ended.status.code(), outcome.manifest.ended_by), (Some(0), EndedBy::Signal));
    goes_on(&outcome);
}

fn a_duration_ends_the_capture_and_not_the_command() {
    let outcome = Run::words(&["--duration", "300ms"], &["sh", "-c", "exec sleep 60 >/dev/null 2>&1"]).wait();
    assert_eq!((outcome.ended.status.code(), outcome.manifest.ended_by), (Some(0), EndedBy::Deadline));
    goes_on(&outcome);
}

fn a_command_that_cannot_start_leaves_a_sealed_bundle_that_says_so() {
    let dir = Workdir::new();
    let script = dir.join("script");
    std::fs::write(&script, "#!/nonexistent/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let outcome = Run::start(&[], [script.clone().into_os_string()]).wait();
    assert_eq!((outcome.ended.status.code(), outcome.manifest.ended_by), (Some(1), EndedBy::Error));
    let reason = format!("`{}` could not be started: No such file or directory (os error 2)", script.display());
    assert_eq!(outcome.manifest.degraded, std::slice::from_ref(&reason));
    assert_eq!(outcome.ended.stderr.last().unwrap(), &format!("degraded: {reason}"));
    assert_eq!((outcome.command().pid, outcome.command().exit_code), (None, None));
}
