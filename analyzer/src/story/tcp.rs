//! The lines of one socket → the stories of its connections, one after the other, with what the other end, the way between and
//! the lookup before them tell.

use std::collections::BTreeSet;

use ktrace_bundle::event::{Event, Payload, TcpClose};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::tcp::TcpState;

use super::closer::{ClosedFirst, by_other_end, by_path, by_record};
use super::collect::{Asker, Collector, Line, Lines};
use super::index::Key;
use super::pick::Unit;
use super::steps::{Attempts, Steps};
use super::{Kind, Place, Story, Who, dns, ended, gaps, words};
use crate::capture::{Capture, Connection, is_same};
use crate::units::SECOND;

/// What is seen of a connection at another place can be this much earlier or later, ns.
const SLACK_NS: u64 = SECOND;

/// One connection of a socket.
struct Run<'a> {
    connection: Connection,
    lines: Vec<&'a Line>,
}

/// What else is seen of it.
struct Around<'a> {
    far: Vec<&'a Line>,
    sides: Vec<&'a Line>,
    omitted: u64,
}

/// What all connections of a socket are told from.
struct Teller<'a> {
    capture: &'a Capture,
    attempts: &'a Attempts<'a>,
    key: Key,
    records: &'a [FlowRecord],
}

/// A socket can connect again.
fn runs<'a>(lines: Vec<&'a Line>, capture: &Capture) -> Vec<Run<'a>> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    for line in lines {
        let is_another = |run: &Run<'_>| line.event().is_some_and(|e| run.connection.is_reopened_by(e));
        if runs.last().is_none_or(is_another) {
            let connection = Connection::new(line.id(), line.boot_ns(), None);
            runs.push(Run { connection, lines: Vec::new() });
        }
        let Some(run) = runs.last_mut() else { continue };
        let proc = capture.processes.find(line.id());
        match line {
            Line::Event(e) => run.connection.apply(e, proc),
            Line::Socket(s) => run.connection.apply_socket(s, proc),
        }
        run.lines.push(line);
    }
    runs
}

impl<'a> Run<'a> {
    fn events(&self) -> impl Iterator<Item = &'a Event> + Clone + use<'a, '_> {
        self.lines.iter().filter_map(|line| line.event())
    }

    /// When an attempt to connect began.
    fn begun_at(&self) -> Option<u64> {
        let called = self.connection.connect.as_ref().map(|(mark, call)| mark.at.saturating_sub(call.syscall_ns));
        let opened = self.connection.opened.map(|mark| mark.at);
        opened.into_iter().chain(called).min().filter(|_| self.connection.is_client())
    }

    fn is_of(&self, record: &FlowRecord) -> bool {
        is_same(self.connection.local, record.tuple.from) && is_same(self.connection.remote, record.tuple.to)
    }
}

