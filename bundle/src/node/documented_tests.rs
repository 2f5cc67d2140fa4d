//! The contract's document against what is written in `node/`: one of each item, with every key that it can have.

use std::collections::BTreeMap;

use super::*;
use crate::event::Endpoint;
use crate::keys::DOCUMENT;
use crate::reader::{self, Limits, Record};
use crate::testing::{a_bundle_on, a_manifest, in_network, of_host};

fn links() -> Vec<Item> {
    let (text, number, addr) = (|| Some("x".to_owned()), Some(1), [192, 0, 2, 1].into());
    let counters = || Counters::from([("drops".to_owned(), 2)]);
    vec![
        Item::Netns(Netns { is_node: true, pid: Some(1), took_us: 1 }),
        Item::Link(Link { kind: text(), master: Some(1), counters: counters(), rose: counters(), ..Link::default() }),
        Item::Address(Address { dev: "x".into(), addr, prefix_len: 24, flags: vec!["deprecated".into()] }),
        Item::Route(Route {
            dst: text(),
            via: Some(addr),
            dev: text(),
            src: Some(addr),
            metric: Some(1),
            mtu: Some(1),
            hop_count: Some(2),
            ..Route::default()
        }),
        Item::Rule(Rule {
            from: text(),
            to: text(),
            iif: text(),
            oif: text(),
            fwmark: Some(1),
            table: Some(1),
            ..Rule::default()
        }),
        Item::Neighbour(Neighbour { dev: "x".into(), addr, state: "failed".into() }),
        Item::Qdisc(Qdisc { counters: counters(), rose: counters(), ..Qdisc::default() }),
        Item::Filter(Filter { hook: text(), number, packets: number, rose: number, ..Filter::default() }),
        Item::Nic(Nic { driver: text(), speed_mbit: Some(1), rose: counters(), ..Nic::default() }),
    ]
}

fn sockets() -> Vec<Item> {
    let (number, end) = (Some(1), Some(Endpoint::new([192, 0, 2, 1].into(), 80)));
    vec![
        Item::Sockets(Sockets::default()),
        Item::Listener(Listener {
            local: end,
            socket: 1,
            accept_queue: 0,
            backlog: 1,
            drop_count: number,
            rose: number,
        }),
        Item::Ports(Ports { busiest: end, ..Ports::default() }),
    ]
}

fn others() -> Vec<Item> {
    let (text, number) = (|| Some("x".to_owned()), Some(1));
    let counters = || Counters::from([("drops".to_owned(), 2)]);
    vec![
        Item::Counters(CounterGroup { group: "Tcp".into(), counters: counters(), rose: counters() }),
        Item::Sysctls(Sysctls::default()),
        Item::Pressure(Pressure {
            cgroup_id: number,
            full_total_us: number,
            some_rose_us: number,
            full_rose_us: number,
            elapsed_us: number,
            ..Pressure::default()
        }),
        Item::Cgroup(Cgroup { quota_us: number, period_us: number, rose: counters(), ..Cgroup::default() }),
        Item::Resolver(Resolver { is_node: true, pid: Some(1), ..Resolver::default() }),
        Item::Clock(Clock { clocksource: text(), ..Clock::default() }),
        Item::System(System { os: text(), hardware: text(), boot_id: text(), ..System::default() }),
        Item::Absent(Absent { what: "x".into(), why: "x".into() }),
        Item::Omitted(Omitted { what: "x".into(), count: number, why: "room".into() }),
    ]
}

fn every_item() -> Vec<Item> {
    [links(), sockets(), others()].concat()
}

