//! Members → records and a [`ReadReport`], whatever they were stored in.
//!
//! Holds some batches of lines or one small document at a time, counts what it cannot use, and compares at the end what
//! the manifest says with what was there. Text that came from the bundle is escaped before it enters the report.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::thread;

use super::batches::{Batch, InFlight, Read as ReadLine};
use super::known::Known;
use super::lines::{Lines, Next};
use super::side::Side;
use super::{BadLine, Cut, Form, Limits, ReadError, ReadReport, Record};
use crate::coverage::LossRecord;
use crate::event::{Event, LINE_VERSION};
use crate::flow::FlowRecord;
use crate::ledger::Ledger;
use crate::line::{LineError, Parsed, parse_event, parse_socket};
use crate::manifest::Member;
use crate::node::NodeRecord;
use crate::process::ProcessRecord;
use crate::workload::WorkloadRecord;

const MAX_BAD_LINES: usize = 10;
const MAX_UNKNOWN_TYPES: usize = 32;
const MAX_INTEGRITY: usize = 32;
const MAX_REPORT_TEXT: usize = 200;

/// Bad lines from the start after which a bare file is taken for something else.
const FOREIGN_AFTER: u64 = 100;

/// What was found of a member.
pub(super) struct Measured {
    pub(super) bytes: u64,
    pub(super) lines: Option<u64>,
}

/// Takes members in; see the module.
pub(super) struct Intake<'a> {
    path: PathBuf,
    pub(super) limits: &'a Limits,
    pub(super) sink: &'a mut dyn FnMut(Record),
    report: ReadReport,
    pub(super) measured: BTreeMap<Known, Measured>,
    pub(super) stated: Option<(Ledger, Vec<Member>)>,
    skewed: u64,
}

impl<'a> Intake<'a> {
    pub(super) fn new(form: Form, path: &Path, limits: &'a Limits, sink: &'a mut dyn FnMut(Record)) -> Self {
        let report = ReadReport {
            form,
            events: 0,
            event_lines: 0,
            sockets: 0,
            cut: None,
            bad_lines: 0,
            first_bad_lines: Vec::new(),
            unknown_types: BTreeMap::new(),
            unknown_keys: 0,
            unknown_members: 0,
            integrity: Vec::new(),
        };
        Self { path: path.to_owned(), limits, sink, report, measured: BTreeMap::new(), stated: None, skewed: 0 }
    }

    pub(super) fn foreign(&self, why: &'static str) -> ReadError {
        ReadError::Foreign { path: self.path.clone(), why }
    }

    pub(super) const fn skip_member(&mut self) {
        self.report.unknown_members += 1;
    }

    /// Whether this member is new; a second one of the same name is a reason for distrust.
    pub(super) fn admit(&mut self, member: Known) -> bool {
        let is_new = !self.measured.contains_key(&member);
        if !is_new {
            self.report.unknown_members += 1;
            self.distrust(format!("`{}` is there twice; the first one was read", member.name()));
        }
        is_new
    }

    /// Whether nothing was met that only a bundle has; a `README.md` has everybody.
    pub(super) fn is_empty(&self) -> bool {
        self.measured.keys().all(|member| *member == Known::Readme)
    }

    pub(super) const fn is_cut(&self) -> bool {
        self.report.cut.is_some()
    }

    /// States where the bundle ends too early; the first cut stands.
    pub(super) fn cut(&mut self, member: &str, line: u64, why: &str) {
        let cut = Cut { member: member.to_owned(), line, why: printable(why) };
        self.report.cut.get_or_insert(cut);
    }

    /// Reads one member of `len` bytes; after damage (see the report's `cut`) nothing behind it can be read.
    ///
    /// # Errors
    /// If the member shows that this is no bundle, or a newer one.
    pub(super) fn member(&mut self, member: Known, input: &mut dyn BufRead, len: u64) -> Result<(), ReadError> {
        match member {
            Known::Events => self.events(input, len),
            Known::Sockets
            | Known::Coverage
            | Known::Workloads
            | Known::Processes
            | Known::Flows
            | Known::Network
            | Known::Host => self.jsonl(member, input, len),
            Known::Manifest | Known::Partial | Known::Summary | Known::Conntrack | Known::Services => {
                self.document(member, input, len)
            }
            Known::Readme => {
                self.measured.insert(member, Measured { bytes: len, lines: None });
                Ok(())
            }
        }
    }

