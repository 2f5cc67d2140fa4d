//! `--stdout`: lines of events → stdout, whole and in order, on a thread of its own, so that a reader can never make the
//! capture wait. Between both stands a bounded buffer; a line that does not fit is left out and counted.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ktrace_bundle::manifest::StdoutReport;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Hint;

/// Lines that wait for the reader, bytes: about 13,000.
const BUFFER_BYTES: usize = 8 << 20;
/// Lines that wait for [`Tee::flush`] at most, bytes.
const BATCH_BYTES: usize = 1 << 18;
/// How often a stdout to which nothing is written is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a reader that takes nothing is waited for once the bundle is sealed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes handed over at a time, so that the buffer frees up as the reader reads.
const CHUNK_BYTES: usize = 1 << 13;

/// Why nothing more goes to stdout.
#[derive(Debug)]
enum Gone {
    /// Its reader has closed it.
    Closed,
    /// The system's reason.
    Failed(io::Error),
}

/// What the capture and the writing thread both know.
#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    gone: Mutex<Option<Gone>>,
}

impl Shared {
    fn gone(&self) -> std::sync::MutexGuard<'_, Option<Gone>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to stdout.
#[derive(Debug)]
pub struct Tee {
    shared: Arc<Shared>,
    /// `None` once there is nothing more to come.
    queue: Option<Sender<Vec<u8>>>,
    done: Receiver<()>,
    batch: Vec<u8>,
    report: StdoutReport,
}

/// The reader did not take the rest.
#[derive(Debug, thiserror::Error)]
#[error("the reader of stdout took nothing for {} s: {left_bytes} bytes of events were not delivered", PATIENCE.as_secs())]
pub struct Unread {
    left_bytes: usize,
}

impl Hint for Unread {
    fn hint(&self) -> Option<String> {
        Some("the bundle has all events".into())
    }
}

impl Tee {
    /// A way to this process's stdout.
    ///
    /// # Errors
    /// stdout cannot be duplicated, or no thread can be started.
    pub fn to_stdout() -> io::Result<Self> {
        Self::to(io::stdout().as_fd().try_clone_to_owned()?)
    }

    pub(super) fn to(out: OwnedFd) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (queue, lines) = channel();
        let (finished, done) = channel();
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("stdout".into()).spawn(move || {
            let gone = deliver(File::from(out), &lines, &theirs.queued_bytes).err();
            *theirs.gone() = gone;
            // nobody waits for it when the capture has failed
            let _ = finished.send(());
        })?;
        Ok(Self { shared, queue: Some(queue), done, batch: Vec::new(), report: StdoutReport::default() })
    }

    /// Takes a line with its newline; the next [`Tee::flush`] sends it on its way at the latest.
    pub fn line(&mut self, line: &[u8]) {
        let waiting = self.shared.queued_bytes.load(Ordering::Relaxed) + self.batch.len();
        if waiting + line.len() > BUFFER_BYTES {
            self.report.omitted_count += 1;
        } else {
            self.batch.extend_from_slice(line);
            self.report.written_count += 1;
        }
        // a long batch must not look like a slow reader
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Sends what was taken on its way. Never waits.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        self.shared.queued_bytes.fetch_add(batch.len(), Ordering::Relaxed);
        // once stdout is gone there is nobody to take it
        let _ = self.queue.as_ref().map(|queue| queue.send(batch));
    }

    /// Whether the reader has closed stdout.
    pub fn is_closed(&self) -> bool {
        matches!(*self.shared.gone(), Some(Gone::Closed))
    }

    /// Why stdout could not be written, if that was not its reader's wish.
    pub fn failure(&self) -> Option<String> {
        match &*self.shared.gone() {
            Some(Gone::Failed(error)) => Some(format!("events could not be written to stdout: {error}")),
            Some(Gone::Closed) | None => None,
        }
    }

    /// Lines so far.
    pub const fn report(&self) -> StdoutReport {
        self.report
    }

    /// Waits until everything is delivered, as long as the reader takes something at all.
    ///
    /// # Errors
    /// [`Unread`]: it does not.
    pub fn finish(&mut self) -> Result<(), Unread> {
        self.flush();
        self.queue = None;
        let (mut left_bytes, mut since) = (usize::MAX, Instant::now());
        while self.done.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            let now_left = self.shared.queued_bytes.load(Ordering::Relaxed);
            if now_left < left_bytes {
                (left_bytes, since) = (now_left, Instant::now());
            } else if since.elapsed() >= PATIENCE {
                return Err(Unread { left_bytes });
            }
        }
        Ok(())
    }
}

/// Writes until there is nothing more to come.
fn deliver(mut out: File, lines: &Receiver<Vec<u8>>, queued_bytes: &AtomicUsize) -> Result<(), Gone> {
    loop {
        match lines.recv_timeout(LOOK_EVERY) {
            Ok(batch) => {
                for chunk in batch.chunks(CHUNK_BYTES) {
                    out.write_all(chunk).map_err(|error| match error.kind() {
                        io::ErrorKind::BrokenPipe => Gone::Closed,
                        _ => Gone::Failed(error),
                    })?;
                    queued_bytes.fetch_sub(chunk.len(), Ordering::Relaxed);
                }
            }
            // a reader that leaves shows at the next line only, which may never come
            Err(RecvTimeoutError::Timeout) if is_closed(&out) => return Err(Gone::Closed),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn is_closed(out: &File) -> bool {
    let mut fds = [PollFd::new(out.as_fd(), PollFlags::empty())];
    let ready = poll(&mut fds, PollTimeout::ZERO).unwrap_or(0);
    ready > 0 && fds.iter().any(|fd| fd.revents().is_some_and(|it| it.contains(PollFlags::POLLERR)))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn tee() -> (Tee, io::PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        (Tee::to(writer.into()).unwrap(), reader)
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (mut tee, mut reader) = tee();
        tee.line(b"a\n");
        tee.line(b"b\n");
        tee.flush();
        tee.line(b"c\n");
        tee.finish().unwrap();
        let report = tee.report();
        drop(tee);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), report.written_count, report.omitted_count), ("a\nb\nc\n", 3, 0));
    }

    #[test]
    fn what_does_not_fit_into_the_buffer_is_left_out_as_whole_lines_and_counted() {
        let (mut tee, mut reader) = tee();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let more_than_fit = 2 * BUFFER_BYTES / line.len();
        for _ in 0..more_than_fit {
            tee.line(&line);
            tee.flush();
        }
        let report = tee.report();
        assert_eq!(report.written_count + report.omitted_count, more_than_fit as u64);
        assert!(report.omitted_count > 1000, "{report:?}");
        let read = thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).map(|_| text)
        });
        tee.finish().unwrap();
        drop(tee);
        let text = read.join().unwrap().unwrap();
        assert_eq!(text.len() as u64, report.written_count * line.len() as u64);
    }

    #[test]
    fn a_reader_that_takes_nothing_is_not_waited_for_for_ever() {
        let (mut tee, _reader) = tee();
        tee.line(&vec![b'x'; 1 << 20]);
        assert!(tee.finish().unwrap_err().left_bytes >= (1 << 20) - (1 << 16));
    }

    #[test]
    fn a_reader_that_leaves_is_noticed_with_and_without_lines() {
        for lines in [0, 1] {
            let (mut tee, reader) = tee();
            drop(reader);
            (0..lines).for_each(|_| tee.line(b"x\n"));
            tee.flush();
            tee.done.recv().unwrap();
            assert!(tee.is_closed() && tee.failure().is_none());
        }
    }
}
