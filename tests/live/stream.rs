//! `--stdout`: the lines of the bundle, while the capture runs, whatever their reader does.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use ktrace_bundle::manifest::{EndedBy, Manifest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::capture::{COMPLETE, assert_sound, ktrace, only_entry, read};
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::wait::{DEADLINE, until};
use crate::workdir::Workdir;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        stdout_has_the_lines_of_the_bundle_while_they_come,
        a_reader_that_leaves_ends_the_capture_in_order,
        a_reader_that_leaves_is_noticed_without_events,
        a_reader_that_does_not_read_never_stalls_the_capture,
    ]
}

/// A ktrace with `--stdout`, whose stdout is the test's.
struct Stream {
    child: Child,
    stdout: ChildStdout,
    dir: Workdir,
}

impl Stream {
    fn start(flags: &[&str]) -> Self {
        let dir = Workdir::new();
        let mut command = ktrace(env!("CARGO_BIN_EXE_ktrace"));
        command.arg("--stdout").arg("--out-dir").arg(dir.join("out")).arg("--ready-file").arg(dir.join("ready"));
        let mut child = command.args(flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("the ready file of ktrace", DEADLINE, || dir.join("ready").exists().then_some(()));
        let stdout = child.stdout.take().unwrap();
        Self { child, stdout, dir }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }
}

/// Waits for the end; returns the exit code, stderr, the manifest and the lines of `events.jsonl`.
fn end(mut child: Child, dir: &Workdir) -> (Option<i32>, Vec<String>, Manifest, Vec<String>) {
    let status = until("the end of ktrace", DEADLINE, || child.try_wait().unwrap());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let path = only_entry(&dir.join("out"), |path| path.is_file());
    let contents = read(&path);
    assert_sound(&contents.report, &contents.events);
    let manifest = contents.manifest.expect("a sealed bundle has a manifest");
    manifest.ledger.check().unwrap();
    assert!(stderr.lines().any(|line| path == Path::new(line)), "{stderr}");
    let loose = only_entry(&dir.join("out"), |path| path.is_dir());
    let lines = std::fs::read_to_string(loose.join("events.jsonl")).unwrap().lines().map(str::to_owned).collect();
    (status.code(), stderr.lines().map(str::to_owned).collect(), manifest, lines)
}

fn paced(lab: &Lab, count: u32) {
    let sender = lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count {count}"));
    assert!(Program::run(sender).status.success());
}

fn stdout_has_the_lines_of_the_bundle_while_they_come() {
    let lab = Lab::new();
    let Stream { child, stdout, dir } = Stream::start(&["--duration", "120s"]);
    paced(&lab, 20);
    // the capture has not ended, so these are live
    let mut reader = BufReader::new(stdout);
    let mut lines: Vec<String> = (0..20)
        .map(|_| {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        })
        .collect();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    lines.extend(reader.lines().map(Result::unwrap));
    let (code, stderr, manifest, expected) = end(child, &dir);
    assert_eq!((code, manifest.ended_by), (Some(COMPLETE), EndedBy::Signal), "{stderr:?}");
    assert!(
        lines == expected && lines.len() >= 20,
        "{} lines on stdout, {} in the bundle",
        lines.len(),
        expected.len()
    );
    let report = manifest.stdout.expect("an account of stdout");
    assert_eq!((report.written_count, report.omitted_count), (lines.len() as u64, 0));
}

fn a_reader_that_leaves_ends_the_capture_in_order() {
    let lab = Lab::new();
    let Stream { child, stdout, dir } = Stream::start(&["--duration", "120s"]);
    paced(&lab, 20);
    let mut first = String::new();
    BufReader::new(stdout).read_line(&mut first).unwrap();
    leaves(child, &dir);
}

fn a_reader_that_leaves_is_noticed_without_events() {
    // nothing speaks this port, so no line is ever written
    let Stream { child, stdout, dir } = Stream::start(&["--duration", "120s", "--ports", "1"]);
    drop(stdout);
    leaves(child, &dir);
}

fn leaves(child: Child, dir: &Workdir) {
    let (code, stderr, manifest, _) = end(child, dir);
    assert_eq!((code, manifest.ended_by, manifest.complete), (Some(COMPLETE), EndedBy::ClosedPipe, true), "{stderr:?}");
    assert_eq!(stderr.last().unwrap(), "note: the capture ended early: nobody reads stdout any more");
}

fn a_reader_that_does_not_read_never_stalls_the_capture() {
    let lab = Lab::new();
    let _echo = lab.server.start("--limit-s 600 udp-echo --listen 127.0.0.1:7007 --quiet");
    let stream = Stream::start(&["--duration", "60s", "--max-events", "60000"]);
    let flood = lab.server.start("udp-flood --to 127.0.0.1:7007 --duration-ms 60000");
    // three quarters of the cap are UDP: about 25 MB, of which a pipe and the buffer hold a third
    let loose = only_entry(&stream.dir.join("out"), |path| path.is_dir());
    let full = || std::fs::metadata(loose.join("events.jsonl")).unwrap().len() > 20_000_000;
    until("a bundle that the buffer cannot hold", DEADLINE, || full().then_some(()));
    drop(flood);
    stream.signal(Signal::SIGTERM);
    let Stream { child, mut stdout, dir } = stream;
    // sealed while nobody reads
    let out = dir.join("out");
    until("a sealed bundle", DEADLINE, || {
        std::fs::read_dir(&out)
            .unwrap()
            .any(|e| e.unwrap().path().extension().is_some_and(|it| it == "tgz"))
            .then_some(())
    });
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    let (code, stderr, manifest, lines) = end(child, &dir);
    let report = manifest.stdout.expect("an account of stdout");
    assert!(report.omitted_count > 0, "{report:?}");
    assert_eq!(report.written_count + report.omitted_count, manifest.ledger.written, "{stderr:?}");
    assert_eq!(text.lines().count() as u64, report.written_count);
    let of_bundle: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
    assert!(text.lines().all(|line| of_bundle.contains(line)), "a line that is not in the bundle");
    assert!(code.is_some_and(|code| [0, 4].contains(&code)), "{stderr:?}");
    let note =
        format!("{} events are not on stdout, whose reader was too slow; the bundle has them", report.omitted_count);
    assert!(manifest.notes.contains(&note), "{:?}", manifest.notes);
}