/// The stories of a socket.
pub(super) fn tell<'a>(
    collector: &'a Collector<'_>,
    capture: &'a Capture,
    (n, unit): (usize, &Unit),
    key: Key,
    attempts: &'a Attempts<'a>,
    told: &mut BTreeSet<u64>,
) -> Vec<Story> {
    let Some(lines) = collector.lines(Some(key)) else { return Vec::new() };
    let mut runs = runs(lines.sorted(), capture);
    let far = collector.lines(unit.far).map(Lines::sorted).unwrap_or_default();
    let sides: Vec<&Line> = collector.sides(n).into_iter().flat_map(|kept| kept.lines()).collect();
    let omitted = lines.omitted().saturating_add(collector.sides(n).map_or(0, |kept| kept.omitted));
    // what comes before the first connection, and after the last, is theirs
    let later = runs.iter().skip(1).map(|run| run.connection.span.from.saturating_sub(SLACK_NS));
    let starts: Vec<u64> = [0].into_iter().chain(later).chain([u64::MAX]).collect();
    let teller = Teller { capture, attempts, key, records: collector.records(key) };
    let mut stories = Vec::new();
    for (place, (run, bounds)) in runs.iter_mut().zip(starts.windows(2)).enumerate() {
        let &[from, to] = bounds else { continue };
        let within = |lines: &[&'a Line]| lines.iter().copied().filter(|l| (from..to).contains(&l.boot_ns())).collect();
        let around = Around { far: within(&far), sides: within(&sides), omitted: if place == 0 { omitted } else { 0 } };
        for record in teller.records.iter().filter(|record| run.is_of(record)).collect::<Vec<_>>() {
            run.connection.way.conclude(record);
        }
        stories.push(teller.story(run, &around, told));
    }
    stories
}

impl Teller<'_> {
    fn story(&self, run: &Run<'_>, around: &Around<'_>, told: &mut BTreeSet<u64>) -> Story {
        let c = &run.connection;
        let who = Who::new(c.owner(), run.lines.first().map(|line| line.id()), self.capture);
        let mut steps = self.steps(run, around);
        self.looked_up(&mut steps, run, who.pid, told);
        let (began_at, steps) = steps.finish();
        let closed_first = self.closed_first(run, around);
        let vip = if c.is_client() { c.way.vip(c.remote) } else { None };
        let moved = |of: fn(&TcpClose) -> Option<u64>| c.closed.as_ref().and_then(|closed| of(&closed.account));
        let mut gaps = gaps::of_tcp(c, run.lines.first().copied(), self.capture);
        let last = run.lines.last().map(|line| line.id());
        gaps.extend(gaps::tracking(&c.way, last, self.records, self.capture));
        gaps.extend(who.why.as_ref().map(|why| format!("who owns it: {why}")));
        Story {
            kind: Kind::Tcp,
            who,
            is_client: c.is_client(),
            netns: c.netns,
            local: c.local,
            remote: c.remote,
            others: Vec::new(),
            backend: vip.map(|_| c.way.backend(c.remote)).filter(|backend| Some(*backend) != vip),
            vip,
            far: self.far(around),
            began_at,
            steps,
            omitted_count: around.omitted,
            outcome: ended::of(c, closed_first.as_ref(), self.capture),
            closed_first,
            tx_bytes: moved(|a| a.tx_bytes),
            rx_bytes: moved(|a| a.rx_bytes),
            rtt_us: c.srtt_us(),
            gaps,
        }
    }

    fn steps(&self, run: &Run<'_>, around: &Around<'_>) -> Steps {
        let c = &run.connection;
        let mut steps = Steps::default();
        run.lines.iter().for_each(|line| steps.line(line, Place::Own, ""));
        translated(&mut steps, run);
        around.far.iter().for_each(|line| steps.line(line, Place::Far, "other end: "));
        let is_answered = c.established.is_some() || !c.is_client();
        let is_troubled = !is_answered || c.syns_sent_again() > 0 || c.retransmits.synack.total() > 0;
        for line in &around.sides {
            let is_full = line.event().is_some_and(|e| matches!(e.payload, Payload::ListenOverflow(_)));
            if !is_full || is_troubled {
                steps.line(line, Place::Way, "");
            }
        }
        let account = c.closed.as_ref().and_then(|closed| Some((closed.mark, words::account(&closed.account)?)));
        if let Some((mark, what)) = account {
            steps.add((mark.at, mark.seq, 1), Some(mark.seq), Place::Own, what);
        }
        steps
    }

    /// The lookup that is likely its own comes first.
    fn looked_up(&self, steps: &mut Steps, run: &Run<'_>, pid: Option<u32>, told: &mut BTreeSet<u64>) {
        if let (Some(pid), Some(begun)) = (pid, run.begun_at())
            && let Some(list) = self.attempts.get(&Asker::Process(pid, self.key.netns()))
            && let Some(lookup) = dns::lookup_before(list, begun)
        {
            lookup.steps(steps, Place::Lookup, begun);
            told.insert(lookup.id());
        }
    }

    fn far(&self, around: &Around<'_>) -> Option<Who> {
        let first = around.far.first()?;
        let owner = runs(around.far.clone(), self.capture).into_iter().next_back().and_then(|r| r.connection.owner());
        Some(Who::new(owner, Some(first.id()), self.capture))
    }

    fn closed_first(&self, run: &Run<'_>, around: &Around<'_>) -> Option<ClosedFirst> {
        let closed = run.connection.closed.as_ref();
        if closed.is_some_and(|closed| matches!(closed.from, TcpState::SynSent | TcpState::SynRecv)) {
            return None;
        }
        let by_collector = || {
            let mut records = self.records.iter().rev().filter(|record| run.is_of(record));
            records.find_map(|record| record.closed_by).map(by_record)
        };
        let by_far = || by_path(around.far.iter().filter_map(|line| line.event())).map(by_other_end);
        let known = by_path(run.events()).or_else(by_collector).or_else(by_far);
        let unknown = || {
            let why = self.capture.coverage.gap(&ended::STATES).unwrap_or_else(|| "its states do not tell".to_owned());
            closed.map(|_| ClosedFirst::unknown(why))
        };
        known.or_else(unknown)
    }
}

/// Translation is decided with the first packet; where a later line tells of another backend, it is told there, too.
fn translated(steps: &mut Steps, run: &Run<'_>) {
    let c = &run.connection;
    let Some(first) = run.events().next() else { return };
    let known = run.events().filter_map(|e| Some((e, e.id.nat.as_deref()?)));
    let last = c.way.nat.as_deref().map(|nat| (first, nat));
    let mut told: Option<String> = None;
    for (event, nat) in known.chain(last) {
        let what = words::translation(nat, c.remote, c.is_client());
        let Some(what) = what.filter(|what| told.as_ref() != Some(what)) else { continue };
        let at = if told.is_none() { first } else { event };
        steps.add((at.boot_ns, at.seq, 2), None, Place::Way, what.clone());
        told = Some(what);
    }
}
