//! The tgz that grows beside the loose files, though a tar wants a member's length before its content.
//!
//! The first gzip member holds nothing but the tar header of `events.jsonl`, stored, not compressed, so that
//! it can be rewritten in place when the length is known; until then it states the byte cap, and what is
//! there can be read as a bundle that was cut. The lines follow as the second gzip member, padding and the
//! other files as the third.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use flate2::{Compression, Crc};
use tar::Header;

use super::WriteError;
use super::loose::{Loose, partial, private_file};

const BLOCK: u64 = 512;

/// The other members, in the order in which they stand in the tar.
pub(super) const REST: [&str; 12] = [
    "sockets.jsonl",
    "coverage.jsonl",
    "workloads.jsonl",
    "processes.jsonl",
    "flows.jsonl",
    "node/network.jsonl",
    "node/host.jsonl",
    "conntrack.json",
    "services.json",
    "README.md",
    "summary.json",
    "manifest.json",
];

/// A growing archive, `*.partial` until it is sealed.
#[derive(Debug)]
pub(super) struct Tgz {
    path: PathBuf,
    partial: PathBuf,
    stem: String,
    /// Buffered on both sides: the compressor has its price per call, whatever the length.
    lines: BufWriter<GzEncoder<BufWriter<File>>>,
}

impl Tgz {
    /// Starts the archive of a bundle of at most `max_bytes` of events.
    pub(super) fn create(path: &Path, stem: &str, mtime: i64, max_bytes: u64) -> Result<Self, WriteError> {
        let partial = partial(path);
        let create = || {
            let mut file = private_file(&partial)?;
            file.write_all(&stored_member(&header(stem, "events.jsonl", max_bytes, mtime)?))?;
            Ok(BufWriter::with_capacity(1 << 16, compressed(file)))
        };
        let lines = create().map_err(|e| WriteError::at(&partial, e))?;
        Ok(Self { path: path.to_owned(), partial, stem: stem.to_owned(), lines })
    }

    /// Adds a line of `events.jsonl`.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), WriteError> {
        self.lines.write_all(line).map_err(|e| WriteError::at(&self.partial, e))
    }

    /// Brings every line so far into the file, so that it can be read from there.
    pub(super) fn flush(&mut self) -> Result<(), WriteError> {
        self.lines.flush().map_err(|e| WriteError::at(&self.partial, e))
    }

    /// Removes the archive.
    pub(super) fn remove(self) {
        // nothing depends on it: the loose files are what counts from here on
        let _ = fs::remove_file(&self.partial);
    }

    /// Adds the other files, states the true length of `events.jsonl`, and gives the archive its name.
    pub(super) fn seal(self, loose: &Loose, events_bytes: u64, mtime: i64) -> Result<(), WriteError> {
        let Self { path, partial, stem, lines } = self;
        let seal = || -> io::Result<()> {
            let lines = lines.into_inner().map_err(io::IntoInnerError::into_error)?;
            let mut rest = compressed(lines.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?);
            pad(&mut rest, events_bytes)?;
            for name in REST {
                append(&mut rest, &stem, name, File::open(loose.path(name))?, mtime)?;
            }
            rest.write_all(&[0; 2 * BLOCK as usize])?;
            let mut file = rest.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&stored_member(&header(&stem, "events.jsonl", events_bytes, mtime)?))?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            sync_dir(&path)
        };
        seal().map_err(|e| {
            // a part of an archive helps nobody while the loose files are whole
            let _ = fs::remove_file(&partial);
            WriteError::at(&path, e)
        })
    }
}

fn compressed(file: File) -> GzEncoder<BufWriter<File>> {
    GzEncoder::new(BufWriter::with_capacity(1 << 16, file), Compression::fast())
}

fn header(stem: &str, name: &str, bytes: u64, mtime: i64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(format!("{stem}/{name}"))?;
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(mtime.max(0).unsigned_abs());
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

/// A whole gzip member that holds one tar header as it is (RFC 1952; RFC 1951, 3.2.4).
fn stored_member(header: &Header) -> Vec<u8> {
    let block = header.as_bytes();
    let mut crc = Crc::new();
    crc.update(block);
    let mut out = Vec::with_capacity(535);
    out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    out.extend_from_slice(&[1, 0x00, 0x02, 0xff, 0xfd]); // last block, stored, 512 bytes
    out.extend_from_slice(block);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    out
}

fn append(out: &mut impl Write, stem: &str, name: &str, file: File, mtime: i64) -> io::Result<()> {
    let bytes = file.metadata()?.len();
    out.write_all(header(stem, name, bytes, mtime)?.as_bytes())?;
    if io::copy(&mut file.take(bytes), out)? != bytes {
        return Err(io::Error::other("a file of the bundle became shorter"));
    }
    pad(out, bytes)
}

fn pad(out: &mut impl Write, bytes: u64) -> io::Result<()> {
    let padding = bytes.next_multiple_of(BLOCK) - bytes;
    io::copy(&mut io::repeat(0).take(padding), out).map(drop)
}

/// Makes the rename last. Systems that cannot open a directory have no need of it.
fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix)
        && let Some(dir) = path.parent()
    {
        File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.sync_all()?;
    }
    Ok(())
}
