//! A directory for a bundle that nobody wants to keep. It goes away however `ktrace` ends, unless it is killed.
//!
//! The first signal ends the capture in order, and the directory goes when it is dropped. Who sends a second one does not want to
//! wait: then the directory is removed at once, and the process ends.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use signal_hook::low_level::{exit, pipe};

use crate::capture::Stop;
use crate::error::{self, Hint};

/// While files are still being written a removal may meet a new one.
const TRIES: usize = 10;

/// Removed on drop.
#[derive(Debug)]
pub struct Scratch(PathBuf);

/// The directory could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("`{}` could not be removed", .0.display())]
struct Leftover(PathBuf, #[source] io::Error);

impl Hint for Leftover {
    fn hint(&self) -> Option<String> {
        Some("remove it yourself: it holds the bundle".into())
    }
}

impl Scratch {
    /// A new directory that only its owner may enter, where the system has temporary files (`TMPDIR`, else `/tmp`).
    /// The first of the signals that `stop` heeds is its business, the second ends the process.
    ///
    /// # Errors
    /// The system refuses.
    pub fn create(stop: &Stop) -> io::Result<Self> {
        let scratch = Self(nix::unistd::mkdtemp(&std::env::temp_dir().join("ktrace-doctor.XXXXXX"))?);
        let (mut told, tell) = UnixStream::pair()?;
        for signal in stop.heeded() {
            pipe::register(*signal, tell.try_clone()?)?;
        }
        let path = scratch.0.clone();
        thread::Builder::new().name("scratch".into()).spawn(move || {
            // a byte for each signal
            if told.read_exact(&mut [0; 2]).is_ok() {
                let _ = remove(&path);
                exit(1);
            }
        })?;
        Ok(scratch)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            error::warn(&Leftover(self.0.clone(), error));
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let mut outcome = Ok(());
    for _ in 0..TRIES {
        outcome = match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => return Ok(()),
        };
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_its_owner_s_alone_and_goes_with_all_that_is_in_it() {
        let scratch = Scratch::create(&Stop::in_order().unwrap()).unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::create_dir(path.join("a")).unwrap();
        std::fs::write(path.join("a/b"), "c").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn one_that_is_gone_already_is_no_failure() {
        let scratch = Scratch::create(&Stop::in_order().unwrap()).unwrap();
        std::fs::remove_dir(scratch.path()).unwrap();
        assert!(remove(scratch.path()).is_ok());
    }
}
