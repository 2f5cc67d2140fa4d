//! What a capture leaves behind and how it ends: the tgz alone, a degraded capture that counts as done, a volume of
//! which only a share is taken.

use std::path::Path;

use ktrace_bundle::event::bulk_share;
use ktrace_bundle::line::MAX_LINE_BYTES;
use ktrace_bundle::manifest::Manifest;

use crate::capture::{COMPLETE, DEGRADED, ktrace, only_entry, read};
use crate::limits::with_mounts;
use crate::net::{Lab, SERVER4};
use crate::program::{Ended, Program};
use crate::wait::{DEADLINE, until};
use crate::workdir::Workdir;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        without_loose_files_only_the_tgz_stays,
        a_degraded_capture_is_a_success_where_that_is_ok,
        the_default_share_of_a_volume_bounds_the_events_and_degrades,
        a_share_that_the_user_chose_counts_as_asked,
    ]
}

fn run(dir: &Workdir, flags: &[&str]) -> Ended {
    let mut command = ktrace(env!("CARGO_BIN_EXE_ktrace"));
    command.args(["--duration", "200ms", "--out-dir"]).arg(dir.join("out")).args(flags);
    Program::run(command)
}

fn manifest(path: &Path) -> Manifest {
    let contents = read(path);
    assert!(contents.report.integrity.is_empty() && contents.report.cut.is_none(), "{:?}", contents.report);
    contents.manifest.expect("a sealed bundle has a manifest")
}

fn without_loose_files_only_the_tgz_stays() {
    let dir = Workdir::new();
    let ended = run(&dir, &["--no-loose"]);
    assert_eq!(ended.status.code(), Some(COMPLETE), "{ended:?}");
    let path = only_entry(&dir.join("out"), |_| true);
    assert_eq!(ended.stdout, [path.display().to_string()]);
    assert!(manifest(&path).complete);
}

/// Size of the volume of the next two tests, bytes.
const VOLUME: u64 = 4 << 20;

/// Captures a flood of UDP onto a volume of its own with these flags; returns what ktrace said and the manifest, after
/// asserting that `events.jsonl` reached `bound` bytes as far as UDP may, and no further.
fn fill(flags: &str, bound: u64) -> (Ended, Manifest) {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let root = dir.join("share");
    let script = format!(
        "mkdir \"$0\" \"$0\"/disk && mount -t tmpfs -o size={VOLUME} none \"$0\"/disk && \
         \"$1\" --duration 3s --out-dir \"$0\"/disk --ready-file \"$0\"/ready {flags}; \
         code=$?; cp -r \"$0\"/disk \"$0\"/copy; exit $code"
    );
    let capture = Program::start(with_mounts(&script, &root));
    until("the window", DEADLINE, || root.join("ready").exists().then_some(()));
    let sender = lab.client.traffic(&format!("udp-flood --to {SERVER4}:7007 --duration-ms 1000 --pause-us 1000"));
    assert!(Program::run(sender).status.success());
    let ended = capture.wait();
    let loose = only_entry(&root.join("copy"), Path::is_dir);
    let bytes = std::fs::metadata(loose.join("events.jsonl")).unwrap().len();
    assert!(bytes <= bound, "{bytes} bytes, more than {bound}");
    assert!(bytes + MAX_LINE_BYTES as u64 > bulk_share(bound), "{bytes} bytes do not reach the bound of {bound}");
    let manifest = manifest(&loose);
    manifest.ledger.check().unwrap();
    let told = manifest.head.byte_bound.clone().expect("a bound");
    assert_eq!((told.bytes, told.by.as_str(), told.volume_bytes), (bound, "max-disk-share", Some(VOLUME)));
    (ended, manifest)
}

fn the_default_share_of_a_volume_bounds_the_events_and_degrades() {
    degrades("", DEGRADED);
}

fn a_degraded_capture_is_a_success_where_that_is_ok() {
    degrades("--degraded-ok", COMPLETE);
}

fn degrades(flags: &str, exit_code: i32) {
    let bound = VOLUME * 30 / 100;
    let (ended, manifest) = fill(flags, bound);
    assert_eq!((ended.status.code(), manifest.complete), (Some(exit_code), false), "{ended:?}");
    let reason = ended.stderr.last().unwrap();
    assert!(
        reason.contains(" events were counted only: `--max-disk-share` was reached, 30% of the volume"),
        "{reason}"
    );
    assert!(reason.ends_with(&format!("({bound} bytes), which is the default")), "{reason}");
    assert_eq!(reason, &format!("degraded: {}", manifest.degraded.last().unwrap()));
}

fn a_share_that_the_user_chose_counts_as_asked() {
    let (ended, manifest) = fill("--max-disk-share 10%", VOLUME / 10);
    assert_eq!((ended.status.code(), manifest.complete), (Some(COMPLETE), true), "{ended:?}");
    let reason = ended.stderr.last().unwrap();
    assert!(reason.starts_with("note: ") && reason.contains("10% of the volume"), "{reason}");
    assert_eq!(reason, &format!("note: {}", manifest.notes.last().unwrap()));
}
