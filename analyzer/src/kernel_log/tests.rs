//! Holds `analyzer/explain/*.toml` to what it says, and the reading to its bounds.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::knowledge::{Entry, entries};
use super::*;
use crate::detectors::by_id;
use crate::report::kernel_log::{write_json, write_text};

fn read(lines: &[&str], then: impl FnOnce(&Reading<'_>)) {
    let entries = entries().unwrap();
    let mut reading = Reading::new(&entries);
    lines.iter().for_each(|line| reading.push(line));
    then(&reading);
}

fn text(reading: &Reading<'_>) -> String {
    let mut out = Vec::new();
    write_text(&mut out, reading).unwrap();
    String::from_utf8(out).unwrap()
}

fn fitting<'k>(entries: &'k [Entry], line: &str) -> Vec<&'k str> {
    let fits = |e: &&Entry| e.wordings().any(|(_, pattern)| pattern.captures(line).is_some());
    entries.iter().filter(fits).map(|e| e.id.as_str()).collect()
}

#[test]
fn every_sample_is_one_entry_and_no_other() {
    let entries = entries().unwrap();
    for entry in &entries {
        assert!(!entry.sample.is_empty(), "{}", entry.id);
        for sample in &entry.sample {
            assert_eq!(fitting(&entries, sample), [entry.id.as_str()], "{sample}");
        }
    }
}

#[test]
fn no_near_miss_is_the_entry_that_it_looks_like() {
    let entries = entries().unwrap();
    let misses = || entries.iter().flat_map(|e| e.near_miss.iter().map(move |miss| (e, miss)));
    assert!(misses().count() >= 15);
    for (entry, miss) in misses() {
        assert!(!fitting(&entries, miss).contains(&entry.id.as_str()), "{}: {miss}", entry.id);
    }
}

#[test]
fn a_changed_letter_of_the_kernels_own_words_is_another_line() {
    let entries = entries().unwrap();
    for entry in &entries {
        let sample = &entry.sample[0];
        let (_, pattern) = entry.wordings().find(|(_, p)| p.captures(sample).is_some()).unwrap();
        let longest = pattern.literals().max_by_key(|l| l.len()).unwrap();
        let at = sample.find(longest).unwrap() + longest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        let changed = format!("{}\u{1}{}", &sample[..at], &sample[at + 1..]);
        assert!(!fitting(&entries, &changed).contains(&entry.id.as_str()), "{changed}");
    }
}

#[test]
fn at_least_sixty_kinds_of_lines_are_known_under_names_of_their_own() {
    let entries = entries().unwrap();
    let ids: BTreeSet<&str> = entries.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids.len(), entries.len());
    assert!(ids.len() >= 60, "{}", ids.len());
    let wordings: BTreeSet<&str> = entries.iter().flat_map(|e| e.wordings()).map(|(w, _)| w.text()).collect();
    assert_eq!(wordings.len(), entries.iter().map(|e| e.pattern.len()).sum::<usize>());
}

#[test]
fn what_an_entry_refers_to_is_there() {
    let hooks = include_str!("../../../docs/hooks.md");
    for entry in &entries().unwrap() {
        let id = &entry.id;
        for rule in &entry.proves.rules {
            assert!(by_id(rule).is_some(), "{id}: {rule}");
        }
        for hook in &entry.proves.hooks {
            assert!(hooks.contains(&format!("\n## {hook}\n")), "{id}: {hook}");
        }
        let known: BTreeSet<&str> = entry.wordings().flat_map(|(_, p)| p.fields()).map(|(name, _)| name).collect();
        for label in entry.fields.keys() {
            assert!(known.contains(label.as_str()), "{id}: {label}");
        }
        assert!(!entry.next.is_empty() && !entry.references.is_empty(), "{id}");
    }
}

#[test]
fn every_family_is_one_file() {
    let entries = entries().unwrap();
    let families = Reading::new(&entries).families();
    assert_eq!(families.iter().collect::<BTreeSet<_>>().len(), families.len(), "{families:?}");
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/explain")).unwrap();
    let files = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    assert_eq!(files.collect::<BTreeSet<_>>(), families.iter().map(|&f| f.to_owned()).collect());
}

