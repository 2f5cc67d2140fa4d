//! What the node looked like in each case of `node_cases.rs`, and what was tried on it meanwhile.

use ktrace_bundle::event::{Event, EventKind, PacketDir, Payload, Proto, RetransmitKind, When};
use ktrace_bundle::node::{
    Absent, Cgroup, CounterGroup, Counters, Item, Netns, NodeRecord, Ports, Pressure, Qdisc, Resolver, Route, System,
};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{START_BOOT_NS, in_network, of_host};

use crate::cases::{DNS, WEB};
use crate::scene::{Scene, is_drop};

pub const SHOP: &str = "203.0.113.8:443";
/// The cgroup of every built owner.
const CGROUP: u64 = 7712;

pub fn counters(list: &[(&str, u64)]) -> Counters {
    list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

/// A group of counters of the machine that was at `list` in the end and had gained that much.
fn group(name: &str, list: &[(&str, u64)]) -> [NodeRecord; 2] {
    let group = |rose| CounterGroup { group: name.to_owned(), counters: counters(list), rose };
    let [start, end] = [Counters::new(), counters(list)].map(|rose| Item::Counters(group(rose)));
    [of_host(When::Start, start), of_host(When::End, end)]
}

/// Things that look the same at both looks.
pub fn both(item: &Item, of: fn(When, Item) -> NodeRecord) -> [NodeRecord; 2] {
    [When::Start, When::End].map(|when| of(when, item.clone()))
}

pub fn own_netns() -> [NodeRecord; 2] {
    both(&Item::Netns(Netns { is_node: true, pid: Some(1), took_us: 900 }), in_network)
}

fn absent(what: &str, why: &str) -> NodeRecord {
    of_host(When::Start, Item::Absent(Absent { what: what.to_owned(), why: why.to_owned() }))
}

fn fine() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    (0..6).for_each(|n| {
        s.healthy_connection(1000 * n);
    });
    s
}

/// A machine of which a part could not be read.
pub fn without(what: &str) -> Scene {
    let mut s = fine();
    s.node(own_netns()).node([absent(what, "permission denied")]);
    s
}

fn ports(tcp_used_count: u64, busiest_count: u64) -> [NodeRecord; 2] {
    let ports = Ports {
        low: 32_768,
        high: 60_999,
        tcp_used_count,
        busiest: Some(ktrace_bundle::line::parse_endpoint(SHOP).unwrap()),
        busiest_count,
        ..Ports::default()
    };
    both(&Item::Ports(ports), in_network)
}

fn crawler() -> Scene {
    let mut s = Scene::of("crawler", 1847, SHOP);
    (0..8).for_each(|n| {
        s.healthy_connection(100 * n);
    });
    s.node(own_netns());
    s
}

pub fn ports_exhausted() -> Scene {
    let mut s = crawler();
    for n in 0..12 {
        let (socket, ms) = (s.socket(), 2000 + 500 * n);
        let event = |s: &Scene| s.event(ms * 1000 + 30, socket).from("*");
        let syn = event(&s).tcp_state(TcpState::Close, TcpState::SynSent).build();
        let end = event(&s).at_us(ms * 1000 + 80).tcp_state(TcpState::SynSent, TcpState::Close).build();
        let connect = event(&s).at_us(ms * 1000 + 90).connect().error("EADDRNOTAVAIL").build();
        s.push(syn).push(end).push(connect);
    }
    s.node(ports(28_232, 28_232));
    s
}

pub fn is_failed_connect(event: &Event) -> bool {
    matches!(&event.payload, Payload::Connect(c) if c.error.is_some())
        || matches!(&event.payload, Payload::TcpState(c) if (c.old, c.new) == (TcpState::SynSent, TcpState::Close))
}

pub fn ports_many() -> Scene {
    let mut s = crawler();
    s.node(ports(27_900, 400));
    s
}

pub fn ports_nearly() -> Scene {
    let mut s = crawler();
    s.node(ports(28_100, 28_050));
    s
}

pub fn softnet(dropped: u64) -> Scene {
    let mut s = fine();
    let all = [("processed", 130_000), ("time_squeeze", 41)];
    let with = |dropped: u64| [&all[..], &[("dropped", dropped)]].concat();
    s.node(own_netns()).node(group("softnet", &with(dropped)));
    s.node(group("softnet.cpu0", &[("processed", 9_000)])).node(group("softnet.cpu3", &with(dropped)));
    s
}

