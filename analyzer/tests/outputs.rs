//! The program from outside: what it explains, its page for a ticket, and its schemas.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn analyze(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_analyze")).args(args).output().unwrap()
}

fn case(name: &str) -> String {
    format!("{}/../fixtures/bundles/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_line_of_the_kernels_log_is_explained() {
    let o = analyze(&["explain", "[12345.678901] nf_conntrack: nf_conntrack: table full, dropping packet"]);
    assert_eq!((o.status.code(), err(&o).as_str()), (Some(0), ""));
    assert!(out(&o).starts_with("conntrack.table_full: the table of connection tracking is full"), "{}", out(&o));
    assert!(out(&o).contains("rule `conntrack.full`: `analyze kb show conntrack.full`"), "{}", out(&o));
}

#[test]
fn a_line_that_nobody_knows_is_1_with_what_comes_nearest() {
    let o = analyze(&["explain", "nf_conntrack: the table is full, dropping packets"]);
    assert_eq!(o.status.code(), Some(1));
    assert!(out(&o).starts_with("nothing is known of this line: nf_conntrack: the table"), "{}", out(&o));
    assert!(out(&o).contains("nearest: conntrack.table_full"), "{}", out(&o));
    assert!(err(&o).starts_with("hint: families are conntrack, tcp, "), "{}", err(&o));
    assert_eq!(analyze(&["explain"]).status.code(), Some(2));
}

#[test]
fn a_whole_log_is_explained_kind_by_kind() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_analyze"))
        .args(["explain", "-", "--format", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let log = "[1.0] Linux version 6.18\n\
               [2.0] IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready\n\
               [3.0] TCP: too many orphaned sockets\n\
               [4.0] TCP: too many orphaned sockets\n";
    child.stdin.take().unwrap().write_all(log.as_bytes()).unwrap();
    let o = child.wait_with_output().unwrap();
    let read: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
    let known = read["known"].as_array().unwrap().iter();
    let kinds: Vec<String> = known.map(|kind| format!("{} {}", kind["id"], kind["count"])).collect();
    assert_eq!(kinds, ["\"link.ready\" 1", "\"tcp.orphans\" 2"]);
    assert_eq!((o.status.code(), &read["unknown_count"], &read["line_count"]), (Some(0), &1.into(), &4.into()));
    assert_eq!(read["known"][0]["lines"][0]["fields"]["device"], "eth0");
}

#[test]
fn a_page_for_a_ticket_names_the_cause_first() {
    let o = analyze(&[&case("dns-dead-server"), "--format", "markdown"]);
    assert_eq!((o.status.code(), err(&o).as_str()), (Some(0), ""));
    assert!(out(&o).starts_with("## ktrace: critical\n"), "{}", out(&o));
    assert!(out(&o).contains("\n### 1. critical `dns.no_reply`\n"), "{}", out(&o));
    assert!(out(&o).contains("- **cause** ") && out(&o).chars().count() <= 3000, "{}", out(&o));
}

#[test]
fn schemas_are_data() {
    for (of, title) in [("bundle", "ktrace-bundle"), ("findings", "ktrace-findings")] {
        let o = analyze(&["schema", of]);
        assert_eq!((o.status.code(), err(&o).as_str()), (Some(0), ""));
        let schema: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
        assert_eq!(schema["title"], title);
    }
}

#[test]
fn a_page_says_by_which_other_thresholds_it_judges() {
    let o = analyze(&[&case("dns-slow"), "--set", "dns.slow.p95_ms=50", "--format", "markdown"]);
    assert!(out(&o).contains("\n`dns.slow.p95_ms` is 50.0 ms instead of 500 ms\n"), "{}", out(&o));
}
