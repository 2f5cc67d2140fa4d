//! Plan, host, coverage and ledger → the manifest, with the reasons why a bundle is not complete.

use ktrace_bundle::audit::{AuditEntry, Audited};
use ktrace_bundle::event::EventKind;
use ktrace_bundle::ledger::{DropReason, Ledger};
use ktrace_bundle::manifest::{
    ClockSample, Clocks, Collector, EndedBy, Head, HookOutcome, HookReport, Manifest, PlanSource, Schema,
};

use super::sink::Sink;
use super::tee::Tee;
use super::{account, budget, cost, notes};
use crate::clock::{self, Readings, utc_of};
use crate::kernel::skel::types::kt_counters;
use crate::plan::Plan;
use crate::{cli, preflight};

/// What is known before the first event.
pub fn head(plan: &Plan, first: &ClockSample, hooks: &[HookReport]) -> Head {
    Head {
        schema: Schema::default(),
        capture_id: capture_id(first),
        collector: Collector {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: cli::COMMIT.map(Into::into),
            target: env!("KTRACE_TARGET").into(),
        },
        node: plan.node.clone(),
        cluster: plan.cluster.clone(),
        labels: plan.labels.clone(),
        start_at: first.utc,
        plan: plan.entries.clone(),
        clocks: Clocks {
            start_boot_ns: first.boot_ns,
            end_boot_ns: None,
            samples: vec![first.clone()],
            max_step_ns: 0,
            step_count: None,
            synchronized: clock::synchronized(),
        },
        host: preflight::host(plan.btf.as_deref()),
        hooks: hooks.to_vec(),
        sources: Vec::new(),
        byte_bound: Some(budget::byte_bound(plan)),
        command: None,
    }
}

/// The window is open since `boot_ns`.
pub fn opened(head: &mut Head, boot_ns: u64) {
    head.clocks.start_boot_ns = boot_ns;
    if let Some(first) = head.clocks.samples.first() {
        head.start_at = utc_of(first, boot_ns);
    }
}

/// 32 hex digits: the kernel's random UUID, or, without `/proc`, the time and our process id.
fn capture_id(first: &ClockSample) -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/uuid") {
        Ok(uuid) => uuid.trim().replace('-', ""),
        Err(_) => format!("{:016x}{:016x}", first.boot_ns, std::process::id()),
    }
}

/// How the window ended.
pub struct End {
    /// What was written before the first event.
    pub head: Head,
    /// The clocks as they were read until now.
    pub clocks: Readings,
    /// Gate closed.
    pub end_boot_ns: u64,
    /// Why.
    pub ended_by: EndedBy,
    /// What went wrong besides lost events.
    pub degraded: Vec<String>,
    /// The kernel's account, read after the drain.
    pub counters: Vec<(EventKind, kt_counters)>,
    /// Upper bound of events that programs missed.
    pub missed: u64,
    /// The kernel's own counters against what the hooks saw.
    pub audit: (Vec<AuditEntry>, Audited),
}

/// The manifest of a capture whose rings are drained.
pub fn finish(plan: &Plan, sink: &Sink, end: End) -> Manifest {
    let End { mut head, mut clocks, end_boot_ns, ended_by, mut degraded, counters, missed, audit } = end;
    let ledger = account::ledger(&counters, &sink.tally, &plan.filter, missed, sink.writer.max_disorder_ns());
    clocks.take(clock::sample());
    let start_boot_ns = head.clocks.start_boot_ns;
    let end_at = utc_of(clocks.first(), end_boot_ns);
    head.clocks.end_boot_ns = Some(end_boot_ns);
    clocks.finish(&mut head.clocks);
    let told_before = std::mem::replace(&mut head.sources, sink.homes.reports());
    head.sources.push(sink.processes.report(sink.untold + sink.notices.undecodable));
    head.sources.extend(told_before);
    degraded.extend(notes::conntrack_missing(plan, &head));
    degraded.extend(hooks_missing(&head.hooks));
    degraded.extend(sink.homes.runtime_missing());
    degraded.extend(events_lost(plan, &ledger));
    degraded.extend(unjudged(sink.unjudged));
    degraded.extend(notes::byte_cap(plan, &head, &ledger, false));
    degraded.extend(notes::cut_short(plan, ended_by));
    degraded.extend(sink.tee.as_ref().and_then(Tee::failure));
    let stdout = sink.tee.as_ref().map(Tee::report);
    Manifest {
        notes: notes::of(plan, &head, ended_by, &ledger, stdout),
        stdout,
        end_at,
        head,
        duration_ns: end_boot_ns.saturating_sub(start_boot_ns),
        ended_by,
        complete: degraded.is_empty(),
        degraded,
        ledger,
        audit: audit.0,
        audited: Some(audit.1),
        cost: cost::cost(sink.longest_turn),
        members: Vec::new(), // the writer knows them
    }
}

fn hooks_missing(hooks: &[HookReport]) -> Vec<String> {
    let sentence = |hook: &HookReport| match hook.outcome {
        HookOutcome::Attached | HookOutcome::NotRequested => None,
        HookOutcome::Unsupported | HookOutcome::Failed => {
            let tried: Vec<_> = hook.tried.iter().map(|t| format!("{}: {}", t.variant, t.why)).collect();
            Some(format!("hook `{}` has no variant that works here ({})", hook.name, tried.join("; ")))
        }
    };
    hooks.iter().filter_map(sentence).collect()
}

/// More was recorded than was asked for.
fn unjudged(count: u64) -> Option<String> {
    let why = "nobody could say whether the filters by pod refuse them: see `sources` in the manifest";
    (count > 0).then(|| format!("{count} events are recorded although {why}"))
}

/// A cap that the user set counts as asked; one that is only a default does not.
fn events_lost(plan: &Plan, ledger: &Ledger) -> Vec<String> {
    let dropped = |reason| ledger.dropped.get(&reason).copied().unwrap_or(0);
    let by_default = |flag: &str| plan.entries.get(flag).is_none_or(|e| e.from == PlanSource::Default);
    let mut lost = Vec::new();
    let mut say = |count: u64, sentence: &str| {
        if count > 0 {
            lost.push(format!("{count} events were {sentence}"));
        }
    };
    if by_default("max-events") {
        say(dropped(DropReason::EventCap), "counted only: the default of `--max-events` was reached");
    }
    say(dropped(DropReason::RingFull), "lost on the way: the ring was full, try a larger `--ring-bytes`");
    say(dropped(DropReason::Undecodable), "not understood");
    say(
        ledger.missed,
        "missed at most: the kernel skipped a program, as one was already running or too many return probes were",
    );
    say(dropped(DropReason::WriteFailed), "lost because they could not be written");
    if let Err(imbalance) = ledger.check() {
        lost.push(format!("the ledger does not balance, which is a fault of ktrace: {imbalance}"));
    }
    lost
}
