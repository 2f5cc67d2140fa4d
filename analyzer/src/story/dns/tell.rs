//! An attempt → its story: how it came out, who answered, and what hit it on the way.

use std::collections::BTreeSet;

use ktrace_bundle::event::{Errno, Event, Identity, Payload};

use super::{Attempt, datagram, size};
use crate::capture::{Capture, Needs, PAIR_NS, PENDING_NS, RETRY_NS, Way};
use crate::story::collect::{Collector, Line, Lines};
use crate::story::ended::Outcome;
use crate::story::index::Key;
use crate::story::pick::Unit;
use crate::story::steps::{Attempts, Steps};
use crate::story::{Kind, Place, Story, Who, gaps, words};
use crate::units::{count, duration};

/// What must be there for no answer to mean that none was read.
const ANSWERS: Needs = Needs { hooks: &["udp"], lossless: true, ..Needs::NOTHING };

impl Attempt<'_> {
    fn refused(&self) -> Option<(&Event, Errno)> {
        let failed = self.errors.iter().chain(&self.queries);
        failed.filter_map(|e| Some((*e, datagram(e)?.error?))).max_by_key(|(e, _)| (e.boot_ns, e.seq))
    }

    fn outcome(&self, capture: &Capture) -> Outcome {
        let start = self.start();
        let asked = match (self.queries.len() as u64, self.servers().len() as u64) {
            (n, 0 | 1) => count(n, "query", "queries"),
            (n, servers) => format!("{} to {}", count(n, "query", "queries"), count(servers, "server", "servers")),
        };
        if self.queries.is_empty() {
            return Outcome::new("answered", "an answer to a question that is not in the bundle");
        }
        if let Some(at) = self.answered_at() {
            let after = duration(at.saturating_sub(start));
            return match (self.questions(), self.answers.len()) {
                (2, 1) => {
                    Outcome::new("answered_in_part", format!("one of 2 questions answered after {after}, {asked}"))
                }
                _ => Outcome::new("answered", format!("answered after {after}, {asked}")),
            };
        }
        if let Some((event, errno)) = self.refused() {
            let after = duration(event.boot_ns.saturating_sub(start));
            let is_sent = matches!(event.payload, Payload::UdpSend(_)) && errno.name() != Some("ECONNREFUSED");
            let text = if is_sent { "not sent" } else { "refused" };
            let kind = if is_sent { "not_sent" } else { "refused" };
            return Outcome::new(kind, format!("{text} after {after}, {}, {asked}", words::icmp(errno)));
        }
        let last = self.queries.last().map_or(start, |q| q.boot_ns);
        let waited = capture.window_end_ns.saturating_sub(last);
        if let Some(why) = capture.coverage.gap(&ANSWERS) {
            return Outcome::new(
                "unknown",
                format!("no answer in the bundle, {asked}, where answers can be missing: {why}"),
            );
        }
        if waited < PENDING_NS {
            let text = format!("not answered {} later, when the window closed, {asked}", duration(waited));
            return Outcome::new("pending", text);
        }
        let over = last.saturating_sub(start);
        let over = if over > 0 { format!(" over {}", duration(over)) } else { String::new() };
        Outcome::new("unanswered", format!("no answer, {asked}{over}"))
    }
}

/// The attempts of the chosen flows, less those that a connection's story has begun with.
pub(in crate::story) fn tell(
    collector: &Collector<'_>,
    capture: &Capture,
    units: &[Unit],
    attempts: &Attempts<'_>,
    told: &BTreeSet<u64>,
) -> Vec<Story> {
    let chosen = units.iter().enumerate().filter(|(_, unit)| unit.kind == Kind::Dns);
    let chosen: Vec<Chosen<'_>> = chosen.filter_map(|(n, unit)| Some((n, unit, unit.key?))).collect();
    let mut stories = Vec::new();
    for (asker, list) in attempts {
        let cut = collector.lookups(*asker).and_then(|kept| kept.cut_at());
        for (place, attempt) in list.iter().enumerate().filter(|(_, attempt)| !told.contains(&attempt.id())) {
            let keys = attempt.keys();
            let mine: Vec<_> = chosen.iter().filter(|(_, _, key)| keys.contains(key)).collect();
            if !mine.is_empty() {
                let later = list.get(place + 1..).unwrap_or_default();
                let (steps, far) = steps(attempt, later, &mine, collector);
                stories.extend(story(attempt, steps, (far, cut), collector, capture));
            }
        }
    }
    stories
}