    fn jsonl(&mut self, member: Known, input: &mut dyn BufRead, len: u64) -> Result<(), ReadError> {
        let mut lines = Lines::new(input.take(len.min(self.limits.max_member_bytes)));
        let mut tail = 0;
        let why = loop {
            match lines.advance() {
                Ok(Next::Whole) => self.line(member, lines.whole(), lines.text())?,
                Ok(Next::TooLong) => self.bad_line(member, lines.whole(), &LineError::TooLong)?,
                Ok(Next::Tail) if self.is_record(member, lines.text()) => {
                    self.line(member, lines.whole() + 1, lines.text())?;
                    tail = 1;
                }
                Ok(Next::Tail) => break Some("its last line has no end".to_owned()),
                Ok(Next::End) => break None,
                Err(e) => break Some(e.to_string()),
            }
        };
        self.ends(member, len, (lines.whole() + tail, lines.input().limit()), why);
        Ok(())
    }

    /// The same of events, which are many.
    fn events(&mut self, input: &mut dyn BufRead, len: u64) -> Result<(), ReadError> {
        let mut lines = Lines::new(input.take(len.min(self.limits.max_member_bytes)));
        let end = thread::scope(|scope| {
            let mut in_flight = InFlight::new(scope, self.limits.threads);
            let end = loop {
                let (batch, end) = Batch::fill(&mut lines);
                // of a short member no thread is worth its while
                let is_only = in_flight.is_empty() && end.is_some();
                let read = if is_only { Some(batch.parse()) } else { in_flight.push(batch) };
                read.map_or(Ok(()), |read| self.take(read))?;
                if let Some(end) = end {
                    break end;
                }
            };
            while let Some(read) = in_flight.pop() {
                self.take(read)?;
            }
            Ok::<_, ReadError>(end)
        })?;
        let mut tail = 0;
        let why = match end {
            Ok(Next::Tail) if self.is_record(Known::Events, lines.text()) => {
                self.line(Known::Events, lines.whole() + 1, lines.text())?;
                tail = 1;
                None
            }
            Ok(Next::Tail) => Some("its last line has no end".to_owned()),
            Ok(_) => None,
            Err(e) => Some(e.to_string()),
        };
        self.ends(Known::Events, len, (lines.whole() + tail, lines.input().limit()), why);
        Ok(())
    }

    /// Takes a batch of events.
    fn take(&mut self, read: Vec<ReadLine>) -> Result<(), ReadError> {
        for (number, parsed) in read {
            let outcome = parsed.map(|parsed| self.deliver(number, parsed));
            self.judge(Known::Events, number, outcome)?;
        }
        Ok(())
    }

    /// Notes how long a member was: of `len` bytes, `missing` were not there.
    fn ends(&mut self, member: Known, len: u64, (count, missing): (u64, u64), why: Option<String>) {
        let why = why.or_else(|| match () {
            () if len > self.limits.max_member_bytes => Some("it is longer than this reader accepts".to_owned()),
            () if missing > 0 => Some(format!("{missing} bytes are missing")),
            () => None,
        });
        self.measured.insert(member, Measured { bytes: len.saturating_sub(missing), lines: Some(count) });
        if let Some(why) = why {
            self.cut(member.name(), count, &why);
        }
    }

    /// Whether text that no newline ends is a record all the same.
    fn is_record(&self, member: Known, text: &[u8]) -> bool {
        match member {
            Known::Events => parse_event(text, 0).is_ok(),
            Known::Coverage => LossRecord::of(text).is_ok(),
            Known::Workloads => WorkloadRecord::of(text).is_ok(),
            Known::Processes => ProcessRecord::of(text).is_ok(),
            Known::Flows => FlowRecord::of(text).is_ok(),
            Known::Network | Known::Host => NodeRecord::of(text).is_ok(),
            _ => parse_socket(text).is_ok(),
        }
    }

    fn line(&mut self, member: Known, number: u64, text: &[u8]) -> Result<(), ReadError> {
        let outcome = match member {
            Known::Events => parse_event(text, number).map(|parsed| self.deliver(number, parsed)),
            Known::Coverage => self.side::<LossRecord>(text),
            Known::Workloads => self.side::<WorkloadRecord>(text),
            Known::Processes => self.side::<ProcessRecord>(text),
            Known::Flows => self.side::<FlowRecord>(text),
            Known::Network | Known::Host => self.side::<NodeRecord>(text),
            _ => self.socket(text),
        };
        self.judge(member, number, outcome)
    }

