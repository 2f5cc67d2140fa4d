//! Stories for a program: `ktrace-stories`, version 1, one line. Texts of the captured machine are escaped, and objects that
//! repeat them say so with `"untrusted":true`.

use std::io::{self, Write};

use chrono::SecondsFormat;
use ktrace_bundle::event::Endpoint;
use serde::Serialize;

use super::{ClosedFirst, Step, Story, Told, Who};
use crate::escape::shown;

#[derive(Serialize)]
struct Document<'a> {
    schema: Schema,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    stories: Vec<StoryRow<'a>>,
    omitted_count: u64,
    untrusted: bool,
}

#[derive(Serialize)]
struct Schema {
    name: &'static str,
    version: u32,
}

#[derive(Serialize)]
struct StoryRow<'a> {
    kind: &'static str,
    who: WhoRow<'a>,
    role: &'static str,
    netns: u32,
    local: String,
    remote: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_servers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    far: Option<WhoRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    began_at: Option<String>,
    outcome: &'static str,
    summary: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_first: Option<ClosedRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_us: Option<u64>,
    steps: Vec<StepRow<'a>>,
    omitted_step_count: u64,
    not_known: &'a [String],
    untrusted: bool,
}

#[derive(Serialize)]
struct WhoRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    untrusted: bool,
}

#[derive(Serialize)]
struct ClosedRow<'a> {
    by: &'static str,
    is_reset: bool,
    why: &'a str,
}

#[derive(Serialize)]
struct StepRow<'a> {
    boot_ns: u64,
    since_start_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    place: &'static str,
    what: &'a str,
}

/// Writes stories as one line of JSON.
///
/// # Errors
/// Only if the output does.
pub fn write(out: &mut dyn Write, told: &Told) -> io::Result<()> {
    let document = Document {
        schema: Schema { name: "ktrace-stories", version: 1 },
        capture_id: told.capture.capture_id.as_deref().map(shown),
        node: told.capture.node_name.as_deref().map(shown),
        stories: told.stories.iter().map(story).collect(),
        omitted_count: told.more,
        untrusted: true,
    };
    serde_json::to_writer(&mut *out, &document)?;
    writeln!(out)
}

fn story(story: &Story) -> StoryRow<'_> {
    let text = |end: Option<Endpoint>| end.map(|end| end.to_string());
    StoryRow {
        kind: story.kind.as_str(),
        who: who(&story.who),
        role: if story.is_client { "client" } else { "server" },
        netns: story.netns,
        local: story.local.to_string(),
        remote: story.remote.to_string(),
        other_servers: story.others.iter().map(ToString::to_string).collect(),
        vip: text(story.vip),
        backend: text(story.backend),
        far: story.far.as_ref().map(who),
        began_at: story.began_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true)),
        outcome: story.outcome.kind,
        summary: &story.outcome.text,
        closed_first: story.closed_first.as_ref().map(closed),
        tx_bytes: story.tx_bytes,
        rx_bytes: story.rx_bytes,
        rtt_us: story.rtt_us,
        steps: story.steps.iter().map(step).collect(),
        omitted_step_count: story.omitted_count,
        not_known: &story.gaps,
        untrusted: true,
    }
}

fn who(who: &Who) -> WhoRow<'_> {
    WhoRow {
        comm: who.comm.as_deref(),
        pid: who.pid,
        pod: who.pod.as_deref(),
        unit: who.unit.as_deref(),
        why: who.why.as_deref(),
        untrusted: true,
    }
}

fn closed(closed: &ClosedFirst) -> ClosedRow<'_> {
    ClosedRow { by: closed.by.as_str(), is_reset: closed.is_reset, why: &closed.why }
}

fn step(step: &Step) -> StepRow<'_> {
    let Step { boot_ns, since_start_ns, seq, place, what } = step;
    StepRow { boot_ns: *boot_ns, since_start_ns: *since_start_ns, seq: *seq, place: place.as_str(), what }
}
