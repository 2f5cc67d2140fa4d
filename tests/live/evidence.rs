//! What tells why a connection does not work: packets that the kernel throws away, resets, waits, listeners without room. Each
//! against what nft, the kernel's own counters and the programs say.

use ktrace_bundle::event::{Dropped, Errno, Event, ListenOverflow, PacketDir, Payload, Proto, Reset, Stall, StallKind};
use ktrace_bundle::manifest::HookOutcome;
use ktrace_bundle::tcp::TcpState;

use crate::analyze::analyze;
use crate::capture::{Bundle, Capture};
use crate::net::{Lab, Netns, SERVER4, SERVER6};
use crate::program::Program;
use crate::wait::{boot_ns, until_boot_ns};
use crate::{Test, tests};

const SCRIPT: &str = include_str!("evidence/client.py");
const S: u64 = 1_000_000_000;

pub fn tests() -> Vec<Test> {
    tests![
        every_packet_that_a_rule_drops_is_counted_with_its_flow_and_reason,
        a_flood_from_many_ports_is_counted_to_the_packet,
        a_packet_to_a_closed_port_is_of_the_namespace_that_it_came_to,
        drops_are_filtered_like_other_events,
        drops_can_be_left_out,
        a_refused_connect_is_a_reset_at_both_ends,
        a_connection_that_is_aborted_is_a_reset_at_both_ends,
        a_listener_without_room_is_told_with_what_it_turned_away,
        what_was_turned_away_before_the_window_is_not_told,
        a_peer_that_does_not_read_is_told_at_both_ends,
        a_peer_that_becomes_unreachable_is_told_and_found,
    ]
}

/// `client.py` in this namespace.
pub fn script(netns: &Netns, args: &str) -> Program {
    let mut command = netns.command("python3");
    command.args(["-I", "-S", "-c", SCRIPT]).args(args.split_whitespace());
    Program::start(command)
}

/// The same, run to its end.
pub fn run(netns: &Netns, args: &str) {
    let ended = script(netns, args).wait();
    assert!(ended.status.success(), "{ended:?}");
}

fn drops(bundle: &Bundle, port: u16) -> impl Iterator<Item = (&Event, &Dropped)> {
    bundle.events.iter().filter_map(move |event| match &event.payload {
        Payload::Drop(drop) if [event.id.local.port, event.id.remote.port].contains(&Some(port)) => Some((event, drop)),
        _ => None,
    })
}

fn resets(bundle: &Bundle, port: u16) -> Vec<(&Event, &Reset)> {
    let all = bundle.events.iter().filter_map(|event| match &event.payload {
        Payload::TcpReset(reset) => Some((event, reset)),
        _ => None,
    });
    all.filter(|(event, _)| [event.id.local.port, event.id.remote.port].contains(&Some(port))).collect()
}

fn overflows(bundle: &Bundle, netns: u32) -> Vec<(&Event, &ListenOverflow)> {
    let all = bundle.events.iter().filter_map(|event| match &event.payload {
        Payload::ListenOverflow(overflow) => Some((event, overflow)),
        _ => None,
    });
    all.filter(|(event, _)| event.id.netns == netns).collect()
}

fn stalls(bundle: &Bundle, netns: u32, kind: StallKind) -> Vec<(&Event, &Stall)> {
    let all = bundle.events.iter().filter_map(|event| match &event.payload {
        Payload::TcpStall(stall) => Some((event, stall)),
        _ => None,
    });
    all.filter(|(event, stall)| event.id.netns == netns && stall.kind == kind).collect()
}

fn pid(event: &Event) -> Option<u32> {
    event.id.owner.value().map(|owner| owner.pid)
}

/// Whether this kernel has such a type.
fn has_type(name: &str) -> bool {
    let types = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    types
        .windows(name.len() + 2)
        .any(|part| part[0] == 0 && &part[1..=name.len()] == name.as_bytes() && part[name.len() + 1] == 0)
}

/// Whether it is told why packets are thrown away (Linux 5.17). The name is the same on every kernel, the number is not.
fn tells_reasons(bundle: &Bundle) -> bool {
    bundle.variant("drop") != "tp_btf_2" && has_type("skb_drop_reason")
}

