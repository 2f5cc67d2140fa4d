//! The iterator of `tcp_wait`, run again and again on a thread of its own: what waits is looked at once a second. What it
//! finds goes through the ring like any event, so the thread itself reads nothing.
//!
//! A look goes over every file of every process. On a large machine it is made less often, so that it takes no more than one
//! percent of a CPU.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libbpf_rs::libbpf_sys;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// What a look may take of the time until the next one: one in so many.
const SHARE: u32 = 100;

/// Looks until it is finished or dropped.
pub struct Looks {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Looks {
    /// Looks once, then goes on behind the caller's back.
    ///
    /// # Errors
    /// The iterator cannot be run, or no thread be started.
    pub fn start(link: BorrowedFd<'_>) -> io::Result<Self> {
        let link = link.try_clone_to_owned()?;
        let took = look(&link)?;
        let (stop, stopped) = channel();
        let thread = thread::Builder::new().name("ktrace-looks".into()).spawn(move || run(&link, took, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Looks for the last time, so that what waited until now is told, and ends.
    ///
    /// # Errors
    /// A look failed: what waited since is not known.
    pub fn finish(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that looks at sockets ended by itself")))
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        // who does not ask does not want to know
        let _ = self.join();
    }
}

fn run(link: &OwnedFd, mut took: Duration, stopped: &Receiver<()>) -> io::Result<()> {
    loop {
        let over = stopped.recv_timeout(INTERVAL.max(took * SHARE));
        took = look(link)?;
        if over != Err(RecvTimeoutError::Timeout) {
            return Ok(());
        }
    }
}

/// Runs the iterator to its end; returns how long that took.
fn look(link: &OwnedFd) -> io::Result<Duration> {
    let begin = Instant::now();
    // SAFETY: `link` is an open link of an iterator; no options are passed.
    let fd = unsafe { libbpf_sys::bpf_iter_create(link.as_raw_fd()) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a descriptor that was just made, and that nobody else has.
    let mut iterator = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut nothing = [0; 64];
    loop {
        match iterator.read(&mut nothing) {
            Ok(0) => return Ok(begin.elapsed()),
            Ok(_) => {}
            // the kernel takes a breath after a million files
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
    }
}
