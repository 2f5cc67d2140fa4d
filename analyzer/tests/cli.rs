//! The program from outside: exit codes, streams and what stands on them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn analyze(args: &[&str]) -> Output {
    run(args, Path::new(env!("CARGO_MANIFEST_DIR")))
}

fn run(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_analyze")).args(args).current_dir(dir).output().unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

fn case(name: &str) -> String {
    fixture("bundles").join(name).to_str().unwrap().to_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn copy(case: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["events.jsonl", "sockets.jsonl", "manifest.json"] {
        fs::copy(fixture("bundles").join(case).join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_report_is_data_on_stdout_and_done_is_0() {
    let o = analyze(&[&case("dns-dead-server")]);
    assert_eq!((o.status.code(), err(&o).as_str()), (Some(0), ""));
    assert!(out(&o).contains("verdict: critical"), "{}", out(&o));
}

#[test]
fn the_demo_bundle_names_the_dead_server() {
    let o = analyze(&[fixture("demo.bundle.tgz").to_str().unwrap(), "--fail-on", "critical"]);
    assert_eq!(o.status.code(), Some(3), "{}", err(&o));
    assert!(out(&o).contains("`api` (pid 1847) gets no reply from the DNS server 10.96.0.53:53"), "{}", out(&o));
}

#[test]
fn fail_on_tells_critical_from_warning() {
    for (name, level, code) in [
        ("dns-dead-server", "critical", 3),
        ("dns-dead-server", "warning", 3),
        ("dns-slow", "warning", 4),
        ("dns-slow", "critical", 0),
        ("rtt-far-away", "warning", 0),
    ] {
        let o = analyze(&[&case(name), "--fail-on", level, "--format=json"]);
        assert_eq!(o.status.code(), Some(code), "{name} {level}");
    }
}

#[test]
fn the_newest_bundle_in_out_is_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let o = run(&[], dir.path());
    assert_eq!(o.status.code(), Some(1));
    assert_eq!(
        err(&o),
        "error: no bundle in `./out`\nhint: name a bundle: `analyze PATH`, or capture one with `ktrace`\n"
    );
    let out_dir = dir.path().join("out");
    fs::create_dir(&out_dir).unwrap();
    fs::copy(fixture("demo.bundle.tgz"), out_dir.join("ktrace.demo.20260124T215754Z.bundle.tgz")).unwrap();
    let o = run(&[], dir.path());
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    assert!(out(&o).starts_with("ktrace capture of demo"), "{}", out(&o));
    assert_eq!(err(&o), "note: reading `./out/ktrace.demo.20260124T215754Z.bundle.tgz`\n");
    assert_eq!(
        out(&run(&[out_dir.to_str().unwrap(), "--format=json"], dir.path())),
        out(&run(&["--format=json"], dir.path()))
    );
}

#[test]
fn a_bare_journal_finds_what_it_shows_and_judges_nothing_else() {
    let o = analyze(&[&format!("{}/events.jsonl", case("refused-port")), "--format=json"]);
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    let report: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
    assert_eq!(report["findings"][0]["rule"], "tcp.refused");
    assert_eq!(report["inconclusive"][0]["why"], "no manifest: what was measured is not known");
    assert_eq!(report["clear"], serde_json::json!([]));
}

#[test]
fn a_cut_bundle_is_reported_up_to_the_cut_and_exits_with_5() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(fixture("demo.bundle.tgz")).unwrap();
    let path = dir.path().join("cut.bundle.tgz");
    fs::write(&path, &whole[..whole.len() * 6 / 10]).unwrap();
    let o = analyze(&[path.to_str().unwrap(), "--fail-on", "critical"]);
    assert_eq!(o.status.code(), Some(5), "{}", err(&o));
    assert!(err(&o).starts_with("warning: `events.jsonl` is cut after line "), "{}", err(&o));
    assert!(out(&o).contains("evidence.lossy") && out(&o).contains("inconclusive"), "{}", out(&o));
}

#[test]
fn the_files_of_a_crashed_run_are_read_and_exit_with_5() {
    let dir = tempfile::tempdir().unwrap();
    copy("dns-dead-server", dir.path());
    fs::remove_file(dir.path().join("manifest.json")).unwrap();
    let mut events = fs::read(dir.path().join("events.jsonl")).unwrap();
    events.truncate(events.len() - 20);
    fs::write(dir.path().join("events.jsonl"), events).unwrap();
    let o = analyze(&[dir.path().to_str().unwrap()]);
    assert_eq!(o.status.code(), Some(5), "{}", err(&o));
    assert!(out(&o).contains("dns.no_reply"), "{}", out(&o));
}

#[test]
fn a_bundle_that_does_not_agree_with_itself_exits_with_5() {
    let dir = tempfile::tempdir().unwrap();
    copy("rtt-far-away", dir.path());
    let events = fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    let (_, without_first) = events.split_once('\n').unwrap();
    fs::write(dir.path().join("events.jsonl"), without_first).unwrap();
    assert_eq!(analyze(&[dir.path().to_str().unwrap()]).status.code(), Some(5));
}

#[test]
fn a_foreign_file_is_one_clear_line_and_1() {
    let o = analyze(&[concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert_eq!((o.status.code(), out(&o).as_str()), (Some(1), ""));
    assert!(err(&o).starts_with("error: `") && err(&o).contains("is not a ktrace bundle"), "{}", err(&o));
    assert_eq!(err(&o).lines().count(), 2, "{}", err(&o));
}

#[test]
fn an_archive_that_ends_before_any_file_of_a_bundle_is_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.tgz");
    fs::write(&path, &fs::read(fixture("demo.bundle.tgz")).unwrap()[..60]).unwrap();
    let o = analyze(&[path.to_str().unwrap()]);
    assert_eq!((o.status.code(), out(&o).as_str()), (Some(1), ""), "{}", err(&o));
    assert!(err(&o).contains("is not a ktrace bundle: what can be read of the archive"), "{}", err(&o));
}

#[test]
fn a_missing_file_names_its_cause() {
    let o = analyze(&["/nonexistent/b.tgz"]);
    assert_eq!(o.status.code(), Some(1));
    assert!(err(&o).contains("\ncaused by: No such file") && err(&o).contains("\nhint: "), "{}", err(&o));
}

#[test]
fn wrong_usage_is_2_with_a_hint() {
    for args in
        [&["--no-such-flag"][..], &["--format", "xml"], &["b.tgz", "--fail-on", "info"], &["events", "--limit", "x"]]
    {
        let o = analyze(args);
        assert_eq!((o.status.code(), out(&o).as_str()), (Some(2), ""), "{args:?}");
        assert!(err(&o).contains("hint: "), "{args:?}: {}", err(&o));
    }
}

#[test]
fn help_and_version_are_data() {
    let help = analyze(&["--help"]);
    assert_eq!((help.status.code(), err(&help).as_str()), (Some(0), ""));
    assert!(out(&help).contains("Examples:") && out(&help).contains("--fail-on"), "{}", out(&help));
    let version = analyze(&["--version"]);
    assert_eq!(out(&version), format!("analyze {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_rule_says_what_it_knows_and_an_unknown_one_where_to_look() {
    let o = analyze(&["kb", "show", "dns.slow"]);
    assert_eq!(o.status.code(), Some(0));
    let text = out(&o);
    assert!(
        text.starts_with("dns.slow (dns, version 1)\nhow long does a process wait for its DNS server?\n"),
        "{text}"
    );
    for part in ["needs", "reads", "decides", "thresholds", "cause", "impact", "does not know", "next", "see"] {
        assert!(text.contains(&format!("\n{part}\n   - ")), "{part}: {text}");
    }
    assert!(text.contains("p95_ms = 500 ms: a reply that takes this long is slow"), "{text}");
    let o = analyze(&["kb", "show", "dns.slow", "--set", "dns.slow.p95_ms=50"]);
    assert!(out(&o).contains("p95_ms = 50.0 ms instead of 500 ms"), "{}", out(&o));
    let o = analyze(&["kb", "show", "dns.nope"]);
    assert_eq!(o.status.code(), Some(2));
    assert_eq!(err(&o), "error: there is no rule `dns.nope`\nhint: `analyze kb list` names all rules\n");
}

#[test]
fn rules_are_listed_by_layer_and_found_by_words() {
    let all = out(&analyze(&["kb", "list"]));
    assert!(all.lines().filter(|l| l.contains('?')).count() >= 40, "{all}");
    let layers: Vec<_> = all.lines().filter(|l| !l.is_empty() && !l.contains(' ')).collect();
    assert_eq!(layers, ["dns", "connect", "tcp", "nat", "socket", "node", "capture"]);
    let dns = out(&analyze(&["kb", "list", "--layer", "dns"]));
    assert!(dns.lines().count() >= 4 && dns.lines().all(|l| l.starts_with("dns.")), "{dns}");
    let found = out(&analyze(&["kb", "search", "slow", "resolver"]));
    assert!(found.starts_with("dns.slow "), "{found}");
    let o = analyze(&["kb", "search", "zebra"]);
    assert_eq!((o.status.code(), out(&o)), (Some(0), String::new()));
    assert!(err(&o).contains("no rule is about these words"), "{}", err(&o));
}

#[test]
fn an_old_bundle_is_judged_by_another_threshold() {
    let bundle = case("dns-fast-for-all");
    assert!(out(&analyze(&[&bundle])).contains("verdict: ok"));
    let o = analyze(&[&bundle, "--set", "dns.slow.p95_ms=30"]);
    assert!(out(&o).contains("dns.slow.p95_ms is 30.0 ms instead of 500 ms"), "{}", out(&o));
    assert!(out(&o).contains("verdict: warning: `api` (pid 1847)"), "{}", out(&o));
    let o = analyze(&[&bundle, "--set", "dns.slow.p95_ms=30", "--format", "json"]);
    assert!(out(&o).contains(r#""settings":{"dns.slow.p95_ms":30.0}"#), "{}", out(&o));
    let o = analyze(&[&bundle, "--set", "dns.slow.p99_ms=30"]);
    assert_eq!(o.status.code(), Some(2));
    assert!(
        err(&o).starts_with("error: rule `dns.slow` has no threshold `p99_ms`\nhint: it has critical_share, "),
        "{}",
        err(&o)
    );
}

#[test]
fn events_are_the_lines_that_the_report_points_to() {
    let dir = case("dns-dead-server");
    let lines = fs::read_to_string(fixture("bundles/dns-dead-server/events.jsonl")).unwrap();
    let o = analyze(&["events", &dir, "--seq", "3", "--seq", "5"]);
    let expected: Vec<&str> = [2, 4].map(|n| lines.lines().nth(n).unwrap()).to_vec();
    assert_eq!((o.status.code(), out(&o).lines().collect::<Vec<_>>()), (Some(0), expected));
}

#[test]
fn events_are_chosen_by_every_condition_up_to_the_limit() {
    let demo = fixture("demo.bundle.tgz");
    let demo = demo.to_str().unwrap();
    let o = analyze(&["events", demo, "--where", "type=udp_send", "--where", "pid=1847", "--limit", "5"]);
    assert_eq!(out(&o).lines().count(), 5);
    assert!(out(&o).lines().all(|l| l.contains(r#""type":"udp_send""#) && l.contains(r#""pid":1847"#)));
    assert_eq!(err(&o), "note: 5 of 32 matching events shown: `--limit`\n");
    let o = analyze(&["events", demo, "--where", "ns.net=1"]);
    assert_eq!((o.status.code(), err(&o).as_str()), (Some(0), "note: none of 182 events matches\n"));
    let o = analyze(&["events", demo, "--where", "pid"]);
    assert_eq!(o.status.code(), Some(2));
    assert!(err(&o).starts_with("error: `pid` is not `key=value`\nhint: "), "{}", err(&o));
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let line = fs::read_to_string(fixture("bundles/dns-dead-server/events.jsonl")).unwrap();
    let mut file = fs::File::create(&path).unwrap();
    for _ in 0..200 {
        file.write_all(line.as_bytes()).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_analyze"))
        .args(["events", path.to_str().unwrap(), "--limit", "100000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let o = child.wait_with_output().unwrap();
    assert_eq!((o.status.code(), err(&o).as_str()), (Some(0), ""));
}

#[test]
fn a_report_needs_no_colour() {
    let o = analyze(&[&case("dns-dead-server")]);
    assert!(!o.stdout.contains(&0x1b));
}

#[test]
fn the_node_is_told_with_what_is_unusual_first() {
    let o = analyze(&["node", &case("machine-in-trouble")]);
    assert_eq!((o.status.code(), err(&o).as_str()), (Some(0), ""));
    assert!(out(&o).contains("\nunusual\n  - receive queues dropped 412 of 130412 packets\n"), "{}", out(&o));
    let o = analyze(&["node", &case("machine-in-trouble"), "--format=json"]);
    let node: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
    assert_eq!((&node["schema"]["name"], &node["unusual"][0]["kind"]), (&"ktrace-node".into(), &"queue".into()));
}

#[test]
fn a_story_is_told_by_a_line_of_it() {
    let o = analyze(&["story", &case("connect-timed-out"), "--seq", "3"]);
    assert_eq!((o.status.code(), err(&o).as_str()), (Some(0), ""));
    let told = out(&o);
    assert!(
        told.starts_with("1. `curl` (pid 1847) to 10.42.2.8:8080: timed out after 54.9 s, 5 SYNs sent again\n"),
        "{told}"
    );
    let o = analyze(&["story", &case("connect-timed-out"), "--seq", "3", "--format=json"]);
    let document: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
    let story = &document["stories"][0];
    assert_eq!((&document["schema"]["name"], &story["outcome"]), (&"ktrace-stories".into(), &"timed_out".into()));
    assert_eq!((&story["steps"][0]["seq"], &story["untrusted"]), (&1.into(), &true.into()));
}

#[test]
fn stories_are_limited_and_none_is_no_failure() {
    let o = analyze(&["story", &case("nat-both-ends"), "--comm", "curl", "--limit", "2"]);
    assert_eq!((o.status.code(), err(&o).as_str()), (Some(0), "note: 2 told, some 10 more: `--limit`\n"));
    let o = analyze(&["story", &case("nat-both-ends"), "--pod", "shop/nobody"]);
    assert_eq!((o.status.code(), out(&o).as_str()), (Some(0), ""));
    assert_eq!(err(&o), "note: no connection, DNS attempt or UDP flow in 48 events is meant\n");
}

#[test]
fn a_story_needs_to_know_which_and_says_how() {
    let bundle = case("nat-both-ends");
    for (args, error, hint) in [
        (
            &["--flow", "10.0.0.1:99999"][..],
            "error: `10.0.0.1:99999` names no flow",
            "hint: for example `--flow 10.96.0.80:80`",
        ),
        (&["--pod", "a/b/c"], "error: `a/b/c` names no pod", "hint: for example `--pod web-1`"),
        (&[], "error: the following required arguments", "hint: `analyze --help`"),
        (&["--pid", "x"], "error: invalid value 'x'", "hint: `analyze --help`"),
        (&["--pid", "1", "--limit", "0"], "error: invalid value '0'", "hint: `analyze --help`"),
    ] {
        let o = analyze(&[&["story", bundle.as_str()], args].concat());
        assert_eq!((o.status.code(), out(&o).as_str()), (Some(2), ""), "{args:?}");
        assert!(err(&o).contains(error) && err(&o).contains(hint), "{args:?}: {}", err(&o));
    }
}

#[test]
fn stories_of_a_cut_bundle_exit_with_5() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(fixture("demo.bundle.tgz")).unwrap();
    let path = dir.path().join("cut.bundle.tgz");
    fs::write(&path, &whole[..whole.len() * 6 / 10]).unwrap();
    let o = analyze(&["story", path.to_str().unwrap(), "--pid", "1847"]);
    assert_eq!(o.status.code(), Some(5), "{}", err(&o));
    assert!(out(&o).contains("asks 10.96.0.53:53") && out(&o).contains("not known: "), "{}", out(&o));
}

#[test]
fn a_bundle_from_before_has_no_node_to_tell_of() {
    let o = analyze(&["node", &case("dns-dead-server")]);
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    assert!(out(&o).contains("nothing is known of the node"), "{}", out(&o));
}

#[test]
fn a_question_is_answered_from_the_bundle() {
    let text = out(&analyze(&["ask", &case("bad-peer"), "why is postgres slow?"]));
    assert!(
        text.starts_with(
            "about: ports 5432, 6432 (postgres)\nanswer: of 5 ends that `api` (pid 1847) connects to, only"
        ),
        "{text}"
    );
    assert!(text.contains("`api` -> 10.42.2.3:5432: 4 attempts to connect, 4 failed"), "{text}");
    let text = out(&analyze(&["ask", &case("bad-peer"), "what about redis"]));
    assert!(text.contains("answer: nothing in this bundle is about that"), "{text}");
    let text = out(&analyze(&["ask", &case("bad-peer"), "is", "api", "refused?"]));
    assert!(text.starts_with("about: `api`\n"), "{text}");
    let text = out(&analyze(&["ask", &case("bad-peer-lossy"), "one bad replica of postgres?"]));
    assert!(
        text.contains("not judge") && text.contains("   - connect.bad_peer: 4 `tcp_state` events are missing"),
        "{text}"
    );
}

#[test]
fn without_a_bundle_a_question_is_answered_with_what_to_capture() {
    let o = analyze(&["ask", "why is postgres slow?"]);
    assert_eq!((o.status.code(), err(&o)), (Some(0), String::new()));
    let text = out(&o);
    assert!(text.contains("   ktrace --duration 60s --ports 5432,6432\n"), "{text}");
    assert!(text.contains("hook `tcp_state`"), "{text}");
    let text = out(&analyze(&["ask", "dns lookups time out"]));
    assert!(text.contains("   ktrace --duration 60s --dns-only\n"), "{text}");
}
