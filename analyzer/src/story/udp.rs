//! UDP flows that ask no DNS server, and packets of which there is no socket: as a story, as far as they are one.

use ktrace_bundle::event::{Errno, Payload, Role};
use ktrace_bundle::flow::FlowRecord;

use super::collect::{Collector, Line, Lines, Sum};
use super::ended::Outcome;
use super::index::Key;
use super::pick::Unit;
use super::steps::Steps;
use super::{Kind, Place, Story, Who, gaps, words};
use crate::capture::{Capture, Way};
use crate::units::{bytes, count, duration};

/// The story of a UDP flow.
pub(super) fn tell(collector: &Collector<'_>, capture: &Capture, (n, unit): (usize, &Unit), key: Key) -> Option<Story> {
    let lines = collector.lines(Some(key))?;
    let sorted = lines.sorted();
    let mut events = sorted.iter().filter_map(|line| line.event());
    let first = events.next()?;
    let last = events.next_back().unwrap_or(first);
    let far = collector.lines(unit.far).map(Lines::sorted).unwrap_or_default();
    let sides = collector.sides(n);
    let mut steps = Steps::default();
    sorted.iter().for_each(|line| steps.line(line, Place::Own, ""));
    far.iter().for_each(|line| steps.line(line, Place::Far, "other end: "));
    sides.into_iter().flat_map(|kept| kept.lines()).for_each(|line| steps.line(line, Place::Way, ""));
    let (remote, is_client) = (first.id.remote, first.id.role != Some(Role::Server));
    let way = way(&sorted, collector.records(key));
    if let Some(what) = way.nat.as_deref().and_then(|nat| words::translation(nat, remote, is_client)) {
        steps.add((first.boot_ns, first.seq, 2), None, Place::Way, what);
    }
    let (began_at, steps) = steps.finish();
    let who = |id| Who::new(capture.processes.find(id), Some(id), capture);
    let vip = if is_client { way.vip(remote) } else { None };
    let mut gaps = gaps::of_udp(capture);
    gaps.extend(gaps::tracking(&way, Some(&last.id), collector.records(key), capture));
    Some(Story {
        kind: Kind::Udp,
        who: who(&last.id),
        is_client,
        netns: key.netns(),
        local: last.id.local,
        remote,
        others: Vec::new(),
        backend: vip.map(|_| way.backend(remote)).filter(|backend| Some(*backend) != vip),
        vip,
        far: far.first().map(|line| who(line.id())),
        began_at,
        steps,
        omitted_count: lines.omitted().saturating_add(sides.map_or(0, |kept| kept.omitted)),
        outcome: outcome(lines.sent, lines.received, error(&sorted), last.boot_ns.saturating_sub(first.boot_ns)),
        closed_first: None,
        tx_bytes: Some(lines.sent.bytes),
        rx_bytes: Some(lines.received.bytes),
        rtt_us: None,
        gaps,
    })
}

/// Where its packets go.
fn way(lines: &[&Line], records: &[FlowRecord]) -> Way {
    let mut way = Way::default();
    for event in lines.iter().filter_map(|line| line.event()) {
        let asked = if let Payload::UdpSend(sent) = &event.payload { sent.asked } else { None };
        way.learn(event.id.nat.as_ref(), asked);
    }
    records.iter().for_each(|record| way.conclude(record));
    way
}

fn error(lines: &[&Line]) -> Option<Errno> {
    let mut errors = lines.iter().filter_map(|line| match &line.event()?.payload {
        Payload::UdpSend(d) | Payload::UdpRecv(d) => d.error,
        _ => None,
    });
    errors.next_back()
}

fn outcome(sent: Sum, received: Sum, error: Option<Errno>, over_ns: u64) -> Outcome {
    let part =
        |sum: Sum, what: &str| format!("{} {what} ({})", count(sum.count, "datagram", "datagrams"), bytes(sum.bytes));
    let text = format!("{}, {} within {}", part(sent, "sent"), part(received, "read"), duration(over_ns));
    match (error, received.count) {
        (Some(error), _) => {
            let n = sent.failed.saturating_add(received.failed);
            Outcome::new("failed", format!("{text}, {}, the last {}", count(n, "error", "errors"), words::icmp(error)))
        }
        (None, 0) => Outcome::new("unanswered", text),
        (None, _) => Outcome::new("answered", text),
    }
}

/// The story of packets of which there is no socket here.
pub(super) fn strays(collector: &Collector<'_>, capture: &Capture, (n, unit): (usize, &Unit)) -> Option<Story> {
    let sides = collector.sides(n)?;
    let first = sides.lines().find_map(Line::event)?;
    let mut steps = Steps::default();
    sides.lines().for_each(|line| steps.line(line, Place::Way, ""));
    let (began_at, steps) = steps.finish();
    let owner = capture.processes.find(&first.id);
    Some(Story {
        kind: unit.kind,
        who: Who::new(owner, Some(&first.id), capture),
        is_client: true,
        netns: first.id.netns,
        local: first.id.local,
        remote: first.id.remote,
        others: Vec::new(),
        vip: None,
        backend: None,
        far: None,
        began_at,
        steps,
        omitted_count: sides.omitted,
        outcome: Outcome::new("no_socket", "no line of a socket with these ends"),
        closed_first: None,
        tx_bytes: None,
        rx_bytes: None,
        rtt_us: None,
        gaps: gaps::of_udp(capture),
    })
}
