//! The second reading of a bundle → the lines of the chosen stories, in the order of the kernel, a bounded number of each.
//!
//! Of what is too much the first and the last lines stay, whatever the order in which they come; what is left out is counted.

use std::collections::{BTreeMap, BTreeSet};

use ktrace_bundle::event::{Datagram, Event, Identity, Payload, Proto, SocketRecord, When};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::reader::Record;

use super::Kind;
use super::index::{Full, Index, Key, StrayKey, is_stray};
use super::pick::{Unit, forms, is_at, is_dns};
use crate::capture::{Capture, RETRY_NS, Span};
use crate::units::SECOND;

/// State changes of one flow that are kept, from its beginning and from its end.
const STATES: (usize, usize) = (64, 16);
/// Other lines of one flow.
const OTHERS: (usize, usize) = (40, 10);
/// Lines without a socket that hit one flow, and those of its listener.
const SIDES: (usize, usize) = (40, 10);
/// Datagrams to and from the DNS servers of one process.
const DATAGRAMS: (usize, usize) = (4096, 0);
/// Records of one flow.
const MAX_RECORDS: usize = 16;
/// A connection's lookup was begun this long before at most, ns: several servers can have been asked in vain.
const LOOKUP_NS: u64 = 30 * SECOND;
/// An attempt is looked for this long before and after one of its lines, ns.
const ATTEMPT_NS: u64 = 40 * SECOND;

/// A line of the bundle.
#[derive(Debug, Clone)]
pub(super) enum Line {
    Event(Box<Event>),
    Socket(Box<SocketRecord>),
}

impl Line {
    pub(super) fn boot_ns(&self) -> u64 {
        match self {
            Self::Event(e) => e.boot_ns,
            Self::Socket(s) => s.boot_ns,
        }
    }

    pub(super) fn event(&self) -> Option<&Event> {
        match self {
            Self::Event(e) => Some(e),
            Self::Socket(_) => None,
        }
    }

    /// Whose it is.
    pub(super) fn id(&self) -> &Identity {
        match self {
            Self::Event(e) => &e.id,
            Self::Socket(s) => &s.id,
        }
    }

    /// Its number; socket tables stand before and after all events.
    pub(super) fn place(&self) -> u64 {
        match self {
            Self::Event(e) => e.seq,
            Self::Socket(s) => match s.when {
                When::Start => 0,
                When::End => u64::MAX,
            },
        }
    }
}

/// The first and the last lines of many.
#[derive(Debug)]
pub(super) struct Kept {
    max: (usize, usize),
    first: BTreeMap<(u64, u64), Line>,
    last: BTreeMap<(u64, u64), Line>,
    /// Lines between them.
    pub(super) omitted: u64,
}

impl Kept {
    fn new(max: (usize, usize)) -> Self {
        Self { max, first: BTreeMap::new(), last: BTreeMap::new(), omitted: 0 }
    }

    fn add(&mut self, line: Line) {
        self.first.insert((line.boot_ns(), line.place()), line);
        if self.first.len() > self.max.0
            && let Some((place, line)) = self.first.pop_last()
        {
            self.last.insert(place, line);
        }
        if self.last.len() > self.max.1 {
            self.last.pop_first();
            self.omitted = self.omitted.saturating_add(1);
        }
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.first.values().chain(self.last.values())
    }

    /// When the last line was before those that are left out.
    pub(super) fn cut_at(&self) -> Option<u64> {
        self.first.keys().next_back().map(|(at, _)| *at).filter(|_| self.omitted > 0)
    }
}

/// Datagrams of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) failed: u64,
}

impl Sum {
    fn add(&mut self, datagram: &Datagram) {
        if datagram.error.is_some() {
            self.failed = self.failed.saturating_add(1);
        } else {
            self.count = self.count.saturating_add(1);
            self.bytes = self.bytes.saturating_add(datagram.bytes.unwrap_or(0));
        }
    }
}

/// The lines of one flow.
#[derive(Debug)]
pub(super) struct Lines {
    states: Kept,
    others: Kept,
    pub(super) sent: Sum,
    pub(super) received: Sum,
}

impl Lines {
    fn new() -> Self {
        let (states, others) = (Kept::new(STATES), Kept::new(OTHERS));
        Self { states, others, sent: Sum::default(), received: Sum::default() }
    }

