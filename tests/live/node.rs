//! How the node is: a namespace with a fault of each kind that a bundle tells of its network, and pods that are held back.

use std::net::IpAddr;
use std::path::Path;

use ktrace_bundle::event::{Endpoint, When};
use ktrace_bundle::node::{CounterGroup, Item, Link, Listener, Neighbour, NodeRecord, Qdisc, Route, Rule};

use crate::capture::{Bundle, Capture};
use crate::evidence::{run, script};
use crate::nat::on_the_node;
use crate::nat_backends::{CONNECTS, connects, listening};
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::wait::{DEADLINE, until};
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        the_bundle_says_what_the_network_was_like_and_what_its_counters_gained,
        settings_are_those_of_the_namespace_that_they_are_told_of,
        without_it_nothing_is_looked_at,
        what_ipvs_has_counted_is_told,
    ]
    .into_iter()
    .map(|test| if test.name == "what_ipvs_has_counted_is_told" { test.unless(has_no_ipvs) } else { test })
    .collect()
}

fn has_no_ipvs() -> Option<String> {
    (!Path::new("/proc/net/ip_vs_stats_percpu").exists())
        .then(|| "`ip_vs` is not loaded: a virtual machine has it".to_owned())
}

/// Lines of a namespace at one of the two looks.
fn items(bundle: &Bundle, netns: u32, when: When) -> Vec<&Item> {
    let is_its = |it: &&NodeRecord| it.netns == Some(netns) && it.when == when;
    bundle.node.iter().filter(is_its).map(|it| &it.item).collect()
}

/// The one thing that is so.
fn only<'a, T>(items: &[&'a Item], is_it: impl Fn(&'a Item) -> Option<T>) -> T {
    let mut found: Vec<_> = items.iter().filter_map(|it| is_it(it)).collect();
    assert_eq!(found.len(), 1, "{items:#?}");
    found.remove(0)
}

fn the_bundle_says_what_the_network_was_like_and_what_its_counters_gained() {
    let lab = Lab::new();
    lab.fault("ip daddr 10.77.2.2 udp dport 7009 counter drop");
    let node = &lab.node;
    node.run("ip route add blackhole 10.66.0.0/16");
    node.run("ip rule add from 10.55.0.0/16 table 100 priority 1000");
    node.run("ip route add 10.44.0.0/16 via 10.77.2.2 dev sv0 table 100 mtu 1300");
    node.run("tc qdisc add dev sv0 root handle 7: tbf rate 8kbit burst 2000 limit 2000");
    let capture = on_the_node(&lab, &[]);
    // nobody has the address; a rule throws away, and so does the queue
    let lost = |to: &str| format!("udp-paced --to {to} --count 40 --interval-us 100 --bytes 600");
    for to in ["10.77.2.2:7009", "10.77.2.2:7010", "10.77.1.99:7009"] {
        Program::run(lab.client.traffic(&lost(to)));
    }
    Program::run(lab.node.traffic(&lost("10.77.1.99:7009")));
    until("a neighbour that failed", DEADLINE, || {
        node.run("ip neigh show 10.77.1.99").contains("FAILED").then_some(())
    });
    let bundle = capture.stop();

    let own = node.inode();
    let [start, end] = [When::Start, When::End].map(|when| items(&bundle, own, when));
    let link: &Link =
        only(&end, |it| if let Item::Link(it) = it { Some(it).filter(|it| it.dev == "cl0") } else { None });
    assert_eq!((link.kind.as_deref(), link.up, link.operstate.as_str(), link.mtu), (Some("veth"), true, "up", 1500));
    assert!(link.rose["rx_packets"] >= 80, "{link:?}");
    let qdisc: &Qdisc =
        only(&end, |it| if let Item::Qdisc(it) = it { Some(it).filter(|it| it.kind == "tbf") } else { None });
    assert_eq!((qdisc.dev.as_str(), qdisc.handle.as_str(), qdisc.parent.as_str()), ("sv0", "7:", "root"));
    assert!(qdisc.rose["drops"] > 10 && qdisc.counters["drops"] >= qdisc.rose["drops"], "{qdisc:?}");
    let dead: &Neighbour = only(&end, |it| {
        if let Item::Neighbour(it) = it { Some(it).filter(|it| it.addr == IpAddr::from([10, 77, 1, 99])) } else { None }
    });
    assert_eq!((dead.dev.as_str(), dead.state.as_str()), ("cl0", "failed"));
    let route = |dst: &str| -> &Route {
        only(
            &start,
            |it| if let Item::Route(it) = it { Some(it).filter(|it| it.dst.as_deref() == Some(dst)) } else { None },
        )
    };
    assert_eq!(route("10.66.0.0/16").kind, "blackhole");
    let special = Route {
        family: "inet".into(),
        table: 100,
        kind: "unicast".into(),
        dst: Some("10.44.0.0/16".into()),
        via: Some(SERVER4),
        dev: Some("sv0".into()),
        mtu: Some(1300),
        ..Route::default()
    };
    assert_eq!(*route("10.44.0.0/16"), special);
    let rule: &Rule =
        only(&start, |it| if let Item::Rule(it) = it { Some(it).filter(|it| it.priority == 1000) } else { None });
    assert_eq!((rule.from.as_deref(), rule.table, rule.action.as_str()), (Some("10.55.0.0/16"), Some(100), "to_table"));
    let filter = only(&end, |it| if let Item::Filter(it) = it { Some(it) } else { None });
    let words = ("drop", "ip daddr 10.77.2.2 udp dport 7009 drop", Some("forward"), Some(40));
    assert_eq!((filter.verdict.as_str(), filter.text.as_str(), filter.hook.as_deref(), filter.rose), words);
    let group = |name: &str| {
        only(&end, |it| if let Item::Counters(it) = it { Some(it).filter(|it| it.group == name) } else { None })
    };
    assert!(group("Ip").rose["ForwDatagrams"] >= 40, "{:?}", group("Ip"));
    assert!(only(&end, |it| if let Item::Netns(it) = it { Some(it) } else { None }).is_node);
    // sources answered, and the machine is told once
    for source in bundle.manifest.head.sources.iter().filter(|it| it.name.starts_with("node_")) {
        assert_eq!(source.outcome, "answered", "{source:?}");
    }
    let host: Vec<_> = bundle.node.iter().filter(|it| it.netns.is_none()).map(|it| &it.item).collect();
    assert!(host.iter().any(|it| matches!(it, Item::System(it) if it.cpu_count > 0)), "{host:?}");
    assert!(host.iter().any(|it| matches!(it, Item::Resolver(it) if it.is_node)), "{host:?}");
    a_full_listener_is_told(&lab);
}

