//! A finished bundle, which may get rid of its loose files.

use std::path::PathBuf;

use super::WriteError;
use super::loose::FOLDER;
use super::tgz::REST;

/// A bundle that is complete on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The compressed tar.
    pub tgz: PathBuf,
    /// The same members as loose files.
    pub dir: PathBuf,
}

impl Sealed {
    /// Removes the loose files; the tgz has all of them. A file that is not the bundle's stays, and with it the directory.
    ///
    /// # Errors
    /// If one of them cannot be removed.
    pub fn remove_loose(&self) -> Result<(), WriteError> {
        let names = [&["events.jsonl"][..], &REST].concat();
        for path in names.iter().map(|name| self.dir.join(name)) {
            std::fs::remove_file(&path).map_err(|e| WriteError::at(&path, e))?;
        }
        let folder = self.dir.join(FOLDER);
        std::fs::remove_dir(&folder).map_err(|e| WriteError::at(&folder, e))?;
        std::fs::remove_dir(&self.dir).map_err(|e| WriteError::at(&self.dir, e))
    }
}
