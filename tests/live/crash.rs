//! What comes from outside and at any moment: SIGKILL, a suspended collector, a directory that goes away. What is on
//! disk can be read and says what is missing, nothing stays in the kernel, nothing panics.

use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::manifest::HookOutcome;
use nix::sys::signal::Signal;

use crate::analyze::analyze;
use crate::capture::{Capture, DEGRADED, ktrace, only_entry, read};
use crate::kernel::{held_by, wait_until_gone};
use crate::load::load;
use crate::net::Lab;
use crate::program::{Ended, Program};
use crate::wait::{DEADLINE, boot_ns, until, until_boot_ns};
use crate::workdir::Workdir;
use crate::{Test, tests};

const MS: u64 = 1_000_000;

pub fn tests() -> Vec<Test> {
    tests![
        thirty_kills_under_load_leave_readable_files_and_a_clean_kernel,
        a_suspended_collector_says_what_it_lost_and_seals,
        a_directory_that_goes_away_ends_the_capture_with_the_reason,
    ]
}

/// xorshift64*: moments that look like chance and are the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

fn assert_no_panic(ended: &Ended) {
    assert!(!ended.stderr.iter().any(|line| line.contains("panicked")), "{ended:?}");
}

fn thirty_kills_under_load_leave_readable_files_and_a_clean_kernel() {
    let lab = Lab::new();
    let mut load = load(&lab, 0);
    let mut chance = Chance(0x6b74_7261_6365);
    let (mut with_account, mut lines) = (0, 0);
    for i in 0..30 {
        // one in six dies while it starts, at a moment when there may be nothing on disk yet
        let in_window = i % 6 != 0;
        let dir = Workdir::new();
        let mut command = ktrace(env!("CARGO_BIN_EXE_ktrace"));
        command.args(["--duration", "10m", "--max-events", "1000000", "--out-dir"]).arg(dir.join("out"));
        command.arg("--ready-file").arg(dir.join("ready"));
        let program = Program::start(command);
        if in_window {
            until("the window", DEADLINE, || dir.join("ready").exists().then_some(()));
        }
        until_boot_ns(boot_ns() + chance.below(1200) * MS);
        let held = held_by(program.pid());
        program.signal(Signal::SIGKILL);
        let ended = program.wait();
        assert_no_panic(&ended);
        wait_until_gone(&held);

        let has_files = std::fs::read_dir(dir.join("out")).is_ok_and(|mut entries| entries.next().is_some());
        assert!(has_files || !in_window, "nothing on disk in repetition {i}");
        if !has_files {
            continue;
        }
        let loose = only_entry(&dir.join("out"), |path| path.is_dir());
        if !in_window && !loose.join("manifest.partial.json").exists() {
            continue;
        }
        let contents = read(&loose);
        assert_eq!((contents.manifest, contents.report.bad_lines), (None, 0), "repetition {i}");
        let partial = contents.partial.unwrap_or_else(|| panic!("no plan and hooks in repetition {i}"));
        assert_eq!(partial.head.plan["duration"].value, "10m");
        assert!(partial.head.hooks.iter().any(|h| h.name == "udp" && h.outcome == HookOutcome::Attached));
        let report = analyze(&loose);
        assert_eq!(report.exit_code, 5, "remains are no sealed bundle");
        let lossy = report.findings(&[]).into_iter().find(|f| f.rule() == "evidence.lossy").expect("a finding").title();
        match &partial.checkpoint {
            Some(checkpoint) => {
                let seen = format!("{} events seen", checkpoint.ledger.seen);
                assert!(lossy.contains("did not end properly") && lossy.contains(&seen), "{lossy}");
                with_account += 1;
            }
            None => assert!(lossy.contains("before its first account"), "{lossy}"),
        }
        lines += contents.events.len();
    }
    load.iter_mut().for_each(Program::assert_running);
    assert!(with_account >= 5 && lines > 10_000, "{with_account} accounts, {lines} lines: that was no load");
}

fn a_suspended_collector_says_what_it_lost_and_seals() {
    let lab = Lab::new();
    let mut load = load(&lab, 0);
    let capture = Capture::with(&["--duration", "120s", "--max-events", "100000000", "--ring-bytes", "1MiB"]);
    until_boot_ns(boot_ns() + 500 * MS);
    capture.signal(Signal::SIGSTOP);
    let stopped_ns = boot_ns();
    until_boot_ns(stopped_ns + 5000 * MS);
    capture.signal(Signal::SIGCONT);
    until_boot_ns(boot_ns() + 500 * MS);
    load.iter_mut().for_each(Program::assert_running);
    // sealed, whole and balanced, or this panics
    let bundle = capture.stop_under_load();
    assert_eq!(bundle.exit_code, DEGRADED);
    let ring_full = bundle.manifest.ledger.dropped.get(&DropReason::RingFull).copied().unwrap_or(0);
    assert!(ring_full > 10_000, "5 s of load were lost: {:?}", bundle.manifest.ledger);
    let said = format!("{ring_full} events were lost on the way: the ring was full");
    assert!(bundle.manifest.degraded.iter().any(|d| d.starts_with(&said)), "{:?}", bundle.manifest.degraded);
    // the window says that it was open all the time
    assert!(bundle.manifest.duration_ns > 6000 * MS, "{}", bundle.manifest.duration_ns);
    let lossy = analyze(&bundle.path);
    assert!(lossy.findings(&[]).iter().any(|f| f.rule() == "evidence.lossy"), "{}", lossy.text());
}

fn a_directory_that_goes_away_ends_the_capture_with_the_reason() {
    let dir = Workdir::new();
    let mut command = ktrace(env!("CARGO_BIN_EXE_ktrace"));
    command.args(["--duration", "10m", "--out-dir"]).arg(dir.join("out")).arg("--ready-file").arg(dir.join("ready"));
    let program = Program::start(command);
    until("the window", DEADLINE, || dir.join("ready").exists().then_some(()));
    let held = held_by(program.pid());
    let loose = only_entry(&dir.join("out"), |path| path.is_dir());
    std::fs::remove_dir_all(dir.join("out")).unwrap();
    let ended = program.wait();
    assert_no_panic(&ended);
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0), "{ended:?}");
    let said =
        format!("error: the capture stopped early: `{}` was removed, and with it what was written", loose.display());
    assert_eq!(ended.stderr.first(), Some(&said), "{ended:?}");
    wait_until_gone(&held);
}
