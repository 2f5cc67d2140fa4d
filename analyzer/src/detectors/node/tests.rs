use ktrace_bundle::event::{PacketDir, Proto, TcpClose, When};
use ktrace_bundle::node::{Address, Cgroup, CounterGroup, Counters, Item, Netns, NodeRecord, Ports, Pressure, Qdisc};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{EventBuilder, an_event, in_network, of_host};

use super::super::{ranked, run};
use crate::capture::Capture;
use crate::capture::tests::{capture, capture_on};
use crate::finding::{Finding, Outcome, Severity};
use crate::kb::release;

const SHOP: &str = "203.0.113.8:443";

fn on(events: impl IntoIterator<Item = EventBuilder>, records: impl IntoIterator<Item = NodeRecord>) -> Capture {
    capture_on(events, |_| {}, records.into_iter().collect())
}

fn findings(c: &Capture) -> Vec<Finding> {
    ranked(&run(c, &release()).unwrap())
}

fn told(c: &Capture) -> Vec<(&'static str, Severity)> {
    findings(c).iter().map(|f| (f.rule, f.severity)).collect()
}

fn counters(list: &[(&str, u64)]) -> Counters {
    list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

/// At both looks, of which the second tells what rose.
fn rising(of: impl Fn(Counters) -> Item, list: &[(&str, u64)], at: fn(When, Item) -> NodeRecord) -> [NodeRecord; 2] {
    [at(When::Start, of(Counters::new())), at(When::End, of(counters(list)))]
}

/// Connects that the kernel turns down for want of a port.
fn without_port(to: &'static str) -> impl Iterator<Item = EventBuilder> {
    (0..4).flat_map(move |n| {
        let event = move || an_event().from("*").to(to).socket(n + 1);
        let syn = event().tcp_state(TcpState::Close, TcpState::SynSent).at_ms(n);
        let end = event().closed(TcpState::SynSent, TcpClose::default()).at_ms(n);
        [syn, end, event().connect().error("EADDRNOTAVAIL").at_us(n * 1000 + 10)]
    })
}

fn ports(tcp_used_count: u64, udp_used_count: u64) -> NodeRecord {
    let ports = Ports { low: 1000, high: 1099, tcp_used_count, udp_used_count, ..Ports::default() };
    in_network(When::End, Item::Ports(ports))
}

#[test]
fn without_a_measure_the_kernels_word_for_no_port_counts_with_ipv4_only() {
    let of = |to| told(&on(without_port(to), [ports(3, 0)]));
    assert_eq!(of(SHOP), [("net.ephemeral_ports_exhausted", Severity::Critical)]);
    assert_eq!(of("[2001:db8::8]:443"), [("tcp.unreachable", Severity::Critical)]);
    let full = told(&on(without_port("[2001:db8::8]:443"), [ports(99, 0)]));
    assert_eq!(full, [("net.ephemeral_ports_exhausted", Severity::Critical)]);
}

#[test]
fn a_send_that_would_block_is_for_want_of_a_port_only_if_there_is_none() {
    let sends =
        || (0..4).map(|n| an_event().from("*").to("10.0.0.9:4000").socket(n).udp_send().error("EAGAIN").at_ms(n));
    assert_eq!(told(&on(sends(), [ports(0, 3)])), []);
    let found = findings(&on(sends(), [ports(0, 98)]));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].title.contains("finds no local port to send to 10.0.0.9:4000: 4 of 4 datagrams failed"),
        "{}",
        found[0].title
    );
}

fn qdisc(dev: &'static str, kind: &'static str, parent: &'static str, drops: u64) -> [NodeRecord; 2] {
    let of = |rose| {
        let handle = format!("{kind}:");
        Item::Qdisc(Qdisc {
            dev: dev.into(),
            kind: kind.into(),
            handle,
            parent: parent.into(),
            counters: Counters::new(),
            rose,
        })
    };
    rising(of, &[("drops", drops), ("packets", 1000)], in_network)
}

#[test]
fn of_the_queues_of_an_interface_the_one_with_the_most_drops_is_told() {
    let queues =
        [qdisc("eth1", "mq", "root", 90), qdisc("eth1", "fq_codel", "1:1", 60), qdisc("eth2", "tbf", "root", 40)];
    let found = findings(&on([], queues.into_iter().flatten()));
    let titles: Vec<_> = found.iter().map(|f| f.title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "the queue `mq` of interface `eth1` of the node dropped 90 of 1090 packets (8.3 %)",
            "the queue `tbf` of interface `eth2` of the node dropped 40 of 1040 packets (3.8 %)",
        ]
    );
}

