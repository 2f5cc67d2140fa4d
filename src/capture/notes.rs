//! What a user should read last: why a capture ended otherwise than by its own clock, and which of his caps it met.

use ktrace_bundle::ledger::{DropReason, Ledger};
use ktrace_bundle::manifest::{EndedBy, Head, HookReport, StdoutReport};

use super::budget;
use crate::plan::Plan;
use crate::plan::naming::Choice;

/// Sentences about what came as asked, if not as by default. What is missing stands in `degraded` instead.
pub fn of(plan: &Plan, head: &Head, ended_by: EndedBy, ledger: &Ledger, stdout: Option<StdoutReport>) -> Vec<String> {
    let dropped = |reason| ledger.dropped.get(&reason).copied().filter(|count| *count > 0);
    let cap = |reason, flag: &str| {
        dropped(reason)
            .filter(|_| plan.is_given(flag))
            .map(|count| format!("{count} events were counted only: `--{flag}` was reached"))
    };
    let slow = stdout.map(|it| it.omitted_count).filter(|count| *count > 0);
    let left = head.command.as_ref().and_then(|it| it.exit_code.is_none().then_some(it.pid).flatten());
    [
        cap(DropReason::EventCap, "max-events"),
        byte_cap(plan, head, ledger, true),
        slow.map(|count| format!("{count} events are not on stdout, whose reader was too slow; the bundle has them")),
        left.map(|pid| format!("the command still runs as process {pid}")),
        early(ended_by),
    ]
    .into_iter()
    .flatten()
    .chain(head.hooks.iter().flat_map(second_best))
    .chain(plan.behind.notes.iter().cloned())
    .collect()
}

/// A variant took the place of one that the kernel refused, which says more about the kernel than about the capture.
fn second_best(hook: &HookReport) -> Option<String> {
    let (variant, refused) = (hook.variant.as_ref()?, hook.tried.iter().find(|tried| tried.program.is_some())?);
    let (name, tried, why) = (&hook.name, &refused.variant, &refused.why);
    Some(format!("hook `{name}` is attached as `{variant}`, because `{tried}` was refused ({why})"))
}

/// The byte cap was reached: that of the user (`given`), or a default.
pub fn byte_cap(plan: &Plan, head: &Head, ledger: &Ledger, given: bool) -> Option<String> {
    let bound = head.byte_bound.as_ref().filter(|bound| plan.is_given(&bound.by) == given)?;
    let count = ledger.dropped.get(&DropReason::ByteCap).filter(|count| **count > 0)?;
    Some(budget::reached(plan, bound, *count))
}

/// Connection tracking was asked for, and no table could be read.
pub fn conntrack_missing(plan: &Plan, head: &Head) -> Option<String> {
    let source = head.sources.iter().find(|source| source.name == "conntrack")?;
    let is_missing = plan.with_conntrack == Choice::True && source.outcome != "answered";
    let why = source.error.as_deref().unwrap_or("it is not there");
    is_missing.then(|| format!("`--with-conntrack=true` asks for connection tracking, and it cannot be read: {why}"))
}

fn early(ended_by: EndedBy) -> Option<String> {
    match ended_by {
        EndedBy::Signal => Some("the capture ended early: ktrace was sent a signal".into()),
        EndedBy::ClosedPipe => Some("the capture ended early: nobody reads stdout any more".into()),
        EndedBy::Evidence => Some("the capture ended early: the evidence sufficed".into()),
        EndedBy::Deadline
        | EndedBy::MaxEvents
        | EndedBy::MaxBytes
        | EndedBy::Command
        | EndedBy::DiskFull
        | EndedBy::Error => None,
    }
}

/// A bound that nobody asked for ended the capture before the command did.
pub fn cut_short(plan: &Plan, ended_by: EndedBy) -> Option<String> {
    (ended_by == EndedBy::Deadline && plan.stated_duration().is_none()).then(|| {
        let bound = crate::plan::duration::show(plan.duration);
        format!("the command runs longer than the {bound} that are watched without `--duration`")
    })
}
