use std::fs;
use std::io::Write;
use std::path::Path;

use super::*;
use crate::line::{write_event, write_socket};
use crate::manifest::Member;
use crate::testing::{a_manifest, a_socket, an_event};

/// Everything that `path` delivers.
pub(super) fn all(path: &Path) -> Result<(ReadReport, Vec<Record>), ReadError> {
    let mut records = Vec::new();
    let report = read(path, &Limits::default(), &mut |r| records.push(r))?;
    Ok((report, records))
}

fn events(n: u64) -> Vec<Event> {
    (1..=n).map(|i| an_event().at_ms(i).socket(i).seq(i).build()).collect()
}

fn jsonl(events: &[Event]) -> Vec<u8> {
    let mut out = Vec::new();
    for event in events {
        write_event(&mut out, event);
        out.push(b'\n');
    }
    out
}

#[test]
fn a_bare_file_delivers_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let events = events(3);
    fs::write(&path, jsonl(&events)).unwrap();
    let (report, records) = all(&path).unwrap();
    assert_eq!(records, events.into_iter().map(Record::Event).collect::<Vec<_>>());
    assert_eq!((report.form, report.events, report.event_lines, report.cut), (Form::Events, 3, 3, None));
}

#[test]
fn a_directory_delivers_its_manifest_first() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(2);
    let (manifest, socket) = (a_manifest(&events), a_socket().build());
    fs::write(dir.path().join("events.jsonl"), jsonl(&events)).unwrap();
    fs::write(dir.path().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let mut line = Vec::new();
    write_socket(&mut line, &socket);
    fs::write(dir.path().join("sockets.jsonl"), [&line[..], b"\n"].concat()).unwrap();
    let (report, records) = all(dir.path()).unwrap();
    let mut wanted = vec![Record::Manifest(Box::new(manifest))];
    wanted.extend(events.into_iter().map(Record::Event));
    wanted.push(Record::Socket(socket));
    assert_eq!(records, wanted);
    assert_eq!(report.integrity, Vec::<String>::new());
}

#[test]
fn a_directory_whose_last_line_is_cut_says_so_and_delivers_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = jsonl(&events(3));
    text.truncate(text.len() - 20);
    fs::write(dir.path().join("events.jsonl"), text).unwrap();
    let (report, records) = all(dir.path()).unwrap();
    assert_eq!((records.len(), report.events), (2, 2));
    assert_eq!(report.cut.unwrap().to_string(), "`events.jsonl` is cut after line 2: its last line has no end");
}

#[test]
fn a_last_line_without_a_newline_is_whole_if_it_is_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.jsonl");
    let text = jsonl(&events(3));
    fs::write(&path, &text[..text.len() - 1]).unwrap();
    let (report, _) = all(&path).unwrap();
    assert_eq!((report.events, report.event_lines, report.cut), (3, 3, None));
}

#[test]
fn bad_lines_are_counted_and_what_follows_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let [first, second] = [1, 2].map(|n| String::from_utf8(jsonl(&events(2)[n - 1..n])).unwrap());
    let later = r#"{"v":1,"ts":"2026-01-24T21:57:54Z","type":"gpu_stall","volts":3}"#;
    let hostile = "{\"type\":\"\u{1b}[2J\",\"owner\":\u{7}";
    let long = "x".repeat(5000);
    fs::write(&path, format!("{first}{hostile}\n{long}\n{later}\n{later}\n{second}")).unwrap();
    let (report, records) = all(&path).unwrap();
    assert_eq!((records.len(), report.event_lines, report.bad_lines), (2, 6, 2));
    assert_eq!(report.unknown_types, BTreeMap::from([("gpu_stall".to_owned(), 2)]));
    assert_eq!(report.first_bad_lines.iter().map(|b| b.line).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(report.first_bad_lines[1].error, "longer than 4096 bytes");
    assert!(!report.first_bad_lines.iter().any(|b| b.error.chars().any(char::is_control)));
}

#[test]
fn something_else_is_called_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        match all(&path) {
            Err(ReadError::Foreign { why, .. }) => why,
            other => panic!("{name}: {other:?}"),
        }
    };
    let gz = |content: &[u8]| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(content).unwrap();
        gz.finish().unwrap()
    };
    assert_eq!(foreign("passwd", b"root:x:0:0:root:/root:/bin/bash\n"), "its lines are not ktrace events");
    assert_eq!(foreign("other.json", b"{\"a\":1}\n{\"a\":2}\n"), "its lines are not ktrace events");
    assert_eq!(foreign("binary", &[0; 2_000_000]), "its lines are not ktrace events");
    assert_eq!(foreign("empty", b""), "it is empty");
    assert_eq!(foreign("text.gz", &gz(&[b'x'; 600])), "it is compressed, but not a tar");
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "some/notes.txt", b"hello");
    assert_eq!(foreign("other.tgz", &gz(&tar.into_inner().unwrap())), "the archive holds none of a bundle's files");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(all(empty.path()), Err(ReadError::Foreign { .. })));
    assert!(matches!(all(&dir.path().join("not there")), Err(ReadError::Open { .. })));
}

