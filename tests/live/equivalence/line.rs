//! Lines of a bundle, without what no two runs have in common: each a map of keys to values, so that lists of them can be
//! compared. Times become `some`, ports that the kernel chose `any`, processes and namespaces the names that the test gave.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::hook_limits::{Effect, Is};

/// Key → value; nested keys are `ns.net`.
pub type Line = BTreeMap<String, String>;

/// Marks what the program did in a line that the test expects; no key of a bundle.
pub const CASE: &str = "case";

/// When, how long, or how often something else happened meanwhile: only that it is there can be compared.
const MEASURED: &[&str] = &[
    "socket",
    "proc_start_ns",
    "cgroup_id",
    "handshake_ns",
    "duration_ns",
    "gave_up_after_ns",
    "syscall_ns",
    "dns_rtt_ns",
    "query_seq",
    "srtt_us",
    "min_rtt_us",
    "tx_segs_count",
    "rx_segs_count",
    "age_ns",
    "tx_queue_bytes",
    "boot_ns",
    "ts",
    "cpu",
];

/// What the run itself decides: the order of lines, the name of the machine, how it numbers cgroups.
const OF_THE_RUN: &[&str] = &["v", "seq", "node", "tuple", "why.cgroup_id"];

/// Lowest port that the kernel chooses in a [`crate::net::Lab`].
const FIRST_CHOSEN_PORT: u64 = 10_000;

/// Names by process id, and by inode number of a network namespace.
#[derive(Debug, Default)]
pub struct Names {
    /// Processes.
    pub pids: BTreeMap<u64, String>,
    /// Network namespaces.
    pub netns: BTreeMap<u64, &'static str>,
}

impl Names {
    /// A line of a bundle, if it is of one of the namespaces.
    pub fn line(&self, text: &[u8]) -> Option<Line> {
        let mut line = Line::new();
        flatten(&mut line, "", &serde_json::from_slice(text).unwrap());
        let netns = self.netns.get(&line["ns.net"].parse().unwrap())?;
        line.insert("ns.net".into(), (*netns).into());
        line.retain(|key, _| !OF_THE_RUN.contains(&key.as_str()));
        // whoever lists the sockets of a machine, as the look at the node does, gives a request a cookie
        if line.get("kind").is_some_and(|kind| kind == "synack") {
            line.remove("socket");
        }
        for (key, value) in &mut line {
            match key.as_str() {
                key if MEASURED.contains(&key) => "some".clone_into(value),
                "rx_queue_bytes" if value != "0" => "some".clone_into(value),
                "pid" | "tid" | "ppid" => {
                    if let Some(name) = self.pids.get(&value.parse().unwrap()) {
                        value.clone_from(name);
                    }
                }
                "lport" | "rport" if value.parse::<u64>().unwrap() >= FIRST_CHOSEN_PORT => "any".clone_into(value),
                _ => {}
            }
        }
        Some(line)
    }
}

fn flatten(line: &mut Line, path: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(line, &path, value);
            }
        }
        Value::String(text) => _ = line.insert(path.into(), text.clone()),
        other => _ = line.insert(path.into(), other.to_string()),
    }
}

/// Does to the lines what a limit does, and returns how many that were.
pub fn apply(effect: &Effect, lines: &mut Vec<Line>) -> usize {
    let meets = |line: &Line| effect.on().iter().all(|is| is_true(is, line));
    let count = lines.iter().filter(|line| meets(line)).count();
    match effect {
        Effect::NoLine { .. } => lines.retain(|line| !meets(line)),
        Effect::NoKeys { keys, why, .. } => {
            for line in lines.iter_mut().filter(|line| meets(line)) {
                line.retain(|key, _| !keys.contains(&key.as_str()));
                line.extend(why.map(|(key, reason)| (key.to_owned(), reason.to_owned())));
            }
        }
        Effect::Reads { key, value, .. } => {
            for line in lines.iter_mut().filter(|line| meets(line)) {
                line.insert((*key).into(), (*value).into());
            }
        }
    }
    count
}

fn is_true(is: &Is, line: &Line) -> bool {
    match is {
        Is::Key(key, value) => line.get(*key).is_some_and(|it| it == value),
        Is::Has(key) => line.contains_key(*key),
        Is::Case(case) => line.get(CASE).is_some_and(|it| it == case),
    }
}

/// What only one of two lists has, as text; empty if they are the same, whatever the order.
pub fn difference(recorded: &[Line], expected: &[Line]) -> String {
    let mut left: BTreeMap<String, i64> = BTreeMap::new();
    for line in recorded {
        *left.entry(text(line)).or_default() += 1;
    }
    for line in expected {
        *left.entry(text(line)).or_default() -= 1;
    }
    let sides = left.into_iter().filter(|(_, n)| *n != 0).map(|(line, n)| {
        let side = if n > 0 { "recorded" } else { "expected" };
        format!("{side} {} times more: {line}\n", n.abs())
    });
    sides.collect()
}

/// What is most telling first, so that lines about the same thing stand together.
fn text(line: &Line) -> String {
    const FIRST: [&str; 8] = ["when", "type", "ns.net", "lport", "rport", "raddr", "old_state", "new_state"];
    let first = FIRST.iter().filter_map(|key| line.get_key_value(*key));
    let rest = line.iter().filter(|(key, _)| !FIRST.contains(&key.as_str()) && *key != CASE);
    first.chain(rest).map(|(key, value)| format!("{key}={value} ")).collect()
}
