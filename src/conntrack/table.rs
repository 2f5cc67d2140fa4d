//! The table of connection tracking of one network namespace: how it can be read, and how it is doing.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ktrace_bundle::tracking::{self, TableCounts};
use ktrace_bundle::why::Reason;

use super::ask::Ends;
use super::counters::Counters;
use super::entry::{Direction, Entry};
use super::netlink::{Ctnetlink, Error, Events};
use super::procfs;
use super::seen::Seen;

/// Room for what the kernel tells while nobody reads, bytes: some 8,000 flows.
const EVENT_BUFFER_BYTES: usize = 8 << 20;
/// Events that are read at a time.
const MOST_EVENTS: usize = 4096;

/// Between two looks whether an empty table is still empty.
const COUNTED: Duration = Duration::from_millis(20);

/// Who answers.
enum Source {
    Netlink(Ctnetlink),
    /// Of a process in the namespace.
    Procfs(i32),
    Nobody(Reason),
}

/// One namespace's table.
pub struct Table {
    /// The namespace's inode number.
    pub netns: u32,
    /// Cookie of the namespace.
    pub cookie: Option<u64>,
    /// What it told by itself.
    pub seen: Seen,
    /// For `conntrack.json`.
    pub report: tracking::Table,
    source: Source,
    events: Option<Events>,
    start: Counters,
    is_active: bool,
    /// When the counters were read.
    counted: Instant,
}

/// The process is in a namespace that it must not be in any more: it has to end, or at least this thread of it.
#[derive(Debug)]
pub struct Stranded;

impl Table {
    /// Opens the table of the namespace that this file is, or of the thread's own one. `process`: one in it, if any
    /// is known. `may_ask`: why ctnetlink cannot be asked, if it cannot.
    ///
    /// # Errors
    /// [`Stranded`].
    pub fn open(
        netns: u32,
        is_node: bool,
        file: Option<&File>,
        process: Option<i32>,
        may_ask: Result<(), (Reason, String)>,
    ) -> Result<Self, Stranded> {
        let asked = match may_ask.map(|()| Ctnetlink::open(file.map(File::as_fd))) {
            Ok(Err(error)) if error.is_fatal() => return Err(Stranded),
            // a socket is had without the right to ask
            Ok(opened) => opened.and_then(|mut netlink| netlink.counters().map(|_| netlink)).map_err(told),
            Err(why) => Err(why),
        };
        let mut report = tracking::Table { netns, is_node, ..tracking::Table::default() };
        let source = match asked {
            Ok(netlink) => Source::Netlink(netlink),
            Err((reason, why)) => {
                report.error = Some(why);
                let readable = process.filter(|pid| procfs::entries(*pid, |_| {}).is_ok());
                readable.map_or(Source::Nobody(reason), Source::Procfs)
            }
        };
        report.via = match &source {
            Source::Netlink(_) => Some("ctnetlink".into()),
            Source::Procfs(_) => Some("procfs".into()),
            Source::Nobody(_) => None,
        };
        let cookie = if let Source::Netlink(netlink) = &source { netlink.netns_cookie() } else { None };
        let (seen, start) = (Seen::default(), Counters::default());
        let mut table = Self {
            netns,
            cookie,
            seen,
            report,
            source,
            events: None,
            start,
            is_active: false,
            counted: Instant::now(),
        };
        table.start = table.counters();
        table.report.start = counts(&table.start);
        table.subscribe(file)?;
        Ok(table)
    }

