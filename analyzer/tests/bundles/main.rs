//! Every rule against bundles whose story is known: `fixtures/bundles/<case>/`.
//!
//! The table in `cases.rs` tells each story, builds it, and says by hand what must come out. The bundles on disk,
//! the reports beside some of them and `fixtures/demo.bundle.tgz` are what the builders make: after a change on
//! purpose `KTRACE_BLESS=1 cargo test -p ktrace-analyzer --test bundles` rewrites them; look at the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod cases;
mod demo;
mod drop_cases;
mod drop_stories;
mod hostile;
mod names;
mod nat_cases;
mod nat_stories;
mod node_cases;
mod node_stories;
mod pattern_cases;
mod pattern_stories;
mod probe_stories;
mod scene;
mod schema;
mod stories;
mod timelines;
mod trouble;
mod trouble_cases;
mod trouble_stories;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ktrace_analyzer::cli;
use ktrace_analyzer::detectors::DETECTORS;
use serde_json::Value;

use cases::{Case, Expect};

/// Cases whose whole reports are kept.
const GOLDEN: &[&str] = &[
    "dns-dead-server",
    "connect-timed-out",
    "close-wait-leak",
    "evidence-lost",
    "evidence-unseen",
    "evidence-clock-stepped",
    "close-wait-brief",
    "nat-backend-dead",
    "nat-both-ends",
    "conntrack-full",
    "nat-hairpin",
    "dns-conntrack-race",
    "nat-port-exhaustion",
    "policy-egress",
    "policy-strangers",
    "policy-rule",
    "policy-rule-alone",
    "listen-overflow",
    "mtu-hole",
    "reset-both-ends",
    "slow-reader-both-ends",
    "qdisc-overflow",
    "softnet-drops-seen",
    "cpu-throttled-fails-probes",
    "resolver-search-domains",
    "bad-peer",
    "bad-path-policy",
    "dns-server-dead",
    "keepalive-race",
];

/// Those whose page for a ticket is kept, too.
const MARKDOWN: &[&str] = &["dns-dead-server", "nat-both-ends", "evidence-unseen"];

/// Where the fixtures of the project are.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn blessing() -> bool {
    std::env::var_os("KTRACE_BLESS").is_some_and(|v| v == "1")
}

fn analyze(dir: &Path, args: &[&str]) -> String {
    run(&["analyze", dir.to_str().unwrap()], args)
}

fn run(first: &[&str], args: &[&str]) -> String {
    let args = first.iter().chain(args).copied();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    cli::run(args.map(Into::into), &mut out, &mut err).unwrap_or_else(|e| panic!("{first:?}: {e}"));
    String::from_utf8(out).unwrap()
}

fn report(dir: &Path) -> Value {
    serde_json::from_str(&analyze(dir, &["--format", "json", "--all"])).unwrap()
}

fn rules(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|r| r["rule"].as_str().unwrap_or_else(|| r.as_str().unwrap())).collect()
}

/// Compares a file with what it should be, or rewrites it.
fn agree(path: &Path, expected: &[u8]) {
    if blessing() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, expected).unwrap();
        return;
    }
    let found = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}; see the header of this test", path.display()));
    if found != expected {
        let (found, expected) = (String::from_utf8_lossy(&found), String::from_utf8_lossy(expected));
        let line = found.lines().zip(expected.lines()).position(|(a, b)| a != b);
        panic!("{} differs from line {line:?} on; expected\n{expected}", path.display());
    }
}

fn check(case: &Case, report: &Value) {
    let name = case.name;
    let first = &report["findings"][0];
    match case.expect {
        Expect::Top { rule, severity, pid, remote, title } => {
            assert_eq!((first["rule"].as_str(), first["severity"].as_str()), (Some(rule), Some(severity)), "{name}");
            assert_eq!(first["subject"]["pid"].as_u64().unwrap_or(0), pid, "{name}");
            assert_eq!(first["subject"]["remote"].as_str(), remote, "{name}");
            let found = first["title"].as_str().unwrap();
            assert!(found.contains(title), "{name}: {found}");
        }
        Expect::Healthy { clear } => {
            let severities: BTreeSet<_> =
                report["findings"].as_array().unwrap().iter().map(|f| f["severity"].as_str().unwrap()).collect();
            assert!(severities.iter().all(|s| *s == "info"), "{name}: {}", report["findings"]);
            if let Some(rule) = clear {
                assert!(rules(&report["clear"]).contains(&rule), "{name}: {report}");
            }
        }
        Expect::Under { rule, cause } => {
            assert_eq!(first["rule"].as_str(), Some(cause), "{name}: {}", report["findings"]);
            assert!(rules(&first["symptoms"]).contains(&rule), "{name}: {first}");
            assert!(!rules(&report["findings"]).contains(&rule), "{name}: {}", report["findings"]);
        }
        Expect::Clear { rule } => assert!(rules(&report["clear"]).contains(&rule), "{name}: {report}"),
        Expect::Inconclusive { rule } => {
            assert!(rules(&report["inconclusive"]).contains(&rule), "{name}: {report}");
            assert!(!rules(&report["findings"]).contains(&rule), "{name}: {report}");
        }
    }
}

