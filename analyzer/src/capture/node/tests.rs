use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::node::{
    Address, CounterGroup, Counters, Filter, Neighbour, Netns, Ports, Qdisc, Route, Sockets, System,
};
use ktrace_bundle::testing::{NETNS, a_head, in_network, of_host};

use super::*;

/// A machine on which nothing is wrong, and of which everything was read.
pub(in crate::capture) fn a_node() -> Vec<NodeRecord> {
    let system = System { cpu_count: 2, ..System::default() };
    let groups = [
        ("load", [("load1", 20), ("load5", 30)]),
        ("cpu", [("user", 10_000), ("idle", 90_000)]),
        ("vmstat", [("pgscan_direct", 0), ("pgmajfault", 3)]),
        ("softnet", [("processed", 900), ("time_squeeze", 1)]),
    ];
    let counted = |(group, list): (&str, [(&str, u64); 2])| {
        Item::Counters(CounterGroup { group: group.into(), counters: counters(&list), rose: counters(&list) })
    };
    let ports = Ports { low: 32_768, high: 60_999, tcp_used_count: 12, ..Ports::default() };
    let resolver = Resolver { mnt_ns: 4_026_532_201, ndots: 1, ..Resolver::default() };
    [When::Start, When::End]
        .into_iter()
        .flat_map(|when| {
            let netns = Netns { is_node: true, ..Netns::default() };
            let network = [Item::Netns(netns), Item::Ports(ports.clone()), Item::Sockets(Sockets::default())]
                .map(|item| in_network(when, item));
            let groups = groups.map(counted).map(|item| of_host(when, item));
            let rest = [
                NodeRecord { when, ..route(None, "eth0", 0) },
                qdisc(when, 0, 0),
                of_host(when, Item::Resolver(resolver.clone())),
                of_host(when, Item::System(system.clone())),
            ];
            network.into_iter().chain(groups).chain(rest)
        })
        .collect()
}

/// Its sources, as the manifest has them.
pub(in crate::capture) fn sources() -> [SourceReport; 3] {
    ["node_network", "node_host", "node_filters"].map(|name| SourceReport {
        name: name.into(),
        outcome: "answered".into(),
        ..SourceReport::default()
    })
}