    /// What a line that cannot be used says about the whole.
    fn judge(&mut self, member: Known, number: u64, outcome: Result<(), LineError>) -> Result<(), ReadError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(LineError::Version(found)) => Err(self.newer(found, LINE_VERSION)),
            Err(LineError::UnknownType(name)) => {
                self.unknown_type(&name);
                Ok(())
            }
            Err(e) => self.bad_line(member, number, &e),
        }
    }

    fn deliver(&mut self, number: u64, parsed: Parsed<Event>) {
        self.report.events += 1;
        self.report.unknown_keys += parsed.unknown_keys;
        self.skewed += u64::from(parsed.record.seq != number);
        (self.sink)(Record::Event(parsed.record));
    }

    fn socket(&mut self, text: &[u8]) -> Result<(), LineError> {
        let parsed = parse_socket(text)?;
        self.report.sockets += 1;
        self.report.unknown_keys += parsed.unknown_keys;
        (self.sink)(Record::Socket(parsed.record));
        Ok(())
    }

    fn side<T: Side>(&mut self, text: &[u8]) -> Result<(), LineError> {
        let record = T::of(text)?;
        (self.sink)(record.into_record());
        Ok(())
    }

    fn unknown_type(&mut self, name: &str) {
        let types = &mut self.report.unknown_types;
        let name = printable(name);
        let is_room = types.len() < MAX_UNKNOWN_TYPES || types.contains_key(&name);
        *types.entry(if is_room { name } else { "other".to_owned() }).or_default() += 1;
    }

    fn bad_line(&mut self, member: Known, line: u64, error: &dyn std::fmt::Display) -> Result<(), ReadError> {
        self.report.bad_lines += 1;
        if self.report.first_bad_lines.len() < MAX_BAD_LINES {
            self.report.first_bad_lines.push(BadLine { member: member.name(), line, error: printable(error) });
        }
        if self.report.bad_lines >= FOREIGN_AFTER && self.is_foreign() {
            return Err(self.foreign("its lines are not ktrace events"));
        }
        Ok(())
    }

    /// Whether a bare file has shown nothing so far that ktrace could have written.
    fn is_foreign(&self) -> bool {
        self.report.form == Form::Events && self.report.events == 0 && self.report.unknown_types.is_empty()
    }

    pub(super) fn newer(&self, found: u32, known: u32) -> ReadError {
        ReadError::Newer { path: self.path.clone(), found, known }
    }

    pub(super) fn distrust(&mut self, sentence: String) {
        if self.report.integrity.len() < MAX_INTEGRITY {
            self.report.integrity.push(sentence);
        }
    }

    /// Compares what the manifest says with what was there.
    ///
    /// # Errors
    /// If a bare file held no line that ktrace could have written.
    pub(super) fn finish(mut self) -> Result<ReadReport, ReadError> {
        let of_events = self.measured.get(&Known::Events);
        self.report.event_lines = of_events.and_then(|m| m.lines).unwrap_or(0);
        if self.is_foreign() && (self.report.bad_lines > 0 || self.report.cut.is_some()) {
            return Err(self.foreign("its lines are not ktrace events"));
        }
        if self.is_foreign() && self.measured.values().all(|m| m.bytes == 0) {
            return Err(self.foreign("it is empty"));
        }
        if self.skewed > 0 && self.report.form != Form::Events {
            self.distrust(format!("{} lines of `events.jsonl` do not carry their line number as `seq`", self.skewed));
        }
        if let Some((ledger, members)) = self.stated.take() {
            self.check_ledger(&ledger);
            for member in &members {
                self.check_member(member);
            }
        }
        Ok(self.report)
    }

    fn is_cut_in(&self, name: &str) -> bool {
        self.report.cut.as_ref().is_some_and(|c| c.member == name)
    }

    fn check_ledger(&mut self, ledger: &Ledger) {
        if let Err(e) = ledger.check() {
            self.distrust(format!("the ledger does not add up: {e}"));
        }
        let lines = self.report.event_lines;
        if ledger.written != lines && !self.is_cut_in(Known::Events.name()) {
            self.distrust(format!("the ledger says {} lines were written, `events.jsonl` has {lines}", ledger.written));
        }
    }

    fn check_member(&mut self, stated: &Member) {
        let Some(known) = Known::from_name(stated.name.as_bytes()) else { return };
        let name = known.name();
        if self.is_cut_in(name) {
            return;
        }
        let Some(found) = self.measured.get(&known) else {
            return self.distrust(format!("`{name}` is missing"));
        };
        let (bytes, lines) = (found.bytes, found.lines);
        if bytes != stated.bytes {
            self.distrust(format!("`{name}` has {bytes} bytes, the manifest says {}", stated.bytes));
        }
        if let (Some(lines), Some(records)) = (lines, stated.records)
            && lines != records
        {
            self.distrust(format!("`{name}` has {lines} lines, the manifest says {records}"));
        }
    }
}

/// A stranger's text, safe to print: control characters escaped, at most 200 characters.
pub(super) fn printable(text: impl std::fmt::Display) -> String {
    let mut out = String::new();
    for c in text.to_string().chars().take(MAX_REPORT_TEXT) {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
