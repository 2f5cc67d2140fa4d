use std::collections::BTreeSet;

use super::*;
use crate::capture::Needs;

#[test]
fn each_rule_can_read_what_it_decides_by() {
    let kb = release();
    assert_eq!(kb.all().len(), DETECTORS.len());
    let names: BTreeSet<_> = DETECTORS.iter().map(|d| d.id()).collect();
    assert_eq!(names.len(), DETECTORS.len());
}

#[test]
fn each_rule_says_all_that_a_reader_asks() {
    for (detector, entry) in release().all() {
        let (id, needs) = (detector.id(), detector.needs());
        assert!(entry.question.ends_with('?'), "{id}");
        let parts = [entry.decides(), entry.limits(), entry.next(), entry.cause(), entry.impact(), entry.reads()];
        assert!(parts.iter().all(|part| !part.is_empty()), "{id}: a part is missing");
        assert!(!entry.references.is_empty(), "{id}: no reference");
        let texts = parts.concat().join(" ");
        assert!(!texts.contains('{'), "{id}: a name stands for no threshold: {texts}");
        assert!(entry.layer == Layer::Capture || needs != Needs::NOTHING, "{id}");
        for (name, threshold) in &entry.thresholds {
            assert!(!threshold.means.is_empty(), "{id}.{name}");
            assert!(detector.text().contains(&format!("{{{name}}}")), "{id}: no sentence tells of `{name}`");
        }
    }
}

#[test]
fn a_threshold_that_is_set_is_told_and_others_stay() {
    let mut kb = release();
    kb.set("dns.slow.p95_ms=50").unwrap();
    let told: Vec<_> = kb.settings().into_iter().map(|s| (s.rule, s.name, s.value, s.shown, s.default)).collect();
    assert_eq!(told, [("dns.slow", "p95_ms".to_owned(), 50.0, "50.0 ms".to_owned(), "500 ms".to_owned())]);
    assert_eq!(kb.cutoffs().unwrap().slow_reply_ns, 50_000_000);
    assert!(kb.entry("dns.slow").unwrap().decides()[1].contains("took 50.0 ms or longer"));
    kb.set(" dns.slow.p95_ms = 500 ").unwrap();
    assert_eq!(kb.settings(), []);
}

#[test]
fn what_cannot_be_set_is_refused_with_the_reason() {
    let mut kb = release();
    let mut why = |text: &str| kb.set(text).unwrap_err().to_string();
    assert_eq!(why("dns.slow"), "`dns.slow` is not `RULE.THRESHOLD=NUMBER`");
    assert_eq!(why("slow=5"), "`slow=5` is not `RULE.THRESHOLD=NUMBER`");
    assert_eq!(why("dns.sloow.p95_ms=5"), "there is no rule `dns.sloow`");
    assert_eq!(why("dns.slow.p99_ms=5"), "rule `dns.slow` has no threshold `p99_ms`");
    assert_eq!(why("dns.slow.p95_ms=-5"), "`-5` cannot be `dns.slow.p95_ms`: it must be a whole number, 0 or more");
    assert_eq!(why("dns.slow.slow_share=5"), "`5` cannot be `dns.slow.slow_share`: a share is between 0 and 1");
    for value in ["NaN", "inf", "-0.1", "5%", ""] {
        assert!(why(&format!("dns.slow.slow_share={value}")).contains("cannot be"), "{value}");
    }
}

#[test]
fn words_lead_to_the_rule_that_they_are_about() {
    let kb = release();
    let first = |text: &str| kb.search(&telling(text)).first().map(|m| m.detector.id());
    assert_eq!(first("why is my resolver slow"), Some("dns.slow"));
    assert_eq!(first("connection refused"), Some("tcp.refused"));
    assert_eq!(first("retransmitted segments"), Some("tcp.retransmits"));
    assert_eq!(first("conntrack table full"), Some("conntrack.full"));
    assert_eq!(first("time_wait everywhere"), Some("net.ephemeral_ports_exhausted"));
    assert_eq!(first("the of and"), None);
    assert_eq!(first("zebra"), None);
}
