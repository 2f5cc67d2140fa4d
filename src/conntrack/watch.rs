//! The thread that asks connection tracking, beside the event path: it takes questions about flows, listens to what the kernel
//! tells by itself, and answers when it can. Nobody waits for it while events come in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use ktrace_bundle::tracking::TrackingReport;
use ktrace_bundle::why::Reason;

use super::ask::{Answer, Ask, Ends, nat};
use super::entry::{Entry, Tuple};
use super::seen::Backends;
use super::table::Stranded;
use super::tables::Tables;

/// Batches of questions that wait; one comes with each turn of the event path.
const MOST_BATCHES: usize = 64;
/// Questions in a batch.
pub const MOST_ASKED: usize = 1024;
/// Between two looks at what the kernel tells by itself.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at the counters, and two readings of a whole table for what cannot be looked up.
const OFTEN: Duration = Duration::from_secs(1);
/// Questions that wait for such a reading.
const MOST_WAITING: usize = 1 << 14;

/// What the thread says when it ends.
#[derive(Debug, Default)]
pub struct Last {
    /// For `conntrack.json`.
    pub report: TrackingReport,
    /// Who stands behind which address.
    pub backends: Backends,
    /// Services and backends that found no room.
    pub omitted: u64,
    /// The slowest reading of a whole table.
    pub slowest: Duration,
    /// Questions that were answered by an entry.
    pub found: u64,
}

enum Message {
    Asks(Vec<Ask>),
    /// Answer what waits, and end.
    Finish,
}

/// The thread as the event path sees it.
pub struct Watch {
    messages: SyncSender<Message>,
    answers: Receiver<Answer>,
    listening: Receiver<()>,
    last: Receiver<Last>,
}

impl Watch {
    /// Starts the thread; returns at once. `None`: it cannot be started.
    pub fn start() -> Option<Self> {
        let (messages, inbox) = mpsc::sync_channel(MOST_BATCHES);
        let (outbox, answers) = mpsc::channel();
        let (farewell, last) = mpsc::channel();
        let (herald, listening) = mpsc::channel();
        let work = move || {
            let ended = Worker::open(outbox).and_then(|worker| {
                let _ = herald.send(());
                worker.run(&inbox)
            });
            // nobody listens any more if the capture has given up
            let _ = farewell.send(ended.unwrap_or_default());
        };
        thread::Builder::new().name("conntrack".into()).spawn(work).ok()?;
        Some(Self { messages, answers, listening, last })
    }

    /// Waits until it listens to the node's tables, or has given up; not longer than this.
    pub fn wait_until_listening(&self, longest: Duration) {
        // what it has not read by then it will say itself
        let _ = self.listening.recv_timeout(longest);
    }

    /// Asks; gives the questions back if too many wait.
    pub fn ask(&self, asks: Vec<Ask>) -> Option<Vec<Ask>> {
        match self.messages.try_send(Message::Asks(asks)) {
            Err(TrySendError::Full(Message::Asks(asks)) | TrySendError::Disconnected(Message::Asks(asks))) => {
                Some(asks)
            }
            _ => None,
        }
    }

    /// What was answered meanwhile.
    pub fn answers(&self) -> impl Iterator<Item = Answer> {
        self.answers.try_iter()
    }

