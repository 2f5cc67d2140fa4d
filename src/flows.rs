//! What becomes of each flow: events of a socket with one remote end, added up, with what connection tracking says of it.
//!
//! Sits between the naming of an event and its line. A flow is asked about when it is first seen and when it ends; lines of
//! `flows.jsonl` leave as flows end or make room for others, so memory does not grow with their number.

mod community;
mod record;
mod served;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ktrace_bundle::event::{Endpoint, Event, Identity, Payload};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::nat::Direction;
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::tracking::{ServicesReport, TrackingReport};
use ktrace_bundle::why::Reason;

use crate::conntrack::ask::{Answer, Ask, FlowKey};
use crate::conntrack::watch::{Last, MOST_ASKED, Watch};
use crate::services::{self, Reading};
use served::Served;

/// Flows that are held at a time, some 4 MiB.
const MOST: usize = 1 << 13;
/// So long a flow that has ended waits for what connection tracking says of it.
const PATIENCE: TimeDelta = TimeDelta::seconds(2);
/// So long the window waits for it to open.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// So long the end of the capture waits for it.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Flows that are looked at for one that has been silent, when there is no room for another.
const LOOKED_AT: usize = 16;

/// All flows.
pub struct Flows {
    open: HashMap<FlowKey, Box<Flow>>,
    /// Oldest first.
    order: VecDeque<FlowKey>,
    /// Flows that have ended and wait for an answer.
    ending: VecDeque<(DateTime<Utc>, FlowKey)>,
    asks: Vec<Ask>,
    watch: Option<Watch>,
    /// Questions for which there was no room.
    unasked: u64,
    /// Answers that were no entry.
    unanswered: u64,
    served: Served,
    /// Time of the newest event.
    now: DateTime<Utc>,
    /// Lines that are ready.
    done: Vec<FlowRecord>,
    is_requested: bool,
}

struct Flow {
    record: FlowRecord,
    has_ended: bool,
    /// Something happened since it was looked at for room.
    is_lively: bool,
    was_asked: bool,
    /// A question about it is under way.
    is_asked: bool,
    why: Option<Reason>,
}

impl Flows {
    /// None yet; begins to listen to connection tracking if that is wanted.
    pub fn new(with_conntrack: bool) -> Self {
        Self {
            open: HashMap::new(),
            order: VecDeque::new(),
            ending: VecDeque::new(),
            asks: Vec::new(),
            watch: with_conntrack.then(Watch::start).flatten(),
            unasked: 0,
            unanswered: 0,
            served: Served::default(),
            now: DateTime::UNIX_EPOCH,
            done: Vec::new(),
            is_requested: with_conntrack,
        }
    }

    /// Waits until connection tracking is listened to, so that no flow of the window is older than that; not for long.
    pub fn wait_until_listening(&self) {
        if let Some(watch) = &self.watch {
            watch.wait_until_listening(FIRST_WORD);
        }
    }

    /// An event of a flow: adds it up, and says in it what connection tracking is known to say.
    pub fn see(&mut self, event: &mut Event) {
        let Some(key) = key_of(&event.id) else { return };
        self.now = self.now.max(event.at);
        if !self.open.contains_key(&key) {
            self.make_room();
            self.order.push_back(key);
            let tuple = Direction { from: event.id.local, to: event.id.remote };
            let record = FlowRecord::new(event.id.proto, tuple, event.id.netns, event.at);
            let flow =
                Flow { record, has_ended: false, is_lively: false, was_asked: false, is_asked: false, why: None };
            self.open.insert(key, Box::new(flow));
        }
        let Some(flow) = self.open.get_mut(&key) else { return };
        let is_first = flow.record.event_count == 0;
        flow.is_lively = !is_first;
        record::add(&mut flow.record, event);
        event.id.nat.clone_from(&flow.record.conntrack);
        let ends = matches!(&event.payload, Payload::TcpState(change) if change.new == TcpState::Close);
        if ends && !flow.has_ended {
            flow.has_ended = true;
            self.ending.push_back((event.at, key));
        }
        // a socket that is about to connect has no port yet
        let is_new = !flow.was_asked && flow.record.tuple.from.port.is_some();
        if is_new || ends {
            flow.was_asked = true;
            self.ask(key);
        }
    }

