//! What kernels said (`fixtures/node/<kernel>/`, recorded in their virtual machines) against the items that it must become
//! (`golden.jsonl`), and against what damage does to it. `KTRACE_BLESS=1` rewrites the golden files; how the rest is recorded says
//! `fixtures/node/README.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ktrace_bundle::node::CounterGroup;
use proptest::prelude::*;

use super::diag;
use super::tally::Tally;
use super::*;
use crate::node::host::{cgroups, cpu, memory, pressure};
use crate::node::netlink::Messages;

/// Files of procfs below `/proc`, and what reads them.
const TEXTS: [(&str, Reader); 11] = [
    ("net/snmp", tables::in_two_lines),
    ("net/netstat", tables::in_two_lines),
    ("net/snmp6", tables::snmp6),
    ("net/sockstat", tables::sockstat),
    ("net/sockstat6", tables::sockstat),
    ("net/softnet_stat", |text| tables::softnet(text, 8)),
    ("stat", cpu::stat),
    ("softirqs", |text| cpu::softirqs(text, 8)),
    ("interrupts", |text| cpu::interrupts(text, 8)),
    ("meminfo", memory::meminfo),
    ("vmstat", memory::vmstat),
];
/// Dumps of `sock_diag`.
const SOCKETS: [&str; 3] = ["listeners", "tcp", "udp"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/node")
}

fn kernels() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root()).unwrap().map(|it| it.unwrap().path());
    let mut kernels: Vec<_> = entries.filter(|it| it.is_dir()).collect();
    kernels.sort();
    assert!(kernels.len() >= 3, "{kernels:?}");
    kernels
}

/// Every recorded file by its name.
fn files(kernel: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(kernel).unwrap().map(|it| it.unwrap());
    let named = entries.map(|it| (it.file_name().into_string().unwrap(), std::fs::read(it.path()).unwrap()));
    named.filter(|(name, _)| name != "golden.jsonl").collect()
}

/// The interfaces of a kernel's dump.
fn names(files: &BTreeMap<String, Vec<u8>>) -> Names {
    let mut names = Names::new();
    for message in Messages(&files["links.nl"]) {
        let _ = routing::item(message.kind, message.body, &mut names);
    }
    names
}

/// What a file says, as JSON.
fn said(name: &str, bytes: &[u8], names: &Names) -> Vec<serde_json::Value> {
    let text = String::from_utf8_lossy(bytes);
    let json = |items: Vec<Item>| items.into_iter().map(|it| serde_json::to_value(it).unwrap()).collect();
    let groups = |groups: Vec<CounterGroup>| json(groups.into_iter().map(Item::Counters).collect());
    if let Some((_, read)) = TEXTS.iter().find(|(path, _)| path.replace('/', ".") == name) {
        return groups(read(&text));
    }
    if let Some(resource) = name.strip_prefix("pressure.") {
        return json(pressure::read(resource, &text).into_iter().map(Item::Pressure).collect());
    }
    match name.strip_suffix(".nl") {
        None => {
            let counters = cgroups::cpu_stat(&text);
            groups(vec![CounterGroup { group: name.into(), counters, ..CounterGroup::default() }])
        }
        Some(what) if SOCKETS.contains(&what) => {
            let mut tally = Tally::new((32_768, 60_999));
            for socket in Messages(bytes).filter_map(|it| diag::socket(it.body)) {
                if what == "udp" { tally.udp(&socket) } else { tally.tcp(&socket) }
            }
            let (sockets, ports) = tally.finish(0);
            let sums = [Item::Sockets(sockets), Item::Ports(ports)];
            let one = |it| diag::socket(it).map(|it| serde_json::json!(format!("{it:?}")));
            let each = Messages(bytes).filter(|_| what == "listeners").filter_map(|it| one(it.body));
            each.chain(sums.into_iter().map(|it| serde_json::to_value(it).unwrap())).collect()
        }
        Some(_) => {
            let mut names = names.clone();
            let read = |it: crate::node::netlink::Message<'_>| routing::item(it.kind, it.body, &mut names).ok()?;
            json(Messages(bytes).filter_map(read).collect())
        }
    }
}

#[test]
fn what_each_kernel_says_becomes_the_golden_items() {
    for kernel in kernels() {
        let files = files(&kernel);
        let names = names(&files);
        let lines = |(name, bytes): (&String, &Vec<u8>)| {
            said(name, bytes, &names)
                .into_iter()
                .map(|it| format!("{}\n", serde_json::json!({ name: it })))
                .collect::<String>()
        };
        let now: String = files.iter().map(lines).collect();
        let golden = kernel.join("golden.jsonl");
        if std::env::var_os("KTRACE_BLESS").is_some() {
            std::fs::write(&golden, &now).unwrap();
        }
        let before = std::fs::read_to_string(&golden).unwrap();
        let odd = now.lines().zip(before.lines()).find(|(now, before)| now != before);
        assert_eq!(odd, None, "{}", kernel.display());
        assert_eq!(now.lines().count(), before.lines().count(), "{}", kernel.display());
    }
}

/// What every kernel's recording must show, whatever its golden file says.
#[test]
fn each_kernel_shows_what_was_made_in_its_namespace() {
    for kernel in kernels() {
        let golden = std::fs::read_to_string(kernel.join("golden.jsonl")).unwrap();
        for shown in [
            r#""kind":"veth""#,
            r#""state":"failed""#,
            r#""kind":"tbf""#,
            r#""kind":"blackhole""#,
            r#""table":100"#,
            r#""hop_count":2"#,
            r#""overlimits""#,
            r#""group":"TcpExt""#,
            r#""group":"Udp6""#,
            r#"18080"#,
        ] {
            assert!(golden.contains(shown), "{shown} of {}", kernel.display());
        }
    }
}

#[test]
fn files_that_are_cut_anywhere_say_no_more_than_whole_ones() {
    for kernel in kernels() {
        let files = files(&kernel);
        let names = names(&files);
        for (name, bytes) in &files {
            let whole = said(name, bytes, &names).len();
            // every end of what is short, and some thousand of what is long
            for end in (0..bytes.len()).step_by(1 + bytes.len() / 1000) {
                assert!(said(name, &bytes[..end], &names).len() <= whole, "{name} of {} at {end}", kernel.display());
            }
        }
    }
}

#[test]
fn huge_files_say_a_bounded_number_of_things() {
    let kernel = kernels().remove(0);
    let files = files(&kernel);
    let names = names(&files);
    for (name, bytes) in files.iter().filter(|(name, _)| !name.ends_with(".nl")) {
        let huge = bytes.repeat(1 + (1 << 20) / bytes.len().max(1));
        assert!(said(name, &huge, &names).len() < 1000, "{name}");
    }
}

proptest! {
    #[test]
    fn random_bytes_are_items_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 16_u16..48) {
        let _ = routing::item(kind, &bytes, &mut Names::new());
        for (name, _) in TEXTS {
            said(&name.replace('/', "."), &bytes, &Names::new());
        }
    }

    #[test]
    fn messages_with_some_bytes_changed_are_items_or_none(at in any::<prop::sample::Index>(), value in any::<u8>(), pick in any::<prop::sample::Index>()) {
        let files = files(&kernels()[0]);
        let dumps: Vec<_> = files.iter().filter(|(name, bytes)| name.ends_with(".nl") && !bytes.is_empty()).collect();
        let (name, bytes) = dumps[pick.index(dumps.len())];
        let mut bytes = bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] = value;
        said(name, &bytes, &Names::new());
    }
}
