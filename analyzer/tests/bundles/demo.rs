//! `fixtures/demo.bundle.tgz`: what `make run` analyzes where it cannot capture, packed by the real writer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ktrace_bundle::dns::DnsPairs;
use ktrace_bundle::reader::{self, Limits, Record};
use ktrace_bundle::testing::{a_tracking_report, start_at};
use ktrace_bundle::totals::SummaryBuilder;
use ktrace_bundle::tracking::ServicesReport;
use ktrace_bundle::writer::{BundleName, BundleWriter, WriterCaps};

use crate::scene::Scene;
use crate::{blessing, fixtures};

/// A healthy service, and a client whose DNS server is dead.
fn scene() -> Scene {
    let mut s = Scene::of("web", 1200, "10.42.2.8:8080");
    for n in 0..30 {
        s.healthy_connection(1000 * n);
    }
    s.now_by("web", 1200).now_to("10.96.0.10:53");
    for n in 0..30 {
        s.lookup(1000 * n + 400, 1 + n % 4);
    }
    s.now_by("api", 1847).now_to("10.96.0.53:53");
    for n in 0..8 {
        let socket = s.socket();
        s.query(5000 * n, socket)
            .query(5000 * n + 1, socket)
            .query(5000 * n + 5001, socket)
            .query(5000 * n + 5002, socket);
    }
    s
}

/// Events and sockets of a bundle; how it is compressed is the writer's business.
fn records(path: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    let report = reader::read(path, &Limits::default(), &mut |record| records.push(record)).unwrap();
    assert_eq!((report.cut, report.integrity), (None, Vec::new()), "{}", path.display());
    records.retain(|r| matches!(r, Record::Event(_) | Record::Socket(_)));
    records
}

#[test]
fn the_demo_bundle_holds_its_scene() {
    let scene = scene();
    let out = tempfile::tempdir().unwrap();
    let mut manifest = scene.manifest_of(&scene.events());
    manifest.head.node = "demo".to_owned();
    manifest.members.clear();
    let name = BundleName { node: "demo".to_owned(), at: start_at() };
    let caps = WriterCaps { max_bytes: 1 << 30 };
    let mut writer = BundleWriter::create(out.path(), &name, manifest.head.clone(), caps).unwrap();
    let mut pairs = DnsPairs::new(BTreeSet::from([53]), 10_000);
    let mut totals = SummaryBuilder::new();
    for mut event in scene.events() {
        event.id.node = "demo".into();
        pairs.annotate(&mut event, writer.next_seq());
        totals.push_event(&event);
        writer.push(&mut event).unwrap();
    }
    for socket in scene.sockets() {
        totals.push_socket(socket);
        writer.push_socket(socket).unwrap();
    }
    writer.set_tracking(a_tracking_report(), ServicesReport::default());
    let summary = totals.build(&manifest, &pairs);
    let sealed = writer.seal(manifest, &summary).unwrap();
    let shipped = fixtures().join("demo.bundle.tgz");
    if blessing() {
        fs::copy(&sealed.tgz, &shipped).unwrap();
    }
    assert_eq!(records(&shipped), records(&sealed.tgz));
}
