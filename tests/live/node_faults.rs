//! Faults of the node, made for real: each must be the top finding, about whom it concerns. What the drop hook tells is missed
//! without it, and said so.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::analyze::{Report, analyze};
use crate::capture::{Bundle, Capture};
use crate::cgroups::{Tree, roots, with_a_tenth_of_a_cpu};
use crate::dns::{self, Dnsmasq};
use crate::faults::ready;
use crate::identity::inside;
use crate::net::{Lab, Netns, SERVER4};
use crate::program::{Program, mortal};
use crate::requirements::built;
use crate::wait::{boot_ns, until_boot_ns};
use crate::workdir::Workdir;
use crate::{Test, tests};

const SCRIPT: &str = include_str!("node_faults/client.py");
const EVIDENCE: &str = include_str!("evidence/client.py");
const S: u64 = 1_000_000_000;
const POD: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
const CONTAINER: &str = "4f2a9c1b0d3e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";

pub fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_rule_that_drops_is_the_top_finding,
        what_a_rule_drops_is_inconclusive_without_the_drop_hook,
        a_listener_without_room_is_the_top_finding,
        ports_that_are_used_up_are_the_top_finding,
        a_queue_that_drops_is_the_top_finding,
        a_reverse_path_that_does_not_fit_is_the_top_finding,
        a_path_with_a_small_mtu_that_does_not_say_so_is_the_top_finding,
        a_neighbour_that_does_not_answer_is_the_top_finding,
        a_missing_route_is_the_top_finding,
        a_peer_that_does_not_read_is_the_top_finding,
        a_server_that_cuts_connections_is_the_top_finding,
        search_domains_that_multiply_queries_are_the_top_finding,
        a_probe_that_is_refused_is_the_top_finding,
        a_pod_that_is_throttled_is_the_top_finding,
        a_machine_that_is_short_of_cpu_is_the_top_finding,
        a_cgroup_that_runs_out_of_memory_is_the_top_finding,
    ];
    let full = "a_backlog_of_packets_that_overflows_is_the_top_finding";
    let full = Test::new(full, a_backlog_of_packets_that_overflows_is_the_top_finding).unless(|| {
        let may = std::env::var_os("KTRACE_LIVE_MAY_SET_LIMITS").is_some();
        (!may).then(|| "the machine's own limits are only set in a virtual machine".into())
    });
    tests.push(full);
    tests
}

fn script(netns: &Netns, text: &str, args: &str) -> Program {
    let mut command = netns.command("python3");
    command.args(["-I", "-S", "-c", text]).args(args.split_whitespace());
    Program::start(command)
}

/// Runs it to its end and returns its process id.
fn suffer(netns: &Netns, args: &str) -> u64 {
    let program = script(netns, SCRIPT, args);
    let pid = program.pid().into();
    program.wait();
    pid
}

/// The namespaces of the lab, the router's included.
fn everywhere(lab: &Lab) -> Vec<u32> {
    lab.inodes().into_iter().chain([lab.node.inode()]).collect()
}

/// The top finding is of this rule, above `info`, and about this end.
fn assert_top(lab: &Lab, bundle: &Bundle, rule: &str, (key, value): (&str, &str)) -> Report {
    let report = analyze(&bundle.path);
    {
        let findings = report.findings(&everywhere(lab));
        let top = findings.first().unwrap_or_else(|| panic!("nothing found: {}", report.text()));
        assert_eq!(top.rule(), rule, "{}", report.text());
        assert_ne!(top.severity(), "info", "{}", report.text());
        let found = if key == "title" { top.title() } else { top.subject(key) };
        assert!(found.contains(value), "{key} is {found}, not {value}: {}", report.text());
    }
    report
}

/// The same, and about this process.
fn assert_top_of(lab: &Lab, bundle: &Bundle, rule: &str, end: (&str, &str), pid: u64) {
    let report = assert_top(lab, bundle, rule, end);
    assert_eq!(report.findings(&everywhere(lab))[0].pid(), Some(pid), "{}", report.text());
}

