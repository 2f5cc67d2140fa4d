//! Why a bundle cannot be written, with the file that could not be.

use std::io;
use std::path::{Path, PathBuf};

/// Why the bundle cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No space or quota is left.
    #[error("no space is left for `{path}`")]
    DiskFull {
        /// File that could not grow.
        path: PathBuf,
    },
    /// Any other failure of the file system.
    #[error("cannot write `{path}`")]
    Io {
        /// File or directory concerned.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// An earlier error ended the bundle.
    #[error("the bundle was given up after an earlier error")]
    GivenUp,
    /// A manifest or summary that JSON cannot carry.
    #[error("a document cannot be written as JSON")]
    Document(#[from] serde_json::Error),
}

impl WriteError {
    pub(super) fn at(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, source },
        }
    }
}