#[test]
fn the_documented_keys_of_each_item_are_those_that_are_written() {
    let section = DOCUMENT.split("\n## ").find(|s| s.starts_with("`node/network.jsonl`")).unwrap();
    let rows = section.lines().filter_map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let names = |cell: &str| cell.split(' ').map(|it| it.trim_matches('`').to_owned()).collect::<Vec<_>>();
        (cells.len() == 3 && cells[0].starts_with('`') && cells[0] != "`item`")
            .then(|| (names(cells[0]).remove(0), names(cells[1])))
    });
    let documented: BTreeMap<_, _> = rows.collect();
    let mut written = BTreeMap::new();
    for item in every_item() {
        let line = serde_json::to_value(in_network(When::End, item)).unwrap();
        let keys = line
            .as_object()
            .unwrap()
            .keys()
            .filter(|k| !["v", "when", "ts", "boot_ns", "netns", "item"].contains(&k.as_str()));
        let mut keys: Vec<_> = keys.cloned().collect();
        keys.sort_unstable();
        written.insert(line["item"].as_str().unwrap().to_owned(), keys);
    }
    let documented: BTreeMap<_, _> = documented
        .into_iter()
        .map(|(item, mut keys)| {
            (item, {
                keys.sort_unstable();
                keys
            })
        })
        .collect();
    assert_eq!(documented, written);
    let names: std::collections::BTreeSet<_> = Item::NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(written.into_keys().collect::<std::collections::BTreeSet<_>>(), names);
}

#[test]
fn the_node_is_read_as_it_was_written() {
    let out = tempfile::tempdir().unwrap();
    let mut written: Vec<_> = every_item().into_iter().map(|item| in_network(When::Start, item)).collect();
    written.extend(others().into_iter().map(|item| of_host(When::End, item)));
    let sealed = a_bundle_on(out.path(), &mut [], &[], &written, a_manifest(&[]));
    for path in [&sealed.tgz, &sealed.dir] {
        let (mut read, mut members) = (Vec::new(), Vec::new());
        let report = reader::read(path, &Limits::default(), &mut |record| match record {
            Record::Node(it) => read.push(*it),
            Record::Manifest(m) => members = m.members,
            _ => {}
        });
        let report = report.unwrap();
        assert_eq!((report.integrity, report.bad_lines, report.cut), (vec![], 0, None));
        assert_eq!(read, written);
        let lines = |name: &str| members.iter().find(|m| m.name == name).unwrap().records;
        assert_eq!((lines("node/network.jsonl"), lines("node/host.jsonl")), (Some(21), Some(9)));
    }
    sealed.remove_loose().unwrap();
    assert!(!sealed.dir.exists() && sealed.tgz.exists());
}

#[test]
fn an_item_of_a_later_version_is_passed_over_and_counted() {
    let out = tempfile::tempdir().unwrap();
    let sealed = a_bundle_on(out.path(), &mut [], &[], &[], a_manifest(&[]));
    let line = r#"{"v":1,"when":"end","ts":"2026-01-24T21:57:54Z","boot_ns":5,"item":"thermal","zone":"x"}"#;
    std::fs::write(sealed.dir.join("node/host.jsonl"), format!("{line}\n")).unwrap();
    let report = reader::read(&sealed.dir, &Limits::default(), &mut |_| {}).unwrap();
    assert_eq!((report.bad_lines, report.unknown_types), (0, [("thermal".to_owned(), 1)].into()));
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_a_link_is_not_followed() {
    let out = tempfile::tempdir().unwrap();
    let written = [of_host(When::End, Item::Clock(Clock::default()))];
    let sealed = a_bundle_on(out.path(), &mut [], &[], &written, a_manifest(&[]));
    std::fs::rename(sealed.dir.join("node"), out.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", sealed.dir.join("node")).unwrap();
    let mut read = 0;
    let report =
        reader::read(&sealed.dir, &Limits::default(), &mut |it| read += usize::from(matches!(it, Record::Node(_))));
    assert_eq!((read, report.unwrap().unknown_members), (0, 2));
}

#[test]
fn a_line_that_is_too_long_is_omitted_and_counted() {
    let out = tempfile::tempdir().unwrap();
    let values = (0..500).map(|n| (format!("net.ipv4.setting_{n}"), "1".to_owned())).collect();
    let written = [in_network(When::End, Item::Sysctls(Sysctls { values }))];
    let sealed = a_bundle_on(out.path(), &mut [], &[], &written, a_manifest(&[]));
    let mut omitted = None;
    let report = reader::read(&sealed.dir, &Limits::default(), &mut |record| {
        if let Record::Manifest(m) = record {
            omitted = m.members.iter().find(|m| m.name == "node/network.jsonl").unwrap().omitted_count;
        }
    });
    assert_eq!((omitted, report.unwrap().integrity), (Some(1), vec![]));
}
