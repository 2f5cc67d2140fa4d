//! `analyze ask`: a question in plain words.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::ask::{Answer, Topic, Traffic};
use crate::detectors::by_id;
use crate::error::{Error, Exit};
use crate::escape::shown;
use crate::kb::Kb;
use crate::report::{Report, text};
use crate::units::{count, duration};

/// Findings that are told in full.
const IN_FULL: usize = 3;

/// What to answer.
#[derive(Debug, Args)]
pub(super) struct Ask {
    /// A bundle, if the first word is the path of one, and the question: `analyze ask out "why is postgres slow?"`
    #[arg(required = true, value_name = "[BUNDLE] QUESTION")]
    words: Vec<OsString>,
    /// Judge by another threshold than the release's, as in `dns.slow.p95_ms=50`; may be repeated
    #[arg(long, value_name = "RULE.THRESHOLD=NUMBER")]
    set: Vec<String>,
}

pub(super) fn run(args: &Ask, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    let kb = super::knowledge(&args.set)?;
    let (bundle, words) = split(&args.words);
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let question = words.join(" ");
    let mut topic = Topic::new(&kb, &question);
    let Some(bundle) = bundle else {
        plan(out, &kb, &topic)?;
        return Ok(Exit::Done);
    };
    let path = super::bundle(Some(&bundle), err)?;
    let (capture, read) = super::load(&path, &kb)?;
    topic.find_names(&capture, &question);
    let source = path.to_string_lossy();
    let report = Report::new(&capture, &kb, &source)?;
    answer(out, &report, &topic)?;
    out.flush()?;
    super::talk(&capture, &read, err)?;
    Ok(if super::is_cut(&capture) { Exit::Cut } else { Exit::Done })
}

/// The bundle, if the first word is one, and the rest.
fn split(words: &[OsString]) -> (Option<PathBuf>, &[OsString]) {
    match words {
        [first, rest @ ..] if !rest.is_empty() && Path::new(first).exists() => (Some(first.into()), rest),
        _ => (None, words),
    }
}

/// `port 5432 (postgres), `postgres``.
fn about(topic: &Topic) -> String {
    let mut parts = Vec::new();
    if !topic.ports.is_empty() {
        let ports: Vec<String> = topic.ports.iter().map(u16::to_string).collect();
        let services: Vec<&str> = topic.services.iter().copied().collect();
        let of = if services.is_empty() { String::new() } else { format!(" ({})", services.join(", ")) };
        let noun = if ports.len() == 1 { "port" } else { "ports" };
        parts.push(format!("{noun} {}{of}", ports.join(", ")));
    }
    parts.extend(topic.addresses.iter().map(ToString::to_string));
    parts.extend(topic.names.iter().map(|name| format!("`{}`", shown(name))));
    if parts.is_empty() { "the whole capture".to_owned() } else { parts.join(", ") }
}

fn answer(out: &mut dyn Write, report: &Report<'_>, topic: &Topic) -> io::Result<()> {
    let answer = Answer::new(report, topic);
    text::wrapped(out, "about: ", &about(topic), "       ")?;
    text::wrapped(out, "answer: ", &sentence(&answer, topic), "        ")?;
    for (n, finding) in answer.findings.iter().enumerate().take(IN_FULL) {
        text::write_finding(out, n + 1, finding, report.source)?;
    }
    if answer.findings.len() > IN_FULL {
        writeln!(out, "\n{} more: `analyze BUNDLE --all`", answer.findings.len() - IN_FULL)?;
    }
    if !answer.traffic.is_empty() {
        writeln!(out, "\ntraffic")?;
        answer.traffic.iter().try_for_each(|t| text::sentence(out, &told(t)))?;
        if answer.more_traffic > 0 {
            text::sentence(out, &format!("{} more", count(answer.more_traffic as u64, "target", "targets")))?;
        }
    }
    if !answer.clear.is_empty() {
        writeln!(out)?;
        text::wrapped(out, "judged, and nothing found: ", &answer.clear.join(", "), "   ")?;
    }
    if !answer.inconclusive.is_empty() {
        writeln!(out, "\nnot judged")?;
        for u in &answer.inconclusive {
            text::sentence(out, &format!("{}: {}", u.rule, u.why))?;
        }
    }
    if answer.others > 0 {
        let rest = count(answer.others as u64, "finding is", "findings are");
        writeln!(out, "\n{rest} about something else: `analyze BUNDLE`")?;
    }
    Ok(())
}