    fn ask(&mut self, key: FlowKey) {
        let Some(flow) = self.open.get_mut(&key) else { return };
        if self.watch.is_none() {
            return;
        }
        flow.is_asked = true;
        self.asks.push(Ask { key, local: flow.record.tuple.from, pid: flow.record.pid });
        if self.asks.len() >= MOST_ASKED {
            self.send();
        }
    }

    fn send(&mut self) {
        let asks = std::mem::take(&mut self.asks);
        let back = match &self.watch {
            Some(watch) if !asks.is_empty() => watch.ask(asks),
            _ => None,
        };
        for ask in back.into_iter().flatten() {
            self.unasked += 1;
            if let Some(flow) = self.open.get_mut(&ask.key) {
                (flow.is_asked, flow.why) = (false, Some(Reason::Overflow));
            }
        }
    }

    /// One turn of the event path: takes answers, sends questions, and hands out the lines that are ready. `now`: the time.
    pub fn turn(&mut self, now: DateTime<Utc>) -> Vec<FlowRecord> {
        self.now = self.now.max(now);
        let answers: Vec<_> = self.watch.iter().flat_map(Watch::answers).collect();
        answers.into_iter().for_each(|answer| self.take(answer));
        self.send();
        while let Some((at, key)) = self.ending.front().copied() {
            let is_due = self.open.get(&key).is_none_or(|flow| !flow.is_asked) || self.now - at > PATIENCE;
            if !is_due {
                break;
            }
            self.ending.pop_front();
            self.close(&key);
        }
        std::mem::take(&mut self.done)
    }

    fn take(&mut self, answer: Answer) {
        self.unanswered += u64::from(answer.outcome.is_err());
        let Some(flow) = self.open.get_mut(&answer.ask.key) else { return self.add_late(answer) };
        flow.is_asked = false;
        flow.record.netns_cookie = answer.netns_cookie.or(flow.record.netns_cookie);
        match answer.outcome {
            Ok(nat) => flow.record.conntrack = Some(nat),
            // of one that has ended meanwhile the earlier answer stands
            Err(reason) => flow.why = Some(reason),
        }
    }

    /// A line for a flow that could not wait for this: it says nothing but what connection tracking says.
    fn add_late(&mut self, answer: Answer) {
        let Answer { ask: Ask { key, local, .. }, outcome: Ok(nat), netns_cookie } = answer else { return };
        let tuple = Direction { from: local, to: Endpoint::new(key.remote.ip(), key.remote.port()) };
        let socket = (key.socket != 0).then_some(key.socket);
        let record = FlowRecord::new(key.proto, tuple, key.netns, self.now);
        self.done.push(FlowRecord { socket, netns_cookie, conntrack: Some(nat), ..record });
    }

    /// Lets one go that has been silent since the last look at it, or else the oldest.
    fn make_room(&mut self) {
        if self.open.len() < MOST {
            return;
        }
        for _ in 0..LOOKED_AT {
            let Some(key) = self.order.pop_front() else { return };
            match self.open.get_mut(&key) {
                None => {}
                Some(flow) if flow.is_lively || flow.is_asked => {
                    flow.is_lively = false;
                    self.order.push_back(key);
                }
                Some(_) => return self.close(&key),
            }
        }
        while self.open.len() >= MOST
            && let Some(key) = self.order.pop_front()
        {
            self.close(&key);
        }
    }

    fn close(&mut self, key: &FlowKey) {
        let Some(flow) = self.open.remove(key) else { return };
        let Flow { mut record, why, is_asked, .. } = *flow;
        if record.conntrack.is_none() {
            let why = if is_asked { Some(Reason::SourceTimeout) } else { why };
            let why = why.unwrap_or(if self.is_requested { Reason::SourceAbsent } else { Reason::NotRequested });
            record.why.insert("conntrack".into(), why.text().into_owned());
        }
        record.community_id = community::id(record.proto, &record.tuple);
        self.served.add(&record, self.now);
        self.done.push(record);
        // keys of flows that ended stay in the order until they are met: not for ever
        if self.order.len() > 2 * MOST {
            let open = &self.open;
            self.order.retain(|key| open.contains_key(key));
        }
    }