/// The node's only way out, with this queue.
fn queue(s: &mut Scene, kind: &str, packets: u64, drops: u64) {
    let route = Route {
        family: "inet".into(),
        table: 254,
        kind: "unicast".into(),
        via: Some("192.0.2.254".parse().unwrap()),
        dev: Some("eth0".into()),
        ..Route::default()
    };
    let qdisc = |rose| Qdisc {
        dev: "eth0".into(),
        kind: kind.to_owned(),
        handle: "1:".into(),
        parent: "root".into(),
        counters: counters(&[("packets", packets), ("drops", drops)]),
        rose,
    };
    s.node(own_netns()).node(both(&Item::Route(route), in_network)).node([
        in_network(When::Start, Item::Qdisc(qdisc(Counters::new()))),
        in_network(When::End, Item::Qdisc(qdisc(counters(&[("packets", packets), ("drops", drops)])))),
    ]);
}

pub fn qdisc_overflow() -> Scene {
    let mut s = Scene::of("backup", 1847, SHOP);
    for n in 0..4 {
        let socket = s.socket();
        let ms = 500 * n;
        s.syn(ms, socket).established(ms + 1, socket, 1);
        for k in 0..12 {
            let event = s.event((ms + 100 + 20 * k) * 1000, socket);
            let again = event.tcp_retransmit(RetransmitKind::Data, TcpState::Established).build();
            s.push(again);
        }
        s.closes(ms + 10_000, socket, 300, 24, 900);
    }
    queue(&mut s, "tbf", 1_120, 96);
    s
}

/// The same where the hook saw which packets were dropped: those of one of two flows that go out there.
pub fn qdisc_overflow_seen() -> Scene {
    let mut s = qdisc_overflow();
    let socket = 1001;
    s.drops(700, socket, Proto::Tcp, PacketDir::Sent, "QDISC_DROP", 60);
    s.drops(1700, socket, Proto::Tcp, PacketDir::Sent, "QDISC_DROP", 36);
    s
}

/// A queue that nobody could read, and packets that were seen to be dropped there.
pub fn qdisc_uncounted() -> Scene {
    let mut s = qdisc_overflow_seen();
    s.node.retain(|r| !matches!(r.item, Item::Qdisc(_)));
    s
}

/// The namespace that was read is not the one whose queue is full, and the packets that were dropped are lost.
pub fn qdisc_elsewhere_lossy() -> Scene {
    let mut s = qdisc_overflow_seen().losing(is_drop);
    s.node.iter_mut().filter(|r| matches!(r.item, Item::Qdisc(_))).for_each(|r| {
        r.netns = r.netns.map(|netns| netns + 1);
        if let Item::Qdisc(q) = &mut r.item {
            q.rose.insert("drops".to_owned(), 0);
        }
    });
    s
}

/// Packets of a flow that the full receive queue threw away.
pub fn softnet_seen() -> Scene {
    let mut s = softnet(412);
    let socket = s.socket();
    s.syn(20_000, socket).established(20_001, socket, 1).closes(40_000, socket, 400, 12, 900);
    s.drops(21_000, socket, Proto::Tcp, PacketDir::Received, "CPU_BACKLOG", 12);
    s
}

pub fn qdisc_telling_tcp() -> Scene {
    let mut s = fine();
    queue(&mut s, "fq_codel", 120_000, 40);
    s
}

pub fn cgroup(cpu: [u64; 3], memory: &[(&str, u64)]) -> [NodeRecord; 2] {
    let names = ["cpu.nr_periods", "cpu.nr_throttled", "cpu.throttled_usec"];
    let mut all: Counters = names.into_iter().zip(cpu).map(|(name, n)| (name.to_owned(), n)).collect();
    all.extend(counters(memory));
    let cgroup = |rose| Cgroup {
        cgroup_id: CGROUP,
        path: "/kubepods.slice/kubepods-burstable.slice".into(),
        quota_us: Some(50_000),
        period_us: Some(100_000),
        counters: all.clone(),
        rose,
    };
    [of_host(When::Start, Item::Cgroup(cgroup(Counters::new()))), of_host(When::End, Item::Cgroup(cgroup(all.clone())))]
}

pub fn throttled(nr_throttled: u64) -> Scene {
    let mut s = fine();
    s.node(cgroup([600, nr_throttled, nr_throttled * 61_000], &[]));
    s
}

/// Pressure of a minute, in shares of a thousand.
pub fn pressure(resource: &str, cgroup_id: Option<u64>, some: u64, full: u64) -> [NodeRecord; 2] {
    let pressure = |rose: Option<u64>, full: Option<u64>| Pressure {
        resource: resource.to_owned(),
        cgroup_id,
        some_total_us: 5_000_000_000,
        full_total_us: Some(1_000_000_000),
        some_rose_us: rose,
        full_rose_us: full,
        elapsed_us: rose.map(|_| 60_000_000),
        ..Pressure::default()
    };
    let end = pressure(Some(some * 60_000), Some(full * 60_000));
    [of_host(When::Start, Item::Pressure(pressure(None, None))), of_host(When::End, Item::Pressure(end))]
}

