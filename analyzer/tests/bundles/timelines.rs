//! Stories of some cases, kept beside their bundles as `story.txt` and `story.json`.

use crate::{agree, cases, fixtures, run};

/// Cases, and which of their stories are kept.
const GOLDEN: [(&str, &[&str]); 8] = [
    ("nat-both-ends", &["--comm", "nginx", "--limit", "2"]),
    ("dns-dead-server", &["--comm", "api", "--limit", "3"]),
    ("connect-timed-out", &["--flow", "10.42.2.8:8080"]),
    ("policy-egress", &["--seq", "4"]),
    ("reset-both-ends", &["--pid", "1847", "--limit", "1"]),
    ("mtu-hole", &["--flow", "tcp *:8080", "--limit", "1"]),
    ("listen-overflow", &["--seq", "4"]),
    ("close-wait-leak", &["--comm", "never-close", "--limit", "2"]),
];

#[test]
fn stories_read_as_they_did() {
    for (name, which) in GOLDEN {
        let case = cases::all().find(|c| c.name == name).unwrap();
        let made = tempfile::tempdir().unwrap();
        (case.build)().write(made.path());
        let (dir, first) = (fixtures().join("bundles").join(name), ["analyze", "story", made.path().to_str().unwrap()]);
        let text = run(&first, which);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        agree(&dir.join("story.txt"), text.as_bytes());
        let json = run(&first, &[which, &["--format", "json"]].concat());
        agree(&dir.join("story.json"), json.as_bytes());
    }
}