/// The report begins with this rule, above `info`, of all that the machine did. Returns the sentence.
fn assert_top_of_the_machine(bundle: &Bundle, rule: &str) -> String {
    let report = analyze(&bundle.path);
    let top = report.top().unwrap_or_else(|| panic!("nothing found: {}", report.text()));
    assert_eq!(top.rule(), rule, "{}", report.text());
    assert_ne!(top.severity(), "info", "{}", report.text());
    top.title()
}

fn a_rule_that_drops_is_the_top_finding() {
    let lab = Lab::new();
    lab.fault("tcp dport 8080 counter drop");
    let capture = Capture::start();
    let client = lab.client.start(&format!("connect --to {SERVER4}:8080 --timeout-ms 1500 --count 3"));
    let pid = client.pid().into();
    client.wait();
    let bundle = capture.stop_unaudited();

    assert!(lab.faulted_packets() > 0, "the fault did not happen");
    assert_top_of(&lab, &bundle, "policy.drop", ("remote", "10.77.2.2:8080"), pid);
}

fn what_a_rule_drops_is_inconclusive_without_the_drop_hook() {
    let lab = Lab::new();
    lab.fault("tcp dport 8080 counter drop");
    let capture = Capture::of_drops_elsewhere();
    lab.client.start(&format!("connect --to {SERVER4}:8080 --timeout-ms 1500 --count 3")).wait();
    let bundle = capture.stop_unaudited();

    let report = assert_top(&lab, &bundle, "tcp.connect_timeout", ("remote", "10.77.2.2:8080"));
    for rule in ["policy.drop", "net.rp_filter", "net.neighbour_failed"] {
        assert!(report.inconclusive(rule).is_some_and(|why| why.contains("drop")), "{rule}: {}", report.text());
        assert!(report.of_rule(rule).is_empty(), "{rule}: {}", report.text());
    }
}

fn a_listener_without_room_is_the_top_finding() {
    let lab = Lab::new();
    let server = script(&lab.server, EVIDENCE, &format!("listen {SERVER4} 8087 2"));
    server.wait_for_lines(1);
    let capture = Capture::start();
    script(&lab.client, EVIDENCE, &format!("connects {SERVER4} 8087 8 1.2")).wait();
    let bundle = capture.stop_unaudited();

    assert_top_of(&lab, &bundle, "tcp.listen_overflow", ("local", "10.77.2.2:8087"), server.pid().into());
}

fn ports_that_are_used_up_are_the_top_finding() {
    let lab = Lab::new();
    lab.client_sysctl("net.ipv4.ip_local_port_range", "20000 20019");
    let server = ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then hold")));
    let capture = Capture::start();
    let pid = suffer(&lab.client, &format!("hold {SERVER4} 8080 40"));
    let bundle = capture.stop_unaudited();
    drop(server);

    assert_top_of(&lab, &bundle, "net.ephemeral_ports_exhausted", ("remote", "10.77.2.2:8080"), pid);
}

fn a_queue_that_drops_is_the_top_finding() {
    let lab = Lab::new();
    lab.client.run("tc qdisc add dev eth0 root tbf rate 4mbit burst 3000 limit 6000");
    let server = ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080")));
    let capture = Capture::start();
    lab.client
        .start(&format!("tcp-client --to {SERVER4}:8080 --count 24 --bytes 100000 --processes 4 --threads 3"))
        .wait();
    let bundle = capture.stop_unaudited();
    drop(server);

    assert_top(&lab, &bundle, "net.qdisc_drops", ("title", "eth0"));
}

fn a_reverse_path_that_does_not_fit_is_the_top_finding() {
    let lab = Lab::new();
    lab.server.run("ip link add away type veth peer name far");
    lab.server.run("ip link set away up");
    lab.server.run("ip link set far up");
    lab.server.run("ip route add 10.77.1.0/24 dev away");
    for of in ["all", "eth0"] {
        lab.server.run(&format!("sysctl -qw net.ipv4.conf.{of}.rp_filter=1"));
    }
    let capture = Capture::start();
    lab.client.start(&format!("connect --to {SERVER4}:8080 --timeout-ms 1500 --count 3")).wait();
    let bundle = capture.stop_unaudited();

    assert_top(&lab, &bundle, "net.rp_filter", ("remote", "10.77.2.2:8080"));
}

