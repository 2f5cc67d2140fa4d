//! The open window: turns of the event path, checkpoints, progress, and what ends it.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use ktrace_bundle::ledger::Ledger;
use ktrace_bundle::manifest::{Checkpoint, EndedBy};
use ktrace_bundle::writer::{Capped, WriteError};

use super::onlooker::Onlooker;
use super::sink::Sink;
use super::stop::Stop;
use super::tee::Tee;
use super::{acceptor, account, drain, tell_homes};
use crate::audit::Audit;
use crate::clock::{self, Readings};
use crate::command::Running;
use crate::kernel::session::{Rings, Session, SessionError};
use crate::plan::{Plan, PortFilter};
use crate::report::progress::{DnsCounts, Progress, Snapshot};

/// How often the rings are read when they are not filling up.
const TURN: Duration = Duration::from_millis(20);
/// How often lines are flushed and the partial manifest is rewritten. A killed run must miss no more than a second,
/// a slow turn included.
const CHECKPOINT: Duration = Duration::from_millis(500);

/// The time between opening and closing the gate.
pub struct Window<'a, 'cb> {
    /// What was asked.
    pub plan: &'a Plan,
    /// The kernel side.
    pub session: &'a mut Session,
    /// Where its records come from.
    pub rings: &'a Rings<'cb>,
    /// Where they go.
    pub sink: &'a RefCell<Sink>,
    /// Signals so far.
    pub stop: &'a Stop,
    /// Who reads along, if anybody does.
    pub onlooker: Option<&'a dyn Onlooker>,
    /// The kernel's own counters.
    pub audit: &'a mut Audit,
    /// Readings so far.
    pub clocks: &'a mut Readings,
    /// When the gate was opened.
    pub begin: Instant,
}

impl Window<'_, '_> {
    /// Reads the rings until the command, a signal, the deadline, the reader of stdout, who reads along or a failure ends the capture.
    ///
    /// # Errors
    /// If the kernel side fails.
    pub fn run(mut self, command: &mut Option<Running>) -> Result<EndedBy, SessionError> {
        let mut progress = Progress::new(self.plan);
        let mut checkpointed = self.begin;
        let mut more = false;
        let mut turn = self.begin;
        let ended_by = loop {
            self.note_turn(turn.elapsed());
            let elapsed = self.begin.elapsed();
            let signal = self.stop.asked();
            let over = match command {
                Some(command) => command.turn(signal),
                None => signal.map(|_| EndedBy::Signal),
            };
            if let Some(ended_by) = over {
                break ended_by;
            }
            let Some(left) = self.plan.duration.checked_sub(elapsed).filter(|left| !left.is_zero()) else {
                break EndedBy::Deadline;
            };
            if !more {
                self.rings.wait(TURN.min(left));
            }
            turn = Instant::now();
            more = drain(self.rings, self.sink)?;
            let known = |cookie| acceptor(self.plan, self.session, cookie);
            self.sink.borrow_mut().settle_overdue(Some(clock::boot_ns()), known);
            tell_homes(self.session, &mut self.sink.borrow_mut())?;
            self.sink.borrow_mut().turn_node();
            let capped = self.sink.borrow().refuses();
            if capped != Capped::default() {
                self.session.byte_capped(capped);
            }
            if checkpointed.elapsed() >= CHECKPOINT {
                checkpointed = Instant::now();
                self.session.take_drops(false, |record| self.sink.borrow_mut().take(record))?;
                self.checkpoint()?;
                progress.update(&self.snapshot()?);
            }
            if self.sink.borrow().tee.as_ref().is_some_and(Tee::is_closed) {
                break EndedBy::ClosedPipe;
            }
            if self.onlooker.is_some_and(Onlooker::has_enough) {
                break EndedBy::Evidence;
            }
            match &self.sink.borrow().failure {
                Some(WriteError::DiskFull { .. }) => break EndedBy::DiskFull,
                Some(_) => break EndedBy::Error,
                None => {}
            }
        };
        progress.finish();
        Ok(ended_by)
    }

    fn note_turn(&self, took: Duration) {
        let mut sink = self.sink.borrow_mut();
        sink.longest_turn = sink.longest_turn.max(took);
    }

    /// So far: what is in the rings, or waits, is in no sum yet.
    fn ledger(&self) -> Result<Ledger, SessionError> {
        let sink = self.sink.borrow();
        let missed = self.session.missed();
        let disorder = sink.writer.max_disorder_ns();
        let mut ledger = account::ledger(&self.session.counters()?, &sink.tally, &self.plan.filter, missed, disorder);
        account::leave_out_what_is_under_way(&mut ledger);
        Ok(ledger)
    }

    fn checkpoint(&mut self) -> Result<(), SessionError> {
        let session = &self.session;
        self.audit.tend(|| Ok(session.observed()?.0))?;
        let ledger = self.ledger()?;
        let now = clock::sample();
        let checkpoint =
            Checkpoint { at: clock::utc_of(self.clocks.first(), now.boot_ns), boot_ns: now.boot_ns, ledger };
        let boot_ns = now.boot_ns;
        self.clocks.take(now);
        let mut sink = self.sink.borrow_mut();
        if sink.timeline.is_due(boot_ns) {
            let missed = sink.timeline.settled(&self.session.skipped_by_hook());
            sink.note_losses(&checkpoint.ledger, &missed, boot_ns);
        }
        match sink.writer.checkpoint(checkpoint) {
            Ok(()) => Ok(()),
            Err(e) => {
                sink.failure.get_or_insert(e);
                Ok(())
            }
        }
    }

    fn snapshot(&self) -> Result<Snapshot, SessionError> {
        let ledger = self.ledger()?;
        let sink = self.sink.borrow();
        let dns = matches!(self.plan.filter, PortFilter::Dns(_)).then(|| {
            let counts = sink.dns.counts(clock::boot_ns());
            DnsCounts { sent: counts.sent, answered: counts.answered, unanswered: counts.unanswered + counts.pending }
        });
        Ok(Snapshot {
            elapsed: self.begin.elapsed(),
            total: self.plan.stated_duration(),
            written: ledger.written,
            dropped: ledger.dropped_total(),
            dns,
        })
    }
}