#[test]
fn a_foreign_file_is_not_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "a line of some log\n".repeat(1_000)).unwrap();
    let mut intake_saw = 0;
    let result = read(&path, &Limits::default(), &mut |_| intake_saw += 1);
    assert!(matches!(result, Err(ReadError::Foreign { .. })) && intake_saw == 0);
}

#[test]
fn a_newer_bundle_is_refused_by_line_and_by_manifest() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("events.jsonl"), "{\"v\":2,\"type\":\"tcp_state\"}\n").unwrap();
    let newer = |dir: &Path| matches!(all(dir), Err(ReadError::Newer { found: 2, known: 1, .. }));
    assert!(newer(dir.path()));
    fs::write(dir.path().join("events.jsonl"), "").unwrap();
    fs::write(dir.path().join("manifest.json"), r#"{"schema":{"name":"ktrace-bundle","version":2},"shape":"new"}"#)
        .unwrap();
    assert!(newer(dir.path()));
}

#[test]
fn a_bundle_that_was_edited_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let events = events(3);
    let mut manifest = a_manifest(&events);
    manifest.ledger.observed += 1;
    let member = |name: &str, bytes, records| Member { name: name.to_owned(), bytes, records, omitted_count: None };
    manifest.members =
        vec![member("events.jsonl", 1, Some(9)), member("sockets.jsonl", 0, None), member("new.db", 1, None)];
    fs::write(dir.path().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let text = jsonl(&[&events[..1], &events[2..]].concat());
    fs::write(dir.path().join("events.jsonl"), &text).unwrap();
    let (report, _) = all(dir.path()).unwrap();
    assert_eq!(
        report.integrity,
        [
            "1 lines of `events.jsonl` do not carry their line number as `seq`".to_owned(),
            "the ledger does not add up: observed 4 is not filtered 0 + seen 3".to_owned(),
            "the ledger says 3 lines were written, `events.jsonl` has 2".to_owned(),
            format!("`events.jsonl` has {} bytes, the manifest says 1", text.len()),
            "`events.jsonl` has 2 lines, the manifest says 9".to_owned(),
            "`sockets.jsonl` is missing".to_owned(),
        ]
    );
}

#[test]
fn a_manifest_that_cannot_be_read_is_a_reason_for_distrust() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("events.jsonl"), jsonl(&events(1))).unwrap();
    fs::write(dir.path().join("manifest.json"), "{\"schema\":").unwrap();
    let (report, _) = all(dir.path()).unwrap();
    assert_eq!((report.events, report.integrity.len()), (1, 1));
    fs::write(dir.path().join("manifest.json"), r#"{"schema":{"name":"ktrace-findings","version":1}}"#).unwrap();
    let (report, _) = all(dir.path()).unwrap();
    assert_eq!(report.integrity, ["`manifest.json` is a `ktrace-findings`, not a `ktrace-bundle`"]);
}

#[cfg(unix)]
#[test]
fn a_link_in_a_directory_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), jsonl(&events(1))).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("events.jsonl")).unwrap();
    assert!(matches!(all(dir.path()), Err(ReadError::Foreign { .. })));
}

#[cfg(unix)]
#[test]
fn a_device_is_not_read() {
    assert!(matches!(all(Path::new("/dev/zero")), Err(ReadError::Foreign { why: "it is not a regular file", .. })));
}

/// Adds a regular file to a tar, by this exact path.
pub(super) fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

#[test]
fn any_number_of_threads_delivers_the_same_in_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    // several batches, with lines that are bad, too long or of an unknown type in each of them
    let mut text = jsonl(&events(6000));
    let mut mixed = Vec::new();
    for (n, line) in text.split_inclusive(|b| *b == b'\n').enumerate() {
        mixed.extend_from_slice(line);
        match n % 1000 {
            17 => mixed.extend_from_slice(b"{\"v\":1,\"type\":\"later\"}\n"),
            400 => mixed.extend_from_slice(b"no JSON\n"),
            900 => mixed.extend([vec![b'x'; crate::line::MAX_LINE_BYTES + 1], b"\n".to_vec()].concat()),
            _ => {}
        }
    }
    text = mixed;
    text.extend_from_slice(b"{\"v\":1,\"seq\":");
    fs::write(&path, text).unwrap();
    let read_by = |threads| {
        let mut records = Vec::new();
        let limits = Limits { threads, ..Limits::default() };
        let report = read(&path, &limits, &mut |r| records.push(r)).unwrap();
        (report, records)
    };
    let (report, records) = read_by(1);
    assert_eq!((report.events, report.bad_lines, report.unknown_types["later"]), (6000, 12, 6));
    assert_eq!(report.cut.as_ref().map(|cut| cut.line), Some(6018));
    for threads in [2, 3, 8] {
        let (again, same) = read_by(threads);
        assert_eq!(format!("{again:?}"), format!("{report:?}"), "{threads} threads");
        assert!(same == records, "{threads} threads");
    }
}
