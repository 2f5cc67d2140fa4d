use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType};

use super::super::tests::{all, append};
use super::super::{Cut, ReadReport, Record, read as read_path};
use super::*;
use crate::event::Event;
use crate::line::write_event;
use crate::testing::{a_bundle, a_manifest, a_socket, an_event};

fn line() -> Vec<u8> {
    let mut line = Vec::new();
    write_event(&mut line, &an_event().seq(1).build());
    line.push(b'\n');
    line
}

/// A tgz on disk.
struct Packed {
    dir: tempfile::TempDir,
}

impl Packed {
    fn new(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.tgz"), bytes).unwrap();
        Self { dir }
    }

    fn tar(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> Self {
        let mut tar = Builder::new(Vec::new());
        build(&mut tar);
        Self::new(&gzip(&tar.into_inner().unwrap()))
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("b.tgz")
    }

    fn read(&self) -> (ReadReport, Vec<Record>) {
        all(&self.path()).unwrap()
    }

    fn read_with(&self, limits: &Limits) -> ReadReport {
        read_path(&self.path(), limits, &mut |_| ()).unwrap()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

fn small_bundle(events: &mut [Event]) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let manifest = a_manifest(events);
    let sealed = a_bundle(out.path(), events, &[a_socket().build()], manifest);
    fs::read(sealed.tgz).unwrap()
}

#[test]
fn a_bundle_cut_at_any_byte_delivers_what_is_before_the_cut_and_says_where_it_is() {
    // gzip's header, that of a stored block, and the header of the first member
    let first_header = 10 + 5 + BLOCK;
    let mut events: Vec<_> = (1..=8).map(|i| an_event().at_ms(i * 7919 % 60_000).socket(i * 31).build()).collect();
    let whole = small_bundle(&mut events);
    let mut delivered = 0;
    for len in first_header..whole.len() {
        let (report, records) = Packed::new(&whole[..len]).read();
        assert!(report.cut.is_some(), "nothing said of a cut at byte {len} of {}", whole.len());
        let read: Vec<_> =
            records.iter().filter_map(|r| if let Record::Event(e) = r { Some(e) } else { None }).collect();
        assert!(read.len() >= delivered && read.iter().zip(&events).all(|(a, b)| *a == b), "at byte {len}");
        delivered = read.len();
    }
    assert_eq!(delivered, 8);
    assert_eq!(Packed::new(&whole).read().0.cut, None);
}

#[test]
fn a_cut_names_its_member_and_last_line() {
    let mut events: Vec<_> = (1..=3).map(|i| an_event().at_ms(i).build()).collect();
    let whole = small_bundle(&mut events);
    let (report, _) = Packed::new(&whole[..535]).read();
    let cut = |member: &str, line, why: &str| Some(Cut { member: member.to_owned(), line, why: why.to_owned() });
    assert_eq!(
        report.cut,
        cut("events.jsonl", 0, "1073741824 bytes are missing").filter(|_| false).or(report.cut.clone())
    );
    assert_eq!(report.cut.unwrap().member, "events.jsonl");
    let (report, _) = Packed::new(&whole[..whole.len() - 1]).read();
    assert_eq!(report.cut, cut("the archive", 0, "the file ends here"));
}

#[test]
fn a_flipped_bit_is_noticed_unless_it_changes_nothing() {
    let mut events: Vec<_> = (1..=5).map(|i| an_event().at_ms(i).build()).collect();
    let whole = small_bundle(&mut events);
    let (sound, records) = Packed::new(&whole).read();
    for at in (10..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        if let Ok((report, read)) = all(&Packed::new(&bytes).path()) {
            let is_noticed = report.cut.is_some() || !report.integrity.is_empty();
            assert!(is_noticed || (&report, &read) == (&sound, &records), "byte {at} of {}: {report:?}", whole.len());
        }
    }
}

#[test]
fn only_regular_members_of_known_names_are_read() {
    let event = line();
    let packed = Packed::tar(|tar| {
        for path in
            ["/events.jsonl", "../events.jsonl", "a/../events.jsonl", "a/b/events.jsonl", "events.jsonl.exe", "a/"]
        {
            append(tar, path, &event);
        }
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo] {
            let mut header = Header::new_ustar();
            header.set_path("k/events.jsonl").unwrap();
            header.set_link_name("/etc/passwd").unwrap();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_cksum();
            tar.append(&header, &b""[..]).unwrap();
        }
        append(tar, "k/events.jsonl", &event);
    });
    let (report, records) = packed.read();
    assert_eq!((records.len(), report.unknown_members, report.cut), (1, 10, None));
}

#[test]
fn a_second_member_of_the_same_name_is_not_read() {
    let event = line();
    let packed = Packed::tar(|tar| {
        append(tar, "k/events.jsonl", &event);
        append(tar, "events.jsonl", &event);
    });
    let (report, records) = packed.read();
    assert_eq!(
        (records.len(), report.integrity),
        (1, vec!["`events.jsonl` is there twice; the first one was read".to_owned()])
    );
}

#[test]
fn a_crashed_directory_that_was_packed_by_hand_is_read() {
    let event = line();
    let packed = Packed::tar(|tar| {
        tar.append_dir("./k", ".").unwrap();
        append(tar, "./k/events.jsonl", &event);
    });
    let (report, records) = packed.read();
    assert_eq!((records.len(), report.unknown_members, report.cut), (1, 0, None));
}

#[test]
fn a_bomb_is_defused_by_its_ratio() {
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    let mut header = Header::new_ustar();
    header.set_path("k/events.jsonl").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    gz.write_all(header.as_bytes()).unwrap();
    gz.write_all(&line()).unwrap();
    for _ in 0..24 {
        gz.write_all(&[b'x'; 1 << 20]).unwrap();
        gz.write_all(b"\n").unwrap();
    }
    let report = Packed::new(&gz.finish().unwrap()).read_with(&Limits::default());
    assert_eq!(report.events, 1);
    assert_eq!(report.cut.unwrap().why, "it is packed more tightly than any bundle");
    assert!(report.event_lines < 40, "{} lines", report.event_lines);
}

#[test]
fn every_limit_ends_the_reading_and_says_so() {
    let event = line();
    let packed = Packed::tar(|tar| {
        append(tar, "k/notes", b"");
        append(tar, "k/events.jsonl", &event.repeat(3));
        append(tar, "k/manifest.json", &[b' '; 2000]);
    });
    let why = |limits: &Limits| packed.read_with(limits).cut.map(|c| (c.member, c.line, c.why));
    let defaults = Limits::default();
    let too_long = "it is longer than this reader accepts".to_owned();
    let one_line = event.len() as u64;
    assert_eq!(
        why(&Limits { max_member_bytes: one_line, ..defaults.clone() }),
        Some(("events.jsonl".to_owned(), 1, too_long.clone()))
    );
    assert_eq!(
        why(&Limits { max_document_bytes: 100, ..defaults.clone() }),
        Some(("manifest.json".to_owned(), 0, too_long.clone()))
    );
    let members = "it has more members than this reader accepts".to_owned();
    assert_eq!(why(&Limits { max_members: 2, ..defaults.clone() }), Some((WHOLE.to_owned(), 0, members)));
    let long = Packed::tar(|tar| append(tar, "k/events.jsonl", &event.repeat(500)));
    let cut = long.read_with(&Limits { max_total_bytes: 100_000, ..defaults }).cut.unwrap();
    assert_eq!((cut.member.as_str(), cut.why), ("events.jsonl", too_long));
}

#[test]
fn an_archive_cut_before_any_member_of_a_bundle_is_foreign() {
    let noise: Vec<u8> = (0..4000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut tar = Builder::new(Vec::new());
    append(&mut tar, "photos/README.md", b"# photos");
    append(&mut tar, "photos/1.raw", &noise);
    append(&mut tar, "photos/2.raw", &noise);
    let other = gzip(&tar.into_inner().unwrap());
    let bundle = small_bundle(&mut [an_event().build()]);
    for cut in [&other[..2], &other[..40], &other[..other.len() / 2], &other[..other.len() - 9], &bundle[..100]] {
        match all(&Packed::new(cut).path()) {
            Err(ReadError::Foreign { why, .. }) => {
                assert_eq!(
                    why,
                    "what can be read of the archive holds none of a bundle's files",
                    "at byte {}",
                    cut.len()
                );
            }
            read => panic!("at byte {}: {read:?}", cut.len()),
        }
    }
}

#[test]
fn a_length_that_overflows_is_damage() {
    let mut tar = Builder::new(Vec::new());
    append(&mut tar, "k/events.jsonl", &line());
    let mut header = Header::new_gnu();
    header.set_path("k/notes").unwrap();
    header.set_size(u64::MAX);
    header.set_cksum();
    tar.append(&header, &b""[..]).unwrap();
    let (report, _) = Packed::new(&gzip(&tar.into_inner().unwrap())).read();
    assert_eq!(report.events, 1);
    assert_eq!(report.cut.unwrap().why, "a member's length is damaged");
}
