//! The first word of a command → the file that would run, so that a misspelt one is known before anything is attached.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::error::Hint;

/// Why a command cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRunnable {
    /// No directory of `PATH` has it.
    #[error("`{}` was not found in `PATH`", .0.display())]
    NotFound(OsString),
    /// It is not a program that we may run.
    #[error("`{}` cannot be run: {}", .0.display(), .1.desc())]
    NotExecutable(PathBuf, Errno),
}

impl Hint for NotRunnable {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFound(_) => "check the spelling, or give its path".into(),
            Self::NotExecutable(..) => "pass a program that you may execute; a script needs `chmod +x`".into(),
        })
    }
}

/// The file that `name` stands for: itself if it has a slash, else the first program of that name in `PATH`.
///
/// # Errors
/// See [`NotRunnable`].
pub fn locate(name: &OsStr) -> Result<PathBuf, NotRunnable> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    locate_in(name, &path)
}

fn locate_in(name: &OsStr, path: &OsStr) -> Result<PathBuf, NotRunnable> {
    if name.as_encoded_bytes().contains(&b'/') {
        let file = PathBuf::from(name);
        return runnable(&file).map(|()| file.clone()).map_err(|errno| NotRunnable::NotExecutable(file, errno));
    }
    let mut found = None;
    for dir in std::env::split_paths(path).filter(|_| !name.is_empty()) {
        let file = dir.join(name);
        match runnable(&file) {
            Ok(()) => return Ok(file),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            // as a shell does: one that is there and must not run is told, unless a later one may
            Err(errno) => drop(found.get_or_insert(NotRunnable::NotExecutable(file, errno))),
        }
    }
    Err(found.unwrap_or_else(|| NotRunnable::NotFound(name.to_owned())))
}

fn runnable(file: &Path) -> Result<(), Errno> {
    match file.metadata() {
        Ok(meta) if meta.is_dir() => Err(Errno::EISDIR),
        Ok(_) => access(file, AccessFlags::X_OK),
        Err(error) => Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(path: &Path, mode: u32) -> PathBuf {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_owned()
    }

    #[test]
    fn the_first_runnable_file_of_the_path_is_taken() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        program(&a.path().join("x"), 0o600);
        let second = program(&b.path().join("x"), 0o700);
        let path = std::env::join_paths([a.path(), b.path()]).unwrap();
        assert_eq!(locate_in("x".as_ref(), &path), Ok(second));
        let refused = locate_in("x".as_ref(), a.path().as_os_str());
        assert_eq!(refused, Err(NotRunnable::NotExecutable(a.path().join("x"), Errno::EACCES)));
    }

    #[test]
    fn a_name_without_a_file_is_not_found_and_a_path_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["x", ""] {
            assert_eq!(locate_in(name.as_ref(), dir.path().as_os_str()), Err(NotRunnable::NotFound(name.into())));
        }
        let file = dir.path().join("x");
        let missing = locate_in(file.as_os_str(), OsStr::new(""));
        assert_eq!(missing, Err(NotRunnable::NotExecutable(file.clone(), Errno::ENOENT)));
        assert_eq!(locate_in(program(&file, 0o700).as_os_str(), OsStr::new("")), Ok(file));
        let dir_itself = locate_in(dir.path().as_os_str(), OsStr::new(""));
        assert_eq!(dir_itself, Err(NotRunnable::NotExecutable(dir.path().to_owned(), Errno::EISDIR)));
    }
}