fn a_path_with_a_small_mtu_that_does_not_say_so_is_the_top_finding() {
    let lab = Lab::new();
    lab.node.run("ip link set sv0 mtu 1000");
    lab.nft("add chain inet fault out { type filter hook output priority 0; }\n");
    lab.nft("add rule inet fault out icmp type destination-unreachable counter drop\n");
    let server = ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080")));
    let capture = Capture::start();
    let pid = suffer(&lab.client, &format!("bulk {SERVER4} 8080 5"));
    let bundle = capture.stop_unaudited();
    drop(server);

    assert!(lab.faulted_packets() > 0, "the fault did not happen");
    assert_top_of(&lab, &bundle, "net.mtu_hole", ("remote", "10.77.2.2:8080"), pid);
}

fn a_neighbour_that_does_not_answer_is_the_top_finding() {
    let lab = Lab::new();
    let capture = Capture::start();
    let client = lab.client.start("connect --to 10.77.1.99:8080 --blocking --count 2");
    let pid = client.pid().into();
    client.wait();
    let bundle = capture.stop_unaudited();

    assert_top_of(&lab, &bundle, "net.neighbour_failed", ("remote", "10.77.1.99:8080"), pid);
}

fn a_missing_route_is_the_top_finding() {
    let lab = Lab::new();
    lab.client.run("ip route del default");
    let capture = Capture::start();
    let client = lab.client.start(&format!("connect --to {SERVER4}:8080 --count 4"));
    let pid = client.pid().into();
    client.wait();
    let bundle = capture.stop_unaudited();

    assert_top_of(&lab, &bundle, "net.no_route", ("remote", "10.77.2.2:8080"), pid);
}

fn a_peer_that_does_not_read_is_the_top_finding() {
    let lab = Lab::new();
    let server = script(&lab.server, EVIDENCE, &format!("hold {SERVER4} 8088"));
    server.wait_for_lines(1);
    let capture = Capture::start();
    let client = script(&lab.client, EVIDENCE, &format!("fill {SERVER4} 8088"));
    client.wait_for_lines(1);
    until_boot_ns(boot_ns() + 6 * S);
    let bundle = capture.stop_unaudited();

    assert_top(&lab, &bundle, "tcp.slow_reader", ("title", &format!("pid {}", server.pid())));
}

fn a_server_that_cuts_connections_is_the_top_finding() {
    let lab = Lab::new();
    let server = script(&lab.server, SCRIPT, &format!("cut {SERVER4} 8089"));
    server.wait_for_lines(1);
    let capture = Capture::start();
    let pid = suffer(&lab.client, &format!("ask {SERVER4} 8089 6"));
    let bundle = capture.stop_unaudited();

    assert_top_of(&lab, &bundle, "tcp.reset_by_peer", ("remote", "10.77.2.2:8089"), pid);
}

fn search_domains_that_multiply_queries_are_the_top_finding() {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let _dnsmasq = Dnsmasq::start(&lab.server);
    let conf = dir.join("resolv.conf");
    let domains: Vec<_> =
        (0..6).map(|i| format!("a-rather-long-part{}.z{i}.nx.test", "x".repeat(12 - 2 * i))).collect();
    let text = format!("nameserver {SERVER4}\nsearch {}\noptions ndots:5 timeout:2\n", domains.join(" "));
    std::fs::write(&conf, text).unwrap();
    let capture = Capture::start();
    let mut command = lab.client.command("unshare");
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec python3 -I -S -c \"$1\" lookups 60";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(conf).arg(SCRIPT);
    // it is still there when its resolv.conf is looked at
    let asker = Program::start(command);
    asker.wait_for_lines(1);
    let bundle = capture.stop_unaudited();
    drop(asker);

    assert_top(&lab, &bundle, "dns.resolver_config", ("remote", &format!("{SERVER4}:{}", dns::PORT)));
}

/// `traffic` under the kubelet's name.
fn kubelet(dir: &Workdir, netns: &Netns, args: &str) -> Program {
    let path = dir.join("kubelet");
    symlink(built("traffic"), &path).unwrap();
    let mut command = netns.command(&path);
    command.args(args.split_whitespace());
    Program::start(command)
}

