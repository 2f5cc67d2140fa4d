//! `ktrace doctor`: one capture and its analysis, told on one screen.
//!
//! Runs the ordinary capture, and beside it a [`companion`] that reads the growing files and says when there is
//! [`enough`]. What is printed always comes from the sealed bundle, which goes into a [`scratch`] directory unless somebody
//! wants to keep it. Judges nothing itself: that is the analyzer's.

pub mod companion;
mod enough;
mod scratch;

use std::io;
use std::path::Path;
use std::time::Duration;

use ktrace_analyzer::capture::Capture;
use ktrace_analyzer::error::Exit;
use ktrace_analyzer::kb::Kb;
use ktrace_analyzer::report::screen::{self, Frame};
use ktrace_analyzer::report::{Report, json};
use ktrace_bundle::manifest::{EndedBy, Manifest};
use ktrace_bundle::writer::WriteError;

use crate::capture::{self, CaptureError, Onlooker, Sealed, Stop};
use crate::cli::Origins;
use crate::cli::doctor::{DoctorArgs, Format};
use crate::error::{self, Hint};
use crate::plan::Plan;
use crate::report::closing::{self, Style};
use crate::report::escape::escape;
use crate::report::to_stdout;
use companion::Companion;
use scratch::Scratch;

/// What the report says of a bundle that is gone.
const NOT_KEPT: &str = "not kept: with `ktrace doctor --out-dir DIR` it is, and `analyze DIR` tells all of it";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum DoctorError {
    /// Signals could not be caught, so that files would be left behind.
    #[error("cannot catch signals")]
    Signals(#[source] io::Error),
    /// No directory for the bundle.
    #[error("cannot make a directory for the bundle in `{}`", std::env::temp_dir().display())]
    Scratch(#[source] io::Error),
    /// What was written cannot be kept, and so is of no use to anybody.
    #[error("the bundle cannot be written below `{}`", std::env::temp_dir().display())]
    Unwritten(#[source] WriteError),
    /// The capture left no bundle.
    #[error(transparent)]
    Capture(CaptureError),
    /// What was just written cannot be read.
    #[error(transparent)]
    Read(#[from] ktrace_analyzer::error::Error),
    /// stdout does not take the report.
    #[error("cannot write the report")]
    Write(#[from] io::Error),
}

impl Hint for DoctorError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Scratch(_) | Self::Unwritten(_) => {
                Some("pass a directory that you may write to with `--out-dir`".into())
            }
            Self::Capture(error) => error.hint(),
            Self::Read(error) => error.hint(),
            Self::Signals(_) | Self::Write(_) => None,
        }
    }
}

impl DoctorError {
    fn of(error: CaptureError, is_kept: bool) -> Self {
        use CaptureError::{Create, Removed, Write};
        match error {
            Create { source, .. } | Removed { source, .. } | Write { source, .. } if !is_kept => {
                Self::Unwritten(source)
            }
            other => Self::Capture(other),
        }
    }
}

/// Captures, analyzes and reports.
pub fn run(args: &DoctorArgs, origins: &Origins) -> Exit {
    let mut plan = match Plan::from_args(&args.capture, origins) {
        Ok(plan) => plan,
        Err(error) => {
            error::report(&error);
            return Exit::Usage;
        }
    };
    match diagnose(args, &mut plan) {
        Ok(exit) => exit,
        Err(error) => {
            error::report(&error);
            Exit::Unreadable
        }
    }
}

fn diagnose(args: &DoctorArgs, plan: &mut Plan) -> Result<Exit, DoctorError> {
    // before there is anything to leave behind
    let is_kept = plan.is_given("out-dir");
    let stop = if is_kept { Stop::on_signals() } else { Stop::in_order() }.map_err(DoctorError::Signals)?;
    let scratch = if is_kept { None } else { Some(Scratch::create(&stop).map_err(DoctorError::Scratch)?) };
    if let Some(scratch) = &scratch {
        plan.write_to(scratch.path());
    }
    match crate::be_ready(plan) {
        Ok(()) => {}
        Err(error::Exit::Usage) => return Ok(Exit::Usage),
        Err(_) => return Ok(Exit::Unreadable),
    }
    let companion = args.end_early.then(Companion::default);
    let onlooker = companion.as_ref().map(|it| it as &dyn Onlooker);
    let sealed = capture::run(plan, &stop, onlooker).map_err(|error| DoctorError::of(error, is_kept))?;
    drop(companion);
    if let Some(leftover) = &sealed.leftover {
        error::warn(leftover);
    }
    // only what is missing: all else is in the report
    closing::print(&sealed.manifest, &sealed.bundle, Style { quiet: true, with_path: false });
    tell(args, plan, &sealed, is_kept)
}

/// Prints what the sealed bundle says.
fn tell(args: &DoctorArgs, plan: &Plan, sealed: &Sealed, is_kept: bool) -> Result<Exit, DoctorError> {
    let kb = Kb::new().map_err(ktrace_analyzer::error::Error::from)?;
    let (capture, _) = ktrace_analyzer::cli::load(&sealed.bundle, &kb)?;
    let source = sealed.bundle.to_string_lossy();
    let report = Report::new(&capture, &kb, &source).map_err(ktrace_analyzer::error::Error::from)?;
    let mut out = Vec::new();
    match args.format {
        Format::Text => {
            let bundle = if is_kept { kept(&sealed.bundle) } else { NOT_KEPT.to_owned() };
            let watched = watched(&sealed.manifest, plan.duration);
            screen::write(&mut out, &report, Frame { watched: &watched, bundle: &bundle })?;
        }
        Format::Json => json::write(&mut out, &report, false)?,
    }
    to_stdout(&out)?;
    let is_whole = (sealed.manifest.complete || plan.degraded_ok) && is_sound(&capture);
    Ok(match args.fail_on.and_then(|fail_on| fail_on.exit(report.worst())) {
        Some(exit) => exit,
        None if is_whole => Exit::Done,
        None => Exit::Cut,
    })
}

/// Whether the bundle that was just sealed is what was written.
const fn is_sound(capture: &Capture) -> bool {
    capture.coverage.cut.is_none() && capture.coverage.integrity.is_empty()
}

/// `vm for 15.0 s`, or `vm, ended after 6.6 s of 15 s: the evidence sufficed`.
fn watched(manifest: &Manifest, asked: Duration) -> String {
    let node = escape(&manifest.head.node);
    let lasted = seconds(Duration::from_nanos(manifest.duration_ns));
    let why = match manifest.ended_by {
        EndedBy::Evidence => "the evidence sufficed",
        EndedBy::Signal => "a signal",
        EndedBy::Deadline
        | EndedBy::MaxEvents
        | EndedBy::MaxBytes
        | EndedBy::Command
        | EndedBy::ClosedPipe
        | EndedBy::DiskFull
        | EndedBy::Error => return format!("{node} for {lasted}"),
    };
    format!("{node}, ended after {lasted} of {}: {why}", seconds(asked))
}

/// `6.6 s`, `15 s`.
fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    if tenths.is_multiple_of(10) { format!("{} s", tenths / 10) } else { format!("{}.{} s", tenths / 10, tenths % 10) }
}

fn kept(bundle: &Path) -> String {
    format!("all of it: {}", closing::analyze(bundle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_tenths() {
        let told = [15_000, 6_640, 6_699, 0].map(|ms| seconds(Duration::from_millis(ms)));
        assert_eq!(told, ["15 s", "6.6 s", "6.6 s", "0 s"]);
    }
}
