use std::fs;
use std::path::Path;

use super::*;
use crate::line::{write_event, write_socket};
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
        write_event(&mut out, event).unwrap();
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
    write_socket(&mut line, &socket).unwrap();
    fs::write(dir.path().join("sockets.jsonl"), [&line[..], b"\n"].concat()).unwrap();
    let (report, records) = all(dir.path()).unwrap();
    let mut wanted = vec![Record::Manifest(Box::new(manifest))];
    wanted.extend(events.into_iter().map(Record::Event));
    wanted.push(Record::Socket(socket));
    assert_eq!(records, wanted);
    assert_eq!(report.integrity, Vec::<String>::new());
}
