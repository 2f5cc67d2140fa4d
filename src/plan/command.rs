//! The words behind `--` → a program that exists, and its arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use super::PlanError;
use crate::command::locate;

/// How long a command is watched without `--duration`: long enough for what a person waits for, and a bound for a
/// command that hangs.
pub const LONGEST: &str = "1h";

/// A command that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The file that runs.
    pub program: PathBuf,
    /// All words as they were given, at least one.
    pub argv: Vec<OsString>,
}

impl Asked {
    /// Looks the first word up; `None` if there are no words.
    ///
    /// # Errors
    /// [`PlanError::Command`]: there is no such program, or it may not run.
    pub fn from_args(words: &[OsString]) -> Result<Option<Self>, PlanError> {
        let Some(name) = words.first() else { return Ok(None) };
        Ok(Some(Self { program: locate(name)?, argv: words.to_vec() }))
    }
}
