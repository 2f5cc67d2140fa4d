//! `node.top_talkers`: one process that makes most of the connections.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::capture::{Capture, Connection, Evidence, Needs, Target};
use crate::detectors::{Rule, group};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::units::{count, percent, share};

use ktrace_bundle::event::Endpoint;

/// See the module.
pub(in crate::detectors) struct TopTalkers;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_opened: u64,
    top_share: f64,
}

impl Rule for TopTalkers {
    const ID: &'static str = "node.top_talkers";
    const TEXT: &'static str = include_str!("../../../kb/node.top_talkers.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut by_owner: BTreeMap<(Option<String>, u32), Vec<&Connection>> = BTreeMap::new();
        let opened = capture.connections.iter().filter(|c| c.is_client() && c.opened.is_some());
        for c in opened {
            by_owner.entry((capture.owner(c).map(|p| p.comm.clone()), c.netns)).or_default().push(c);
        }
        let all = by_owner.values().map(|list| list.len() as u64).sum::<u64>();
        let Some(((comm, netns), list)) = by_owner.iter().rev().max_by_key(|(_, list)| list.len()) else {
            return Vec::new();
        };
        let share = share(list.len() as u64, all);
        if all < t.min_opened || share < t.top_share || by_owner.len() < 2 {
            return Vec::new();
        }
        let target = Target { comm: comm.clone(), netns: *netns, remote: Endpoint::default() };
        let subject = group::of_connections(capture, &target, list.iter().copied());
        let mut remotes: BTreeMap<Endpoint, u64> = BTreeMap::new();
        list.iter().for_each(|c| *remotes.entry(c.remote).or_default() += 1);
        let most = remotes.iter().rev().max_by_key(|(_, n)| **n);
        let most = most.map_or_else(String::new, |(end, n)| format!(", {n} of them to {end}"));
        let title = format!(
            "{} makes {} of {} of this node ({}){most}",
            subject.who(),
            list.len(),
            count(all, "new connection", "new connections"),
            percent(share)
        );
        vec![Finding {
            rule: Self::ID,
            severity: Severity::Info,
            title,
            signal: Signal {
                name: "new_connection_share",
                value: share * 100.0,
                unit: "percent",
                threshold: t.top_share * 100.0,
            },
            cause: "one process outweighs all others: what the node as a whole shows is mostly about it".to_owned(),
            impact: "none by itself; where ports, connection tracking or the processors run short, begin here"
                .to_owned(),
            next_steps: vec![Step::think("compare with what this process does on other nodes, and with an hour ago")],
            share,
            confidence: 0.95,
            evidence: Evidence::of(list.iter().filter_map(|c| c.opened.map(|m| m.seq))),
            symptoms: Vec::new(),
            covers: None,
            subject,
        }]
    }
}