fn counters(list: &[(&str, u64)]) -> Counters {
    list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

fn qdisc(when: When, drops: u64, rose: u64) -> NodeRecord {
    let item = Qdisc {
        dev: "eth0".into(),
        kind: "tbf".into(),
        handle: "1:".into(),
        parent: "root".into(),
        counters: counters(&[("drops", drops)]),
        rose: counters(&[("drops", rose)]),
    };
    in_network(when, Item::Qdisc(item))
}

fn node(records: impl IntoIterator<Item = NodeRecord>) -> Node {
    let mut node = Node::default();
    records.into_iter().for_each(|r| node.push(r));
    node
}

fn route(dst: Option<&str>, dev: &str, metric: u32) -> NodeRecord {
    let route = Route {
        family: "inet".into(),
        table: 254,
        kind: "unicast".into(),
        dst: dst.map(str::to_owned),
        dev: Some(dev.into()),
        metric: Some(metric),
        ..Route::default()
    };
    in_network(When::End, Item::Route(route))
}

fn filter(when: When, verdict: &str, rose: Option<u64>) -> NodeRecord {
    let filter = Filter { number: Some(7), verdict: verdict.into(), rose, ..Filter::default() };
    in_network(when, Item::Filter(filter))
}

fn gap(part: NodePart, node: &Node, sources: &[(&str, &str)]) -> (Option<String>, bool) {
    let mut head = a_head();
    let source = |(name, outcome): &(&str, &str)| SourceReport {
        name: (*name).into(),
        outcome: (*outcome).into(),
        ..SourceReport::default()
    };
    head.sources = sources.iter().map(source).collect();
    let gaps = NodeGaps::new(node, Some(&head));
    (gaps.gap(&[part]), gaps.is_by_plan(&[part]))
}

const ANSWERED: &[(&str, &str)] =
    &[("node_network", "answered"), ("node_host", "answered"), ("node_filters", "answered")];

#[test]
fn a_difference_is_about_the_window_only_if_the_thing_was_seen_at_both_looks() {
    let rose = |node: &Node| {
        let place = node.place(NETNS).unwrap();
        place.qdiscs.values().next().unwrap().rose("drops")
    };
    assert_eq!(rose(&node([qdisc(When::Start, 5, 0), qdisc(When::End, 12, 7)])), Some(7));
    assert_eq!(rose(&node([qdisc(When::End, 12, 12)])), None);
}

#[test]
fn an_address_takes_the_longest_prefix_and_then_the_lowest_metric() {
    let node = node([
        route(None, "eth0", 100),
        route(Some("10.42.0.0/16"), "cni1", 0),
        route(Some("10.42.1.0/24"), "slow", 300),
        route(Some("10.42.1.0/24"), "cni0", 20),
        route(Some("10.42.1.0/240"), "odd", 0),
    ]);
    let place = node.place(NETNS).unwrap();
    let dev = |addr: &str| place.route_to(addr.parse().unwrap()).and_then(|r| r.dev.as_deref());
    assert_eq!(dev("10.42.1.15"), Some("cni0"));
    assert_eq!(dev("10.42.9.1"), Some("cni1"));
    assert_eq!(dev("192.0.2.1"), Some("eth0"));
    assert_eq!(dev("fd00::1"), None);
    assert_eq!(place.has_default_route("inet6"), Some(false));
}

#[test]
fn neighbours_are_found_by_address_and_by_what_became_of_them() {
    let neighbour = |addr: &str, state: &str| {
        let neighbour = Neighbour { dev: "eth0".into(), addr: addr.parse().unwrap(), state: state.into() };
        in_network(When::End, Item::Neighbour(neighbour))
    };
    let node = node([neighbour("10.0.0.7", "failed"), neighbour("10.0.0.8", "reachable")]);
    let place = node.place(NETNS).unwrap();
    assert_eq!(place.failed_neighbours().map(|n| n.addr.to_string()).collect::<Vec<_>>(), ["10.0.0.7"]);
    let at: Vec<_> = place.neighbours_at("10.0.0.8".parse().unwrap()).map(|n| n.state.as_str()).collect();
    assert_eq!(at, ["reachable"]);
}

#[test]
fn only_filters_whose_counter_rose_in_the_window_are_told() {
    let node = node([filter(When::Start, "policy drop", None), filter(When::End, "policy drop", Some(3))]);
    let place = node.place(NETNS).unwrap();
    assert_eq!(place.dropping_filters().map(|(f, n)| (f.number, n)).collect::<Vec<_>>(), [(Some(7), 3)]);
    let other = self::node([filter(When::Start, "accept", None), filter(When::End, "accept", Some(3))]);
    assert_eq!(other.place(NETNS).unwrap().dropping_filters().count(), 0);
}

#[test]
fn an_address_of_another_namespace_is_that_of_a_pod() {
    let address = |netns, addr: &str| {
        let address = Address { dev: "eth0".into(), addr: addr.parse().unwrap(), prefix_len: 24, flags: Vec::new() };
        NodeRecord { netns: Some(netns), ..of_host(When::End, Item::Address(address)) }
    };
    let own = in_network(When::End, Item::Netns(Netns { is_node: true, ..Netns::default() }));
    let node = node([own, address(NETNS, "192.0.2.1"), address(7, "10.42.1.15"), address(7, "127.0.0.1")]);
    let at = |addr: &str| node.netns_of(addr.parse().unwrap());
    assert_eq!((at("10.42.1.15"), at("192.0.2.1"), at("127.0.0.1")), (Some(7), None, None));
    assert_eq!(node.own().map(|(netns, _)| netns), Some(NETNS));
}

#[test]
fn a_part_that_was_not_read_says_why() {
    let empty = Node::default();
    let told = |part, node: &Node, sources| gap(part, node, sources).0.unwrap_or_default();
    assert_eq!(
        gap(NodePart::Qdiscs, &empty, &[]),
        (Some("this capture did not look at the node's network".into()), true)
    );
    assert_eq!(
        gap(NodePart::Softnet, &empty, &[("node_host", "not_requested")]),
        (Some("the node's state: not requested".into()), true)
    );
    assert_eq!(told(NodePart::Cpu, &empty, &[("node_host", "failed")]), "the node's state could not be read");
    assert_eq!(told(NodePart::Qdiscs, &empty, ANSWERED), "counters of queueing disciplines: not in this bundle");
    let absent = Item::Absent(Absent { what: "qdiscs".into(), why: "EPERM\u{1b}[2J".into() });
    assert_eq!(
        told(NodePart::Qdiscs, &node([in_network(When::End, absent)]), ANSWERED),
        "counters of queueing disciplines: could not be read: EPERM\\u{1b}[2J"
    );
    let omitted = Item::Omitted(Omitted { what: "namespaces".into(), count: Some(3), why: "time".into() });
    let cut = node([qdisc(When::Start, 1, 0), qdisc(When::End, 1, 0), of_host(When::End, omitted)]);
    assert_eq!(told(NodePart::Qdiscs, &cut, ANSWERED), "3 namespaces of the node were left out: no time");
    let whole = node([qdisc(When::Start, 1, 0), qdisc(When::End, 1, 0)]);
    assert_eq!(gap(NodePart::Qdiscs, &whole, ANSWERED), (None, false));
}

#[test]
fn lines_without_end_do_not_fill_the_memory() {
    let line = |n: u64| {
        let group = CounterGroup { group: format!("g{n}"), ..CounterGroup::default() };
        in_network(When::End, Item::Counters(group))
    };
    let node = node((0..MAX_THINGS + 10).map(line));
    assert_eq!((node.place(NETNS).unwrap().counters.len() as u64, node.overflow), (MAX_THINGS, 10));
}