/// A flow whose attempts are told: the number of its unit, that, and its key.
type Chosen<'a> = (usize, &'a Unit, Key);

/// The steps of an attempt, with what the servers on this node and the way to them tell until the next one begins; and the
/// first line of such a server.
fn steps<'a>(
    attempt: &Attempt<'_>,
    later: &[Attempt<'_>],
    mine: &[&Chosen<'_>],
    collector: &'a Collector<'_>,
) -> (Steps, Option<&'a Identity>) {
    let (mut steps, mut far) = (Steps::default(), None);
    attempt.steps(&mut steps, Place::Own, u64::MAX);
    for (n, unit, key) in mine {
        let next = later.iter().find(|a| a.keys().contains(key)).map_or(u64::MAX, Attempt::start);
        let span = attempt.start().saturating_sub(PAIR_NS)..next;
        let is_in = |line: &&Line| span.contains(&line.boot_ns());
        let theirs = collector.lines(unit.far).into_iter().flat_map(Lines::sorted);
        for line in theirs.filter(is_in) {
            steps.line(line, Place::Far, "other end: ");
            far = far.or_else(|| Some(line.id()));
        }
        let sides = collector.sides(*n).into_iter().flat_map(|kept| kept.lines());
        sides.filter(is_in).for_each(|line| steps.line(line, Place::Way, ""));
    }
    (steps, far)
}

/// How many bytes these carried.
fn sum(events: &[&Event]) -> Option<u64> {
    Some(events.iter().filter_map(|e| size(e)).fold(0_u64, u64::saturating_add))
}

fn story(
    attempt: &Attempt<'_>,
    mut steps: Steps,
    (far, cut): (Option<&Identity>, Option<u64>),
    collector: &Collector<'_>,
    capture: &Capture,
) -> Option<Story> {
    let first = attempt.events().min_by_key(|e| (e.boot_ns, e.seq))?;
    let id = &first.id;
    let mut way = Way::default();
    for event in attempt.events().filter(|e| e.id.remote == id.remote) {
        way.learn(event.id.nat.as_ref(), datagram(event).and_then(|d| d.asked));
    }
    let records = collector.records(Key::of(id));
    records.iter().for_each(|record| way.conclude(record));
    if let Some(what) = way.nat.as_deref().and_then(|nat| words::translation(nat, id.remote, true)) {
        steps.add((first.boot_ns, first.seq, 1), None, Place::Way, what);
    }
    let who = |id: &Identity| Who::new(capture.processes.find(id), Some(id), capture);
    let (began_at, steps) = steps.finish();
    let rtt = attempt.answers.iter().filter_map(|e| datagram(e)?.dns_rtt_ns).next_back();
    let vip = way.vip(id.remote);
    let mut gaps = gaps::of_udp(capture);
    gaps.extend(gaps::tracking(&way, Some(id), records, capture));
    let is_cut = cut.is_some_and(|cut| attempt.start().saturating_add(*RETRY_NS.end()) > cut);
    gaps.extend(is_cut.then(|| "its process sent so many datagrams that later ones were not kept".to_owned()));
    Some(Story {
        kind: Kind::Dns,
        who: who(id),
        is_client: true,
        netns: id.netns,
        local: id.local,
        remote: id.remote,
        others: attempt.servers().into_iter().filter(|s| *s != id.remote).collect(),
        backend: vip.map(|_| way.backend(id.remote)).filter(|backend| Some(*backend) != vip),
        vip,
        far: far.map(who),
        began_at,
        steps,
        omitted_count: 0,
        outcome: attempt.outcome(capture),
        closed_first: None,
        tx_bytes: sum(&attempt.queries),
        rx_bytes: sum(&attempt.answers),
        rtt_us: rtt.map(|ns| ns / 1000),
        gaps,
    })
}
