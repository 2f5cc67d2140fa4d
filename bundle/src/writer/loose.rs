//! The directory of loose files: private, never through a link, documents replaced in one step.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{BundleName, WriteError};

/// A file that holds room for the last documents, so that a full disk can still be told about.
const RESERVE: &str = ".reserve";

/// More than manifest, summary and README take together.
const RESERVE_BYTES: usize = 160 << 10;

/// The directory of members within the bundle's own.
pub(super) const FOLDER: &str = "node";

/// Names that are tried for one bundle.
const MAX_NAMES: u32 = 1000;

/// A bundle's own directory.
#[derive(Debug)]
pub(super) struct Loose {
    dir: PathBuf,
    stem: String,
}

impl Loose {
    /// Makes the directory under the first free name.
    pub(super) fn create(out_dir: &Path, name: &BundleName) -> Result<Self, WriteError> {
        fs::create_dir_all(out_dir).map_err(|e| WriteError::at(out_dir, e))?;
        let first = name.stem();
        for n in 1..=MAX_NAMES {
            let stem = if n == 1 { first.clone() } else { format!("{first}-{n}") };
            let loose = Self { dir: out_dir.join(&stem), stem };
            if is_taken(&loose.tgz_path()) || is_taken(&partial(&loose.tgz_path())) {
                continue;
            }
            match private_dir(&loose.dir) {
                Ok(()) => {
                    let folder = loose.path(FOLDER);
                    private_dir(&folder).map_err(|e| WriteError::at(&folder, e))?;
                    return Ok(loose);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(WriteError::at(&loose.dir, e)),
            }
        }
        Err(WriteError::at(&out_dir.join(first), io::ErrorKind::AlreadyExists.into()))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn stem(&self) -> &str {
        &self.stem
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn tgz_path(&self) -> PathBuf {
        self.dir.with_file_name(format!("{}.bundle.tgz", self.stem))
    }

    pub(super) fn create_file(&self, name: &str) -> Result<File, WriteError> {
        let path = self.path(name);
        private_file(&path).map_err(|e| WriteError::at(&path, e))
    }

    /// Takes the room that [`Loose::release`] gives back.
    pub(super) fn reserve(&self) -> Result<(), WriteError> {
        let mut file = self.create_file(RESERVE)?;
        file.write_all(&vec![0; RESERVE_BYTES]).map_err(|e| WriteError::at(&self.path(RESERVE), e))
    }

    /// To be called right before the last documents are written.
    pub(super) fn release(&self) -> Result<(), WriteError> {
        self.remove(RESERVE)
    }

    /// Writes a document: a reader finds the old one or the new one, never a part. `durable` waits for
    /// the disk, which takes too long for what is rewritten while events arrive.
    pub(super) fn replace(&self, name: &str, text: &[u8], durable: bool) -> Result<(), WriteError> {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        let write = || {
            let mut file = private_file(&new)?;
            file.write_all(text)?;
            if durable {
                file.sync_all()?;
            }
            fs::rename(&new, &path)
        };
        write().map_err(|e| {
            // the space it takes may be what the next attempt lacks; that it may not be there is fine
            let _ = fs::remove_file(&new);
            WriteError::at(&path, e)
        })
    }

    /// Removes a file that need not be there.
    pub(super) fn remove(&self, name: &str) -> Result<(), WriteError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(WriteError::at(&path, e)),
            _ => Ok(()),
        }
    }
}

/// The name of a file that is not complete yet.
pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Makes a file that nobody else can read. It must be new, so no link is followed either.
pub(super) fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn private_dir(path: &Path) -> io::Result<()> {
    #[allow(unused_mut)] // only unix sets a mode
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
