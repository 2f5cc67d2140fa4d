//! What could have been seen: hooks, ledger, cuts, and the analyzer's own bounds.
//!
//! Detectors state what they need ([`Needs`]); [`Coverage::gap`] answers whether that was there. It is the only
//! judge of whether nothing found means nothing wrong.

use std::collections::BTreeMap;

use ktrace_bundle::audit::{AuditEntry, Audited};
use ktrace_bundle::event::{Endpoint, EventKind};
use ktrace_bundle::ledger::{DropReason, Ledger};
use ktrace_bundle::manifest::{Head, HookOutcome, HookReport, Manifest, PartialManifest};
use ktrace_bundle::reader::{Form, ReadReport};
use ktrace_bundle::summary::Summary;

use super::asked::{DNS_PORT, dns_ports, excluded_ports, listed, outside_filters, outside_plan, plan_ports, user_caps};
use super::{Losses, NodeGaps, NodePart, TrackingCoverage, TrackingNeed};
use crate::escape;
use crate::units::{count, duration, percent, share};

/// Missed events are an upper bound; below this share of all they do not make absence doubtful.
const MISSED_SHARE: f64 = 0.01;
/// What the `udp` hook says where it cannot tell whom a query was sent to.
const NO_REMOTE_ENDS: &str = "the remote end of unconnected sockets";
/// Longest reason of a hook that is repeated, in characters.
const MAX_WHY: usize = 200;
/// Most sentences about what was not measured.
const MAX_SENTENCES: usize = 32;

/// What a detector needs before an empty result means that there was nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Hooks that must have been attached.
    pub hooks: &'static [&'static str],
    /// No event of those hooks may be missing.
    pub lossless: bool,
    /// Queries to DNS servers must have been recognized as such.
    pub dns: bool,
    /// Every network namespace must have been compared with the kernel's counters.
    pub audit: bool,
    /// What connection tracking must have told.
    pub tracking: TrackingNeed,
    /// Parts of the node's state that must have been read.
    pub node: &'static [NodePart],
}

impl Needs {
    /// No needs at all, to begin with.
    pub const NOTHING: Self =
        Self { hooks: &[], lossless: false, dns: false, audit: false, tracking: TrackingNeed::Nothing, node: &[] };
}

/// What a bundle can and cannot tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Coverage {
    /// Hooks by name; `None` without any manifest.
    pub hooks: Option<BTreeMap<String, HookReport>>,
    /// Where every event went, as far as is known.
    pub ledger: Option<Ledger>,
    /// The capture was sealed.
    pub sealed: bool,
    /// The collector's own word on whether it recorded all that was asked for.
    pub complete: bool,
    /// Why not, one sentence each.
    pub degraded: Vec<String>,
    /// Where the bundle ends before its end.
    pub cut: Option<String>,
    /// Lines that are not records.
    pub bad_lines: u64,
    /// What does not agree with what.
    pub integrity: Vec<String>,
    /// What did not fit into the analyzer's tables.
    pub overflow: Vec<(&'static str, u64)>,
    /// Datagrams that were sent to an end that is not known.
    pub sends_to_unknown: u64,
    /// When in the window something was lost.
    pub losses: Losses,
    /// What nobody may conclude, one sentence each.
    pub not_measured: Vec<String>,
    /// Caps that were set by the user.
    pub user_caps: Vec<DropReason>,
    /// Ports that the plan is limited to.
    pub ports: Option<Vec<u16>>,
    /// Ports that the plan leaves out.
    pub excluded_ports: Vec<u16>,
    /// Ports of DNS by the plan.
    pub dns_ports: Vec<u16>,
    /// The kernel's own counters against what the hooks saw.
    pub audit: Vec<AuditEntry>,
    /// What that covers; `None` if nobody looked.
    pub audited: Option<Audited>,
    /// What connection tracking told.
    pub tracking: TrackingCoverage,
    /// What of the node's state was not read.
    pub node: NodeGaps,
    /// How often the wall clock was stepped, as far as is known.
    pub clock_steps: u64,
    /// By how much at most, ns.
    pub max_clock_step_ns: u64,
}