    /// Why it cannot be read, if it cannot.
    pub const fn why_silent(&self) -> Option<&Reason> {
        match &self.source {
            Source::Nobody(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether it has, or had, entries at all.
    pub const fn is_active(&self) -> bool {
        self.is_active
    }

    /// The same, of now.
    pub fn has_entries(&mut self) -> bool {
        if !self.is_active && self.counted.elapsed() >= COUNTED {
            self.counters();
        }
        self.is_active
    }

    /// Whether one flow can be looked up by itself.
    pub const fn looks_up(&self) -> bool {
        matches!(self.source, Source::Netlink(_))
    }

    fn subscribe(&mut self, file: Option<&File>) -> Result<(), Stranded> {
        if !self.looks_up() {
            return Ok(());
        }
        match Events::open(file.map(File::as_fd), EVENT_BUFFER_BYTES) {
            Ok(events) => self.events = Some(events),
            Err(error) if error.is_fatal() => return Err(Stranded),
            Err(error) => self.report.error = Some(error.to_string()),
        }
        Ok(())
    }

    /// Reads the counters; from now on a table with entries counts as active.
    pub fn counters(&mut self) -> Counters {
        let counters = match &mut self.source {
            Source::Netlink(netlink) => netlink.counters().unwrap_or_else(|error| {
                self.report.error = Some(error.to_string());
                Counters::default()
            }),
            Source::Procfs(pid) => {
                let limit = procfs::own_limit().filter(|_| u32::try_from(*pid) == Ok(std::process::id()));
                Counters { max: limit, ..procfs::counters(*pid).unwrap_or_default() }
            }
            Source::Nobody(_) => Counters::default(),
        };
        self.counted = Instant::now();
        self.is_active |= counters.count.is_some_and(|count| count > 0);
        self.report.max = counters.max.or(self.report.max);
        self.report.highest_count = self.report.highest_count.max(counters.count);
        counters
    }

    /// The entry with these ends, in whichever direction; of one that is gone what was told of it last.
    pub fn look_up(&mut self, ends: &Ends) -> Option<Entry> {
        self.report.lookup_count += 1;
        let found = match (ends, &mut self.source) {
            (Ends::Both(tuple), Source::Netlink(netlink)) => {
                let mut get = |direction| {
                    netlink.get(tuple, direction, 0).unwrap_or_else(|error| {
                        self.report.error = Some(error.to_string());
                        None
                    })
                };
                get(Direction::Original).or_else(|| get(Direction::Reply))
            }
            _ => None,
        };
        let found = found.or_else(|| self.seen.get(ends).copied());
        self.report.found_count += u64::from(found.is_some());
        found
    }

    /// Takes what the kernel has told meanwhile; returns whether there is more.
    pub fn listen(&mut self) -> bool {
        let Some(events) = &mut self.events else { return false };
        let (seen, mut count) = (&mut self.seen, 0);
        let read = events.read(MOST_EVENTS, |change, entry| {
            count += 1;
            seen.changed(change, &entry);
        });
        self.report.event_count += count;
        self.is_active |= count > 0;
        match read {
            Ok(read) => {
                self.report.overrun_count += read.overruns;
                read.more
            }
            Err(error) => {
                self.report.error = Some(error.to_string());
                self.events = None;
                false
            }
        }
    }

    /// Reads the whole table; returns whether it could be read to its end.
    pub fn scan(&mut self, mut take: impl FnMut(&mut Seen, &Entry)) -> bool {
        let Self { source, seen, report, .. } = self;
        let outcome = match source {
            Source::Netlink(netlink) => netlink.dump(|entry| take(seen, &entry)).map(drop).map_err(|e| e.to_string()),
            Source::Procfs(pid) => {
                procfs::entries(*pid, |entry| take(seen, &entry)).map(drop).map_err(|e| e.to_string())
            }
            Source::Nobody(_) => return false,
        };
        let is_whole = outcome.is_ok();
        report.error = outcome.err().or(report.error.take());
        is_whole
    }

    /// The last word on it.
    pub fn finish(&mut self) -> tracking::Table {
        let end = self.counters();
        self.report.end = counts(&end);
        if self.report.start.is_some() && self.report.end.is_some() {
            self.report.difference = named(&end.since(self.start)).collect();
        }
        if self.report.overrun_count > 0 {
            let times = self.report.overrun_count;
            let why = format!(
                "the kernel had more to tell than there was room for, {times} times: flows were looked up one by one"
            );
            self.report.error.get_or_insert(why);
        }
        self.report.clone()
    }
}

/// What an error means for whoever asks for one flow, and in words.
fn told(error: Error) -> (Reason, String) {
    let reason = match &error {
        Error::NotPermitted => Reason::NoPermission,
        Error::NotSupported => Reason::SourceAbsent,
        Error::TimedOut => Reason::SourceTimeout,
        Error::Namespace(_) | Error::Stranded(_) | Error::Io(_) => Reason::SourceError,
    };
    (reason, error.to_string())
}

fn counts(counters: &Counters) -> Option<TableCounts> {
    let is_known = *counters != Counters::default();
    is_known.then(|| TableCounts { count: counters.count, counters: named(counters).collect() })
}

/// By the kernel's names.
fn named(counters: &Counters) -> impl Iterator<Item = (String, u64)> {
    let Counters { count: _, max: _, .. } = counters;
    [
        ("found", counters.found),
        ("invalid", counters.invalid),
        ("insert", counters.insert),
        ("insert_failed", counters.insert_failed),
        ("drop", counters.drop),
        ("early_drop", counters.early_drop),
        ("error", counters.error),
        ("search_restart", counters.search_restart),
        ("clash_resolve", counters.clash_resolve),
        ("chain_toolong", counters.chain_toolong),
    ]
    .into_iter()
    .filter_map(|(name, count)| Some((name.to_owned(), count?)))
}
