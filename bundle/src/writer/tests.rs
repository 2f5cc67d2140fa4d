use std::fs;
use std::process::Command;

use super::*;
use crate::event::{Role, TcpClose};
use crate::reader::{Form, Limits, ReadReport, Record, read};
use crate::tcp::TcpState;
use crate::testing::{START_BOOT_NS, a_bundle, a_head, a_manifest, a_socket, an_event, start_at};

const WIDE: WriterCaps = WriterCaps { max_bytes: 1 << 30 };

fn a_name() -> BundleName {
    BundleName { node: "node-1".to_owned(), at: start_at() }
}

fn a_writer(out: &Path, caps: WriterCaps) -> BundleWriter {
    BundleWriter::create(out, &a_name(), a_head(), caps).unwrap()
}

fn some_events(n: u64) -> Vec<Event> {
    let close = TcpClose { tx_bytes: Some(7), error: Some(crate::event::Errno(111)), ..TcpClose::default() };
    (0..n)
        .map(|i| match i % 3 {
            0 => an_event().udp_send().at_ms(i).socket(i).build(),
            1 => an_event().udp_recv().at_ms(i).socket(i - 1).bytes(i).build(),
            _ => an_event().closed(TcpState::SynSent, close.clone()).at_ms(i).socket(i).role(Role::Client).build(),
        })
        .collect()
}

fn a_checkpoint() -> Checkpoint {
    Checkpoint { at: start_at(), boot_ns: START_BOOT_NS, ledger: crate::ledger::Ledger::default() }
}

/// A sealed bundle of these events and two sockets.
fn sealed(out: &Path, events: &mut [Event]) -> Sealed {
    let sockets = [a_socket().at_start().build(), a_socket().build()];
    let manifest = a_manifest(events);
    a_bundle(out, events, &sockets, manifest)
}

fn all(path: &Path) -> (ReadReport, Vec<Record>) {
    let mut records = Vec::new();
    let report = read(path, &Limits::default(), &mut |r| records.push(r)).unwrap();
    (report, records)
}

fn run(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(args).output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    )
}

#[test]
fn what_is_written_is_what_is_read_from_the_tgz_and_from_the_loose_files() {
    let out = tempfile::tempdir().unwrap();
    let mut events = some_events(200);
    let Sealed { tgz, dir } = sealed(out.path(), &mut events);
    assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    for path in [tgz, dir] {
        let (report, records) = all(&path);
        let read: Vec<_> =
            records.iter().filter_map(|r| if let Record::Event(e) = r { Some(e) } else { None }).collect();
        assert_eq!(read, events.iter().collect::<Vec<_>>());
        assert_eq!((report.events, report.sockets, report.cut), (200, 2, None));
        assert_eq!((report.bad_lines, report.unknown_keys, report.unknown_members), (0, 0, 0));
        assert_eq!(report.integrity, Vec::<String>::new());
        assert!(records.iter().any(|r| matches!(r, Record::Summary(_))));
        let manifest = records.iter().find_map(|r| if let Record::Manifest(m) = r { Some(m) } else { None }).unwrap();
        let members: Vec<_> = manifest.members.iter().map(|m| (m.name.as_str(), m.records)).collect();
        let expected = [
            ("events.jsonl", Some(200)),
            ("sockets.jsonl", Some(2)),
            ("coverage.jsonl", Some(0)),
            ("workloads.jsonl", Some(0)),
            ("processes.jsonl", Some(0)),
            ("flows.jsonl", Some(0)),
            ("node/network.jsonl", Some(0)),
            ("node/host.jsonl", Some(0)),
            ("conntrack.json", None),
            ("services.json", None),
            ("README.md", None),
            ("summary.json", None),
        ];
        assert_eq!(members, expected);
    }
}