impl Coverage {
    /// The coverage that the manifests, the summary and the reader tell of.
    pub fn new(
        report: &ReadReport,
        manifest: Option<&Manifest>,
        partial: Option<&PartialManifest>,
        summary: Option<&Summary>,
    ) -> Self {
        let head = manifest.map(|m| &m.head).or_else(|| partial.map(|p| &p.head));
        let checkpoint = partial.and_then(|p| p.checkpoint.as_ref());
        let is_crash = manifest.is_none() && report.form != Form::Events && (partial.is_some() || report.cut.is_none());
        let cuts = [report.cut.as_ref().map(|c| escape::line(&c.to_string())), is_crash.then(|| crash(partial))];
        let cut = cuts.into_iter().flatten().reduce(|first, next| format!("{first}; {next}"));
        Self {
            hooks: head.map(|h| h.hooks.iter().map(|r| (r.name.clone(), r.clone())).collect()),
            ledger: manifest.map(|m| m.ledger.clone()).or_else(|| checkpoint.map(|c| c.ledger.clone())),
            sealed: manifest.is_some(),
            complete: manifest.is_some_and(|m| m.complete),
            degraded: manifest.map(|m| m.degraded.clone()).unwrap_or_default(),
            cut,
            bad_lines: report.bad_lines,
            integrity: report.integrity.iter().map(|s| escape::line(s)).collect(),
            overflow: Vec::new(),
            sends_to_unknown: 0,
            losses: Losses::default(),
            not_measured: not_measured(head, summary),
            user_caps: head.map(user_caps).unwrap_or_default(),
            ports: head.and_then(plan_ports),
            excluded_ports: head.map(excluded_ports).unwrap_or_default(),
            dns_ports: head.map_or_else(|| vec![DNS_PORT], dns_ports),
            audit: manifest.map(|m| m.audit.clone()).unwrap_or_default(),
            audited: manifest.and_then(|m| m.audited.clone()),
            tracking: TrackingCoverage::default(),
            node: NodeGaps::default(),
            clock_steps: head.and_then(|h| h.clocks.step_count).unwrap_or(0),
            max_clock_step_ns: head.map_or(0, |h| h.clocks.max_step_ns),
        }
    }

    /// Notes what did not fit.
    pub(super) fn add_overflow(&mut self, what: &'static str, n: u64) {
        if n > 0 {
            self.overflow.push((what, n));
        }
    }

    /// Notes servers' ends of UDP flows for which there was no room: they only name who is at the other end.
    pub(super) fn add_unnamed(&mut self, n: u64) {
        if n > 0 {
            let records = count(n, "record", "records");
            self.not_measured.push(format!("who was at the other end of more UDP flows of servers ({records})"));
        }
    }

    /// Events of these types that were seen and are not in the bundle.
    pub fn lost(&self, kinds: &[EventKind]) -> u64 {
        let Some(ledger) = &self.ledger else { return 0 };
        if ledger.by_type.is_empty() {
            return lost(&ledger.dropped);
        }
        kinds.iter().filter_map(|k| ledger.by_type.get(k)).map(|t| lost(&t.dropped)).fold(0, u64::saturating_add)
    }

    /// The share of all events that were seen and are not in the bundle.
    pub fn lost_share(&self) -> f64 {
        self.ledger.as_ref().map_or(0.0, |l| share(lost(&l.dropped), l.seen))
    }

    /// Whether a hook is known to have been attached.
    pub fn attached(&self, hook: &str) -> bool {
        self.hooks.as_ref().and_then(|h| h.get(hook)).is_some_and(|h| h.outcome == HookOutcome::Attached)
    }

    /// Whether the plan asked for the events of a socket with these ends. Before its port is chosen a socket may
    /// show up all the same; what comes after is then missing, and nobody may wonder about that.
    pub fn is_in_plan(&self, local: Endpoint, remote: Endpoint) -> bool {
        let has = |ports: &[u16]| [local.port, remote.port].into_iter().flatten().any(|p| ports.contains(&p));
        !has(&self.excluded_ports) && self.ports.as_deref().is_none_or(has)
    }

    /// Hooks that were asked for and not attached, one sentence each.
    pub fn missing_hooks(&self) -> impl Iterator<Item = String> {
        let hooks = self.hooks.iter().flat_map(BTreeMap::values);
        let asked = hooks.filter(|h| h.outcome != HookOutcome::NotRequested);
        asked.filter_map(|h| hook_gap(&escape::shown(&h.name), Some(h)))
    }

    /// The ports that the plan is limited to: `80, 443`.
    pub fn shown_ports(&self) -> Option<String> {
        self.ports.as_deref().map(listed)
    }

    fn dns_is_in_plan(&self) -> bool {
        let is_in =
            |p: &u16| self.ports.as_ref().is_none_or(|ports| ports.contains(p)) && !self.excluded_ports.contains(p);
        self.dns_ports.iter().any(is_in)
    }

