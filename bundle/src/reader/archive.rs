//! A compressed tar → an [`Intake`], streamed; nothing is written anywhere.
//!
//! Takes regular members of known names, at the top or one directory down. Links, devices, absolute paths
//! and `..` are skipped and counted. Whatever ends or damages the stream becomes the report's cut.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::read::MultiGzDecoder;
use tar::{EntryType, Header};

use super::intake::Intake;
use super::known::Known;
use super::{Limits, ReadError, ReadReport};

const BLOCK: usize = 512;

/// Below this many bytes the compression ratio says nothing.
const RATIO_FROM_BYTES: u64 = 16 << 20;

/// Name of the archive itself in a cut that is in no member.
const WHOLE: &str = "the archive";

/// Reads the members in the order in which they stand.
///
/// # Errors
/// If it is compressed but not a tar, or a tar without any member of a bundle up to where it ends.
pub(super) fn read(file: File, limits: &Limits, mut intake: Intake<'_>) -> Result<ReadReport, ReadError> {
    let metered = Metered { inner: MultiGzDecoder::new(Counted { inner: file, count: 0 }), count: 0, limits };
    let mut input = BufReader::with_capacity(1 << 16, metered);
    let mut blocks = 0_u64;
    while let Some(header) = next_header(&mut input, &mut intake, blocks == 0)? {
        blocks += 1;
        if blocks > limits.max_members {
            intake.cut(WHOLE, 0, "it has more members than this reader accepts");
            break;
        }
        if !entry(&header, &mut input, &mut intake)? {
            break;
        }
    }
    if intake.is_empty() {
        return Err(intake.foreign(if intake.is_cut() {
            "what can be read of the archive holds none of a bundle's files"
        } else {
            "the archive holds none of a bundle's files"
        }));
    }
    intake.finish()
}

/// The next header; `None` at the end of the archive, which is the report's cut unless it is the proper end.
fn next_header(input: &mut impl BufRead, intake: &mut Intake<'_>, is_first: bool) -> Result<Option<Header>, ReadError> {
    let mut block = [0; BLOCK];
    if let Err(e) = input.read_exact(&mut block) {
        let why =
            if e.kind() == io::ErrorKind::UnexpectedEof { "it ends without its end mark" } else { &e.to_string() };
        intake.cut(WHOLE, 0, why);
        return Ok(None);
    }
    if block == [0; BLOCK] {
        // what follows is padding; reading it checks the checksum of the last gzip member
        if let Err(e) = io::copy(input, &mut io::sink()) {
            intake.cut(WHOLE, 0, &e.to_string());
        }
        return Ok(None);
    }
    let header = Header::from_byte_slice(&block);
    if header.cksum().ok() == Some(checksum(&block)) {
        return Ok(Some(header.clone()));
    }
    if is_first {
        return Err(intake.foreign("it is compressed, but not a tar"));
    }
    intake.cut(WHOLE, 0, "a member's header is damaged");
    Ok(None)
}

/// The sum of a header's bytes, its own checksum counted as spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let sum_of = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) };
    block.iter().enumerate().map(sum_of).sum()
}

/// Takes in or skips one entry with its padding. `false`: nothing behind it can be read.
fn entry(header: &Header, input: &mut impl BufRead, intake: &mut Intake<'_>) -> Result<bool, ReadError> {
    let len = header.entry_size().unwrap_or(u64::MAX);
    let Some(padded) = len.checked_next_multiple_of(BLOCK as u64) else {
        intake.cut(WHOLE, 0, "a member's length is damaged");
        return Ok(false);
    };
    let mut rest = input.take(padded);
    match known(header) {
        Some(member) if intake.admit(member) => intake.member(member, &mut rest, len)?,
        Some(_) => {}
        None if matches!(header.entry_type(), EntryType::Directory | EntryType::XHeader | EntryType::XGlobalHeader) => {
        }
        None => intake.skip_member(),
    }
    if intake.is_cut() {
        return Ok(false);
    }
    match io::copy(&mut rest, &mut io::sink()) {
        Ok(_) if rest.limit() == 0 => return Ok(true),
        Ok(_) => intake.cut(WHOLE, 0, "it ends inside a member"),
        Err(e) => intake.cut(WHOLE, 0, &e.to_string()),
    }
    Ok(false)
}

/// The member that this entry is; `None` for everything that a bundle does not have.
fn known(header: &Header) -> Option<Known> {
    if !matches!(header.entry_type(), EntryType::Regular) {
        return None;
    }
    let path = header.path_bytes();
    let path = path.strip_prefix(b"./").unwrap_or(&path);
    Known::from_name(path).or_else(|| {
        let at = path.iter().position(|b| *b == b'/')?;
        let (dir, name) = path.split_at_checked(at)?;
        if dir.is_empty() || dir == b".." { None } else { Known::from_name(name.strip_prefix(b"/")?) }
    })
}

/// Counts the bytes that it reads.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count += n as u64;
        Ok(n)
    }
}

/// Decompresses, up to the limits.
struct Metered<'a, R> {
    inner: MultiGzDecoder<Counted<R>>,
    count: u64,
    limits: &'a Limits,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other("the file ends here"),
            _ => e,
        })?;
        self.count = self.count.saturating_add(n as u64);
        if self.count > self.limits.max_total_bytes {
            return Err(io::Error::other("it is longer than this reader accepts"));
        }
        let packed = self.inner.get_ref().count.saturating_mul(self.limits.max_ratio);
        if self.count > RATIO_FROM_BYTES.saturating_add(packed) {
            return Err(io::Error::other("it is packed more tightly than any bundle"));
        }
        Ok(n)
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
