use ktrace_bundle::testing::an_event;

use super::*;
use crate::capture::tests::capture;
use crate::capture::{Capture, Evidence};
use crate::finding::{Signal, Subject};
use crate::report::Unjudged;

const FRAME: Frame<'_> = Frame { watched: "n1 for 15 s", bundle: "not kept" };
const LONG: &str =
    "a sentence of a hundred characters, which is as long as most of these are, so that it takes two lines ";

/// Two queries without an answer; one thing was not measured.
fn queries() -> Capture {
    let query = |ms| an_event().udp_send().to("10.0.0.9:53").at_ms(ms);
    let mut capture = capture([query(0), query(10)]);
    capture.coverage.not_measured = vec!["DNS answer codes".to_owned()];
    capture
}

fn report<'a>(capture: &'a Capture, verdict: Verdict, findings: Vec<Finding>) -> Report<'a> {
    let (inconclusive, settings) = (Vec::new(), Vec::new());
    Report { capture, source: "b.tgz", verdict, findings, inconclusive, clear: vec!["a.rule", "b.rule"], settings }
}

fn finding(severity: Severity, title: &str) -> Finding {
    Finding {
        rule: "dns.no_reply",
        severity,
        title: title.to_owned(),
        signal: Signal { name: "unanswered_query_share", value: 100.0, unit: "percent", threshold: 90.0 },
        subject: Subject::default(),
        cause: "nothing comes back".to_owned(),
        impact: "no name is resolved".to_owned(),
        next_steps: vec![
            Step::run("see the route that the packets take", "ip route get 10.0.0.9"),
            Step::think("ask somebody"),
        ],
        share: 1.0,
        confidence: 0.95,
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: None,
    }
}

fn screen(report: &Report<'_>) -> String {
    let mut out = Vec::new();
    write(&mut out, report, FRAME).unwrap();
    String::from_utf8(out).unwrap()
}

fn first_line(report: &Report<'_>) -> String {
    screen(report).lines().next().unwrap().to_owned()
}

#[test]
fn the_first_sentence_says_what_is_wrong_and_the_rest_what_to_do() {
    let capture = queries();
    let found = vec![finding(Severity::Critical, "`api` (pid 7) gets no reply: 2 of 2 queries unanswered")];
    assert_eq!(
        screen(&report(&capture, Verdict::Critical, found)),
        "\
critical: `api` (pid 7) gets no reply: 2 of 2 queries unanswered
   cause  nothing comes back
   next   ip route get 10.0.0.9   # see the route that the packets take

watched       n1 for 15 s; 2 events, 0 TCP connections, 2 DNS queries (0 answered) and 0 other UDP
              flows
not measured  DNS answer codes
bundle        not kept
"
    );
}

#[test]
fn further_findings_have_a_number_and_notes_are_left_out_beside_them() {
    let capture = queries();
    let found = vec![
        finding(Severity::Critical, "the first"),
        finding(Severity::Warning, "the second"),
        finding(Severity::Info, "a note"),
    ];
    let text = screen(&report(&capture, Verdict::Critical, found));
    assert!(text.starts_with("critical: the first\n   cause  nothing comes back\n"), "{text}");
    assert!(text.contains("\n\n2. warning: the second\n   cause  nothing comes back\n   next   ip route"), "{text}");
    assert!(text.contains("\n\n1 more: 1 info\n\nwatched "), "{text}");
    assert!(!text.contains("a note"), "{text}");
}

#[test]
fn whatever_is_found_fits_on_a_screen() {
    let mut capture = queries();
    capture.coverage.not_measured = vec![LONG.repeat(3); 9];
    for n in 1..=10 {
        let long = Finding { cause: LONG.repeat(4), ..finding(Severity::Critical, &LONG.repeat(6)) };
        let mut report = report(&capture, Verdict::Critical, vec![long; n]);
        report.inconclusive =
            (0..9).map(|i| Unjudged { rule: "x.rule", why: format!("{i} {}", LONG.repeat(2)) }).collect();
        let text = screen(&report);
        assert!(text.lines().count() <= 24, "{n}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{n}: {text}");
        assert!(text.starts_with("critical: a sentence"), "{text}");
        // up to the comma it is 98 columns, and two of the mark
        let first =
            "not measured  9 things: a sentence of a hundred characters, which is as long as most of these are, …\n";
        assert!(text.contains(first), "{text}");
    }
}

#[test]
fn three_findings_of_usual_length_are_told_and_the_others_counted() {
    let capture = queries();
    let found = vec![finding(Severity::Critical, LONG); 3].into_iter().chain(vec![finding(Severity::Warning, LONG); 2]);
    let text = screen(&report(&capture, Verdict::Critical, found.collect()));
    assert_eq!(text.matches("next   ").count(), 3, "{text}");
    assert!(text.contains("\n2 more: 2 warning\n"), "{text}");
}

#[test]
fn health_is_told_with_what_was_measured() {
    let capture = queries();
    let expected =
        "ok: 2 rules found nothing wrong in 0 TCP connections, 2 DNS queries (0 answered) and 0 other UDP flows";
    let text = screen(&report(&capture, Verdict::Ok, Vec::new()));
    assert_eq!(text.lines().take(2).collect::<Vec<_>>().join(" "), expected);
}

#[test]
fn a_note_alone_is_no_reason_to_worry_and_is_told() {
    let capture = queries();
    let text = screen(&report(&capture, Verdict::Ok, vec![finding(Severity::Info, "one query waited")]));
    assert!(text.starts_with("ok: 3 rules found nothing worse than a note in 0 TCP connections, "), "{text}");
    assert!(text.contains("\n1. note: one query waited\n\nwatched "), "{text}");
}

#[test]
fn where_nothing_happened_nothing_is_called_well() {
    let empty = capture([]);
    let expected = "inconclusive: nothing was seen that 2 rules could judge";
    assert_eq!(first_line(&report(&empty, Verdict::Ok, Vec::new())), expected);
}

#[test]
fn what_could_not_be_judged_is_told_with_its_reason() {
    let capture = queries();
    let mut report = report(&capture, Verdict::Inconclusive, Vec::new());
    let unjudged = |rule, why: &str| Unjudged { rule, why: why.to_owned() };
    report.inconclusive =
        vec![unjudged("a.rule", "it rained"), unjudged("b.rule", "no hook"), unjudged("c.rule", "no hook")];
    assert_eq!(first_line(&report), "inconclusive: nothing found, but 3 rules could not judge: it rained");
    let text = screen(&report);
    assert!(text.contains("\ninconclusive  2 rules: no hook\n              a.rule: it rained\nnot measured"), "{text}");
    report.inconclusive.push(unjudged("d.rule", "it snowed"));
    let text = screen(&report);
    assert!(
        text.contains("\ninconclusive  2 rules: no hook\n              2 rules more, for 2 other reasons\n"),
        "{text}"
    );
}

#[test]
fn a_doubtful_cause_says_so_and_a_wide_command_stays_whole() {
    let capture = queries();
    let command = "nsenter -t 7 -n tcpdump ".to_owned() + &"x".repeat(80);
    let steps = vec![Step::run("watch what leaves", &command)];
    let doubtful = Finding { confidence: 0.7, next_steps: steps, ..finding(Severity::Warning, "it limps") };
    let text = screen(&report(&capture, Verdict::Warning, vec![doubtful]));
    let expected = format!(
        "warning: it limps\n   cause  nothing comes back; 70 % sure\n   next   watch what leaves\n          {command}\n\n"
    );
    assert!(text.starts_with(&expected), "{text}");
}
