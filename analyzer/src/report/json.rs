//! The report for a program: `ktrace-findings`, version 1.
//!
//! At most 32 KiB unless all is asked for: the least important findings are left out first, and counted. Objects that
//! repeat strings of the captured machine say so with `"untrusted":true`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use ktrace_bundle::event::Endpoint;
use ktrace_bundle::workload::{Home, Workload};
use serde::Serialize;

use super::Report;
use crate::detectors::by_id;
use crate::escape::shown;
use crate::finding::{Far, Finding, Subject};

/// Longest document, bytes.
const MAX_BYTES: usize = 32 << 10;
/// Most processes that are listed for one finding.
const MAX_PIDS: usize = 8;

#[derive(Serialize)]
struct Document<'a> {
    schema: Schema,
    bundle: Bundle<'a>,
    verdict: &'static str,
    findings: &'a [Row<'a>],
    inconclusive: Vec<Unjudged<'a>>,
    clear: &'a [&'static str],
    not_measured: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    settings: BTreeMap<String, f64>,
    omitted_count: usize,
}

#[derive(Serialize)]
struct Schema {
    name: &'static str,
    version: u32,
}

#[derive(Serialize)]
struct Bundle<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    capture_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_at: Option<String>,
    duration_ns: u64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<&'a str>,
    event_count: u64,
    tcp_connection_count: usize,
    udp_flow_count: u64,
    process_count: usize,
    untrusted: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    rule: &'static str,
    rule_version: u32,
    severity: &'static str,
    title: &'a str,
    cause: &'a str,
    impact: &'a str,
    signal: Signal,
    subject: SubjectRow,
    share: f64,
    confidence: f64,
    next_steps: Vec<StepRow<'a>>,
    evidence: Vec<u64>,
    evidence_total: u64,
    symptoms: &'a [&'static str],
    untrusted: bool,
}

#[derive(Serialize)]
struct Signal {
    name: &'static str,
    value: f64,
    unit: &'static str,
    threshold: f64,
}

#[derive(Serialize)]
struct SubjectRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k8s: Option<K8sRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<FarRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<FarRow>,
    untrusted: bool,
}

/// The process at the other end.
#[derive(Serialize)]
struct FarRow {
    comm: String,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    k8s: Option<K8sRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    local: String,
    untrusted: bool,
}

impl FarRow {
    fn of(far: &Far) -> Self {
        let (k8s, unit) = home(far.home.as_ref());
        let (comm, local) = (shown(&far.comm), far.end.to_string());
        Self { comm, pid: far.pid, k8s, unit, local, untrusted: true }
    }
}

fn home(home: Option<&Home>) -> (Option<K8sRow>, Option<String>) {
    match home {
        Some(Home::Pod(workload)) => (Some(K8sRow::of(workload)), None),
        Some(Home::Host(unit)) => (None, Some(shown(unit))),
        None => (None, None),
    }
}

#[derive(Serialize)]
struct StepRow<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
}

#[derive(Serialize)]
struct Unjudged<'a> {
    rule: &'static str,
    why: &'a str,
}

/// Writes the report as one line of JSON; with `all`, every finding, however long that gets.
///
/// # Errors
/// Only if the output does.
pub fn write(out: &mut dyn Write, report: &Report<'_>, all: bool) -> io::Result<()> {
    let rows: Vec<Row<'_>> = report.findings.iter().map(row).collect();
    let mut kept = rows.len();
    let mut text = render(report, &rows)?;
    while !all && text.len() > MAX_BYTES && kept > 0 {
        kept = fitting(&rows, kept, text.len());
        text = render(report, rows.get(..kept).unwrap_or_default())?;
    }
    out.write_all(&text)?;
    out.write_all(b"\n")
}

