//! One record per connection or DNS attempt: who, the lookup before it, SYN and retries, translation, drops and resets,
//! states, bytes, and how it ended.
//!
//! A bundle is read twice: first every flow in short ([`index`], [`pick`]), then the lines of the chosen ones, a bounded number
//! of each ([`collect`]). Steps are in the order of the kernel (`boot_ns`), so the order of lines in the bundle changes nothing.
//! What a line does not say is not guessed: it stands under [`Story::gaps`], with the reason.

mod closer;
mod collect;
mod dns;
mod ended;
mod gaps;
mod index;
pub mod json;
mod pick;
mod select;
mod steps;
mod tcp;
pub mod text;
mod udp;
mod who;
mod words;

use std::path::Path;

use chrono::{DateTime, Utc};
use ktrace_bundle::event::Endpoint;
use ktrace_bundle::reader::{self, Limits, ReadReport, Record};

use crate::capture::{Builder, Capture};
use crate::error::Error;
use collect::Collector;
use index::Index;
use pick::Picked;

pub use closer::{ClosedFirst, Closer};
pub use ended::Outcome;
pub use select::{FlowQuery, PodQuery, Selector};
pub use who::Who;

/// Flows that are read for each story that is asked for: a DNS attempt can take several.
const FLOWS_PER_STORY: usize = 4;

/// What is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A TCP connection, or an attempt to make one.
    Tcp,
    /// A question to DNS servers, until it is answered or no longer asked.
    Dns,
    /// A UDP flow.
    Udp,
}

impl Kind {
    /// The name as it stands in a story.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Dns => "dns",
            Self::Udp => "udp",
        }
    }
}

/// Whose step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The end that the story is told from.
    Own,
    /// The socket at the other end, which is on this node, too.
    Far,
    /// On the way between both: translation, dropped packets, a full listener.
    Way,
    /// A lookup that is likely this connection's, see [`dns::LOOKUP_BOUND_NS`].
    Lookup,
}

impl Place {
    /// The name as it stands in a story.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Far => "far",
            Self::Way => "way",
            Self::Lookup => "lookup",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When, `CLOCK_BOOTTIME` in ns.
    pub boot_ns: u64,
    /// Since the first step of the story, ns.
    pub since_start_ns: u64,
    /// The line that tells of it; `None`: it follows from other files of the bundle, or stands for several lines.
    pub seq: Option<u64>,
    /// Whose it is.
    pub place: Place,
    /// What happened, escaped.
    pub what: String,
}

/// A connection, a DNS attempt or a UDP flow, from its beginning to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// Of what.
    pub kind: Kind,
    /// Who owns the socket.
    pub who: Who,
    /// Whether this end connected, or asked.
    pub is_client: bool,
    /// Network namespace of the socket.
    pub netns: u32,
    /// Own end.
    pub local: Endpoint,
    /// Other end, as the socket has it.
    pub remote: Endpoint,
    /// Other DNS servers that were asked, too.
    pub others: Vec<Endpoint>,
    /// The address that was asked, where somebody else got what was sent there.
    pub vip: Option<Endpoint>,
    /// Who got it, if that is not whom the socket names.
    pub backend: Option<Endpoint>,
    /// Who owns the socket at the other end, where that is on this node.
    pub far: Option<Who>,
    /// Wall clock of the first step; `None` where only socket tables tell of it.
    pub began_at: Option<DateTime<Utc>>,
    /// In the order of the kernel.
    pub steps: Vec<Step>,
    /// Lines of it that are not told, between its first and its last ones.
    pub omitted_count: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Who ended it; `None` of what was never open, is open still, or is no connection.
    pub closed_first: Option<ClosedFirst>,
    /// Payload bytes that this end sent.
    pub tx_bytes: Option<u64>,
    /// Payload bytes that it received.
    pub rx_bytes: Option<u64>,
    /// Round trip time as of the last word, µs; of DNS from the query to the reading of its answer.
    pub rtt_us: Option<u64>,
    /// What is not known, and why, one sentence each, escaped.
    pub gaps: Vec<String>,
}

impl Story {
    /// When its first step was, `boot_ns`.
    pub fn boot_ns(&self) -> u64 {
        self.steps.first().map_or(0, |step| step.boot_ns)
    }

    fn has_line(&self, seq: u64) -> bool {
        self.steps.iter().any(|step| step.seq == Some(seq))
    }
}

/// The stories that were asked for.
#[derive(Debug)]
pub struct Told {
    /// The first of them in time; those of which no event tells stand last.
    pub stories: Vec<Story>,
    /// How many more flows are meant, as far as can be said without their lines: two can be one story, and one can be several.
    pub more: u64,
    /// What could have been seen; has no flows.
    pub capture: Capture,
    /// How the reading went.
    pub read: ReadReport,
}

/// Tells the first `limit` stories of a bundle that a selector means.
///
/// # Errors
/// [`Error::Read`] if this is no bundle.
pub fn tell(path: &Path, selector: &Selector, limit: usize) -> Result<Told, Error> {
    let read = |sink: &mut dyn FnMut(Record)| reader::read(path, &Limits::default(), sink).map_err(Error::Read);
    tell_from(read, selector, limit)
}

/// The same of whatever delivers the same records twice.
fn tell_from<E>(
    mut read: impl FnMut(&mut dyn FnMut(Record)) -> Result<ReadReport, E>,
    selector: &Selector,
    limit: usize,
) -> Result<Told, E> {
    let mut builder = Builder::without_flows();
    let mut index = Index::new(selector);
    let report = read(&mut |record| {
        match &record {
            Record::Event(event) => index.event(event, builder.process_of(&event.id)),
            Record::Socket(socket) => index.socket(socket, builder.process_of(&socket.id)),
            Record::Flow(flow) => index.record(flow),
            _ => {}
        }
        builder.push(record);
    })?;
    let mut capture = builder.finish(&report);
    if index.overflow > 0 {
        capture.coverage.overflow.push(("flows", index.overflow));
    }
    let picked = Picked::new(&index, &capture, limit.saturating_mul(FLOWS_PER_STORY));
    let mut collector = Collector::new(&index, &capture, &picked.units);
    read(&mut |record| collector.push(record))?;
    let mut stories = steps::all(&collector, &capture, &picked.units);
    if let Some(seq) = selector.seq.filter(|seq| stories.iter().any(|s| s.has_line(*seq))) {
        stories.retain(|story| story.has_line(seq));
    }
    let more = picked.more.saturating_add(stories.len().saturating_sub(limit) as u64);
    stories.truncate(limit);
    Ok(Told { stories, more, capture, read: report })
}

#[cfg(test)]
mod tests;
