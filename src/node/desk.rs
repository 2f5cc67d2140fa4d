//! A thread that looks when it is told to, beside the event path, and hands on what it finds as it finds it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ktrace_bundle::event::When;
use ktrace_bundle::manifest::ClockSample;

use super::limit::Limit;
use super::out::{Counts, Line, Out};
use super::seen::Seen;
use crate::memory;

/// Pieces that wait to be taken, some 0.2 MiB. Beyond that the thread waits.
const MOST_PIECES: usize = 12;
/// After its time is over, so long it may take to notice.
const GRACE: Duration = Duration::from_millis(30);

/// What to look at.
pub struct Order {
    /// Which look.
    pub when: When,
    /// Where there is something to look at.
    pub seen: Seen,
    /// The reading of the clocks that dates everything.
    pub first: ClockSample,
    /// When it has to be done.
    pub limit: Limit,
}

/// What the thread says.
pub enum Message {
    /// Some lines.
    Lines(Vec<Line>),
    /// The look is over.
    Done(Vec<Part>),
}

/// How one source did in a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name in the manifest.
    pub source: &'static str,
    /// Its lines.
    pub counts: Counts,
    /// How long it took.
    pub took: Duration,
}

/// The thread, as the capture sees it.
pub struct Desk {
    orders: SyncSender<Order>,
    messages: Receiver<Message>,
    /// Looks that are under way, the oldest first.
    limits: Vec<Limit>,
}

impl Desk {
    /// Starts the thread; `look` says how its sources did. `None`: it cannot be started.
    pub fn start<L>(name: &str, begin: impl FnOnce() -> L + Send + 'static) -> Option<Self>
    where
        L: FnMut(&Order, &mut Out) -> Vec<Part>,
    {
        let (orders, inbox) = sync_channel::<Order>(2);
        let (outbox, messages) = sync_channel(MOST_PIECES);
        let work = move || {
            let mut look = begin();
            for order in inbox {
                let mut out = Out::new(outbox.clone(), order.when, order.first.clone(), order.limit.clone());
                let parts = look(&order, &mut out);
                out.flush();
                memory::give_back();
                // nobody listens any more if the capture has given up
                if outbox.send(Message::Done(parts)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name(name.into()).spawn(work).ok()?;
        Some(Self { orders, messages, limits: Vec::new() })
    }

    /// Begins a look.
    pub fn order(&mut self, when: When, seen: Seen, first: ClockSample, longest: Duration) {
        let limit = Limit::after(longest);
        if self.orders.try_send(Order { when, seen, first, limit: limit.clone() }).is_ok() {
            self.limits.push(limit);
        }
    }

    /// Ends what is under way soon, with what there is.
    pub fn hurry(&self, longest: Duration) {
        self.limits.iter().for_each(|limit| limit.hurry(longest));
    }

    /// What it has said, without waiting; at most so many messages.
    pub fn take(&mut self, most: usize, take: &mut dyn FnMut(Message)) {
        for message in self.messages.try_iter().take(most) {
            if matches!(message, Message::Done(_)) && !self.limits.is_empty() {
                self.limits.remove(0);
            }
            take(message);
        }
    }

    /// Waits for the looks that are under way, not longer than this; returns whether they are over.
    pub fn wait(&mut self, longest: Duration, take: &mut dyn FnMut(Message)) -> bool {
        let until = Instant::now() + longest;
        while !self.limits.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) => {
                    if matches!(message, Message::Done(_)) {
                        self.limits.remove(0);
                    }
                    take(message);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }

    /// Lets it end what is under way within this time, and takes its last words; returns whether it did.
    pub fn finish(&mut self, longest: Duration, take: &mut dyn FnMut(Message)) -> bool {
        self.hurry(longest);
        self.wait(longest + GRACE, take)
    }
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::node::{Clock, Item};

    use super::*;
    use crate::clock;

    fn begin() -> impl FnMut(&Order, &mut Out) -> Vec<Part> {
        |order, out| {
            while order.when == When::End && !out.is_late() {
                std::thread::yield_now();
            }
            (0..1000).for_each(|_| out.put(Item::Clock(Clock::default())));
            vec![Part { source: "x", counts: out.counts.clone(), took: Duration::ZERO }]
        }
    }

    #[test]
    fn a_look_is_handed_on_in_pieces_and_one_that_would_take_too_long_is_hurried() {
        let mut desk = Desk::start("desk", begin).unwrap();
        let (mut lines, mut done) = (0, Vec::new());
        let mut take = |message| match message {
            Message::Lines(some) => lines += some.len(),
            Message::Done(parts) => done.extend(parts),
        };
        desk.order(When::Start, Seen::default(), clock::sample(), Duration::from_secs(60));
        assert!(desk.wait(Duration::from_secs(60), &mut take));
        desk.order(When::End, Seen::default(), clock::sample(), Duration::from_secs(60));
        assert!(!desk.wait(Duration::from_millis(1), &mut take));
        assert!(desk.finish(Duration::from_millis(10), &mut take) || desk.wait(Duration::from_secs(60), &mut take));
        assert_eq!((lines, done.len(), done[1].counts.found), (2000, 2, 1000));
    }
}