#[test]
fn gzip_tar_and_python_accept_the_tgz() {
    let out = tempfile::tempdir().unwrap();
    let Sealed { tgz, dir } = sealed(out.path(), &mut some_events(500));
    let tgz = tgz.to_str().unwrap();
    assert_eq!(run("gzip", &["-t", tgz]), (true, String::new()));
    let stem = dir.file_name().unwrap().to_str().unwrap();
    let names = "events.jsonl sockets.jsonl coverage.jsonl workloads.jsonl processes.jsonl flows.jsonl node/network.jsonl node/host.jsonl conntrack.json services.json README.md summary.json manifest.json";
    let names: Vec<_> = names.split(' ').collect();
    let list: String = names.iter().map(|n| format!("{stem}/{n}\n")).collect();
    assert_eq!(run("tar", &["tzf", tgz]), (true, list));
    let elsewhere = out.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    assert_eq!(run("tar", &["xzf", tgz, "-C", elsewhere.to_str().unwrap()]), (true, String::new()));
    assert_eq!(
        run("diff", &["-r", dir.to_str().unwrap(), elsewhere.join(stem).to_str().unwrap()]),
        (true, String::new())
    );
    let script =
        "import sys,tarfile; t=tarfile.open(sys.argv[1]); print(len(t.extractfile(t.getmembers()[0]).readlines()))";
    assert_eq!(run("python3", &["-c", script, tgz]), (true, "500\n".to_owned()));
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_a_bundle() {
    use std::os::unix::fs::PermissionsExt;
    let out = tempfile::tempdir().unwrap();
    let Sealed { tgz, dir } = sealed(out.path(), &mut some_events(1));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&tgz), mode(&dir)), (0o600, 0o700));
    let in_folder = fs::read_dir(dir.join("node")).unwrap();
    for entry in fs::read_dir(&dir).unwrap().chain(in_folder) {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

#[test]
fn the_manifest_says_what_could_be_seen_before_the_first_event() {
    let out = tempfile::tempdir().unwrap();
    let writer = a_writer(out.path(), WIDE);
    let (report, records) = all(writer.dir());
    let partial = crate::manifest::PartialManifest { head: a_head(), checkpoint: None };
    assert_eq!(records, [Record::Partial(Box::new(partial))]);
    assert_eq!((report.form, report.cut), (Form::Directory, None));
}

#[test]
fn after_a_checkpoint_a_killed_run_has_its_lines_loose_and_in_the_partial_tgz() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = a_writer(out.path(), WIDE);
    let mut events = some_events(50);
    for event in &mut events[..40] {
        writer.push(event).unwrap();
    }
    writer.checkpoint(a_checkpoint()).unwrap();
    for event in &mut events[40..] {
        writer.push(event).unwrap();
    }
    let (dir, partial) = (writer.dir().to_owned(), loose::partial(&writer.loose.tgz_path()));
    // nothing of a killed process is dropped
    std::mem::forget(writer);
    let (report, records) = all(&dir);
    assert_eq!((report.events, report.cut), (40, None));
    assert!(matches!(&records[0], Record::Partial(p) if p.checkpoint == Some(a_checkpoint())));
    let (report, _) = all(&partial);
    assert_eq!(report.events, 40);
    assert_eq!(report.cut.map(|c| (c.member, c.line)), Some(("events.jsonl".to_owned(), 40)));
}

#[test]
fn two_runs_in_one_second_do_not_collide() {
    let out = tempfile::tempdir().unwrap();
    let first = sealed(out.path(), &mut some_events(1));
    let second = a_writer(out.path(), WIDE);
    let third = a_writer(out.path(), WIDE);
    assert_eq!(first.dir, out.path().join("ktrace.node-1.20260124T215754Z"));
    assert_eq!(second.dir(), out.path().join("ktrace.node-1.20260124T215754Z-2"));
    assert_eq!(third.dir(), out.path().join("ktrace.node-1.20260124T215754Z-3"));
    fs::remove_dir_all(&first.dir).unwrap();
    assert!(a_writer(out.path(), WIDE).dir().ends_with("ktrace.node-1.20260124T215754Z-4"), "its tgz is still there");
}

#[cfg(unix)]
#[test]
fn a_link_that_lies_in_wait_is_not_followed() {
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("target");
    std::os::unix::fs::symlink(&target, out.path().join("ktrace.node-1.20260124T215754Z")).unwrap();
    std::os::unix::fs::symlink(&target, out.path().join("ktrace.node-1.20260124T215754Z-2.bundle.tgz.partial"))
        .unwrap();
    let writer = a_writer(out.path(), WIDE);
    assert!(writer.dir().ends_with("ktrace.node-1.20260124T215754Z-3"));
    assert!(!target.exists());
}

#[test]
fn the_byte_cap_is_exact_and_latches() {
    let line = |event: &Event| {
        let mut out = Vec::new();
        write_event(&mut out, event);
        out.len() as u64 + 1
    };
    let mut events = some_events(9);
    for (event, seq) in events.iter_mut().zip(1..) {
        event.seq = seq;
    }
    let three: u64 = events[..3].iter().map(line).sum();
    for (max_bytes, fit) in [(three - 1, 2), (three, 3), (three + 1, 3)] {
        let out = tempfile::tempdir().unwrap();
        let mut writer = a_writer(out.path(), WriterCaps { max_bytes });
        writer.open_reserve();
        let pushed: Vec<_> = events.iter_mut().map(|e| writer.push(e).unwrap()).collect();
        assert_eq!(pushed, [vec![Pushed::Written; fit], vec![Pushed::ByteCap; 9 - fit]].concat());
        writer.checkpoint(a_checkpoint()).unwrap();
        let len = fs::metadata(writer.dir().join("events.jsonl")).unwrap().len();
        assert_eq!((writer.bytes(), writer.written()), (len, fit as u64));
        assert!(len <= max_bytes);
    }
}

