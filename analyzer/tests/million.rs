//! A bundle of a million events: one reading, in bounded memory, with the same report by any number of processors.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

const EVENTS: u64 = 1_000_000;
/// What the process may hold at most, KiB.
const MAX_KIB: i64 = 400 << 10;
/// What is promised of a release build on a machine without other work is 5 s; a test build on a busy one gets more.
const MAX_SECONDS: u64 = if cfg!(debug_assertions) { 180 } else { 10 };
const START_NS: u64 = 5_000_000_000_000;

/// Short connections and lookups of 300 processes, 2.5 events each: the most flows that so many events can be about.
fn write_events(path: &Path) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    let (mut seq, mut socket, mut line) = (0, 1000_u64, String::new());
    while seq < EVENTS {
        socket += 1;
        let at = START_NS + (socket - 1000) * 50_000;
        let (process, port) = (socket % 300, 32_768 + socket % 28_000);
        let is_tcp = socket % 2 == 0;
        let (proto, remote, remote_port) = if is_tcp {
            ("tcp", format!("10.42.{}.{}", socket % 4, socket / 4 % 250), 8080)
        } else {
            ("udp", "10.96.0.10".to_owned(), 53)
        };
        let steps: &[(&str, &str, u64)] = if is_tcp {
            &[
                ("tcp_state", r#""old_state":"CLOSE","new_state":"SYN_SENT""#, 0),
                ("tcp_state", r#""old_state":"SYN_SENT","new_state":"ESTABLISHED","handshake_ns":1000000"#, 1_000_000),
                (
                    "tcp_state",
                    r#""old_state":"LAST_ACK","new_state":"CLOSE","tx_bytes":12000,"rx_bytes":2000"#,
                    30_000_000,
                ),
            ]
        } else {
            &[("udp_send", r#""bytes":45"#, 0), ("udp_recv", r#""bytes":120,"dns_rtt_ns":900000"#, 900_000)]
        };
        for (kind, payload, after) in steps {
            seq += 1;
            line.clear();
            let boot_ns = at + after;
            let (ms, us) = ((boot_ns - START_NS) / 1_000_000 % 60_000, (boot_ns - START_NS) / 1000 % 1000);
            let pid = 2000 + process;
            writeln!(
                line,
                r#"{{"v":1,"seq":{seq},"ts":"2026-01-24T21:57:{:02}.{:03}{us:03}Z","type":"{kind}","node":"node-1","comm":"api-{}","pid":{pid},"tid":{pid},"ppid":1,"uid":1000,"gid":1000,"tuple":"10.42.1.15:{port} -> {remote}:{remote_port}",{payload},"proto":"{proto}","laddr":"10.42.1.15","lport":{port},"raddr":"{remote}","rport":{remote_port},"role":"client","socket":{socket},"boot_ns":{boot_ns},"cpu":1,"owner":"current","proc_start_ns":{pid},"ns":{{"net":4026532001,"mnt":4026532201,"pid":4026532202,"user":4026531837}},"cgroup_id":7712}}"#,
                ms / 1000,
                ms % 1000,
                process % 40,
            )
            .unwrap();
            out.write_all(line.as_bytes()).unwrap();
        }
    }
    out.into_inner().unwrap().sync_data().unwrap();
}

fn analyze(path: &Path, on: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_analyze");
    let words = [on, &[program]].concat();
    let [first, rest @ ..] = words.as_slice() else { unreachable!("a program is run") };
    Command::new(first).args(rest).arg(path).args(["--format", "json", "--all"]).output().unwrap()
}

#[test]
fn a_million_events_are_read_once_in_bounded_memory_and_the_same_on_one_processor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    write_events(&path);
    let began = Instant::now();
    let report = analyze(&path, &[]);
    let took = began.elapsed();
    let held = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    eprintln!("{EVENTS} events: {took:?}, {held} KiB");
    assert_eq!(report.status.code(), Some(0), "{report:?}");
    let document: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert!(document["bundle"]["event_count"].as_u64().unwrap() >= EVENTS, "{}", document["bundle"]);
    assert!(document["bundle"]["udp_flow_count"].as_u64().unwrap() > 190_000, "{}", document["bundle"]);
    assert!(held <= MAX_KIB, "{held} KiB");
    assert!(took.as_secs() < MAX_SECONDS, "{took:?}");
    let on_one = analyze(&path, &["taskset", "-c", "0"]);
    assert!(on_one.stdout == report.stdout, "one processor gives another report");
}
