//! What can go wrong, what it means to the caller, and the one place that prints it.

use std::error::Error as _;
use std::io::{self, Write};
use std::path::PathBuf;

use ktrace_bundle::reader::ReadError;

use crate::kb::KbError;
use crate::kernel_log::knowledge::KnowledgeError;

/// Exit codes of `analyze`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Nothing could be read or explained, or the report could not be written.
    Unreadable,
    /// Wrong usage.
    Usage,
    /// `--fail-on`: a critical finding.
    Critical,
    /// `--fail-on warning`: a warning, and nothing worse.
    Warning,
    /// The bundle is cut, not sealed, or does not agree with itself; what is readable was reported.
    Cut,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unreadable => 1,
            Self::Usage => 2,
            Self::Critical => 3,
            Self::Warning => 4,
            Self::Cut => 5,
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a bundle, or not readable.
    #[error("{0}")]
    Read(ReadError),
    /// No bundle was named and none lies in the default place.
    #[error("no bundle in `{}`", .0.display())]
    NoBundle(PathBuf),
    /// The knowledge base, or what a user sets in it.
    #[error(transparent)]
    Kb(#[from] KbError),
    /// `--where` without `=`.
    #[error("`{0}` is not `key=value`")]
    Condition(String),
    /// `--flow` that names no flow.
    #[error("`{0}` names no flow")]
    Flow(String),
    /// `--pod` that names no pod.
    #[error("`{0}` names no pod")]
    Pod(String),
    /// The lines to explain cannot be read.
    #[error("cannot read stdin")]
    Input(#[source] io::Error),
    /// The program was built from knowledge that is wrong.
    #[error("{0}")]
    Knowledge(#[from] KnowledgeError),
    /// The output broke.
    #[error("cannot write the report")]
    Write(#[from] io::Error),
}

impl Error {
    /// How the program ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Read(_) | Self::NoBundle(_) | Self::Input(_) | Self::Knowledge(_) => Exit::Unreadable,
            Self::Kb(KbError::Entry { .. }) => Exit::Unreadable,
            Self::Kb(_) | Self::Condition(_) | Self::Flow(_) | Self::Pod(_) => Exit::Usage,
            // a reader such as `head` that has seen enough is no failure
            Self::Write(e) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Write(_) => Exit::Unreadable,
        }
    }

    /// One thing to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read(ReadError::Open { .. }) => "check the path and its permissions".to_owned(),
            Self::Read(ReadError::Foreign { .. }) => {
                "name a `.bundle.tgz`, a bundle directory or an `events.jsonl`".to_owned()
            }
            Self::Read(ReadError::Newer { .. }) => "use the `analyze` of the release that wrote it".to_owned(),
            Self::NoBundle(_) => "name a bundle: `analyze PATH`, or capture one with `ktrace`".to_owned(),
            Self::Kb(KbError::Entry { .. }) => "this is a fault of `analyze` itself: please report it".to_owned(),
            Self::Kb(KbError::Rule(_)) => "`analyze kb list` names all rules".to_owned(),
            Self::Kb(KbError::Threshold { known, .. }) if known.is_empty() => "it has none".to_owned(),
            Self::Kb(KbError::Threshold { known, .. }) => format!("it has {known}"),
            Self::Kb(KbError::Form(_) | KbError::Value { .. }) => {
                "for example `--set dns.slow.p95_ms=50`; `analyze kb show RULE` lists thresholds".to_owned()
            }
            Self::Condition(_) => "for example `--where type=udp_send --where pid=1847`".to_owned(),
            Self::Flow(_) => "for example `--flow 10.96.0.80:80`, `--flow fd00::7`, `--flow '*:53'` or \
                              `--flow 'tcp 10.42.1.15:41001->10.96.0.80:80'`"
                .to_owned(),
            Self::Pod(_) => "for example `--pod web-1` or `--pod shop/web-1`".to_owned(),
            Self::Input(_) | Self::Knowledge(_) | Self::Write(_) => return None,
        })
    }

    /// Prints the error, its causes and its hint.
    pub fn print(&self, err: &mut dyn Write) {
        if self.exit() == Exit::Done {
            return;
        }
        // nothing is left to tell it to when stderr is gone
        let _gone = self.write(err);
    }

    fn write(&self, err: &mut dyn Write) -> io::Result<()> {
        writeln!(err, "error: {}", crate::escape::line(&self.to_string()))?;
        let mut source = match self {
            Self::Read(e) => e.source(),
            Self::Knowledge(e) => e.source(),
            _ => self.source(),
        };
        while let Some(cause) = source {
            writeln!(err, "caused by: {}", crate::escape::line(&cause.to_string()))?;
            source = cause.source();
        }
        match self.hint() {
            Some(hint) => writeln!(err, "hint: {hint}"),
            None => Ok(()),
        }
    }
}