#[test]
fn a_wording_of_some_kernels_says_which() {
    for entry in &entries().unwrap() {
        for (wording, _) in entry.wordings().filter(|(wording, _)| matches!(wording, Wording::Some(_))) {
            assert!(wording.kernels().is_some(), "{}: {}", entry.id, wording.text());
        }
    }
}

#[test]
fn commands_take_only_fields_that_cannot_mean_anything_to_a_shell() {
    for entry in &entries().unwrap() {
        for command in entry.next.iter().filter_map(|next| next.command.as_deref()) {
            for part in command.split("%{").skip(1) {
                let name = part.split('}').next().unwrap();
                let kinds: Vec<Kind> = entry
                    .wordings()
                    .flat_map(|(_, p)| p.fields())
                    .filter(|(n, _)| *n == name)
                    .map(|(_, k)| k)
                    .collect();
                let is_safe = |kind: &Kind| matches!(kind, Kind::Number | Kind::Hex | Kind::Ip | Kind::Dev);
                assert!(!kinds.is_empty() && kinds.iter().all(is_safe), "{}: {name}", entry.id);
            }
        }
    }
}

/// First words of commands that look and change nothing.
const READERS: &[&str] = &[
    "auditctl -s",
    "auditctl -l",
    "awk",
    "bpftool net",
    "bridge fdb show",
    "bridge link show",
    "cat",
    "chronyc tracking",
    "conntrack -L",
    "conntrack -S",
    "coredumpctl list",
    "dmesg",
    "done",
    "echo",
    "ethtool",
    "for",
    "grep",
    "head",
    "ip -",
    "ip addr",
    "ip neigh",
    "ip route get",
    "ip route show",
    "ipset list",
    "ipvsadm -Ln",
    "iptables -V",
    "iptables -t raw -S",
    "iptables-save",
    "iscsiadm -m session",
    "journalctl",
    "ktrace check",
    "kubectl get",
    "less",
    "ls",
    "lsmod",
    "lsns",
    "lspci",
    "lvs",
    "modinfo",
    "multipath -ll",
    "nft list",
    "nstat",
    "nvme smart-log",
    "ps",
    "ras-mc-ctl --error-count",
    "ras-mc-ctl --summary",
    "smartctl -a",
    "sort",
    "ss -",
    "sysctl ",
    "tail",
    "tc -s",
    "tc filter show",
    "timedatectl",
    "timeout 10 tcpdump",
    "uname",
    "uniq",
    "vmstat",
    "wc",
    "wg show",
];

#[test]
fn commands_only_read() {
    for entry in &entries().unwrap() {
        for command in entry.next.iter().filter_map(|next| next.command.as_deref()) {
            // what stands in quotes is an argument
            let outside: String = command.split('\'').step_by(2).collect::<Vec<_>>().join("''");
            for part in outside.split(['|', ';']).map(str::trim).filter(|part| !part.starts_with("do ")) {
                assert!(READERS.iter().any(|reader| part.starts_with(reader)), "{}: {part}", entry.id);
            }
            assert!(!outside.replace("2>/dev/null", "").contains('>'), "{}: {command}", entry.id);
            assert!(!outside.contains("sysctl -w"), "{}", entry.id);
        }
    }
}

#[test]
fn fields_are_told_and_fill_commands() {
    read(
        &[
            "[1.5] Out of memory: Killed process 1234 (java) total-vm:8kB, anon-rss:4kB, file-rss:1kB, shmem-rss:0kB, UID:1000 pgtables:9kB oom_score_adj:0",
        ],
        |reading| {
            let text = text(reading);
            assert!(text.contains("process `java`"), "{text}");
            assert!(text.contains("dmesg -T | grep -B60 'Killed process 1234 '"), "{text}");
        },
    );
    read(&["TCP: request_sock_TCPv6: Possible SYN flooding on port [::]:8080. Dropping request."], |reading| {
        let text = text(reading);
        assert!(text.contains("listening address `::`, port `8080`"), "{text}");
        assert!(text.contains("of Linux 6.2 and later") && text.contains("ss -lnt 'sport = :8080'"), "{text}");
    });
}