#[test]
fn busy_cpus_are_grave_only_if_many_tasks_wait_for_each() {
    let of = |load: u64| {
        let pressure = |rose: Option<u64>| Pressure {
            resource: "cpu".into(),
            some_rose_us: rose,
            elapsed_us: rose.map(|_| 100),
            ..Pressure::default()
        };
        let group = |group: &str, list: &[(&str, u64)]| {
            let (counters, group) = (counters(list), group.to_owned());
            of_host(When::End, Item::Counters(CounterGroup { group, rose: counters.clone(), counters }))
        };
        let psi = [(When::Start, None), (When::End, Some(95))];
        let psi = psi.map(|(when, rose)| of_host(when, Item::Pressure(pressure(rose))));
        told(&on([], psi.into_iter().chain([group("cpu", &[("user", 100)]), group("load", &[("load1", load)])])))
    };
    assert_eq!(of(600), [("host.pressure", Severity::Warning)]);
    assert_eq!(of(1000), [("host.pressure", Severity::Critical)]);
}

#[test]
fn packets_seen_to_be_dropped_are_told_where_nobody_counted_them() {
    let drop = |reason| an_event().dropped(Proto::Udp, PacketDir::Received, reason, 30).at_ms(5);
    let found = findings(&capture([drop("CPU_BACKLOG")]));
    assert_eq!(found[0].title, "the node dropped 30 packets that it took in: a receive queue was full");
    let found = findings(&capture([drop("QDISC_DROP")]));
    assert_eq!(found[0].title, "the queue `tbf` of interface `eth0` of the node dropped 30 packets");
    assert_eq!((found[0].severity, found[0].evidence.seqs()), (Severity::Warning, vec![1]));
}

#[test]
fn a_queue_first_seen_within_the_window_is_not_clear_if_it_ever_dropped_packets() {
    let [_, end] = qdisc("eth1", "tbf", "root", 90);
    let outcome = |drops: u64| {
        let mut record = end.clone();
        if let Item::Qdisc(q) = &mut record.item {
            (q.counters, q.rose) = (counters(&[("drops", drops)]), Counters::new());
        }
        let outcomes = run(&on([], [record]), &release()).unwrap();
        outcomes.into_iter().find(|(d, _)| d.id() == "net.qdisc_drops").map(|(_, o)| o).unwrap()
    };
    assert_eq!(outcome(0), Outcome::Clear);
    let Outcome::Inconclusive { why, .. } = outcome(90) else { panic!("it is not known") };
    assert!(why.starts_with("1 queue has dropped packets, and it is not known when"), "{why}");
}

#[test]
fn a_queue_that_loses_some_packets_is_no_reason_for_a_server_that_never_answers() {
    let queries = (0..12).map(|n| an_event().udp_send().socket(n + 1).at_ms(n * 1000));
    let queue = qdisc("eth0", "tbf", "root", 90);
    assert_eq!(
        told(&on(queries, queue)),
        [("dns.no_reply", Severity::Critical), ("net.qdisc_drops", Severity::Critical)]
    );
}

#[test]
fn a_hostile_interface_reaches_neither_the_terminal_nor_a_command() {
    let found = findings(&on([], qdisc("e\u{1b}[2J`; reboot #", "tbf", "root", 90)));
    assert!(found[0].title.contains(r"`e\u{1b}[2J"), "{}", found[0].title);
    assert!(found[0].next_steps.iter().filter_map(|s| s.command.as_deref()).all(|c| !c.contains("reboot")));
}

fn cgroup(id: u64, list: &[(&str, u64)]) -> [NodeRecord; 2] {
    let of = |rose| Item::Cgroup(Cgroup { cgroup_id: id, path: "/kubepods/pod7".into(), rose, ..Cgroup::default() });
    rising(of, list, of_host)
}

#[test]
fn a_cgroup_of_nobody_seen_is_named_by_its_path() {
    let found = findings(&on([], cgroup(99, &[("cpu.nr_periods", 100), ("cpu.nr_throttled", 12)])));
    assert_eq!(found[0].title, "cgroup `/kubepods/pod7` was held back by its CPU limit in 12 of 100 periods (12 %)");
    assert_eq!(told(&on([], cgroup(99, &[("cpu.nr_periods", 10), ("cpu.nr_throttled", 9)]))), []);
}