/// What a counter of `/proc/net/netstat` says in this namespace.
fn ext_counter(netns: &Netns, name: &str) -> u64 {
    counter(netns, "TcpExt", name)
}

fn counter(netns: &Netns, group: &str, name: &str) -> u64 {
    let text = netns.run("cat /proc/net/netstat /proc/net/snmp");
    let mut lines = text.lines().filter(|line| line.split(':').next() == Some(group));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|it| it == name).unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

fn every_packet_that_a_rule_drops_is_counted_with_its_flow_and_reason() {
    let lab = Lab::new();
    lab.fault("udp dport 9000 counter drop");
    let capture = Capture::start();
    for server in [SERVER4, SERVER6] {
        run(&lab.client, &format!("flood {server} 9000 3 5"));
    }
    let bundle = capture.stop();

    let mut counted = 0;
    for (event, drop) in drops(&bundle, 9000) {
        assert_eq!((drop.dir, event.id.proto, event.id.netns), (PacketDir::Forwarded, Proto::Udp, lab.node.inode()));
        assert_eq!(event.id.remote.port, Some(9000), "{event:?}");
        assert_eq!(drop.reason.as_deref(), tells_reasons(&bundle).then_some("NETFILTER_DROP"), "{event:?}");
        assert_eq!(drop.dev.as_deref(), Some("cl0"), "{event:?}");
        eprintln!("{:?} is number {:?} on this kernel", drop.reason, drop.reason_id);
        assert!(drop.first_boot_ns.is_some_and(|first| first <= event.boot_ns), "{event:?}");
        let headers = if event.id.remote.addr == Some(SERVER4) { 28 } else { 48 };
        assert_eq!(drop.bytes, Some(drop.count * (30 + headers)), "{event:?}");
        counted += drop.count;
    }
    assert_eq!((counted, lab.faulted_packets()), (30, 30));
}

fn a_flood_from_many_ports_is_counted_to_the_packet() {
    let lab = Lab::new();
    lab.fault("udp dport 9000 counter drop");
    let capture = Capture::start();
    run(&lab.client, &format!("flood {SERVER4} 9000 6000 3"));
    let bundle = capture.stop();

    let found: Vec<_> = drops(&bundle, 9000).collect();
    assert_eq!(found.iter().map(|(_, drop)| drop.count).sum::<u64>(), 18_000);
    assert_eq!(lab.faulted_packets(), 18_000);
    let without_port = found.iter().filter(|(event, _)| event.id.local.port.is_none()).count();
    assert!(found.len() < 6000 && without_port > 0, "{} lines, {without_port} without a port", found.len());
}

fn a_packet_to_a_closed_port_is_of_the_namespace_that_it_came_to() {
    let lab = Lab::new();
    let capture = Capture::start();
    run(&lab.client, &format!("flood {SERVER4} 9001 1 4"));
    let bundle = capture.stop();

    let found: Vec<_> = drops(&bundle, 9001).collect();
    assert_eq!(found.iter().map(|(_, drop)| drop.count).sum::<u64>(), 4, "{found:?}");
    for (event, drop) in found {
        assert_eq!((drop.dir, event.id.netns), (PacketDir::Received, lab.server.inode()));
        assert_eq!((event.id.local.addr, event.id.local.port), (Some(SERVER4), Some(9001)));
        assert_eq!(drop.reason.as_deref(), tells_reasons(&bundle).then_some("NO_SOCKET"));
    }
}

fn drops_are_filtered_like_other_events() {
    let lab = Lab::new();
    lab.fault("udp dport { 9000, 9002 } counter drop");
    let capture = Capture::with(&["--duration", "60s", "--ports", "9002"]);
    for port in [9000, 9002] {
        run(&lab.client, &format!("flood {SERVER4} {port} 2 5"));
    }
    let bundle = capture.stop();

    assert_eq!(drops(&bundle, 9002).map(|(_, drop)| drop.count).sum::<u64>(), 10);
    assert_eq!(drops(&bundle, 9000).count(), 0);
    assert_eq!(lab.faulted_packets(), 20);
}