    /// Why these needs were not met, if they were not.
    pub fn gap(&self, needs: &Needs) -> Option<String> {
        let Some(hooks) = &self.hooks else {
            return Some(match (&self.cut, needs.lossless) {
                (Some(cut), _) => format!("{cut}; there is no manifest to say what was measured"),
                (None, _) => "no manifest: what was measured is not known".to_owned(),
            });
        };
        if needs.dns && !self.dns_is_in_plan() {
            return Some(match self.shown_ports() {
                Some(ports) => format!("not requested by the plan: ports {ports} only"),
                None => format!("not requested by the plan: not the ports {}", listed(&self.excluded_ports)),
            });
        }
        needs
            .hooks
            .iter()
            .find_map(|name| hook_gap(name, hooks.get(*name)))
            .or_else(|| self.tracking.gap(needs.tracking))
            .or_else(|| self.node.gap(needs.node))
            .or_else(|| if needs.dns { self.unknown_servers(hooks) } else { None })
            .or_else(|| if needs.lossless { self.loss(needs.hooks) } else { None })
            .or_else(|| if needs.audit { self.unaudited() } else { None })
    }

    /// Whether the only gap is that the user asked for less.
    pub fn gap_is_by_plan(&self, needs: &Needs) -> bool {
        let Some(hooks) = &self.hooks else { return false };
        // a check that was not made hides nothing by itself
        if needs.audit {
            return true;
        }
        let outcome = |name: &&str| hooks.get(*name).map(|h| h.outcome);
        let all = || needs.hooks.iter().map(outcome);
        let is_dns_left_out = needs.dns && !self.dns_is_in_plan();
        let is_tracking_left_out = self.tracking.gap_is_by_plan(needs.tracking);
        let is_node_left_out = self.node.is_by_plan(needs.node);
        (is_dns_left_out
            || is_tracking_left_out
            || is_node_left_out
            || all().any(|o| o == Some(HookOutcome::NotRequested)))
            && all().all(|o| matches!(o, Some(HookOutcome::NotRequested | HookOutcome::Attached)))
    }

    /// A query to an end that is not known is no query to any server.
    fn unknown_servers(&self, hooks: &BTreeMap<String, HookReport>) -> Option<String> {
        if self.sends_to_unknown > 0 {
            let sends = count(self.sends_to_unknown, "`udp_send` event does", "`udp_send` events do");
            return Some(format!("{sends} not say to which server"));
        }
        let is_blind = hooks.get("udp").is_some_and(|h| h.limits.iter().any(|l| l == NO_REMOTE_ENDS));
        is_blind.then(|| format!("hook `udp` could not see {NO_REMOTE_ENDS}"))
    }

    /// What was not compared with the kernel's counters.
    fn unaudited(&self) -> Option<String> {
        let Some(audited) = &self.audited else {
            return Some("nothing here was compared with the kernel's own counters".to_owned());
        };
        let parts: Vec<String> = audited.unaudited.iter().map(|(why, n)| format!("{n} ({})", why.in_words())).collect();
        (!parts.is_empty()).then(|| format!("not every network namespace could be compared: {}", parts.join(", ")))
    }

    /// What the kernel counted and these hooks did not see, where that is more than a little.
    fn unseen(&self, hooks: &[&str]) -> Option<String> {
        let is_theirs = |e: &&AuditEntry| hooks.contains(&hook_of(&e.counter));
        let is_large = |e: &&AuditEntry| share(e.unexplained(), e.kernel_delta) >= MISSED_SHARE;
        let entry = self.audit.iter().filter(is_theirs).find(is_large)?;
        let (left, all, counter) = (entry.unexplained(), entry.kernel_delta, escape::shown(&entry.counter));
        Some(format!("{left} of {all} `{counter}` that the kernel counted were not seen in netns {}", entry.netns))
    }

    fn loss(&self, hooks: &[&str]) -> Option<String> {
        if let Some(cut) = &self.cut {
            return Some(cut.clone());
        }
        let Some(ledger) = &self.ledger else { return Some("no ledger: what was lost is not known".to_owned()) };
        let kinds: Vec<EventKind> = hooks.iter().flat_map(|h| kinds_of(h)).copied().collect();
        let lost = self.lost(&kinds);
        if lost > 0 {
            let names: Vec<&str> = kinds.iter().map(|k| k.as_str()).collect();
            let noun = if lost == 1 { "event is" } else { "events are" };
            return Some(format!("{lost} `{}` {noun} missing{}", names.join("` or `"), reasons(ledger)));
        }
        let missed = share(ledger.missed, ledger.observed.saturating_add(ledger.missed));
        if missed >= MISSED_SHARE {
            return Some(format!("up to {} events ({}) were missed by the hooks", ledger.missed, percent(missed)));
        }
        if let Some(unseen) = self.unseen(hooks) {
            return Some(unseen);
        }
        if self.bad_lines > 0 {
            return Some(format!("{} lines cannot be read", self.bad_lines));
        }
        self.overflow.first().map(|(what, n)| format!("{n} records of more {what} than the analyzer keeps apart"))
    }
}

