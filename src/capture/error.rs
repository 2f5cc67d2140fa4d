//! Why a capture left no sealed bundle, and what to do about it.

use std::io;
use std::path::PathBuf;

use ktrace_bundle::writer::WriteError;

use crate::error::Hint;
use crate::kernel::loader::LoadError;
use crate::kernel::session::SessionError;

/// Why a capture left no sealed bundle.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Nothing could be attached.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel side failed while running.
    #[error("the capture failed")]
    Session(#[from] SessionError),
    /// Signals could not be caught, so the capture could not be ended in order.
    #[error("cannot catch signals")]
    Signals(#[source] io::Error),
    /// stdout could not be taken over for events.
    #[error("cannot write events to stdout")]
    Stdout(#[source] io::Error),
    /// The ready file could not be made.
    #[error("cannot write `{path}`")]
    Ready {
        /// `--ready-file`.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The bundle could not be written; what is there can be read with `analyze`.
    #[error("the capture stopped early; what was written is in `{dir}`")]
    Write {
        /// Directory of loose files.
        dir: PathBuf,
        /// What failed.
        source: WriteError,
    },
    /// The bundle's directory is gone.
    #[error("the capture stopped early: `{dir}` was removed, and with it what was written")]
    Removed {
        /// Directory of loose files.
        dir: PathBuf,
        /// What failed first.
        source: WriteError,
    },
    /// Not even a directory for the bundle could be made.
    #[error("cannot start a bundle in `{dir}`")]
    Create {
        /// `--out-dir`.
        dir: PathBuf,
        /// What failed.
        source: WriteError,
    },
}

impl Hint for CaptureError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Load(e) => e.hint(),
            Self::Write { dir, source: WriteError::DiskFull { .. } } => {
                Some(format!("make room, or use another `--out-dir`; `analyze {}` reads what there is", dir.display()))
            }
            Self::Write { dir, .. } => Some(format!("`analyze {}` reads what there is", dir.display())),
            Self::Removed { .. } => Some("capture again, with an `--out-dir` that stays".into()),
            _ => None,
        }
    }
}

impl CaptureError {
    pub(super) fn write(dir: PathBuf, source: WriteError) -> Self {
        if dir.exists() { Self::Write { dir, source } } else { Self::Removed { dir, source } }
    }
}