/// In a namespace that is not the node's, found by a socket that was seen in it.
fn a_full_listener_is_told(lab: &Lab) {
    let server = script(&lab.server, &format!("listen {SERVER4} 8080 1"));
    server.wait_for_lines(1);
    let capture = Capture::start();
    run(&lab.client, &format!("connects {SERVER4} 8080 4 0.5"));
    let bundle = capture.stop();
    drop(server);
    let end = items(&bundle, lab.server.inode(), When::End);
    let listener: &Listener = only(&end, |it| if let Item::Listener(it) = it { Some(it) } else { None });
    assert_eq!(listener.local, Some(Endpoint::new(SERVER4, 8080)));
    assert_eq!((listener.accept_queue, listener.backlog), (2, 1));
    assert!(listener.rose > Some(0), "{listener:?}");
}

fn settings_are_those_of_the_namespace_that_they_are_told_of() {
    let lab = Lab::new();
    let capture = Capture::start();
    Program::run(lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 2")));
    let held = lab.client.start("udp-echo --listen 10.77.1.2:5353");
    held.ready();
    let bundle = capture.stop();
    drop(held);
    let setting = |netns: u32, name: &str| {
        let mut values = items(&bundle, netns, When::End).into_iter().filter_map(|it| match it {
            Item::Sysctls(it) => it.values.get(name).cloned(),
            _ => None,
        });
        values.next()
    };
    // the lab sets it
    assert_eq!(setting(lab.client.inode(), "net.ipv4.ip_local_port_range").as_deref(), Some("10000 65000"));
    let own = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let own = own.split_whitespace().collect::<Vec<_>>().join(" ");
    let node = bundle.node.iter().find(|it| matches!(&it.item, Item::Netns(it) if it.is_node)).unwrap();
    assert_eq!(setting(node.netns.unwrap(), "net.ipv4.ip_local_port_range"), Some(own));
}

fn what_ipvs_has_counted_is_told() {
    const VIP: &str = "10.96.0.90";
    let lab = Lab::new();
    lab.node.run(&format!("ip addr add {VIP}/32 dev lo"));
    lab.node.run(&format!("ipvsadm -A -t {VIP}:80 -s rr"));
    lab.node.run(&format!("ipvsadm -a -t {VIP}:80 -r {SERVER4}:8080 -m"));
    let _servers = listening(&lab, &[8080]);
    connects(&lab, VIP);
    let capture = on_the_node(&lab, &[]);
    connects(&lab, VIP);
    let bundle = capture.stop();
    let group = |when| -> &CounterGroup {
        only(&items(&bundle, lab.node.inode(), when), |it| {
            if let Item::Counters(it) = it { Some(it).filter(|it| it.group == "ipvs") } else { None }
        })
    };
    assert_eq!((group(When::Start).counters["conns"], group(When::End).rose["conns"]), (CONNECTS, CONNECTS));
    // a SYN, what follows the answer, and the FIN of each
    assert!(group(When::End).rose["in_packets"] >= 3 * CONNECTS, "{:?}", group(When::End));
    let service =
        bundle.services.services.iter().find(|it| it.vip == Endpoint::new([10, 96, 0, 90].into(), 80)).unwrap();
    let backends: Vec<_> = service.backends.iter().map(|it| (it.end.to_string(), it.from.as_slice())).collect();
    assert_eq!(backends, [(format!("{SERVER4}:8080"), &["ipvs".to_owned()][..])]);
}

fn without_it_nothing_is_looked_at() {
    let capture = Capture::with(&["--duration", "120s", "--with-node=false"]);
    let bundle = capture.stop();
    assert_eq!(bundle.node, []);
    let sources = &bundle.manifest.head.sources;
    let outcomes: Vec<_> =
        sources.iter().filter(|it| it.name.starts_with("node_")).map(|it| it.outcome.as_str()).collect();
    assert_eq!(outcomes, ["not_requested"; 3]);
}