/// How many rows may stay when the document is `bytes` long with `kept` of them: at least one less.
fn fitting(rows: &[Row<'_>], kept: usize, bytes: usize) -> usize {
    let mut excess = bytes.saturating_sub(MAX_BYTES);
    let mut left = kept;
    while left > 0 {
        left -= 1;
        let length = rows.get(left).and_then(|r| serde_json::to_vec(r).ok()).map_or(0, |r| r.len() + 1);
        excess = excess.saturating_sub(length);
        if excess == 0 {
            break;
        }
    }
    left
}

fn render(report: &Report<'_>, rows: &[Row<'_>]) -> io::Result<Vec<u8>> {
    let capture = report.capture;
    let document = Document {
        schema: Schema { name: "ktrace-findings", version: 1 },
        bundle: Bundle {
            capture_id: capture.capture_id.as_deref().map(shown),
            node: capture.node_name.as_deref().map(shown),
            start_at: capture.start_at.map(time),
            end_at: capture.end_at.map(time),
            duration_ns: capture.duration_ns,
            complete: capture.coverage.complete && capture.coverage.cut.is_none(),
            cut: capture.coverage.cut.as_deref(),
            event_count: capture.event_count(),
            tcp_connection_count: capture.connections.len(),
            udp_flow_count: capture.udp_flow_count(),
            process_count: capture.processes.len(),
            untrusted: true,
        },
        verdict: report.verdict.as_str(),
        findings: rows,
        inconclusive: report.inconclusive.iter().map(|u| Unjudged { rule: u.rule, why: &u.why }).collect(),
        clear: &report.clear,
        not_measured: &capture.coverage.not_measured,
        settings: report.settings.iter().map(|s| (format!("{}.{}", s.rule, s.name), s.value)).collect(),
        omitted_count: report.findings.len() - rows.len(),
    };
    Ok(serde_json::to_vec(&document)?)
}

fn row(finding: &Finding) -> Row<'_> {
    Row {
        rule: finding.rule,
        rule_version: by_id(finding.rule).map_or(1, |d| d.version()),
        severity: finding.severity.as_str(),
        title: &finding.title,
        cause: &finding.cause,
        impact: &finding.impact,
        signal: Signal {
            name: finding.signal.name,
            value: rounded(finding.signal.value),
            unit: finding.signal.unit,
            threshold: rounded(finding.signal.threshold),
        },
        subject: subject(&finding.subject),
        share: rounded(finding.share),
        confidence: rounded(finding.confidence),
        next_steps: finding
            .next_steps
            .iter()
            .map(|s| StepRow { text: &s.text, command: s.command.as_deref() })
            .collect(),
        evidence: finding.evidence.seqs(),
        evidence_total: finding.evidence.total(),
        symptoms: &finding.symptoms,
        untrusted: true,
    }
}

#[derive(Serialize)]
struct K8sRow {
    pod_uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<String>,
}

impl K8sRow {
    fn of(workload: &Workload) -> Self {
        let text = |name: &Option<String>| name.as_deref().map(shown);
        Self {
            pod_uid: shown(&workload.pod_uid),
            namespace: text(&workload.namespace),
            pod: text(&workload.pod),
            container: text(&workload.container),
            container_id: text(&workload.container_id),
        }
    }
}

fn subject(subject: &Subject) -> SubjectRow {
    let text = |e: Option<Endpoint>| e.map(|e| e.to_string());
    let (k8s, unit) = home(subject.home.as_ref());
    let far = |is_client| subject.far.as_ref().filter(|far| far.is_client == is_client).map(FarRow::of);
    SubjectRow {
        comm: subject.comm.as_deref().map(shown),
        pid: subject.pid(),
        pids: if subject.pids.len() > 1 { subject.pids.iter().copied().take(MAX_PIDS).collect() } else { Vec::new() },
        k8s,
        unit,
        local: text(subject.local),
        remote: text(subject.remote),
        netns: subject.netns,
        vip: text(subject.vip),
        backend: text(subject.backend),
        server: far(false),
        client: far(true),
        untrusted: true,
    }
}

/// Four decimals: what a share is worth, and no noise of arithmetic.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
