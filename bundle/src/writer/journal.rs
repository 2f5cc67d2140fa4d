//! Lines → a file, with exact knowledge of which lines are in it, also after the disk has failed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

const BUFFER_BYTES: usize = 1 << 16;

/// Something that lines are written to and that can be cut.
pub(super) trait Medium: Write {
    /// Drops everything from this byte on.
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

impl Medium for File {
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        self.seek(SeekFrom::Start(len)).map(drop)
    }
}

/// A buffered file of whole lines, each with a tag by which lines are counted.
#[derive(Debug)]
pub(super) struct Journal<M, T> {
    medium: M,
    buffer: Vec<u8>,
    /// Where each buffered line ends, and its tag.
    pending: Vec<(usize, T)>,
    /// Bytes of whole lines that the medium has taken.
    stored: u64,
    lines: BTreeMap<T, u64>,
    /// The medium has failed, or the journal was settled: nothing is taken any more.
    closed: bool,
}

impl<M: Medium, T: Copy + Ord> Journal<M, T> {
    pub(super) fn new(medium: M) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Self { medium, buffer, pending: Vec::new(), stored: 0, lines: BTreeMap::new(), closed: false }
    }

    /// Takes a line that ends with its newline.
    ///
    /// # Errors
    /// Those of the medium. The lines that it did not take are counted no longer.
    pub(super) fn push(&mut self, line: &[u8], tag: T) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::other("the file was given up"));
        }
        if !self.buffer.is_empty() && self.buffer.len() + line.len() > BUFFER_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(line);
        self.pending.push((self.buffer.len(), tag));
        *self.lines.entry(tag).or_default() += 1;
        Ok(())
    }

    /// Brings the buffered lines into the medium.
    ///
    /// # Errors
    /// Those of the medium; it then ends with its last whole line, and nothing more is taken.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let (taken, outcome) = write_all(&mut self.medium, &self.buffer);
        let whole = self.pending.partition_point(|(end, _)| *end <= taken);
        let bytes = whole.checked_sub(1).and_then(|last| self.pending.get(last)).map_or(0, |(end, _)| *end);
        self.stored += bytes as u64;
        for (_, tag) in self.pending.drain(..).skip(whole) {
            if let Some(n) = self.lines.get_mut(&tag) {
                *n -= 1;
            }
        }
        self.buffer.clear();
        if outcome.is_err() {
            self.closed = true;
            self.lines.retain(|_, n| *n > 0);
            if taken > bytes {
                self.medium.cut(self.stored)?;
            }
        }
        outcome
    }

    /// Stores what can be stored and takes nothing more.
    pub(super) fn settle(&mut self) {
        // a failure has its effect on the count of lines, which is what the caller goes by
        let _ = self.flush();
        self.closed = true;
    }

    /// Lines taken; of a failed medium those that it has.
    pub(super) fn lines(&self) -> u64 {
        self.lines.values().sum()
    }

    /// The same by tag.
    pub(super) const fn by_tag(&self) -> &BTreeMap<T, u64> {
        &self.lines
    }

    /// Bytes of those lines.
    pub(super) const fn bytes(&self) -> u64 {
        self.stored + self.buffer.len() as u64
    }

    pub(super) const fn medium(&self) -> &M {
        &self.medium
    }
}

/// Writes until the end or an error; how many bytes the medium has taken is known in both cases.
fn write_all(medium: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|r| !r.is_empty()) {
        match medium.write(rest) {
            Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => taken += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (taken, Err(e)),
        }
    }
    (taken, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for this many bytes.
    struct SmallDisk {
        room: usize,
        held: Vec<u8>,
    }

    impl Write for SmallDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room - self.held.len()).min(7);
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.held.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Medium for SmallDisk {
        fn cut(&mut self, len: u64) -> io::Result<()> {
            self.held.truncate(usize::try_from(len).unwrap());
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_holds_whole_lines_and_only_they_are_counted() {
        for room in 0..60 {
            let mut journal = Journal::new(SmallDisk { room, held: Vec::new() });
            for (line, tag) in [("first\n", 'a'), ("second line\n", 'b'), ("third\n", 'a'), ("4\n", 'c')] {
                journal.push(line.as_bytes(), tag).unwrap();
            }
            assert_eq!(journal.flush().is_err(), room < 26);
            let held = String::from_utf8(journal.medium.held.clone()).unwrap();
            assert!(held.is_empty() || held.ends_with('\n'), "{held:?}");
            assert_eq!((held.lines().count() as u64, held.len() as u64), (journal.lines(), journal.bytes()));
            assert_eq!(journal.by_tag().values().sum::<u64>(), journal.lines());
            assert_eq!(
                journal.by_tag().get(&'a').copied().unwrap_or(0),
                [0, 1, 2][(room >= 6) as usize + (room >= 24) as usize]
            );
            assert_eq!(journal.push(b"more\n", 'd').is_err(), room < 26);
        }
    }

    #[test]
    fn lines_reach_the_medium_before_the_buffer_is_full() {
        let mut journal = Journal::new(SmallDisk { room: 1 << 20, held: Vec::new() });
        for _ in 0..100 {
            journal.push(&[b'x'; 1000], ()).unwrap();
        }
        assert!(journal.medium.held.len() >= 100_000 - BUFFER_BYTES);
        assert_eq!((journal.lines(), journal.bytes()), (100, 100_000));
    }
}