    /// Lets it answer what waits, and takes its last words; not longer than this. `None`: it did not end in time.
    pub fn finish(&self, asks: Vec<Ask>, longest: Duration) -> Option<(Vec<Answer>, Last)> {
        let until = Instant::now() + longest;
        let mut messages: Vec<_> = asks.chunks(MOST_ASKED).map(|chunk| Message::Asks(chunk.to_vec())).collect();
        messages.push(Message::Finish);
        for mut message in messages {
            while let Err(TrySendError::Full(back)) = self.messages.try_send(message) {
                message = back;
                if Instant::now() >= until {
                    return None;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        let last = self.last.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
        Some((self.answers().collect(), last))
    }
}

struct Worker {
    tables: Tables,
    answers: Sender<Answer>,
    /// Questions that only a reading of the whole table can answer.
    waiting: Vec<(Ask, Ends)>,
    ticked: Instant,
    slowest: Duration,
    found: u64,
}

impl Worker {
    fn open(answers: Sender<Answer>) -> Result<Self, Stranded> {
        let mut tables = Tables::open()?;
        let begin = Instant::now();
        tables.each().for_each(|table| {
            table.scan(|seen, entry| seen.stands(entry));
        });
        let (waiting, ticked) = (Vec::new(), Instant::now());
        Ok(Self { tables, answers, waiting, ticked, slowest: begin.elapsed(), found: 0 })
    }

    fn run(mut self, inbox: &Receiver<Message>) -> Result<Last, Stranded> {
        loop {
            let message = inbox.recv_timeout(PAUSE);
            // first what may answer questions about flows that are over
            self.tables.each().for_each(|table| while table.listen() {});
            match message {
                Ok(Message::Asks(asks)) => asks.into_iter().try_for_each(|ask| self.take(ask))?,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.ticked.elapsed() >= OFTEN {
                self.ticked = Instant::now();
                self.tables.each().for_each(|table| {
                    table.counters();
                });
                self.read_tables();
            }
        }
        self.read_tables();
        let (report, backends, omitted) = self.tables.finish();
        Ok(Last { report, backends, omitted, slowest: self.slowest, found: self.found })
    }

    fn take(&mut self, ask: Ask) -> Result<(), Stranded> {
        self.tables.reach(&ask)?;
        let Some(ends) = ask.ends() else {
            self.answer(&ask, Err(Reason::WildcardBind));
            return Ok(());
        };
        let netns = ask.key.netns;
        match (self.tables.look_up(netns, &ends), ends) {
            (Some(found), _) => self.answer(&ask, Ok(found)),
            (None, Ends::Both(_)) if self.tables.looks_up(netns) => {
                let why = self.tables.why(netns);
                self.answer(&ask, Err(why));
            }
            (None, _) if self.waiting.len() < MOST_WAITING => self.waiting.push((ask, ends)),
            (None, _) => self.answer(&ask, Err(Reason::Overflow)),
        }
        Ok(())
    }

    fn answer(&mut self, ask: &Ask, outcome: Result<(Entry, u32), Reason>) {
        self.found += u64::from(outcome.is_ok());
        let outcome = outcome.map(|(entry, netns)| Arc::new(nat(&entry, netns)));
        let netns_cookie = self.tables.cookie(ask.key.netns);
        // nobody listens any more if the capture has given up
        let _ = self.answers.send(Answer { ask: *ask, outcome, netns_cookie });
    }

    /// Reads whole tables for the questions that wait for it.
    fn read_tables(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let begin = Instant::now();
        let found = self.search(&waiting);
        self.slowest = self.slowest.max(begin.elapsed());
        for (ask, ends) in &waiting {
            let outcome = match found.get(&(ask.key.netns, *ends)) {
                Some(Some(found)) => Ok(*found),
                // two could be meant
                Some(None) => Err(Reason::NotFound),
                None => Err(self.tables.why(ask.key.netns)),
            };
            self.answer(ask, outcome);
        }
    }

    /// The entries with these ends, by the namespace of the flow; of two that could be meant none, but the translated one.
    fn search(&mut self, waiting: &[(Ask, Ends)]) -> HashMap<(u32, Ends), Option<(Entry, u32)>> {
        let mut wanted: HashMap<Ends, Vec<u32>> = HashMap::new();
        // most entries of a large table are nobody's that is asked about: that has to be seen at once
        let mut ports = vec![false; 1 << 16];
        for (ask, ends) in waiting {
            if let Some(is_wanted) = ports.get_mut(usize::from(ends.own_port())) {
                *is_wanted = true;
            }
            let flows = wanted.entry(*ends).or_default();
            if !flows.contains(&ask.key.netns) {
                flows.push(ask.key.netns);
            }
        }
        let mut found: HashMap<(u32, Ends), Option<(Entry, u32)>> = HashMap::new();
        for table in self.tables.each() {
            let (netns, is_node) = (table.netns, table.report.is_node);
            table.scan(|_, entry| {
                let is_wanted = |it: &Tuple| ports.get(usize::from(it.src.port())) == Some(&true);
                for ends in [entry.original, entry.reply].into_iter().filter(is_wanted).flat_map(Ends::of) {
                    let flows = wanted.get(&ends).into_iter().flatten();
                    for flow in flows.filter(|flow| is_node || **flow == netns) {
                        let known = found.entry((*flow, ends)).or_insert(Some((*entry, netns)));
                        *known = known.and_then(|known| better(known, (*entry, netns)));
                    }
                }
            });
        }
        found
    }
}

/// Of two entries that could be meant the translated one, if the other one is not; the same of two tables is one.
fn better(known: (Entry, u32), other: (Entry, u32)) -> Option<(Entry, u32)> {
    let is_translated = |it: &(Entry, u32)| it.0.is_dnat() || it.0.is_snat();
    match (is_translated(&known), is_translated(&other)) {
        _ if known.0.original == other.0.original && known.0.reply == other.0.reply => Some(known),
        (true, false) => Some(known),
        (false, true) => Some(other),
        _ => None,
    }
}
