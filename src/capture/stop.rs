//! Signals → flags that the capture's loop looks at.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use procfs::process::Process;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

const CAUGHT: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD];

/// Whether the user wants the capture to end.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: Arc<AtomicUsize>,
    heeded: Vec<i32>,
    ignored: Vec<Signal>,
}

impl Stop {
    /// Catches SIGINT and SIGTERM from now on; the first asks for an end in order, a second ends the process at once.
    /// Each also ends a sleep, as does the end of a child.
    ///
    /// # Errors
    /// The system refuses.
    pub fn on_signals() -> io::Result<Self> {
        Self::on(&[SIGINT, SIGTERM], |signal, asked| {
            flag::register_conditional_shutdown(signal, 1, Arc::clone(asked)).map(drop)
        })
    }

    /// The same, also on SIGHUP unless that is ignored, and without ending the process: whoever calls this sees to the second
    /// signal.
    ///
    /// # Errors
    /// The system refuses.
    pub fn in_order() -> io::Result<Self> {
        Self::on(&[SIGINT, SIGTERM, SIGHUP], |_, _| Ok(()))
    }

    fn on(signals: &[i32], first: impl Fn(i32, &Arc<AtomicBool>) -> io::Result<()>) -> io::Result<Self> {
        // a bit for each signal, from 1 on; where /proc does not say, none was
        let ignored = Process::myself().and_then(|it| it.status()).map_or(0, |status| status.sigign);
        let is_ignored = |signal: i32| ignored >> (signal - 1) & 1 == 1;
        let (asked, which) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let is_heeded = |signal: &i32| *signal != SIGHUP || !is_ignored(SIGHUP);
        let heeded: Vec<_> = signals.iter().copied().filter(is_heeded).collect();
        for signal in heeded.iter().copied() {
            first(signal, &asked)?;
            flag::register_usize(signal, Arc::clone(&which), usize::try_from(signal).unwrap_or(0))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        // an ignored SIGCHLD, which can be inherited, would lose the exit code of a command
        flag::register(SIGCHLD, Arc::new(AtomicBool::new(false)))?;
        let ignored = CAUGHT.into_iter().filter(|signal| is_ignored(*signal as i32)).collect();
        Ok(Self { asked: which, heeded, ignored })
    }

    /// Signals that ask for an end.
    pub fn heeded(&self) -> &[i32] {
        &self.heeded
    }

    /// Signals that are caught now and were ignored when ktrace was started, as `nohup` and a shell's `&` do.
    pub fn ignored_before(&self) -> &[Signal] {
        &self.ignored
    }

    /// The signal that asked for an end, if one did.
    pub fn asked(&self) -> Option<Signal> {
        i32::try_from(self.asked.load(Ordering::Relaxed)).ok().and_then(|number| Signal::try_from(number).ok())
    }
}
