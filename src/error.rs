//! The one place that prints errors: what failed, why, and one thing to do about it.
//!
//! `error: …`, then `caused by: …` for each source, then `hint: …`. Also the exit codes, so that no
//! number appears elsewhere. Text from outside is escaped here, so error types may carry it raw.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use ktrace_bundle::manifest::{EndedBy, Manifest};

use crate::report::escape::escape;

/// How `ktrace` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// A sealed bundle with all that was asked for.
    Complete = 0,
    /// Something failed on the way, the disk was full for example.
    Error = 1,
    /// The request cannot be meant; nothing was attached.
    Usage = 2,
    /// No hook could be attached: no privilege, no BTF, no support.
    NothingAttached = 3,
    /// A sealed bundle that lacks something that was asked for.
    Degraded = 4,
}

impl Exit {
    /// The exit code of a capture that was sealed; with `degraded_ok` one that lacks something is a success.
    pub fn of(manifest: &Manifest, degraded_ok: bool) -> Self {
        match manifest.ended_by {
            EndedBy::DiskFull | EndedBy::Error => Self::Error,
            _ if manifest.complete || degraded_ok => Self::Complete,
            _ => Self::Degraded,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that may know what the user can do about it.
pub trait Hint {
    /// One action, lower-case, without a trailing period.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Prints `error` with its causes and its hint to stderr. A closed stderr is not an error.
pub fn report(error: &(impl Error + Hint)) {
    let _ = io::stderr().write_all(render(error, error.hint().as_deref()).as_bytes());
}

/// Prints something that does not stop a capture. A closed stderr is not an error.
pub fn warn(error: &(impl Error + Hint)) {
    let text = render(error, error.hint().as_deref());
    let _ = io::stderr().write_all(text.replacen("error: ", "warning: ", 1).as_bytes());
}

fn render(error: &dyn Error, hint: Option<&str>) -> String {
    let mut text = format!("error: {}\n", escape(&error.to_string()));
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!("caused by: {}\n", escape(&error.to_string()));
        cause = error.source();
    }
    if let Some(hint) = hint {
        text += &format!("hint: {}\n", escape(hint));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open `{path}`")]
    struct CannotOpen {
        path: &'static str,
        source: io::Error,
    }

    #[test]
    fn an_error_is_followed_by_its_causes_and_its_hint() {
        let error = CannotOpen { path: "/x", source: io::Error::other("it is locked") };
        assert_eq!(
            render(&error, Some("unlock `/x`")),
            "error: cannot open `/x`\ncaused by: it is locked\nhint: unlock `/x`\n"
        );
    }

    #[test]
    fn text_from_outside_cannot_drive_the_terminal() {
        let error = CannotOpen { path: "\u{1b}[2J", source: io::Error::other("a\nb") };
        assert_eq!(render(&error, None), "error: cannot open `\\u{1b}[2J`\ncaused by: a\\u{a}b\n");
    }
}
