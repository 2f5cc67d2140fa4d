//! Tries the places that a capture will write to, so that a full or forbidden one is known before
//! anything is attached.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Creates `dir` (0700) with its parents where missing, and proves that files can be created in it.
///
/// # Errors
/// What the system says.
pub fn prepare(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    probe(dir)
}

/// Removes what an earlier run left at `file`, so that nobody takes it for this one's, and proves
/// that it can be created.
///
/// # Errors
/// What the system says.
pub fn clear(file: &Path) -> io::Result<()> {
    let dir = match file.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => return Err(io::ErrorKind::IsADirectory.into()),
    };
    probe(dir)?;
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Creates a file and removes it: permission bits do not tell about read-only mounts, quotas and modules.
fn probe(dir: &Path) -> io::Result<()> {
    let path = probe_path(dir);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)
}

fn probe_path(dir: &Path) -> PathBuf {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    dir.join(format!(".ktrace-probe.{}.{}", std::process::id(), now.as_nanos()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_missing_directory_is_created_for_its_owner_alone_and_left_empty() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("a/b");
        prepare(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_below_a_file_cannot_be_prepared() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(prepare(&file.join("out")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn an_old_ready_file_is_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("ready");
        fs::write(&file, "ready\n").unwrap();
        clear(&file).unwrap();
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_ready_file_in_a_missing_directory_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(clear(&tmp.path().join("none/ready")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(clear(tmp.path()).is_err());
    }
}