#[test]
fn a_small_line_is_refused_too_once_a_larger_one_was() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = a_writer(out.path(), WriterCaps { max_bytes: 700 });
    writer.open_reserve();
    let mut large = an_event().by(&"x".repeat(200), 1).build();
    assert_eq!(writer.push(&mut large).unwrap(), Pushed::ByteCap);
    assert_eq!(writer.push(&mut an_event().unowned(crate::why::Reason::Softirq).build()).unwrap(), Pushed::ByteCap);
    assert_eq!((large.seq, writer.written()), (0, 0));
}

#[test]
fn udp_gets_what_is_left_of_the_bytes_only_when_the_reserve_is_opened() {
    let out = tempfile::tempdir().unwrap();
    let max_bytes = 40_000;
    let mut writer = a_writer(out.path(), WriterCaps { max_bytes });
    let fill = |writer: &mut BundleWriter| {
        while writer.push(&mut an_event().udp_send().build()).unwrap() == Pushed::Written {}
        writer.bytes()
    };
    let share = fill(&mut writer);
    assert!(share <= 30_000 && share > 30_000 - 2 * MAX_LINE, "{share} bytes");
    assert_eq!(writer.push(&mut an_event().connect().build()).unwrap(), Pushed::Written);
    writer.open_reserve();
    let all = fill(&mut writer);
    assert!(all <= max_bytes && all > max_bytes - MAX_LINE, "{all} bytes");
}

#[test]
fn disorder_is_how_far_time_steps_back() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = a_writer(out.path(), WIDE);
    for ms in [5, 9, 7, 8, 12, 11] {
        writer.push(&mut an_event().at_ms(ms).build()).unwrap();
    }
    assert_eq!(writer.max_disorder_ns(), 2_000_000);
    writer.push_waited(&mut an_event().at_ms(1).build()).unwrap();
    writer.push(&mut an_event().at_ms(13).build()).unwrap();
    assert_eq!(writer.max_disorder_ns(), 2_000_000, "what waited is not out of order");
}

#[test]
fn an_abandoned_bundle_is_a_readable_directory_without_a_tgz() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = a_writer(out.path(), WIDE);
    let mut events = some_events(7);
    for event in &mut events {
        writer.push(event).unwrap();
    }
    let dir = writer.abandon(a_manifest(&events)).unwrap();
    let (report, records) = all(&dir);
    assert_eq!((report.events, report.cut, report.integrity), (7, None, Vec::new()));
    assert!(matches!(records[0], Record::Manifest(_)));
    let left: Vec<_> = fs::read_dir(out.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [dir]);
}

/// A file system of 512 KiB, gone when the test is over.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    /// `None` where it cannot be mounted.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", dir.path().to_str().unwrap()];
        let mount = Command::new("mount").args(args).stderr(std::process::Stdio::null()).status();
        mount.is_ok_and(|s| s.success()).then(|| Self(dir))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &[self.0.path().to_str().unwrap()]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_readable_files_and_a_true_count() {
    let Some(disk) = SmallDisk::new() else {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    };
    let mut writer = a_writer(disk.0.path(), WIDE);
    let error = some_events(5000).iter_mut().find_map(|event| writer.push(event).err()).unwrap();
    assert!(matches!(error, WriteError::DiskFull { .. }), "{error:?}");
    assert!(matches!(writer.push(&mut some_events(1)[0]), Err(WriteError::GivenUp)));
    let (written, by_type) = (writer.written(), writer.written_by_type());
    assert!(written > 100);
    let mut manifest = a_manifest(&[]);
    for (kind, n) in &by_type {
        let of_kind = manifest.ledger.by_type.entry(*kind).or_default();
        (of_kind.seen, of_kind.written) = (*n, *n);
    }
    manifest.ledger.total_from_types();
    manifest.ledger.observed = manifest.ledger.seen;
    let dir = writer.abandon(manifest).unwrap();
    let text = fs::read(dir.join("events.jsonl")).unwrap();
    assert_eq!(text.iter().filter(|b| **b == b'\n').count() as u64, written);
    let (report, _) = all(&dir);
    assert_eq!((report.events, report.cut, report.bad_lines, report.integrity), (written, None, 0, Vec::new()));
}
