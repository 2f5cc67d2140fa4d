//! One machine on which much is wrong, for `analyze node`.

use std::net::IpAddr;

use ktrace_bundle::event::When;
use ktrace_bundle::line::parse_endpoint;
use ktrace_bundle::node::{
    Absent, Address, Clock, CounterGroup, Filter, Item, Link, Listener, Neighbour, Netns, Nic, NodeRecord, Omitted,
    Ports, Route, Sockets, Sysctls, System,
};
use ktrace_bundle::testing::{in_network, of_host};

use crate::node_stories::{both, cgroup, counters, pressure, resolver, softnet};
use crate::scene::Scene;

/// At both looks the same, but for what rose at the second one.
fn rising(of: impl Fn(bool) -> Item, at: fn(When, Item) -> NodeRecord) -> [NodeRecord; 2] {
    [at(When::Start, of(false)), at(When::End, of(true))]
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Receive queues, interfaces, listeners, filters, neighbours, pressure, a pod, the clock and settings.
pub fn machine_in_trouble() -> Scene {
    let mut s = softnet(412);
    s.node(network()).node(lost()).node(machine()).node(resolver(5, 3));
    s.node(cgroup([600, 312, 19_032_000], &[])).node(pressure("cpu", None, 862, 0)).node(pressure("io", None, 31, 4));
    s.node(pressure("memory", None, 2, 0));
    let pod = Item::Netns(Netns { pid: Some(1847), ..Netns::default() });
    s.node(both(&pod, |when, item| NodeRecord { netns: Some(4_026_532_110), ..of_host(when, item) }));
    s
}

fn network() -> Vec<NodeRecord> {
    let address = Address { dev: "eth0".into(), addr: addr("192.0.2.7"), prefix_len: 24, flags: Vec::new() };
    let route = Route {
        family: "inet".into(),
        table: 254,
        kind: "unicast".into(),
        dst: Some("192.0.2.0/24".into()),
        dev: Some("eth0".into()),
        ..Route::default()
    };
    let sockets = Sockets {
        tcp: [("ESTABLISHED", 118), ("TIME_WAIT", 2_400), ("LISTEN", 12)].map(|(k, n)| (k.to_owned(), n)).into(),
        udp: 9,
        rx_queue_bytes: 812,
        tx_queue_bytes: 40_960,
    };
    let ports = Ports { low: 32_768, high: 60_999, tcp_used_count: 2_518, udp_used_count: 4, ..Ports::default() };
    let values = [("net.ipv4.ip_forward", "0"), ("net.ipv4.conf.all.rp_filter", "1"), ("net.core.somaxconn", "4096")];
    let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let neighbour = Neighbour { dev: "eth0".into(), addr: addr("192.0.2.9"), state: "failed".into() };
    let items = [
        Item::Address(address),
        Item::Route(route),
        Item::Sockets(sockets),
        Item::Ports(ports),
        Item::Sysctls(Sysctls { values }),
        Item::Neighbour(neighbour),
    ];
    items.iter().flat_map(|item| both(item, in_network)).collect()
}

/// What counts what was lost.
fn lost() -> Vec<NodeRecord> {
    let gained = |list: &[(&str, u64)], is_end: bool| if is_end { counters(list) } else { counters(&[]) };
    let link = |is_end| {
        let rose =
            gained(&[("rx_bytes", 12 << 20), ("tx_bytes", 3 << 20), ("rx_dropped", 12), ("tx_errors", 3)], is_end);
        let (dev, operstate) = ("eth0".to_owned(), "up".to_owned());
        Item::Link(Link { dev, index: 2, up: true, operstate, mtu: 1500, rose, ..Link::default() })
    };
    let nic = |is_end| {
        let rose = gained(&[("rx_queue_0_drops", 14)], is_end);
        let driver = Some("virtio_net".to_owned());
        Item::Nic(Nic { dev: "eth0".into(), driver, speed_mbit: Some(10_000), rose, ..Nic::default() })
    };
    let tcp = |is_end| {
        let rose = gained(&[("ListenOverflows", 40), ("ListenDrops", 40), ("TCPTimeouts", 9)], is_end);
        Item::Counters(CounterGroup { group: "TcpExt".into(), rose, ..CounterGroup::default() })
    };
    let listener = |is_end: bool| {
        let local = parse_endpoint("*:8080");
        let rose = is_end.then_some(40);
        Item::Listener(Listener { local, socket: 9, accept_queue: 129, backlog: 128, drop_count: Some(45), rose })
    };
    let filter = |is_end: bool| {
        let [tool, family, table, chain] = ["nftables", "inet", "filter", "forward"].map(str::to_owned);
        let (verdict, text) = ("drop".to_owned(), "ip daddr 10.96.0.80 tcp dport 80 counter drop".to_owned());
        let (number, rose) = (Some(12), is_end.then_some(3));
        Item::Filter(Filter { tool, family, table, chain, verdict, text, number, rose, ..Filter::default() })
    };
    let of: [&dyn Fn(bool) -> Item; 5] = [&link, &nic, &tcp, &listener, &filter];
    of.into_iter().flat_map(|of| rising(of, in_network)).collect()
}

fn machine() -> Vec<NodeRecord> {
    let system = System {
        kernel: "6.12.0".into(),
        os: Some("Debian GNU/Linux 13 (trixie)".into()),
        hardware: Some("QEMU Standard PC".into()),
        cpu_count: 2,
        memory_bytes: 8 << 30,
        boot_id: None,
    };
    let clock = Clock {
        synchronized: false,
        max_error_us: 16_000_000,
        clocksource: Some("kvm-clock".into()),
        ..Clock::default()
    };
    let group = |name: &str, list: &[(&str, u64)]| {
        let (list, name) = (counters(list), name.to_owned());
        let of = move |is_end: bool| {
            let rose = if is_end { list.clone() } else { counters(&[]) };
            Item::Counters(CounterGroup { group: name.clone(), counters: list.clone(), rose })
        };
        rising(of, of_host)
    };
    let absent = Item::Absent(Absent { what: "ethtool eth1".into(), why: "No such device".into() });
    let omitted = Item::Omitted(Omitted { what: "namespaces".into(), count: Some(3), why: "time".into() });
    [both(&Item::System(system), of_host), both(&Item::Clock(clock), of_host)]
        .into_iter()
        .chain([
            group("cpu", &[("user", 70_000), ("system", 42_000), ("idle", 3_700), ("steal", 4_300)]),
            group("load", &[("load1", 1420)]),
            group("meminfo", &[("MemTotal", 8 << 30), ("MemAvailable", 3 << 30)]),
            group("vmstat", &[("oom_kill", 0)]),
            [of_host(When::Start, absent), of_host(When::End, omitted)],
        ])
        .flatten()
        .collect()
}