fn drops_can_be_left_out() {
    let lab = Lab::new();
    lab.fault("udp dport 9000 counter drop");
    let capture = Capture::with(&["--duration", "60s", "--with-drops=false"]);
    run(&lab.client, &format!("flood {SERVER4} 9000 1 5"));
    let bundle = capture.stop();

    assert_eq!((drops(&bundle, 9000).count(), lab.faulted_packets()), (0, 5));
    let hook = bundle.manifest.head.hooks.iter().find(|hook| hook.name == "drop").unwrap();
    assert_eq!(hook.outcome, HookOutcome::NotRequested);
}

fn a_refused_connect_is_a_reset_at_both_ends() {
    let lab = Lab::new();
    let capture = Capture::start();
    let client = script(&lab.client, &format!("connects {SERVER4} 8085 1 5"));
    let client_pid = client.pid();
    client.wait();
    let bundle = capture.stop();

    let found = resets(&bundle, 8085);
    let received: Vec<_> = found.iter().filter(|(_, reset)| reset.dir == PacketDir::Received).collect();
    let [(event, reset)] = received.as_slice() else { panic!("{found:?}") };
    assert_eq!((pid(event), event.id.netns), (Some(client_pid), lab.client.inode()));
    assert_eq!((reset.state, &reset.reason), (Some(TcpState::SynSent), &None));
    let sent: Vec<_> = found.iter().filter(|(_, reset)| reset.dir == PacketDir::Sent).collect();
    // before Linux 6.10
    if !has_type("sk_rst_reason") {
        assert!(sent.is_empty(), "a limit of this variant: {sent:?}");
        return;
    }
    let [(event, reset)] = sent.as_slice() else { panic!("{found:?}") };
    assert_eq!((pid(event), event.id.netns), (None, lab.server.inode()));
    assert_eq!((event.id.local.addr, event.id.local.port), (Some(SERVER4), Some(8085)));
    let reason = (bundle.variant("tcp_reset") != "tp_btf_2").then_some("NO_SOCKET");
    assert_eq!((reset.state, reset.reason.as_deref()), (None, reason));
}

fn a_connection_that_is_aborted_is_a_reset_at_both_ends() {
    let lab = Lab::new();
    let server = script(&lab.server, &format!("listen {SERVER4} 8086 5"));
    server.wait_for_lines(1);
    let capture = Capture::start();
    let client = script(&lab.client, &format!("abort {SERVER4} 8086"));
    let client_pid = client.pid();
    client.wait();
    let bundle = capture.stop();

    let of = |dir| {
        let found = resets(&bundle, 8086).into_iter().filter(|(_, reset)| reset.dir == dir);
        found.map(|(event, reset)| (pid(event), event.id.netns, reset.state)).collect::<Vec<_>>()
    };
    let is_known = bundle.variant("tcp_reset") != "tracepoint";
    let client = Some(client_pid).filter(|_| is_known);
    assert_eq!(of(PacketDir::Sent), [(client, lab.client.inode(), Some(TcpState::Close))]);
    // nobody has accepted it: it is its listener's
    let listener = Some(server.pid()).filter(|_| is_known);
    assert_eq!(of(PacketDir::Received), [(listener, lab.server.inode(), Some(TcpState::Established))]);
}

fn a_listener_without_room_is_told_with_what_it_turned_away() {
    let lab = Lab::new();
    let server = script(&lab.server, &format!("listen {SERVER4} 8087 2"));
    server.wait_for_lines(1);
    let before = ext_counter(&lab.server, "ListenDrops");
    let capture = Capture::start();
    run(&lab.client, &format!("connects {SERVER4} 8087 6 1.2"));
    let bundle = capture.stop_unaudited();

    let turned_away = ext_counter(&lab.server, "ListenDrops") - before;
    let found = overflows(&bundle, lab.server.inode());
    assert!(turned_away >= 3, "the fault did not happen");
    assert_eq!(found.iter().map(|(_, overflow)| overflow.count).sum::<u64>(), turned_away, "{found:?}");
    for (event, overflow) in found {
        assert_eq!((overflow.accept_queue, overflow.backlog), (Some(3), Some(2)));
        assert_eq!((pid(event), event.id.local.port), (Some(server.pid()), Some(8087)));
    }
}

