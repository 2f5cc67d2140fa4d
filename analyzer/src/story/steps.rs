//! Chosen lines → stories: what one story is made of, and in which order its steps stand.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::collect::{Asker, Collector, Line};
use super::dns::Attempt;
use super::pick::Unit;
use super::{Kind, Place, Step, Story, dns, tcp, udp, words};
use crate::capture::Capture;

/// Steps so far, in any order.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// When, line number, and which of several things that a line tells.
    list: Vec<((u64, u64, u8), Step)>,
    /// Wall clock of the earliest line.
    began: Option<(u64, DateTime<Utc>)>,
}

impl Steps {
    /// What a line says of itself.
    pub(super) fn line(&mut self, line: &Line, place: Place, prefix: &str) {
        match line {
            Line::Event(e) => {
                self.clock(e.boot_ns, e.at);
                self.add((e.boot_ns, e.seq, 0), Some(e.seq), place, format!("{prefix}{}", words::event(e)));
            }
            Line::Socket(s) => {
                self.clock(s.boot_ns, s.at);
                self.add((s.boot_ns, line.place(), 0), None, place, format!("{prefix}{}", words::socket(s)));
            }
        }
    }

    /// Notes the wall clock of a moment.
    pub(super) fn clock(&mut self, boot_ns: u64, at: DateTime<Utc>) {
        if self.began.is_none_or(|(known, _)| boot_ns < known) {
            self.began = Some((boot_ns, at));
        }
    }

    /// Anything else, at this time, after this line.
    pub(super) fn add(&mut self, order: (u64, u64, u8), seq: Option<u64>, place: Place, what: String) {
        self.list.push((order, Step { boot_ns: order.0, since_start_ns: 0, seq, place, what }));
    }

    /// In the order of the kernel, each once, with the time since the first.
    pub(super) fn finish(mut self) -> (Option<DateTime<Utc>>, Vec<Step>) {
        self.list.sort_by(|a, b| (a.0, a.1.place, &a.1.what).cmp(&(b.0, b.1.place, &b.1.what)));
        let mut steps: Vec<Step> = self.list.into_iter().map(|(_, step)| step).collect();
        steps.dedup();
        let start = steps.first().map_or(0, |step| step.boot_ns);
        steps.iter_mut().for_each(|step| step.since_start_ns = step.boot_ns.saturating_sub(start));
        (self.began.map(|(_, at)| at), steps)
    }
}

/// Lookups of everybody, by who asked.
pub(super) type Attempts<'a> = BTreeMap<Asker, Vec<Attempt<'a>>>;

/// Every story of these units, those with events first, then by time.
pub(super) fn all(collector: &Collector<'_>, capture: &Capture, units: &[Unit]) -> Vec<Story> {
    let attempts: Attempts<'_> = collector.askers().map(|asker| (asker, dns::attempts(collector, asker))).collect();
    let mut told = BTreeSet::new();
    let mut stories = Vec::new();
    for (n, unit) in units.iter().enumerate() {
        match (unit.kind, unit.key) {
            (Kind::Tcp, Some(key)) => {
                stories.extend(tcp::tell(collector, capture, (n, unit), key, &attempts, &mut told))
            }
            (Kind::Udp, Some(key)) => stories.extend(udp::tell(collector, capture, (n, unit), key)),
            (Kind::Dns, _) => {}
            (_, None) => stories.extend(udp::strays(collector, capture, (n, unit))),
        }
    }
    stories.extend(dns::tell(collector, capture, units, &attempts, &told));
    let order =
        |s: &Story| (s.steps.iter().all(|step| step.seq.is_none()), s.boot_ns(), s.steps.first().and_then(|x| x.seq));
    stories.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| (a.local, a.remote).cmp(&(b.local, b.remote))));
    stories
}