/// The answer in one sentence.
fn sentence(answer: &Answer<'_>, topic: &Topic) -> String {
    if let Some(first) = answer.findings.first() {
        return first.title.clone();
    }
    if topic.is_particular() && answer.traffic.is_empty() {
        return "nothing in this bundle is about that: no connection attempt and no datagram of a client; see \
                `analyze BUNDLE` for what there is"
            .to_owned();
    }
    let judged = count(answer.clear.len() as u64, "rule about it found", "rules about it found");
    match answer.inconclusive.len() {
        0 if topic.rules.is_empty() => "no rule is about these words; `analyze kb list` names all questions".to_owned(),
        0 => format!("nothing was found: {judged} nothing, and would have"),
        n => format!("nothing was found, but {} not judge", count(n as u64, "rule could", "rules could")),
    }
}

fn told(t: &Traffic) -> String {
    let who = t
        .target
        .comm
        .as_deref()
        .map_or_else(|| "a process that is not known".to_owned(), |c| format!("`{}`", shown(c)));
    let (what, time) = if t.is_udp {
        (count(t.count, "query", "queries"), "reply")
    } else {
        (count(t.count, "attempt to connect", "attempts to connect"), "handshake")
    };
    let times = t.median_ns.zip(t.max_ns).map_or_else(String::new, |(median, max)| {
        format!("; {time} after {} in the median, {} at most", duration(median), duration(max))
    });
    format!("{who} -> {}: {what}, {} failed{times}", t.target.remote, t.failed)
}

/// What would have to be captured, for a question without a bundle.
fn plan(out: &mut dyn Write, kb: &Kb, topic: &Topic) -> io::Result<()> {
    text::wrapped(out, "about: ", &about(topic), "       ")?;
    let is_dns_alone = topic.services.iter().eq(["dns"].iter());
    let scope = if is_dns_alone {
        " --dns-only".to_owned()
    } else if topic.ports.is_empty() {
        String::new()
    } else {
        let ports: Vec<String> = topic.ports.iter().map(u16::to_string).collect();
        format!(" --ports {}", ports.join(","))
    };
    writeln!(out, "capture on the node, while it happens, and ask again with the bundle:")?;
    writeln!(out, "   ktrace --duration 60s{scope}")?;
    if topic.rules.is_empty() {
        return writeln!(out, "no rule is about these words in particular; `analyze kb list` names all questions");
    }
    writeln!(out, "\nrules that would answer, and what they need")?;
    for id in &topic.rules {
        let (Some(detector), Some(entry)) = (by_id(id), kb.entry(id)) else { continue };
        let needs = detector.needs();
        let mut of: Vec<String> = needs.hooks.iter().map(|hook| with_flag(hook)).collect();
        if needs.tracking.in_words().is_some() {
            of.push("connection tracking (--with-conntrack)".to_owned());
        }
        if !needs.node.is_empty() {
            of.push("the node's state (--with-node)".to_owned());
        }
        let needed = if of.is_empty() { String::new() } else { format!(" Needs {}.", of.join(", ")) };
        text::sentence(out, &format!("{id}: {}{needed}", entry.question))?;
    }
    writeln!(out, "all of it is on by default; `--with-…=false` leaves it out")
}

/// A hook with the flag that can leave it out.
fn with_flag(hook: &str) -> String {
    match hook {
        "connect" => "hook `connect` (--with-connect-latency)".to_owned(),
        "tcp_retransmit" => "hook `tcp_retransmit` (--with-retransmits)".to_owned(),
        "drop" | "tcp_reset" | "tcp_wait" => format!("hook `{hook}` (--with-drops)"),
        _ => format!("hook `{hook}`"),
    }
}
