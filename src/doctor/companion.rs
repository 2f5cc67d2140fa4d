//! The process beside the capture of `ktrace doctor` that analyzes the growing bundle again and again.
//!
//! A process of its own, so that neither its memory nor a lock of the allocator nor a fault in it is the capture's: it takes a
//! fifth of one processor at a lower priority, is the first that a machine short of memory kills, and dies with the capture.
//! Its exit code is its only word: 0, there is [`Enough`]. Without it the capture lasts as long as it was asked to.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ktrace_analyzer::kb::Kb;
use ktrace_analyzer::report::Report;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::getppid;

use super::enough::{BETWEEN_LOOKS, Claim, EARLIEST, Enough, claims};
use crate::capture::Onlooker;
use crate::cli::LookArgs;
use crate::error::Exit;

/// Of a capture with longer events (some 200,000) no look is taken: it would last for seconds.
const MAX_BYTES: u64 = 160 << 20;
/// It rests so many times as long as a look kept a processor busy.
const REST: u32 = 4;
/// Behind the capture, and yet not so far that it never runs where the machine is short of CPU: that is when it is needed.
const NICENESS: libc::c_int = 5;

/// The capture's side of it.
#[derive(Debug, Default)]
pub struct Companion(RefCell<Option<Child>>);

impl Onlooker for Companion {
    fn begin(&self, dir: &Path) {
        let mut command = Command::new("/proc/self/exe");
        command.arg("look").arg(dir).arg(std::process::id().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        *self.0.borrow_mut() = command.spawn().ok();
    }

    fn has_enough(&self) -> bool {
        let mut child = self.0.borrow_mut();
        match child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) | None => false,
            Some(ended) => {
                *child = None;
                ended.is_ok_and(|status| status.is_some_and(|it| it.success()))
            }
        }
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        if let Some(child) = self.0.get_mut() {
            // both fail only when it has ended already
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The companion itself: looks until there is enough (exit code 0), or until there is too much to look at.
pub fn run(args: &LookArgs) -> Exit {
    let begin = Instant::now();
    be_modest();
    let dies_with_parent = prctl::set_pdeathsig(Signal::SIGKILL).is_ok();
    if !dies_with_parent || getppid().as_raw() != args.parent {
        return Exit::Error;
    }
    let Ok(kb) = Kb::new() else { return Exit::Error };
    let mut enough = Enough::default();
    // so that the second look may be the last
    let mut rest = EARLIEST.saturating_sub(BETWEEN_LOOKS);
    loop {
        sleep(rest);
        let (look, before) = (Instant::now(), busy());
        let Ok(claims) = claims_of(&args.dir, &kb) else { return Exit::Error };
        if enough.is_it(look.duration_since(begin), claims) {
            return Exit::Complete;
        }
        rest = BETWEEN_LOOKS.max(busy().saturating_sub(before) * REST);
    }
}

/// Time of processors that this process took so far; waiting for one is none of it. Where nobody tells, none.
fn busy() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// What the bundle says as far as it has been written.
fn claims_of(dir: &Path, kb: &Kb) -> io::Result<Vec<Claim>> {
    if std::fs::metadata(dir.join("events.jsonl"))?.len() > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    judged(dir, kb).map_err(|error| io::Error::other(error.to_string()))
}

fn judged(dir: &Path, kb: &Kb) -> Result<Vec<Claim>, ktrace_analyzer::error::Error> {
    let (capture, _) = ktrace_analyzer::cli::load(dir, kb)?;
    Ok(claims(&Report::new(&capture, kb, "")?.findings, kb))
}

/// Whether this fails is nobody's loss but its own.
fn be_modest() {
    // SAFETY: it takes numbers only, and changes this process alone.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::ledger::Ledger;
    use ktrace_bundle::manifest::Checkpoint;
    use ktrace_bundle::testing::{START_BOOT_NS, a_head, an_event, start_at};
    use ktrace_bundle::writer::{BundleName, BundleWriter, WriterCaps};

    use super::*;

    #[test]
    fn a_bundle_is_judged_as_far_as_it_has_been_written() {
        let dir = tempfile::tempdir().unwrap();
        let name = BundleName { node: "n".into(), at: start_at() };
        let mut writer = BundleWriter::create(dir.path(), &name, a_head(), WriterCaps { max_bytes: 1 << 20 }).unwrap();
        let kb = Kb::new().unwrap();
        let claimed = |writer: &BundleWriter| claims_of(writer.dir(), &kb).unwrap().len();
        assert_eq!(claimed(&writer), 0);
        for (n, ms) in (1..).zip((0..8_000).step_by(2_000)) {
            writer.push(&mut an_event().udp_send().to("10.0.0.9:53").seq(n).at_ms(ms).build()).unwrap();
        }
        let boot_ns = START_BOOT_NS + 8_000_000_000;
        writer.checkpoint(Checkpoint { at: start_at(), boot_ns, ledger: Ledger::default() }).unwrap();
        assert_eq!(claimed(&writer), 1);
    }

    #[test]
    fn what_is_not_there_is_no_reason_to_end() {
        assert!(claims_of(Path::new("/proc/self/nothing"), &Kb::new().unwrap()).is_err());
    }
}
