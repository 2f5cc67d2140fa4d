//! Lines of `events.jsonl` → records, by several threads at once and in the order of the lines.
//!
//! A batch is some thousand lines of text. While later ones are still being parsed, the records of the oldest are
//! handed on, so what comes out does not depend on how many threads there are. One batch more than there are threads is held
//! at a time: while one is handed on, the others keep all processors busy.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::thread::{self, Scope, ScopedJoinHandle};

use super::lines::{Lines, Next};
use crate::event::Event;
use crate::line::{LineError, Parsed, parse_event};

/// A batch ends with the line that makes it this long.
const BATCH_BYTES: usize = 1 << 20;
/// More threads only wait for the one that takes the records.
const MAX_THREADS: usize = 8;

/// Threads that are worth having here.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS))
}

/// A line's number, and what became of it.
pub(super) type Read = (u64, Result<Parsed<Event>, LineError>);

/// Lines with their numbers.
#[derive(Default)]
pub(super) struct Batch {
    text: Vec<u8>,
    /// Number, and where in `text` the line ends; `None` for one that is too long.
    lines: Vec<(u64, Option<usize>)>,
}

impl Batch {
    /// The next lines, and what came after the last of them, if that was no whole line.
    pub(super) fn fill<R: BufRead>(lines: &mut Lines<R>) -> (Self, Option<io::Result<Next>>) {
        let mut batch = Self::default();
        while batch.text.len() < BATCH_BYTES {
            match lines.advance() {
                Ok(Next::Whole) => {
                    batch.text.extend_from_slice(lines.text());
                    batch.lines.push((lines.whole(), Some(batch.text.len())));
                }
                Ok(Next::TooLong) => batch.lines.push((lines.whole(), None)),
                other => return (batch, Some(other)),
            }
        }
        (batch, None)
    }

    /// Each line with its number.
    pub(super) fn parse(&self) -> Vec<Read> {
        let mut from = 0;
        let parse = |(number, end): &(u64, Option<usize>)| match end {
            Some(end) => {
                let text = self.text.get(from..*end).unwrap_or_default();
                from = *end;
                (*number, parse_event(text, *number))
            }
            None => (*number, Err(LineError::TooLong)),
        };
        self.lines.iter().map(parse).collect()
    }
}

/// Batches that are being parsed, the oldest first.
pub(super) struct InFlight<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    threads: usize,
    running: VecDeque<ScopedJoinHandle<'scope, Vec<Read>>>,
}

impl<'scope, 'env> InFlight<'scope, 'env> {
    pub(super) const fn new(scope: &'scope Scope<'scope, 'env>, threads: usize) -> Self {
        Self { scope, threads, running: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Adds a batch; returns the records of the oldest once there are more than threads.
    pub(super) fn push(&mut self, batch: Batch) -> Option<Vec<Read>> {
        if self.threads < 2 {
            return Some(batch.parse());
        }
        self.running.push_back(self.scope.spawn(move || batch.parse()));
        if self.running.len() <= self.threads { None } else { self.pop() }
    }

    /// The records of the oldest batch; `None` if there is none any more.
    pub(super) fn pop(&mut self) -> Option<Vec<Read>> {
        let oldest = self.running.pop_front()?;
        Some(oldest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}
