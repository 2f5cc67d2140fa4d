//! The sealed manifest → the closing lines: what was seen, what was lost, what only the kernel's own counters or the
//! clocks told, how the command ended, where the bundle is, what to run next. Behind them the notes and, also with
//! `--quiet`, the reasons of a degraded capture, so that the last line is always the one that matters most.

use std::io::{self, Write};
use std::path::Path;

use ktrace_bundle::ledger::{DropReason, Ledger};
use ktrace_bundle::manifest::{CommandReport, EndedBy, Manifest};

use super::escape::escape;

/// How to close.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Only what went wrong.
    pub quiet: bool,
    /// stdout is somebody else's, so the bundle's path is a line of its own here, whatever `quiet` says.
    pub with_path: bool,
}

/// Prints the closing lines to stderr. A closed stderr is not an error.
pub fn print(manifest: &Manifest, bundle: &Path, style: Style) {
    let _ = io::stderr().write_all(render(manifest, bundle, style).as_bytes());
}

fn render(manifest: &Manifest, bundle: &Path, style: Style) -> String {
    let mut lines = Vec::new();
    if !style.quiet {
        lines.push(seen(manifest));
        lines.push(lost(&manifest.ledger));
        lines.extend(unseen(manifest));
        lines.extend(stepped(manifest));
        lines.extend(manifest.head.command.as_ref().and_then(command));
        lines.push(format!("the bundle is {}", escape(&bundle.to_string_lossy())));
        lines.push(format!("read it with: {}", analyze(bundle)));
    }
    lines.extend(nothing_passed(&manifest.ledger).filter(|_| !style.quiet));
    if style.with_path {
        lines.push(escape(&bundle.to_string_lossy()).into_owned());
    }
    if !style.quiet {
        lines.extend(manifest.notes.iter().map(|note| format!("note: {}", escape(note))));
    }
    lines.extend(manifest.degraded.iter().map(|reason| format!("degraded: {}", escape(reason))));
    lines.into_iter().map(|line| line + "\n").collect()
}

fn seen(manifest: &Manifest) -> String {
    let ledger = &manifest.ledger;
    let tenths = manifest.duration_ns / 100_000_000;
    let mut line = format!("saw {} events in {}.{} s{}", ledger.seen, tenths / 10, tenths % 10, ended(manifest));
    let mut types: Vec<_> = ledger.by_type.iter().filter(|(_, it)| it.seen > 0).collect();
    types.sort_by_key(|(_, it)| std::cmp::Reverse(it.seen));
    let types: Vec<_> = types.into_iter().map(|(kind, it)| format!("{} {}", it.seen, kind.as_str())).collect();
    if !types.is_empty() {
        line += &format!(": {}", types.join(", "));
    }
    line
}

/// Nothing where it goes on or never ran: the lines behind tell.
fn command(report: &CommandReport) -> Option<String> {
    let name = escape(report.argv.first()?);
    let code = report.exit_code?;
    Some(match code {
        129.. => format!("`{name}` ended by signal {} (exit code {code})", code - 128),
        _ => format!("`{name}` ended with exit code {code}"),
    })
}

fn ended(manifest: &Manifest) -> &'static str {
    match manifest.ended_by {
        EndedBy::Deadline => "",
        EndedBy::Signal => ", until a signal",
        EndedBy::MaxEvents => ", until `--max-events`",
        EndedBy::MaxBytes => ", until `--max-bytes`",
        EndedBy::Command => ", until the command ended",
        EndedBy::ClosedPipe => ", until nobody read stdout",
        EndedBy::Evidence => ", until the evidence sufficed",
        EndedBy::DiskFull => ", until the disk was full",
        EndedBy::Error => ", until an error",
    }
}

/// What the user asked to leave out is not lost, but it is named.
fn lost(ledger: &Ledger) -> String {
    let by_reason = |asked: bool| -> Vec<(DropReason, u64)> {
        let dropped = ledger.dropped.iter().map(|(reason, count)| (*reason, *count));
        dropped.filter(|(reason, count)| *count > 0 && is_asked(*reason) == asked).collect()
    };
    let list = |reasons: &[(DropReason, u64)]| {
        let items: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {}", reason.as_str())).collect();
        items.join(", ")
    };
    let (lost, left_out) = (by_reason(false), by_reason(true));
    let mut line = match lost.iter().map(|(_, count)| count).sum::<u64>() {
        0 => "nothing lost".to_owned(),
        total => format!("lost {total} events: {}", list(&lost)),
    };
    if !left_out.is_empty() {
        line += &format!("; left out as asked: {}", list(&left_out));
    }
    if ledger.missed > 0 {
        line += &format!("; the kernel skipped at most {} more", ledger.missed);
    }
    line
}

/// What the kernel counted and nothing explains, the largest part first named.
fn unseen(manifest: &Manifest) -> Option<String> {
    let worst = manifest.audit.iter().max_by_key(|e| e.unexplained()).filter(|e| e.unexplained() > 0)?;
    let others = manifest.audit.iter().filter(|e| e.unexplained() > 0).count() - 1;
    let mut line = format!(
        "the kernel's own counters disagree: by {} of {} `{}` in netns {}",
        worst.unexplained(),
        worst.kernel_delta,
        escape(&worst.counter),
        worst.netns
    );
    if others > 0 {
        line += &format!(", and in {others} more; see `audit` in the manifest");
    }
    Some(line)
}

/// The wall clock did not go on evenly.
fn stepped(manifest: &Manifest) -> Option<String> {
    let clocks = &manifest.head.clocks;
    let count = clocks.step_count.filter(|count| *count > 0)?;
    let tenths = clocks.max_step_ns / 100_000_000;
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let by = format!("{}.{} s", tenths / 10, tenths % 10);
    Some(format!("the wall clock was stepped {times}, by up to {by}: all times are by its first reading"))
}

/// Where the filters left nothing at all: the one that refused most.
fn nothing_passed(ledger: &Ledger) -> Option<String> {
    let late = ledger.dropped.get(&DropReason::FilteredLate).copied().unwrap_or(0);
    if ledger.seen > late {
        return None;
    }
    let (filter, count) =
        ledger.filtered.iter().filter(|(name, _)| *name != "self").max_by_key(|(_, count)| **count)?;
    let flag = filter.replace('_', "-");
    let of = ledger.observed;
    (*count > 0).then(|| format!("hint: none of {of} events passed the filters; `--{flag}` refused {count} of them"))
}

fn is_asked(reason: DropReason) -> bool {
    match reason {
        DropReason::Sampled | DropReason::FilteredLate => true,
        DropReason::EventCap
        | DropReason::ByteCap
        | DropReason::RingFull
        | DropReason::Undecodable
        | DropReason::WriteFailed => false,
    }
}

/// The command that reads a bundle.
pub fn analyze(bundle: &Path) -> String {
    format!("analyze {}", shell_word(bundle))
}

/// The path as one word that a shell takes literally and `analyze` does not take for a flag.
fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let text = if text.starts_with('-') { format!("./{text}").into() } else { text };
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:,@%=".contains(c)) {
        return text.into_owned();
    }
    format!("'{}'", escape(&text).replace('\'', r"'\''"))
}

#[cfg(test)]
#[path = "closing_tests.rs"]
mod tests;