fn what_was_turned_away_before_the_window_is_not_told() {
    let lab = Lab::new();
    let server = script(&lab.server, &format!("listen {SERVER4} 8087 1"));
    server.wait_for_lines(1);
    run(&lab.client, &format!("connects {SERVER4} 8087 3 0.2"));
    assert!(ext_counter(&lab.server, "ListenDrops") > 0, "the fault did not happen");
    let capture = Capture::start();
    until_boot_ns(boot_ns() + 2 * S);
    let bundle = capture.stop_unaudited();

    assert_eq!(overflows(&bundle, lab.server.inode()), []);
}

fn a_peer_that_does_not_read_is_told_at_both_ends() {
    let lab = Lab::new();
    let server = script(&lab.server, &format!("hold {SERVER4} 8088"));
    server.wait_for_lines(1);
    let capture = Capture::start();
    let begin = boot_ns();
    let client = script(&lab.client, &format!("fill {SERVER4} 8088"));
    client.wait_for_lines(1);
    until_boot_ns(boot_ns() + 4 * S);
    let bundle = capture.stop_unaudited();
    let passed = boot_ns() - begin;

    let found = stalls(&bundle, lab.client.inode(), StallKind::ZeroWindow);
    assert!(found.iter().all(|(event, _)| pid(event) == Some(client.pid())), "{found:?}");
    assert!(found.iter().any(|(_, stall)| stall.queued_bytes.is_some_and(|bytes| bytes > 0)), "{found:?}");
    let waited: u64 = found.iter().map(|(_, stall)| stall.duration_ns).sum();
    assert!((2 * S..=passed).contains(&waited), "waited {waited} ns of {passed}: {found:?}");
    let unread = stalls(&bundle, lab.server.inode(), StallKind::ReceiveBuffer);
    assert!(unread.iter().all(|(event, _)| pid(event) == Some(server.pid())), "{unread:?}");
    let waited: u64 = unread.iter().map(|(_, stall)| stall.duration_ns).sum();
    assert!((S..=passed).contains(&waited), "waited {waited} ns of {passed}: {unread:?}");
}

fn a_peer_that_becomes_unreachable_is_told_and_found() {
    let lab = Lab::new();
    let server = script(&lab.server, &format!("hold {SERVER4} 8090"));
    server.wait_for_lines(1);
    let capture = Capture::of_drops_elsewhere();
    let client = script(&lab.client, &format!("drip {SERVER4} 8090"));
    client.wait_for_lines(1);
    let begin = boot_ns();
    lab.fault("tcp dport 8090 counter reject with icmp host-unreachable");
    until_boot_ns(boot_ns() + 6 * S);
    let bundle = capture.stop_unaudited();
    let passed = boot_ns() - begin;

    assert!(lab.faulted_packets() >= 3, "the fault did not happen");
    assert!(counter(&lab.client, "Icmp", "InDestUnreachs") >= 3, "the messages did not arrive");
    let found = stalls(&bundle, lab.client.inode(), StallKind::Unreachable);
    let port = |event: &Event| event.id.remote.port;
    assert!(found.iter().all(|(event, _)| (pid(event), port(event)) == (Some(client.pid()), Some(8090))), "{found:?}");
    assert!(
        found.iter().all(|(_, stall)| stall.error == Some(Errno(113)) && stall.queued_bytes > Some(0)),
        "{found:?}"
    );
    let waited: u64 = found.iter().map(|(_, stall)| stall.duration_ns).sum();
    assert!((2 * S..=passed).contains(&waited), "waited {waited} ns of {passed}: {found:?}");
    assert_eq!(stalls(&bundle, lab.server.inode(), StallKind::Unreachable), []);
    let report = analyze(&bundle.path);
    let top = report.findings(&lab.inodes()).into_iter().next().unwrap_or_else(|| panic!("{}", report.text()));
    assert_eq!(
        (top.rule().as_str(), top.pid()),
        ("tcp.became_unreachable", Some(u64::from(client.pid()))),
        "{}",
        report.text()
    );
    assert!(top.title().contains("EHOSTUNREACH"), "{}", top.title());
}
