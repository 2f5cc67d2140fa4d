//! Signals → flags that the capture's loop looks at.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use procfs::process::Process;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::flag;

const CAUGHT: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD];

/// Whether the user wants the capture to end.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: Arc<AtomicUsize>,
    ignored: Vec<Signal>,
}

impl Stop {
    /// Catches SIGINT and SIGTERM from now on; the first asks for an end in order, a second ends the process at once.
    /// Each also ends a sleep, as does the end of a child.
    ///
    /// # Errors
    /// The system refuses.
    pub fn on_signals() -> io::Result<Self> {
        // a bit for each signal, from 1 on; where /proc does not say, none was
        let ignored = Process::myself().and_then(|it| it.status()).map_or(0, |status| status.sigign);
        let ignored = CAUGHT.into_iter().filter(|signal| ignored >> (*signal as i32 - 1) & 1 == 1).collect();
        let (asked, which) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))?;
            flag::register_usize(signal, Arc::clone(&which), usize::try_from(signal).unwrap_or(0))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        // an ignored SIGCHLD, which can be inherited, would lose the exit code of a command
        flag::register(SIGCHLD, Arc::new(AtomicBool::new(false)))?;
        Ok(Self { asked: which, ignored })
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
