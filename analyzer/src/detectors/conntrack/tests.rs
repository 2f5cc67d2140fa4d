use std::collections::BTreeMap;

use ktrace_bundle::tracking::{Table, TrackingReport};

use crate::capture::tests::capture;
use crate::detectors::{ranked, run};
use crate::finding::Severity;
use crate::kb::release;

#[test]
fn the_share_from_which_on_a_table_is_full_can_be_set() {
    let via = Some("ctnetlink".to_owned());
    let table = Table { netns: 7, via, max: Some(100), highest_count: Some(60), ..Table::default() };
    let mut capture = capture([]);
    capture.coverage.tracking.report = Some(TrackingReport { tables: vec![table], ..TrackingReport::default() });
    let mut kb = release();
    assert!(ranked(&run(&capture, &kb).unwrap()).is_empty());
    kb.set("conntrack.full.full_share=0.6").unwrap();
    let found = ranked(&run(&capture, &kb).unwrap());
    let told: Vec<_> = found.iter().map(|f| (f.rule, f.severity, f.signal.threshold)).collect();
    assert_eq!(told, [("conntrack.full", Severity::Warning, 60.0)]);
}

#[test]
fn rules_that_leave_full_tables_to_another_agree_with_it_when_a_table_is_full() {
    let kb = release();
    let full = |rule| kb.thresholds::<BTreeMap<String, f64>>(rule).unwrap().get("full_share").copied();
    for rule in ["conntrack.insert_failed", "dns.conntrack_race", "nat.port_exhaustion"] {
        assert_eq!(full(rule), full("conntrack.full"), "{rule}");
    }
}