#[test]
fn a_name_that_means_something_to_a_shell_reaches_no_command() {
    read(&["unregister_netdevice: waiting for $(reboot) to become free. Usage count = 1"], |reading| {
        assert_eq!(reading.known[0].lines[0].fields[0].value, "$(reboot)");
        assert_eq!(
            reading.known[0].lines[0].command("ip link show %{device} %{count} %{none}"),
            "ip link show DEVICE 1 NONE"
        );
    });
    let line = "TCP: $(reboot): Driver has suspect GRO implementation, TCP performance may be compromised.";
    read(&[line], |reading| {
        let text = text(reading);
        let commands = text.lines().filter(|line| line.starts_with("          ")).collect::<String>();
        assert!(commands.contains("ethtool -i DEVICE") && !commands.contains("reboot"), "{text}");
    });
}

#[test]
fn each_kind_is_told_once_with_how_often_it_came() {
    let lines = ["<4>nf_conntrack: nf_conntrack: table full, dropping packet"; 3];
    read(
        &[&lines[..], &["nf_conntrack: table full, dropping packet", "TCP: too many orphaned sockets"]].concat(),
        |reading| {
            assert_eq!(
                reading.known.iter().map(|k| (k.entry.id.as_str(), k.count)).collect::<Vec<_>>(),
                [("conntrack.table_full", 4), ("tcp.orphans", 1)]
            );
            assert_eq!(reading.known[0].lines.iter().map(|l| l.count).collect::<Vec<_>>(), [3, 1]);
            assert!(text(reading).contains("dropping packet (3 times)"));
        },
    );
}

#[test]
fn a_line_that_is_not_known_says_so_with_what_comes_nearest() {
    read(&["[1.0] nf_conntrack: the table is full, packet dropped", "hello"], |reading| {
        assert!(reading.known.is_empty());
        let text = text(reading);
        assert!(text.starts_with("nothing is known of this line: nf_conntrack: the table is full"), "{text}");
        assert!(text.contains("nearest: conntrack.table_full"), "{text}");
        assert!(reading.unknown[1].nearest.is_empty());
    });
}

#[test]
fn a_line_without_end_is_cut_and_memory_stays_bounded() {
    let entries = entries().unwrap();
    let mut reading = Reading::new(&entries);
    let mut input = vec![b'a'; 1 << 20];
    input.extend_from_slice(b"\n\xff\xfe\nTCP: too many orphaned sockets\r\n\nlast");
    reading.read(input.as_slice()).unwrap();
    assert_eq!((reading.line_count, reading.unknown_count), (4, 3));
    assert!(reading.unknown.iter().all(|u| u.message.len() <= MAX_LINE));
    assert_eq!(reading.unknown[1].message, "\u{fffd}\u{fffd}");
    for n in 0..1000 {
        reading.push(&format!("nothing {n}"));
        reading.push(&format!("VFS: file-max limit {n} reached"));
    }
    assert_eq!((reading.unknown.len(), reading.known[1].lines.len()), (MAX_UNKNOWN, MAX_LINES));
    assert_eq!(reading.known[1].count, 1000);
}

/// Pieces of which lines are made that come close to what is known.
fn near_lines() -> impl Strategy<Value = String> {
    let samples: Vec<String> = entries().unwrap().into_iter().flat_map(|e| e.sample).collect();
    (prop::sample::select(samples), any::<prop::sample::Index>(), ".{0,40}").prop_map(|(sample, at, noise)| {
        let at = sample.floor_char_boundary(at.index(sample.len() + 1));
        format!("{}{noise}{}", &sample[..at], &sample[at..])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_read_the_output_is_inert_and_bounded(
        lines in prop::collection::vec(prop_oneof![near_lines(), ".{0,2000}"], 0..12)
    ) {
        let entries = entries().unwrap();
        let mut reading = Reading::new(&entries);
        lines.iter().for_each(|line| reading.push(line));
        let (text, mut json) = (text(&reading), Vec::new());
        write_json(&mut json, &reading).unwrap();
        let steers = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        prop_assert!(!text.contains(steers), "{text:?}");
        let json = String::from_utf8(json).unwrap();
        prop_assert!(!json.trim_end().contains(steers));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        prop_assert!(text.len() < 100_000 && json.len() < 200_000, "{} {}", text.len(), json.len());
    }
}