/// Two CPUs that were idle for so many thousandths, and stolen for as many, at this load (times 100).
fn cpus(s: &mut Scene, idle: u64, steal: u64, load: u64) {
    let user = 1000 - idle - steal;
    let system = System { kernel: "6.12.0".into(), cpu_count: 2, memory_bytes: 8 << 30, ..System::default() };
    s.node(own_netns())
        .node(group("cpu", &[("user", user * 120), ("idle", idle * 120), ("steal", steal * 120)]))
        .node(group("load", &[("load1", load)]))
        .node(both(&Item::System(system), of_host));
}

pub fn cpu_pressure(some: u64, idle: u64) -> Scene {
    let mut s = fine();
    cpus(&mut s, idle, 0, 1420);
    s.node(pressure("cpu", None, some, 0));
    s
}

pub fn cpu_without_psi(idle: u64, load: u64) -> Scene {
    let mut s = fine();
    cpus(&mut s, idle, 0, load);
    s.node([absent("/proc/pressure/cpu", "EOPNOTSUPP"), absent("/proc/pressure/memory", "EOPNOTSUPP")]);
    s
}

pub fn stolen(steal: u64) -> Scene {
    let mut s = fine();
    cpus(&mut s, 300, steal, 150);
    s
}

pub fn memory(vmstat: &[(&str, u64)], of_pod: &[(&str, u64)]) -> Scene {
    let mut s = fine();
    s.node(own_netns()).node(group("vmstat", &[&[("oom_kill", 0), ("pgscan_direct", 40)], vmstat].concat()));
    s.node(cgroup([600, 3, 9000], of_pod));
    s
}

/// A pod that waits for memory in its own cgroup.
pub fn memory_of_a_pod(some: u64, full: u64) -> Scene {
    let mut s = memory(&[], &[("memory.max", 900)]);
    s.node(pressure("memory", None, 4, 0)).node(pressure("memory", Some(CGROUP), some, full));
    s
}

pub fn resolver(ndots: u64, search_count: u64) -> [NodeRecord; 2] {
    let resolver = Resolver {
        mnt_ns: 4_026_532_201,
        pid: Some(1847),
        nameservers: vec!["10.96.0.10".into()],
        search_count,
        ndots,
        options: vec![format!("ndots:{ndots}")],
        ..Resolver::default()
    };
    both(&Item::Resolver(resolver), of_host)
}

/// Each name is asked for under three domains first, for A and AAAA, every `every_ms`, for so long.
pub fn searching(every_ms: u64, for_ms: u64) -> Scene {
    let mut s = Scene::of("api", 1847, DNS);
    let mut ms = 10;
    while ms < for_ms {
        for (step, bytes) in [60, 56, 52, 38].into_iter().enumerate() {
            let (socket, us) = (s.socket(), (ms + 3 * step as u64) * 1000);
            for (us, is_send) in [(us, true), (us + 20, true), (us + 1900, false), (us + 1990, false)] {
                let event = s.event(us, socket);
                let event = if is_send { event.udp_send().bytes(bytes) } else { event.udp_recv() };
                s.push(event.build());
            }
        }
        ms += every_ms;
    }
    s.node(resolver(5, 3));
    s
}

/// The same capture, had its window been this long.
pub fn for_ms(mut scene: Scene, ms: u64) -> Scene {
    scene.manifest(move |m| {
        m.duration_ns = ms * 1_000_000;
        m.head.clocks.end_boot_ns = Some(START_BOOT_NS + m.duration_ns);
        m.end_at = m.head.start_at + chrono::TimeDelta::milliseconds(ms.cast_signed());
    });
    scene
}

pub fn search_unread() -> Scene {
    let mut s = for_ms(searching(300, 3000), 3000);
    s.node.retain(|r| !matches!(r.item, Item::Resolver(_)));
    s.node([absent("resolv.conf", "permission denied")]);
    s
}

/// The file that was read is of another mount namespace: who asked had gone by then.
pub fn search_of_others() -> Scene {
    let mut s = for_ms(searching(300, 3000), 3000);
    for record in &mut s.node {
        if let Item::Resolver(resolver) = &mut record.item {
            resolver.mnt_ns += 1;
        }
    }
    s
}

pub fn is_recv(event: &Event) -> bool {
    event.payload.kind() == EventKind::UdpRecv
}
