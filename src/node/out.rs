//! What a look finds → lines, handed on in pieces as they are found, so that neither side holds a whole look. What cannot be
//! read is a line, too.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use chrono::SubsecRound;
use ktrace_bundle::event::{LINE_VERSION, When};
use ktrace_bundle::manifest::ClockSample;
use ktrace_bundle::node::{Absent, Item, NodeRecord, Omitted};

use super::desk::Message;
use super::limit::Limit;
use crate::clock;

/// Lines of a piece.
const PIECE: usize = 64;

/// A record as it is written.
pub struct Line {
    /// Its text, without an end.
    pub text: Box<[u8]>,
    /// It has a `netns`.
    pub is_of_network: bool,
}

/// Takes what is found.
pub struct Out {
    pieces: SyncSender<Message>,
    piece: Vec<Line>,
    /// Of which look.
    pub when: When,
    netns: Option<u32>,
    first: ClockSample,
    boot_ns: u64,
    limit: Limit,
    /// Lines so far that say something, and that say what could not be read.
    pub counts: Counts,
}

/// Lines of one kind of source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// That say something.
    pub found: u64,
    /// That say what could not be read, or was left out.
    pub lacking: u64,
    /// Those of them that say what could not be read.
    pub absent: u64,
    /// What the last of these says.
    pub why: Option<String>,
    /// Lines among those that were found which belong to another source.
    pub of_others: u64,
}

impl Counts {
    /// What was found since there were so many belongs to another source.
    pub const fn move_to_others(&mut self, before: u64) {
        self.of_others += self.found.saturating_sub(before);
        self.found = before;
    }
}

impl Out {
    /// Of one look. `first`: the reading of the clocks that dates everything.
    pub fn new(pieces: SyncSender<Message>, when: When, first: ClockSample, limit: Limit) -> Self {
        Self {
            pieces,
            piece: Vec::with_capacity(PIECE),
            when,
            netns: None,
            first,
            boot_ns: clock::boot_ns(),
            limit,
            counts: Counts::default(),
        }
    }

    /// What follows is about this network namespace, or about the machine, and read from now on.
    pub fn at(&mut self, netns: Option<u32>) {
        (self.netns, self.boot_ns) = (netns, clock::boot_ns());
    }

    /// The network namespace that lines are about.
    pub const fn netns(&self) -> Option<u32> {
        self.netns
    }

    /// When the time is over.
    pub fn until(&self) -> Instant {
        self.limit.until()
    }

    /// Whether it is.
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.until()
    }

    /// Adds a line.
    pub fn put(&mut self, item: Item) {
        match &item {
            Item::Absent(it) => {
                self.counts.absent += 1;
                self.lacks(format!("`{}`: {}", it.what, it.why));
            }
            Item::Omitted(it) => self.lacks(format!("{} were left out, there was no {} for them", it.what, it.why)),
            _ => self.counts.found += 1,
        }
        // lines carry whole microseconds
        let ts = clock::utc_of(&self.first, self.boot_ns).trunc_subsecs(6);
        let (when, boot_ns, netns) = (self.when, self.boot_ns, self.netns);
        let record = NodeRecord { v: LINE_VERSION, when, ts, boot_ns, netns, item };
        // here and not where it is written: that is the event path
        if let Ok(text) = serde_json::to_vec(&record) {
            self.piece.push(Line { text: text.into_boxed_slice(), is_of_network: netns.is_some() });
        }
        if self.piece.len() >= PIECE {
            self.flush();
        }
    }

    fn lacks(&mut self, why: String) {
        self.counts.lacking += 1;
        self.counts.why = Some(why);
    }

    /// Says what could not be read.
    pub fn absent(&mut self, what: &str, why: impl std::fmt::Display) {
        let why = why.to_string().chars().take(256).collect();
        self.put(Item::Absent(Absent { what: what.to_owned(), why }));
    }

    /// Says what there was no room for, if anything.
    pub fn no_room(&mut self, what: &str, count: u64) {
        if count > 0 {
            let why = "room".to_owned();
            self.put(Item::Omitted(Omitted { what: what.to_owned(), count: Some(count), why }));
        }
    }

    /// Says what there was no time for.
    pub fn no_time(&mut self, what: &str, count: Option<u64>) {
        self.put(Item::Omitted(Omitted { what: what.to_owned(), count, why: "time".to_owned() }));
    }

    /// Hands on what is there.
    pub fn flush(&mut self) {
        if !self.piece.is_empty() {
            // nobody takes it any more if the capture has given up
            let _ = self.pieces.send(Message::Lines(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE))));
        }
    }
}