#[test]
fn the_bundles_on_disk_are_what_the_builders_make() {
    for case in cases::all() {
        let dir = fixtures().join("bundles").join(case.name);
        let scene = (case.build)();
        for (name, bytes) in scene.members() {
            agree(&dir.join(name), &bytes);
        }
        let story = format!("# {}\n\n{}\n\nExpected: `{:?}`\n", case.name, case.story, case.expect);
        agree(&dir.join("STORY.md"), story.as_bytes());
    }
}

#[test]
fn every_case_comes_out_as_its_story_says() {
    for case in cases::all() {
        let made = tempfile::tempdir().unwrap();
        (case.build)().write(made.path());
        check(case, &report(made.path()));
    }
}

#[test]
fn every_rule_has_a_positive_a_near_miss_and_a_lossy_twin() {
    for rule in DETECTORS.iter().map(|d| d.id()).filter(|r| *r != "evidence.lossy") {
        let has =
            |matching: fn(&Expect) -> Option<&'static str>| cases::all().any(|c| matching(&c.expect) == Some(rule));
        let positive = |e: &Expect| match e {
            Expect::Top { rule, .. } | Expect::Under { rule, .. } => Some(*rule),
            _ => None,
        };
        assert!(has(positive), "{rule}");
        assert!(has(|e| if let Expect::Inconclusive { rule } = e { Some(*rule) } else { None }), "{rule}");
        let family = rule.rsplit_once('.').unwrap().1.split('_').next().unwrap();
        let near_miss = |c: &Case| match c.expect {
            Expect::Healthy { clear: Some(clear) } | Expect::Clear { rule: clear } => clear == rule,
            Expect::Healthy { clear: None } => c.name.starts_with(family),
            Expect::Top { .. } | Expect::Under { .. } | Expect::Inconclusive { .. } => false,
        };
        assert!(cases::all().any(near_miss), "{rule}");
    }
}

#[test]
fn reports_read_as_they_did() {
    for name in GOLDEN {
        let case = cases::all().find(|c| c.name == *name).unwrap();
        let made = tempfile::tempdir().unwrap();
        (case.build)().write(made.path());
        let dir = fixtures().join("bundles").join(name);
        let text = analyze(made.path(), &[]).replace(made.path().to_str().unwrap(), "BUNDLE");
        agree(&dir.join("report.txt"), text.as_bytes());
        agree(&dir.join("report.json"), analyze(made.path(), &["--format", "json"]).as_bytes());
        if MARKDOWN.contains(name) {
            let page = analyze(made.path(), &["--format", "markdown", "--all"]);
            let page = page.replace(made.path().to_str().unwrap(), "BUNDLE");
            agree(&dir.join("report.md"), page.as_bytes());
        }
    }
}

#[test]
fn a_machine_in_trouble_fits_on_a_screen() {
    let name = "machine-in-trouble";
    let case = cases::all().find(|c| c.name == name).unwrap();
    let made = tempfile::tempdir().unwrap();
    (case.build)().write(made.path());
    let (dir, node) = (fixtures().join("bundles").join(name), ["analyze", "node", made.path().to_str().unwrap()]);
    let text = run(&node, &[]);
    assert!(text.lines().count() <= 45 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    agree(&dir.join("node.txt"), text.as_bytes());
    agree(&dir.join("node.json"), run(&node, &["--format", "json"]).as_bytes());
}

#[test]
fn the_same_bundle_gives_the_same_bytes() {
    for case in cases::all() {
        let made = tempfile::tempdir().unwrap();
        (case.build)().write(made.path());
        for format in ["text", "json", "markdown"] {
            let args = ["--format", format, "--all"];
            assert_eq!(analyze(made.path(), &args), analyze(made.path(), &args), "{}", case.name);
        }
    }
}