/// What is known of a run that was killed.
fn crash(partial: Option<&PartialManifest>) -> String {
    let Some((head, checkpoint)) = partial.and_then(|p| Some((&p.head, p.checkpoint.as_ref()?))) else {
        return "the capture did not end properly, before its first account of what it lost".to_owned();
    };
    let Ledger { seen, written, .. } = checkpoint.ledger;
    format!(
        "the capture did not end properly: its last account is from {} into the window ({seen} events seen, {written} \
         written); what it lost after that, about a second as a rule, is on no record",
        duration(checkpoint.boot_ns.saturating_sub(head.clocks.start_boot_ns))
    )
}

/// ` (ring_full 40 of all types)`, or nothing.
fn reasons(ledger: &Ledger) -> String {
    let parts: Vec<String> =
        ledger.dropped.iter().filter(|(_, n)| **n > 0).map(|(r, n)| format!("{} {n}", r.as_str())).collect();
    if parts.is_empty() { String::new() } else { format!(" ({} of all types)", parts.join(", ")) }
}

/// Why this hook saw nothing, with the reason of the last variant that was tried, or passed over; `None` if it was attached.
fn hook_gap(name: &str, hook: Option<&HookReport>) -> Option<String> {
    let Some(hook) = hook else { return Some(format!("hook `{name}` is not known to this capture")) };
    let why = match hook.outcome {
        HookOutcome::Attached => return None,
        HookOutcome::NotRequested => return Some(format!("hook `{name}` was not requested")),
        HookOutcome::Unsupported => "could not be attached here",
        HookOutcome::Failed => "failed to attach",
    };
    let tried = hook.tried.iter().rfind(|t| t.program.is_some()).or(hook.tried.last());
    let reason = tried.map_or_else(String::new, |t| {
        let why: String = t.why.chars().take(MAX_WHY).collect();
        format!(": {}", escape::line(&why))
    });
    Some(format!("hook `{name}` {why}{reason}"))
}

/// The hook that sees what this counter counts.
fn hook_of(counter: &str) -> &'static str {
    match counter {
        "Tcp.RetransSegs" => "tcp_retransmit",
        _ if counter.starts_with("Tcp.") => "tcp_state",
        _ => "udp",
    }
}

fn kinds_of(hook: &str) -> &'static [EventKind] {
    match hook {
        "tcp_state" => &[EventKind::TcpState],
        "udp" => &[EventKind::UdpSend, EventKind::UdpRecv],
        "connect" => &[EventKind::Connect],
        "tcp_retransmit" => &[EventKind::TcpRetransmit],
        "tcp_reset" => &[EventKind::TcpReset],
        "tcp_wait" => &[EventKind::TcpStall, EventKind::ListenOverflow],
        "drop" => &[EventKind::Drop],
        _ => &[],
    }
}

/// The plan's limits, then the collector's own sentences or, of a run that was never sealed, those of its hooks.
fn not_measured(head: Option<&Head>, summary: Option<&Summary>) -> Vec<String> {
    let Some(head) = head else {
        return vec!["which hooks were attached, and what was lost: there is no manifest".to_owned()];
    };
    let mut out: Vec<String> = outside_plan(head).into_iter().chain(outside_filters(head)).collect();
    if let Some(summary) = summary {
        out.extend(summary.not_measured.iter().map(|s| escape::line(s)));
    } else {
        for hook in &head.hooks {
            out.extend(hook_gap(&escape::shown(&hook.name), Some(hook)));
            out.extend(hook.limits.iter().map(|l| escape::line(l)));
        }
        out.push("DNS answer codes (payload is never read)".to_owned());
    }
    out.truncate(MAX_SENTENCES);
    out
}

/// What a filter refused late was not wanted in the first place.
fn lost(dropped: &BTreeMap<DropReason, u64>) -> u64 {
    let real = dropped.iter().filter(|(reason, _)| **reason != DropReason::FilteredLate);
    real.fold(0, |sum, (_, n)| sum.saturating_add(*n))
}