fn a_probe_that_is_refused_is_the_top_finding() {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let mut tree = Tree::new(roots().remove(0));
    let cgroup = tree.make(&format!("kubepods/burstable/pod{POD}/{CONTAINER}"));
    // what makes the address a pod's: one of its sockets
    let server = ready(Program::start(inside(&cgroup, &lab.server, &format!("tcp-server --listen {SERVER4}:8080"))));
    let capture = Capture::start();
    let _healthy = Program::run(lab.client.traffic(&format!("connect --to {SERVER4}:8080 --count 3")));
    let probe = kubelet(&dir, &lab.client, &format!("connect --to {SERVER4}:8081 --count 5"));
    let pid = probe.pid().into();
    probe.wait();
    let bundle = capture.stop_unaudited();
    drop(server);

    assert_top_of(&lab, &bundle, "kubelet.probe_failing", ("remote", "10.77.2.2:8081"), pid);
}

fn a_pod_that_is_throttled_is_the_top_finding() {
    let lab = Lab::new();
    let (_trees, join) = with_a_tenth_of_a_cpu(&format!("kubepods/burstable/pod{POD}/{CONTAINER}"));
    let server = ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then hold")));
    let capture = Capture::start();
    let mut command = lab.client.command("sh");
    let script = format!("{join} exec python3 -I -S -c \"$0\" throttled {SERVER4} 8080 4");
    Program::start({
        command.args(["-c", &script, SCRIPT]);
        command
    })
    .wait();
    let bundle = capture.stop_unaudited();
    drop(server);

    let title = assert_top_of_the_machine(&bundle, "pod.cpu_throttled");
    assert!(title.contains(POD), "{title}");
}

fn a_machine_that_is_short_of_cpu_is_the_top_finding() {
    let capture = Capture::start();
    let mut command = mortal("python3");
    command.args(["-I", "-S", "-c", SCRIPT, "spin", "25", "16"]);
    Program::start(command).wait();
    let bundle = capture.stop_under_load();

    assert_top_of_the_machine(&bundle, "host.pressure");
}

/// A cgroup that may have 16 MiB, and what a shell does to join it.
fn with_little_memory() -> (Tree, String) {
    let first_version = PathBuf::from("/sys/fs/cgroup/memory");
    let mut tree = Tree::new(if first_version.exists() { first_version } else { roots().remove(0) });
    let cgroup = tree.make(&format!("ktlive-{}", std::process::id()));
    match cgroup.join("memory.limit_in_bytes") {
        first_version if first_version.exists() => std::fs::write(first_version, "16777216").unwrap(),
        _ => {
            std::fs::write(cgroup.parent().unwrap().join("cgroup.subtree_control"), "+memory").unwrap();
            std::fs::write(cgroup.join("memory.max"), "16777216").unwrap();
        }
    }
    let join = format!("echo $$ > {}/cgroup.procs; ", cgroup.display());
    (tree, join)
}

fn a_cgroup_that_runs_out_of_memory_is_the_top_finding() {
    let (_tree, join) = with_little_memory();
    let capture = Capture::start();
    let mut command = mortal("sh");
    command.args(["-c", &format!("{join} exec python3 -I -S -c 'x = b\"x\" * (64 << 20)'")]);
    assert!(!Program::start(command).wait().status.success(), "the fault did not happen");
    let bundle = capture.stop_unaudited();

    assert_top_of_the_machine(&bundle, "host.memory_pressure");
}

fn a_backlog_of_packets_that_overflows_is_the_top_finding() {
    let lab = Lab::new();
    let path = "/proc/sys/net/core/netdev_max_backlog";
    let before = std::fs::read_to_string(path).unwrap();
    // packets are received as soon as they are sent, if it is one at a time: these are cut up by the interface
    lab.client.run("ip link set dev eth0 gso_max_segs 1");
    std::fs::write(path, "1").unwrap();
    let capture = Capture::start();
    script(&lab.client, SCRIPT, &format!("segments {SERVER4} 9001 40")).wait();
    let bundle = capture.stop_under_load();
    std::fs::write(path, before).unwrap();

    assert_top_of_the_machine(&bundle, "net.softnet_drops");
}