    fn add(&mut self, line: Line) {
        match line.event().map(|e| &e.payload) {
            Some(Payload::UdpSend(d)) => self.sent.add(d),
            Some(Payload::UdpRecv(d)) => self.received.add(d),
            _ => {}
        }
        let is_other = line.event().is_some_and(|e| !matches!(e.payload, Payload::TcpState(_) | Payload::Connect(_)));
        if is_other { self.others.add(line) } else { self.states.add(line) }
    }

    /// In the order of the kernel.
    pub(super) fn sorted(&self) -> Vec<&Line> {
        let mut lines: Vec<&Line> = self.states.lines().chain(self.others.lines()).collect();
        lines.sort_by_key(|line| (line.boot_ns(), line.place()));
        lines
    }

    pub(super) fn omitted(&self) -> u64 {
        self.states.omitted.saturating_add(self.others.omitted)
    }
}

/// Spans that overlap are one; rising.
fn merge(spans: &mut Vec<Span>) {
    spans.sort();
    spans.dedup_by(|next, last| {
        let is_one = next.from <= last.to;
        if is_one {
            last.to = last.to.max(next.to);
        }
        is_one
    });
}

/// Whether a moment is in one of these merged spans.
fn is_in(spans: &[Span], at: u64) -> bool {
    let after = spans.partition_point(|span| span.from <= at);
    after.checked_sub(1).and_then(|n| spans.get(n)).is_some_and(|span| at <= span.to)
}

/// Who asks DNS servers: a process, or a socket of which no owner is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asker {
    Process(u32, u32),
    Socket(Key),
}

