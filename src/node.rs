//! The node's network and the pressure on it, as they are when the window opens and when it closes: `node/` of the bundle.
//!
//! Two threads look, beside the event path: one at what the kernel tells at once, one at the packet filters, whose tools may take
//! seconds. The capture tells them when, notes where sockets were seen, and writes what they find. Nothing is changed by looking,
//! and no module is loaded.

mod desk;
mod filters;
mod host;
mod limit;
mod look;
mod netlink;
mod network;
mod nic;
mod out;
mod places;
mod rooted;
mod rose;
mod seen;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ktrace_bundle::event::{Identity, When};
use ktrace_bundle::manifest::{ClockSample, SourceReport};

use desk::{Desk, Message, Part};
use filters::Filters;
use look::Looks;
use out::Counts;
pub use out::Line;
use seen::Seen;

/// So long the window waits for the first look to end; it goes on beside the window.
const FIRST_WORD: Duration = Duration::from_millis(100);
/// So long a look may take: the first one beside the window, the last one beside what else there is to do at the end, which takes seconds
/// where there are very many sockets.
const LOOK: Duration = Duration::from_secs(5);
/// So long the end of the capture waits for the last look.
const LAST_WORD: Duration = Duration::from_millis(50);
/// The same of the packet filters, for which the window does not wait to open.
const FILTERS: Duration = Duration::from_secs(2);
/// Pieces that are taken in one turn of the event path: well below 1 ms.
const IN_A_TURN: usize = 4;

/// Names of the sources in the manifest.
const SOURCES: [&str; 3] = ["node_network", "node_host", "node_filters"];

/// Both threads, as the capture sees them.
pub struct Node {
    seen: Seen,
    desks: Vec<(Desk, Duration)>,
    first: Option<ClockSample>,
    parts: BTreeMap<&'static str, Part>,
    /// The longest that the capture waited for each thread.
    waited: [Duration; 2],
    is_requested: bool,
}

impl Node {
    /// Starts the threads, if that is wanted. `root`: the host's root directory.
    pub fn new(is_requested: bool, root: &Path) -> Self {
        let root: PathBuf = root.to_owned();
        let desks = if is_requested {
            let look = Desk::start("node", move || {
                let mut looks = Looks::new(root);
                move |order: &desk::Order, out: &mut out::Out| looks.look(order, out)
            });
            let filters = Desk::start("filters", || {
                let mut filters = Filters::new();
                move |order: &desk::Order, out: &mut out::Out| filters.look(order, out)
            });
            [look.map(|it| (it, LAST_WORD)), filters.map(|it| (it, FILTERS))].into_iter().flatten().collect()
        } else {
            Vec::new()
        };
        let (first, parts, waited) = (None, BTreeMap::new(), [Duration::ZERO; 2]);
        Self { seen: Seen::default(), desks, first, parts, waited, is_requested }
    }

    /// A socket, or an event, of this owner was seen.
    pub fn see(&mut self, id: &Identity) {
        if self.is_requested {
            self.seen.add(id);
        }
    }

    /// Begins the first look, and waits for most of it. `first`: the reading of the clocks that dates everything.
    pub fn begin(&mut self, first: ClockSample, write: &mut dyn FnMut(Line)) {
        let begin = Instant::now();
        self.first = Some(first);
        self.order(When::Start);
        let Self { desks, parts, waited, .. } = self;
        if let Some((desk, _)) = desks.first_mut() {
            desk.wait(FIRST_WORD, &mut |message| settle(parts, message, write));
        }
        let [of_looks, _] = waited;
        *of_looks = begin.elapsed();
    }

    fn order(&mut self, when: When) {
        let Some(first) = &self.first else { return };
        for (desk, last_word) in &mut self.desks {
            desk.order(when, self.seen.clone(), first.clone(), LOOK.max(*last_word));
        }
    }

    /// Takes what was found meanwhile, a little in each turn of the event path.
    pub fn turn(&mut self, write: &mut dyn FnMut(Line)) {
        let Self { desks, parts, .. } = self;
        for (desk, _) in desks {
            desk.take(IN_A_TURN, &mut |message| settle(parts, message, write));
        }
    }

    /// The window has closed: begins the last look.
    pub fn close(&mut self) {
        // a first look that is still under way leaves no room for the last one
        self.desks.iter().for_each(|(desk, _)| desk.hurry(Duration::ZERO));
        self.order(When::End);
    }

    /// Waits for the last look, and says how the sources did.
    pub fn finish(&mut self, write: &mut dyn FnMut(Line)) -> Vec<SourceReport> {
        let (desks, mut parts) = (std::mem::take(&mut self.desks), std::mem::take(&mut self.parts));
        let mut late = Vec::new();
        for ((mut desk, longest), waited) in desks.into_iter().zip(&mut self.waited) {
            let begin = Instant::now();
            late.push(!desk.finish(longest, &mut |message| settle(&mut parts, message, write)));
            *waited = begin.elapsed().max(*waited);
        }
        let is_late = |source: &str| late.get(usize::from(source == "node_filters")).copied().unwrap_or(true);
        SOURCES.into_iter().map(|name| self.report(name, parts.remove(name), is_late(name))).collect()
    }

    fn report(&self, name: &str, part: Option<Part>, is_late: bool) -> SourceReport {
        let Part { counts, took, .. } =
            part.unwrap_or(Part { source: "", counts: Counts::default(), took: Duration::ZERO });
        let outcome = match (self.is_requested, is_late) {
            (false, _) => "not_requested",
            (true, true) => "failed",
            (true, false) if counts.found == 0 && counts.absent > 0 => "absent",
            (true, false) => "answered",
        };
        let late = is_late.then(|| "it did not answer in time".to_owned());
        let [of_looks, of_filters] = self.waited;
        let took = match name {
            "node_network" => of_looks,
            "node_filters" => of_filters,
            _ => took,
        };
        let if_asked = |number: u64| self.is_requested.then_some(number);
        SourceReport {
            name: name.into(),
            outcome: outcome.into(),
            latency_us: if_asked(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            entries: if_asked(counts.found),
            errors: if_asked(counts.lacking),
            error: late.or(counts.why).filter(|_| self.is_requested),
            ..SourceReport::default()
        }
    }
}

/// Writes lines, or adds up how the sources did.
fn settle(parts: &mut BTreeMap<&'static str, Part>, message: Message, write: &mut dyn FnMut(Line)) {
    match message {
        Message::Lines(lines) => lines.into_iter().for_each(write),
        Message::Done(done) => {
            for part in done {
                let none = Part { source: part.source, counts: Counts::default(), took: Duration::ZERO };
                let known = parts.entry(part.source).or_insert(none);
                known.took = known.took.max(part.took);
                known.counts.found += part.counts.found;
                known.counts.lacking += part.counts.lacking;
                known.counts.absent += part.counts.absent;
                known.counts.why = part.counts.why.or(known.counts.why.take());
            }
        }
    }
}
