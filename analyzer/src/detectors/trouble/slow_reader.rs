//! `tcp.slow_reader`: a process does not read what is sent to it, so its connection has no room for more.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{MAX_FINDINGS, lifetime, target_of};
use crate::capture::{Capture, Connection, Evidence, Needs, ProcId, Target, Waited};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Key, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{SECOND, count, duration, percent, share};

/// See the module.
pub(in crate::detectors) struct SlowReader;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_waited_ms: Ms,
    waited_share: f64,
    long_ms: Ms,
}

/// Who does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reader {
    /// The process whose socket it is.
    Own,
    /// The other end.
    Peer,
}

/// Connections of one target that wait for one reader.
#[derive(Debug, Default)]
struct Account<'a> {
    all: u64,
    waiting: Vec<&'a Connection>,
    longest_ns: u64,
    part: f64,
    queued_bytes: u64,
    evidence: Evidence,
}

impl Rule for SlowReader {
    const ID: &'static str = "tcp.slow_reader";
    const TEXT: &'static str = include_str!("../../../kb/tcp.slow_reader.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let hooks = &["tcp_wait"];
        Needs { hooks, lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut accounts: BTreeMap<(Reader, Target), Account<'_>> = BTreeMap::new();
        for c in &capture.connections {
            for reader in [Reader::Own, Reader::Peer] {
                accounts.entry((reader, target_of(capture, c))).or_default().add(capture, t, reader, c);
            }
        }
        accounts.retain(|_, account| !account.waiting.is_empty());
        let senders = senders(capture, &accounts);
        let found = accounts.iter().map(|((reader, target), account)| {
            let readers = account.waiting.iter().map(|c| (c.netns, c.owner()));
            let covers: BTreeSet<Key> = readers.filter_map(|it| senders.get(&it)).flatten().cloned().collect();
            finding(capture, t, (*reader, target), account, covers)
        });
        found.take(MAX_FINDINGS).collect()
    }
}

fn waited(c: &Connection, reader: Reader) -> Option<&Waited> {
    let trouble = c.trouble.as_deref()?;
    Some(match reader {
        Reader::Own => &trouble.receive_buffer,
        Reader::Peer => &trouble.zero_window,
    })
}

impl<'a> Account<'a> {
    fn add(&mut self, capture: &Capture, t: &Thresholds, reader: Reader, c: &'a Connection) {
        self.all += 1;
        let Some(waited) = waited(c, reader) else { return };
        let part = share(waited.total_ns, lifetime(capture, c).max(waited.total_ns));
        if waited.total_ns < t.min_waited_ms.ns() || (part < t.waited_share && waited.total_ns < t.long_ms.ns()) {
            return;
        }
        self.waiting.push(c);
        self.longest_ns = self.longest_ns.max(waited.total_ns);
        self.part = self.part.max(part);
        self.queued_bytes = self.queued_bytes.max(waited.queued_bytes);
        self.evidence.merge(&waited.evidence);
    }
}

/// Senders that wait, by their readers on this node.
fn senders(
    capture: &Capture,
    accounts: &BTreeMap<(Reader, Target), Account<'_>>,
) -> BTreeMap<(u32, Option<ProcId>), BTreeSet<Key>> {
    let mut senders: BTreeMap<_, BTreeSet<Key>> = BTreeMap::new();
    for ((_, target), account) in accounts.iter().filter(|((reader, _), _)| *reader == Reader::Peer) {
        for c in &account.waiting {
            let far = if c.is_client() { capture.ends.server_of(c) } else { capture.ends.client_of(c) };
            if let Some(far) = far.filter(|far| far.owner.is_some()) {
                senders.entry((far.netns, far.owner)).or_default().insert(Key::from(target));
            }
        }
    }
    senders
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    (reader, target): (Reader, &Target),
    account: &Account<'_>,
    covers: BTreeSet<Key>,
) -> Finding {
    let subject = group::of_connections(capture, target, account.waiting.iter().copied());
    let n = account.waiting.len() as u64;
    let extent = format!(
        "for up to {} ({} of the time) in {n} of {}",
        duration(account.longest_ns),
        percent((account.part * 1000.0).round() / 1000.0),
        count(account.all, "connection", "connections")
    );
    let (who, whom) = (subject.who(), subject.whom());
    let title = match (reader, &subject.far) {
        (Reader::Own, _) => {
            format!("{who} does not read what {whom} sends to it: its receive buffer was full {extent}")
        }
        (Reader::Peer, Some(far)) => {
            format!("{} does not read what {who} sends to it by {whom}: its window was closed {extent}", far.who())
        }
        (Reader::Peer, None) => {
            format!("{whom} does not read what {who} sends to it: its window was closed {extent}")
        }
    };
    Finding {
        rule: "tcp.slow_reader",
        severity: Severity::Warning,
        title,
        signal: Signal {
            name: if reader == Reader::Own { "unread_time" } else { "zero_window_time" },
            value: account.longest_ns as f64 / SECOND as f64,
            unit: "s",
            threshold: t.min_waited_ms.ns() as f64 / SECOND as f64,
        },
        cause: cause(reader, account.queued_bytes),
        impact: "who sends waits, and what it sends comes late; its own buffers fill in turn".to_owned(),
        next_steps: next_steps(reader, &subject),
        share: share(n, account.all),
        confidence: if reader == Reader::Own { 0.9 } else { 0.95 },
        evidence: account.evidence.clone(),
        symptoms: Vec::new(),
        covers: (reader == Reader::Own).then(|| covers.into_iter().collect()),
        subject,
    }
}

fn cause(reader: Reader, queued_bytes: u64) -> String {
    let bytes = count(queued_bytes, "byte", "bytes");
    match reader {
        Reader::Own => format!("up to {bytes} had arrived and were not read: the process is busy, blocked, or stopped"),
        Reader::Peer => format!(
            "the other end has told that it has no room, while up to {bytes} waited to be sent: its process is busy, blocked, or stopped"
        ),
    }
}

/// What the reader does, if it is a process of this node.
fn next_steps(reader: Reader, subject: &Subject) -> Vec<Step> {
    let pid = match reader {
        Reader::Own => subject.pid(),
        Reader::Peer => subject.far.as_ref().map(|far| far.pid),
    };
    let mut out: Vec<Step> = pid.into_iter().flat_map(reader_steps).collect();
    let text = "see how much waits (Recv-Q: not read, Send-Q: not acknowledged), and the window";
    out.extend(steps::sockets(subject, text, "-tnmio"));
    if pid.is_none() {
        out.push(Step::think("on the other end's machine: see what its process does instead of reading"));
    }
    out
}

fn reader_steps(pid: u32) -> [Step; 2] {
    [
        Step::run("see where the reader's threads wait", format!("cat /proc/{pid}/task/*/wchan")),
        Step::run(
            "see whether it is stopped, and how much CPU it gets",
            format!("grep -E 'State|ctxt' /proc/{pid}/status; cat /proc/{pid}/schedstat"),
        ),
    ]
}