#[test]
fn the_share_from_which_on_a_pod_is_throttled_can_be_set() {
    let c = on([], cgroup(99, &[("cpu.nr_periods", 100), ("cpu.nr_throttled", 12)]));
    let mut kb = release();
    let mut at = |share: &str| {
        kb.set(&format!("pod.cpu_throttled.warning_share={share}")).unwrap();
        ranked(&run(&c, &kb).unwrap()).len()
    };
    assert_eq!((at("0.12"), at("0.13")), (1, 0));
}

#[test]
fn a_cgroup_that_began_within_the_window_is_a_warning_at_most() {
    let [_, end] = cgroup(99, &[]);
    let Item::Cgroup(mut young) = end.item.clone() else { panic!("a cgroup") };
    young.counters = counters(&[("cpu.nr_periods", 100), ("cpu.nr_throttled", 90)]);
    let found = findings(&on([], [NodeRecord { item: Item::Cgroup(young), ..end }]));
    assert_eq!((found[0].rule, found[0].severity), ("pod.cpu_throttled", Severity::Warning));
    assert!(found[0].title.ends_with("(90 %) since it began"), "{}", found[0].title);
}

#[test]
fn memory_that_all_wait_for_is_critical() {
    let of = |some, full| {
        let pressure = |rose: Option<u64>| Pressure {
            resource: "memory".into(),
            some_rose_us: rose.map(|_| some),
            full_rose_us: rose.map(|_| full),
            elapsed_us: rose.map(|_| 100),
            ..Pressure::default()
        };
        let [start, end] = [(When::Start, None), (When::End, Some(1))];
        told(&on([], [start, end].map(|(when, rose)| of_host(when, Item::Pressure(pressure(rose))))))
    };
    assert_eq!(of(9, 8), []);
    assert_eq!(of(30, 10), [("host.memory_pressure", Severity::Warning)]);
    assert_eq!(of(60, 30), [("host.memory_pressure", Severity::Critical)]);
}

/// The kubelet is refused at this address.
fn refused(to: &'static str) -> impl Iterator<Item = EventBuilder> {
    (0..4).flat_map(move |n| {
        let event = move || an_event().by("kubelet", 9).to(to).socket(n + 1);
        let end = event().closed(TcpState::SynSent, TcpClose::default()).error("ECONNREFUSED").at_ms(n * 1000 + 1);
        [event().tcp_state(TcpState::Close, TcpState::SynSent).at_ms(n * 1000), end]
    })
}

#[test]
fn an_address_that_is_no_pods_is_not_probed() {
    assert_eq!(told(&capture(refused("192.0.2.1:6443"))), [("tcp.refused", Severity::Critical)]);
    let address =
        Address { dev: "eth0".into(), addr: "10.42.1.30".parse().unwrap(), prefix_len: 24, flags: Vec::new() };
    let pod = [Item::Netns(Netns::default()), Item::Address(address)];
    let pod = pod.map(|item| NodeRecord { netns: Some(77), ..of_host(When::End, item) });
    let found = findings(&on(refused("10.42.1.30:8080"), pod));
    assert_eq!((found[0].rule, &found[0].symptoms), ("kubelet.probe_failing", &vec!["tcp.refused"]));
    assert!(
        found[0].title.contains("is refused by the pod in network namespace 77 at 10.42.1.30:8080"),
        "{}",
        found[0].title
    );
}

#[test]
fn where_the_node_was_not_looked_at_its_rules_say_so_and_the_verdict_stays() {
    let c = capture_on([], |m| m.head.sources.retain(|s| s.name == "conntrack"), Vec::new());
    let unjudged = run(&c, &release())
        .unwrap()
        .into_iter()
        .filter(|(_, o)| matches!(o, Outcome::Inconclusive { by_plan: true, .. }))
        .count();
    let needing = super::super::DETECTORS.iter().filter(|d| !d.needs().node.is_empty()).count();
    assert_eq!((unjudged, needing), (needing, 8));
    assert_eq!(crate::report::Report::new(&c, &release(), "b").unwrap().verdict.as_str(), "ok");
}

#[test]
fn judging_without_pressure_is_said() {
    let text = |c: &Capture| c.coverage.not_measured.join("\n");
    assert!(text(&capture([])).contains("this kernel tells none"), "{}", text(&capture([])));
}
