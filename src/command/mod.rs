//! `ktrace -- CMD ARGS…`: the user's own command, which runs while the window is open.
//!
//! It shares ktrace's terminal, directory and environment, and gets none of its descriptors. ktrace never kills it:
//! it hands on the signals that would end the capture, waits a moment, and leaves a command alone that goes on.

mod locate;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ktrace_bundle::manifest::{CommandReport, EndedBy, MAX_ARGV_BYTES};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};

pub use locate::{NotRunnable, locate};

/// How long a command may take to end after a signal; the capture goes on so that its last traffic is in it.
pub const GRACE: Duration = Duration::from_secs(2);

/// The running command.
#[derive(Debug)]
pub struct Running {
    child: Child,
    exit_code: Option<i32>,
    signalled: Option<Instant>,
}

/// What the manifest says before the command runs.
pub fn report(argv: &[OsString]) -> CommandReport {
    let mut room = MAX_ARGV_BYTES;
    let texts: Vec<_> = argv.iter().map(|it| it.to_string_lossy().into_owned()).collect();
    let fits = texts.iter().take_while(|it| room.checked_sub(it.len()).map(|left| room = left).is_some()).count();
    let omitted = texts.len().saturating_sub(fits) as u64;
    CommandReport {
        argv: texts.into_iter().take(fits).collect(),
        omitted_count: (omitted > 0).then_some(omitted),
        pid: None,
        exit_code: None,
    }
}

impl Running {
    /// Starts `argv`, whose first word was found at `program`. With `aside` its stdout is ktrace's stderr. It ignores what
    /// ktrace was told to ignore, as it would without ktrace.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(program: &Path, argv: &[OsString], aside: bool, ignored: &[Signal]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(argv.iter().skip(1));
        if let Some(name) = argv.first() {
            command.arg0(name);
        }
        if aside {
            command.stdout(Stdio::from(std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned()?));
        }
        let ignored = ignored.to_vec();
        let ignore = move || {
            // SAFETY: no handler is set, and signal(2) may be called between fork and exec.
            ignored
                .iter()
                .try_for_each(|it| unsafe { signal(*it, SigHandler::SigIgn) }.map(drop))
                .map_err(io::Error::from)
        };
        // SAFETY: the closure allocates nothing and takes no lock.
        unsafe { command.pre_exec(ignore) };
        // exec resets caught signals, and the standard library SIGPIPE and the mask
        Ok(Self { child: command.spawn()?, exit_code: None, signalled: None })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit code, once it has ended: 128 + n if signal n ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        if self.exit_code.is_none() {
            // a child that cannot be waited for has been reaped by nobody, and still runs
            let status = self.child.try_wait().ok().flatten();
            self.exit_code = status.and_then(|it| it.code().or_else(|| it.signal().map(|signal| 128 + signal)));
        }
        self.exit_code
    }

    /// One turn of the capture's loop; `signal` is the one that ktrace was sent. Returns why the window is over.
    pub fn turn(&mut self, signal: Option<Signal>) -> Option<EndedBy> {
        if self.exit_code().is_some() {
            return Some(if signal.is_some() { EndedBy::Signal } else { EndedBy::Command });
        }
        let signal = signal?;
        let since = *self.signalled.get_or_insert_with(|| {
            if !(signal == Signal::SIGINT && from_our_terminal()) {
                self.child.id().try_into().ok().map(|pid| kill(Pid::from_raw(pid), signal));
            }
            Instant::now()
        });
        (since.elapsed() >= GRACE).then_some(EndedBy::Signal)
    }
}

/// Whether ktrace runs in the foreground of a terminal: its Ctrl-C then went to the command as well.
fn from_our_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok_and(|tty| tcgetpgrp(tty).is_ok_and(|group| group == getpgrp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(argv: &[&str]) -> Running {
        let argv: Vec<OsString> = argv.iter().map(Into::into).collect();
        Running::start(&locate(&argv[0]).unwrap(), &argv, false, &[]).unwrap()
    }

    /// The exit code, once there is one.
    fn code(mut running: Running) -> Option<i32> {
        running.child.wait().unwrap();
        running.exit_code()
    }

    #[test]
    fn the_exit_code_is_the_commands_or_128_and_its_signal() {
        assert_eq!(code(start(&["sh", "-c", "exit 7"])), Some(7));
        assert_eq!(code(start(&["sh", "-c", "kill -9 $$"])), Some(137));
    }

    #[test]
    fn a_command_sees_the_name_that_it_was_called_by() {
        assert_eq!(code(start(&["sh", "-c", "read -r line < /proc/$$/cmdline; [ \"${line%%-c*}\" = sh ]"])), Some(0));
    }

    #[test]
    fn a_signal_is_handed_on_and_the_end_is_put_down_to_it() {
        let mut running = start(&["sleep", "60"]);
        assert_eq!(running.turn(None), None);
        assert_eq!(running.turn(Some(Signal::SIGTERM)), None);
        running.child.wait().unwrap();
        assert_eq!(running.turn(Some(Signal::SIGTERM)), Some(EndedBy::Signal));
        assert_eq!(running.exit_code(), Some(143));
    }

    #[test]
    fn a_long_command_line_is_cut_at_a_whole_argument_and_the_rest_counted() {
        let argv: Vec<OsString> = ["a", &"b".repeat(MAX_ARGV_BYTES), "c"].iter().map(Into::into).collect();
        let report = report(&argv);
        assert_eq!((report.argv, report.omitted_count), (vec!["a".to_owned()], Some(2)));
    }
}