/// The lines of all chosen stories.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    index: &'a Index<'a>,
    capture: &'a Capture,
    units: &'a [Unit],
    flows: BTreeMap<Key, Lines>,
    sides: Vec<Kept>,
    stray_units: BTreeMap<StrayKey, Vec<usize>>,
    windows: BTreeMap<Asker, Vec<Span>>,
    lookups: BTreeMap<Asker, Kept>,
    /// Flows of these.
    asking: BTreeSet<Key>,
    records: BTreeMap<Key, Vec<FlowRecord>>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(index: &'a Index<'a>, capture: &'a Capture, units: &'a [Unit]) -> Self {
        let mut it = Self {
            index,
            capture,
            units,
            flows: BTreeMap::new(),
            sides: units.iter().map(|_| Kept::new(SIDES)).collect(),
            stray_units: BTreeMap::new(),
            windows: BTreeMap::new(),
            lookups: BTreeMap::new(),
            asking: BTreeSet::new(),
            records: BTreeMap::new(),
        };
        for (n, unit) in units.iter().enumerate() {
            for stray in &unit.strays {
                it.stray_units.entry(*stray).or_default().push(n);
            }
            for key in [unit.key, unit.far].into_iter().flatten() {
                it.flows.entry(key).or_insert_with(Lines::new);
            }
            it.listen_for_lookups(unit);
        }
        it.windows.values_mut().for_each(merge);
        it
    }

    /// Which DNS traffic belongs to this story: that of its flow, or what its process asked before it connected.
    fn listen_for_lookups(&mut self, unit: &Unit) {
        let Some((key, flow)) = unit.key.and_then(|key| Some((key, self.index.flows.get(&key)?))) else { return };
        let around = |span: Span, before: u64, after: u64| Span {
            from: span.from.saturating_sub(before),
            to: span.to.saturating_add(after),
        };
        match unit.kind {
            Kind::Dns => {
                let retry = *RETRY_NS.end();
                let window = unit
                    .sought_at
                    .map_or_else(|| around(unit.span, retry, retry), |at| around(Span::at(at), ATTEMPT_NS, ATTEMPT_NS));
                self.windows.entry(self.asker(key)).or_default().push(window);
            }
            Kind::Tcp => {
                let pids = flow.owners.iter().filter_map(|id| self.capture.processes.get(*id)).map(|p| p.pid);
                for pid in pids.filter(|_| flow.is_client(Proto::Tcp)) {
                    let window = flow.begun.map(|begun| around(begun, LOOKUP_NS, 0));
                    self.windows.entry(Asker::Process(pid, key.netns())).or_default().extend(window);
                }
            }
            Kind::Udp => {}
        }
    }

    /// Who asks with this flow: of several owners the one with the lowest pid.
    pub(super) fn asker(&self, key: Key) -> Asker {
        let owners = self.index.flows.get(&key).map(|flow| flow.owners.as_slice()).unwrap_or_default();
        let pid = owners.iter().filter_map(|id| self.capture.processes.get(*id)).map(|p| p.pid).min();
        pid.map_or(Asker::Socket(key), |pid| Asker::Process(pid, key.netns()))
    }

    /// Takes a record of the second reading.
    pub(super) fn push(&mut self, record: Record) {
        match record {
            Record::Event(event) => self.event(event),
            Record::Socket(socket) => {
                if let Some(lines) = self.flows.get_mut(&Key::of(&socket.id)).filter(|_| socket.id.proto == Proto::Tcp)
                {
                    lines.add(Line::Socket(Box::new(socket)));
                }
            }
            Record::Flow(flow) => self.record(*flow),
            _ => {}
        }
    }

    fn event(&mut self, event: Event) {
        if matches!(event.payload, Payload::ListenOverflow(_)) {
            return self.overflow(&event);
        }
        if is_stray(&event) {
            return self.stray(&event);
        }
        let key = Key::of(&event.id);
        if key.proto == Proto::Udp {
            self.lookup(key, &event);
        }
        if let Some(lines) = self.flows.get_mut(&key) {
            lines.add(Line::Event(Box::new(event)));
        }
    }

    fn overflow(&mut self, event: &Event) {
        let full = Full { at: event.boot_ns, netns: event.id.netns, local: event.id.local };
        for (unit, side) in self.units.iter().zip(&mut self.sides) {
            let flow = unit.key.and_then(|key| Some((key, self.index.flows.get(&key)?)));
            if flow.is_some_and(|(key, flow)| is_at(self.index, full, key, flow)) {
                side.add(Line::Event(Box::new(event.clone())));
            }
        }
    }

    fn stray(&mut self, event: &Event) {
        let key = StrayKey::of(&event.id);
        let hit: BTreeSet<usize> =
            forms(key).iter().filter_map(|form| self.stray_units.get(form)).flatten().copied().collect();
        for n in hit {
            let is_in_time = self.units.get(n).is_some_and(|unit| unit.hit.meets(Span::at(event.boot_ns)));
            if let Some(side) = self.sides.get_mut(n).filter(|_| is_in_time) {
                side.add(Line::Event(Box::new(event.clone())));
            }
        }
    }

    fn lookup(&mut self, key: Key, event: &Event) {
        if !self.index.flows.get(&key).is_some_and(|flow| is_dns(flow, self.capture)) {
            return;
        }
        let asker = self.asker(key);
        if self.windows.get(&asker).is_some_and(|windows| is_in(windows, event.boot_ns)) {
            let kept = self.lookups.entry(asker).or_insert_with(|| Kept::new(DATAGRAMS));
            kept.add(Line::Event(Box::new(event.clone())));
            self.asking.insert(key);
        }
    }

    fn record(&mut self, flow: FlowRecord) {
        let key = Key::of_record(&flow);
        if self.flows.contains_key(&key) || self.asking.contains(&key) {
            let records = self.records.entry(key).or_default();
            records.push(flow);
            records.sort_by_key(|record| (record.last_at, record.event_count));
            if records.len() > MAX_RECORDS {
                records.remove(0);
            }
        }
    }

    /// The lines of a flow.
    pub(super) fn lines(&self, key: Option<Key>) -> Option<&Lines> {
        self.flows.get(&key?)
    }

    /// Lines without a socket, and of listeners, that belong to the story with this number.
    pub(super) fn sides(&self, n: usize) -> Option<&Kept> {
        self.sides.get(n)
    }

    /// What was asked of DNS servers.
    pub(super) fn lookups(&self, asker: Asker) -> Option<&Kept> {
        self.lookups.get(&asker)
    }

    /// Everybody of whom DNS traffic was wanted.
    pub(super) fn askers(&self) -> impl Iterator<Item = Asker> {
        self.windows.keys().copied()
    }

    /// What `flows.jsonl` says of a flow, the oldest first.
    pub(super) fn records(&self, key: Key) -> &[FlowRecord] {
        self.records.get(&key).map(Vec::as_slice).unwrap_or_default()
    }
}