    /// Asks once more about all that is open, waits for the answers for a moment, and ends: the last lines, and what the
    /// other members say. `end`: when the window closed.
    pub fn finish(&mut self, end: DateTime<Utc>) -> Ended {
        self.now = self.now.max(end);
        let rules = if self.is_requested { services::begin_on_this_node(LAST_WORD) } else { Vec::new() };
        let keys: Vec<_> = self.open.keys().copied().collect();
        keys.into_iter().for_each(|key| {
            if let Some(flow) = self.open.get_mut(&key)
                && self.watch.is_some()
            {
                flow.is_asked = true;
                self.asks.push(Ask { key, local: flow.record.tuple.from, pid: flow.record.pid });
            }
        });
        let asks = std::mem::take(&mut self.asks);
        let last = self.watch.take().map(|watch| watch.finish(asks, LAST_WORD));
        let is_late = matches!(last, Some(None));
        let (answers, last) = last.flatten().unwrap_or_default();
        answers.into_iter().for_each(|answer| self.take(answer));
        let mut keys: Vec<_> = self.open.keys().copied().collect();
        keys.sort_unstable();
        keys.iter().for_each(|key| self.close(key));
        let source = self.source(&last, is_late);
        let Last { report, backends, omitted, .. } = last;
        let rules: Vec<_> = rules.into_iter().map(Reading::finish).collect();
        let services = std::mem::take(&mut self.served).report(backends, omitted, &rules);
        Ended { lines: std::mem::take(&mut self.done), tracking: report, services, source }
    }

    fn source(&self, last: &Last, is_late: bool) -> SourceReport {
        let tables = &last.report.tables;
        let error = tables.iter().find_map(|table| table.error.clone());
        let is_read = tables.iter().any(|table| table.via.is_some());
        let outcome = match (self.is_requested, is_late, is_read) {
            (false, ..) => "not_requested",
            (true, true, _) => "failed",
            (true, false, true) => "answered",
            (true, false, false) => "absent",
        };
        let late = is_late.then(|| "it did not answer in time".to_owned());
        let highest = |table: &ktrace_bundle::tracking::Table| table.highest_count.unwrap_or(0);
        let is_idle = is_read && tables.iter().map(highest).max() == Some(0);
        let idle = is_idle.then(|| "no table has an entry: connection tracking is inactive".to_owned());
        SourceReport {
            name: "conntrack".into(),
            outcome: outcome.into(),
            version: tables.iter().find_map(|table| table.via.clone()),
            latency_us: is_read.then(|| u64::try_from(last.slowest.as_micros()).unwrap_or(u64::MAX)),
            entries: Some(last.found),
            errors: Some(self.unasked + tables.iter().map(|table| table.overrun_count).sum::<u64>()),
            error: late.or(error).or(idle),
            notices: Some(tables.iter().map(|table| table.event_count).sum()),
            evicted: Some(last.omitted),
            ..SourceReport::default()
        }
    }
}

/// What is left when a capture has ended.
pub struct Ended {
    /// Lines of `flows.jsonl`.
    pub lines: Vec<FlowRecord>,
    /// `conntrack.json`.
    pub tracking: TrackingReport,
    /// `services.json`.
    pub services: ServicesReport,
    /// For the manifest.
    pub source: SourceReport,
}

/// A flow has another end.
fn key_of(id: &Identity) -> Option<FlowKey> {
    let remote = SocketAddr::new(id.remote.addr?, id.remote.port?);
    Some(FlowKey { netns: id.netns, socket: id.socket.unwrap_or(0), proto: id.proto, remote })
}

#[cfg(test)]
#[path = "flows/flows_tests.rs"]
mod tests;
