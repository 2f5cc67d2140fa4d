//! One address, three backends, and one of them does not do its work: the finding names it, with the counts of all three.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use ktrace_bundle::event::Endpoint;

use crate::analyze::analyze;
use crate::capture::Bundle;
use crate::dns::{self, NAMES};
use crate::faults::UNANSWERED_AFTER_NS;
use crate::filters::Cgroups;
use crate::nat::on_the_node;
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::socketlb::Rewriter;
use crate::wait::{boot_ns, until_boot_ns};
use crate::{Test, tests};

/// Each new flow to one of the two services gets the next of three backends.
const THREE: &str = "table ip svc {
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr { 10.96.0.81, 10.96.0.82 } tcp dport 80 dnat to 10.77.2.2 : numgen inc mod 3 map { 0 : 8081, 1 : 8082, 2 : 8083 }
        ip daddr 10.96.0.81 udp dport 53 dnat to 10.77.2.2 : numgen inc mod 3 map { 0 : 5301, 1 : 5302, 2 : 5303 }
    }
    chain post {
        type nat hook postrouting priority srcnat;
    }
}
";
const MASQUERADE: &str = "add rule ip svc post ct status dnat masquerade\n";

/// The server's machine is another one: what its rules drop is not seen.
pub const ELSEWHERE: &[&str] = &["--with-drops=false"];

pub fn tests() -> Vec<Test> {
    tests![
        a_backend_that_is_silent_is_named_with_the_counts,
        a_backend_that_refuses_is_named_with_the_counts,
        a_silent_backend_behind_a_masquerade_is_named_for_both_of_its_services,
        a_dns_server_that_is_silent_is_named_among_three,
        a_dns_server_that_is_slow_is_named_among_three,
        a_backend_that_a_socket_is_sent_to_is_named_if_it_is_silent,
        a_backend_that_a_socket_is_sent_to_is_named_if_it_refuses,
        a_dns_server_that_a_socket_is_sent_to_is_named_if_it_is_silent,
        a_dns_server_that_a_socket_is_sent_to_is_named_if_it_is_slow,
        three_healthy_backends_are_no_finding,
    ]
}

/// TCP servers at these ports.
pub fn listening(lab: &Lab, ports: &[u16]) -> Vec<Program> {
    let serve = |port| lab.server.start(&format!("tcp-server --listen {SERVER4}:{port} --then close --quiet"));
    let servers: Vec<_> = ports.iter().map(serve).collect();
    servers.iter().for_each(|server| _ = server.ready());
    servers
}

/// What [`connects`] makes.
pub const CONNECTS: u64 = 12;

/// Connects to a service, one after the other, each given up after a while.
pub fn connects(lab: &Lab, vip: &str) -> u64 {
    let program = lab.client.start(&format!("connect --to {vip}:80 --timeout-ms 400 --count {CONNECTS}"));
    let pid = program.pid();
    program.wait();
    u64::from(pid)
}

/// The server's machine drops these: unlike what the router itself drops it has left the router, with an entry in its table.
pub fn deafen(lab: &Lab, what: &str) {
    lab.server.run("nft add table inet deaf");
    lab.server.run("nft add chain inet deaf input { type filter hook input priority 0 ; }");
    lab.server.run(&format!("nft add rule inet deaf input {what} drop"));
}

/// Both services lead to the next of their backends, and a chain of these rules takes more of them.
pub fn translate(lab: &Lab, more: &str) {
    lab.nft(THREE);
    lab.nft(more);
}

/// The top finding names this backend of these services, and says how each of the three did.
fn assert_named(lab: &Lab, bundle: &Bundle, rule: &str, backend: &str, vips: &[&str], counts: &[&str]) {
    let report = analyze(&bundle.path);
    let mut netns = lab.inodes().to_vec();
    netns.push(lab.node.inode());
    let findings = report.findings(&netns);
    let top = findings.first().unwrap_or_else(|| panic!("nothing found: {}", report.text()));
    let title = top.title();
    assert_eq!((top.rule().as_str(), top.subject("backend").as_str()), (rule, backend), "{title}");
    for part in vips.iter().chain(counts) {
        assert!(title.contains(part), "no `{part}` in: {title}");
    }
}

fn a_backend_that_is_silent_is_named_with_the_counts() {
    let lab = Lab::new();
    translate(&lab, "");
    deafen(&lab, "tcp dport 8083");
    let _servers = listening(&lab, &[8081, 8082, 8083]);
    let capture = on_the_node(&lab, ELSEWHERE);
    connects(&lab, "10.96.0.81");
    let bundle = capture.stop();
    let counts = ["0 of 4 attempts", "10.77.2.2:8081: 4 of 4", "10.77.2.2:8082: 4 of 4"];
    assert_named(&lab, &bundle, "nat.backend_dead", "10.77.2.2:8083", &["10.96.0.81:80"], &counts);
    let asked = Endpoint::new([10, 96, 0, 81].into(), 80);
    let service = bundle.services.services.iter().find(|it| it.vip == asked).unwrap();
    let counted: Vec<_> = service.backends.iter().map(|it| (it.end.port, it.attempt_count, it.failed_count)).collect();
    assert_eq!(counted, [(Some(8081), 4, 0), (Some(8082), 4, 0), (Some(8083), 4, 4)]);
    assert!(service.backends.iter().all(|it| it.from == ["conntrack", "nftables"]), "{service:?}");
}

fn a_backend_that_refuses_is_named_with_the_counts() {
    let lab = Lab::new();
    translate(&lab, "");
    let _servers = listening(&lab, &[8081, 8082]);
    let capture = on_the_node(&lab, ELSEWHERE);
    connects(&lab, "10.96.0.81");
    let counts = ["turned down", "0 of 4 attempts", "10.77.2.2:8081: 4 of 4", "10.77.2.2:8082: 4 of 4"];
    assert_named(&lab, &capture.stop(), "nat.backend_dead", "10.77.2.2:8083", &["10.96.0.81:80"], &counts);
}

fn a_silent_backend_behind_a_masquerade_is_named_for_both_of_its_services() {
    let lab = Lab::new();
    translate(&lab, MASQUERADE);
    deafen(&lab, "tcp dport 8083");
    let _servers = listening(&lab, &[8081, 8082, 8083]);
    let capture = on_the_node(&lab, ELSEWHERE);
    connects(&lab, "10.96.0.81");
    connects(&lab, "10.96.0.82");
    let counts = ["0 of 8 attempts", "10.77.2.2:8081: 8 of 8", "10.77.2.2:8082: 8 of 8"];
    let vips = ["10.96.0.81:80", "10.96.0.82:80"];
    assert_named(&lab, &capture.stop(), "nat.backend_dead", "10.77.2.2:8083", &vips, &counts);
}

/// Queries to the service, each from a socket of its own.
fn queries(lab: &Lab, mode: &str) {
    let vip: IpAddr = [10, 96, 0, 81].into();
    let ask = |_| Program::start(dns::client(&lab.client, mode, vip, dns::PORT, &NAMES[..1]));
    let clients: Vec<_> = (0..12).map(ask).collect();
    clients.into_iter().for_each(|client| _ = client.wait());
}

/// Servers that answer DNS queries with themselves, at these ports, each after so many ms.
fn answering(lab: &Lab, servers: &[(u16, u64)]) -> Vec<Program> {
    let serve = |(port, ms): &(u16, u64)| {
        lab.server.start(&format!("udp-echo --listen {SERVER4}:{port} --delay-ms {ms} --quiet"))
    };
    let servers: Vec<_> = servers.iter().map(serve).collect();
    servers.iter().for_each(|server| _ = server.ready());
    servers
}

fn a_dns_server_that_is_silent_is_named_among_three() {
    let lab = Lab::new();
    translate(&lab, "");
    deafen(&lab, "udp dport 5303");
    let _servers = answering(&lab, &[(5301, 0), (5302, 0), (5303, 0)]);
    let capture = on_the_node(&lab, &[ELSEWHERE, &["--dns-only"]].concat());
    queries(&lab, "timeout");
    // from now on silence means something
    until_boot_ns(boot_ns() + UNANSWERED_AFTER_NS);
    let counts = ["0 of 4", "10.77.2.2:5301: 4 of 4", "10.77.2.2:5302: 4 of 4"];
    assert_named(&lab, &capture.stop(), "nat.backend_dead", "10.77.2.2:5303", &["10.96.0.81:53"], &counts);
}

fn a_dns_server_that_is_slow_is_named_among_three() {
    let lab = Lab::new();
    translate(&lab, MASQUERADE);
    let servers = answering(&lab, &[(5301, 0), (5302, 0), (5303, 300)]);
    let capture = on_the_node(&lab, &[ELSEWHERE, &["--dns-only"]].concat());
    for _ in 0..3 {
        queries(&lab, "sendto");
    }
    let bundle = capture.stop();
    assert_named(&lab, &bundle, "nat.backend_slow", "10.77.2.2:5303", &["10.96.0.81:53"], &[]);
    // both ends are one story, although the server never saw the client's address
    let report = analyze(&bundle.path);
    let [_, _, slow] = servers.as_slice() else { panic!("{servers:?}") };
    assert_eq!(report.findings(&lab.inodes())[0].server_pid(), Some(slow.pid().into()), "{}", report.text());
}

/// Clients in a cgroup whose sockets a program sends to the next of three backends, one after the other.
fn balanced(lab: &Lab, service: u16, backends: [u16; 3], client: impl Fn() -> Command) {
    let cgroups = Cgroups::new();
    let rewriter = Rewriter::at(&cgroups.0);
    for backend in backends.iter().cycle().take(12) {
        rewriter.lead(([10, 96, 0, 81], service).into(), SocketAddr::new(SERVER4, *backend));
        let inside = client();
        let mut command = lab.client.command("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&cgroups.0);
        command.arg(inside.get_program()).args(inside.get_args());
        Program::start(command).wait();
    }
    lab.client.wait_until_quiet();
}

fn connects_balanced(lab: &Lab) {
    balanced(lab, 80, [8081, 8082, 8083], || lab.client.traffic("connect --to 10.96.0.81:80 --timeout-ms 400"));
}

fn queries_balanced(lab: &Lab, mode: &str) {
    let vip: IpAddr = [10, 96, 0, 81].into();
    balanced(lab, 53, [5301, 5302, 5303], || dns::client(&lab.client, mode, vip, dns::PORT, &NAMES[..1]));
}

fn a_backend_that_a_socket_is_sent_to_is_named_if_it_is_silent() {
    let lab = Lab::new();
    deafen(&lab, "tcp dport 8083");
    let _servers = listening(&lab, &[8081, 8082, 8083]);
    let capture = on_the_node(&lab, ELSEWHERE);
    connects_balanced(&lab);
    let counts = ["0 of 4 attempts", "10.77.2.2:8081: 4 of 4", "10.77.2.2:8082: 4 of 4"];
    let bundle = capture.stop();
    assert_named(&lab, &bundle, "nat.backend_dead", "10.77.2.2:8083", &["10.96.0.81:80"], &counts);
    let service = bundle.services.services.iter().find(|it| it.vip.port == Some(80)).unwrap();
    let counted: Vec<_> = service.backends.iter().map(|it| (it.end.port, it.attempt_count, it.failed_count)).collect();
    assert_eq!(counted, [(Some(8081), 4, 0), (Some(8082), 4, 0), (Some(8083), 4, 4)]);
    assert!(service.backends.iter().all(|it| it.from == ["socket"]), "{service:?}");
}

fn a_backend_that_a_socket_is_sent_to_is_named_if_it_refuses() {
    let lab = Lab::new();
    let _servers = listening(&lab, &[8081, 8082]);
    let capture = on_the_node(&lab, ELSEWHERE);
    connects_balanced(&lab);
    let counts = ["turned down", "0 of 4 attempts", "10.77.2.2:8081: 4 of 4", "10.77.2.2:8082: 4 of 4"];
    assert_named(&lab, &capture.stop(), "nat.backend_dead", "10.77.2.2:8083", &["10.96.0.81:80"], &counts);
}

fn a_dns_server_that_a_socket_is_sent_to_is_named_if_it_is_silent() {
    let lab = Lab::new();
    deafen(&lab, "udp dport 5303");
    let _servers = answering(&lab, &[(5301, 0), (5302, 0), (5303, 0)]);
    let capture = on_the_node(&lab, ELSEWHERE);
    queries_balanced(&lab, "timeout");
    until_boot_ns(boot_ns() + UNANSWERED_AFTER_NS);
    let counts = ["0 of 4", "10.77.2.2:5301: 4 of 4", "10.77.2.2:5302: 4 of 4"];
    assert_named(&lab, &capture.stop(), "nat.backend_dead", "10.77.2.2:5303", &["10.96.0.81:53"], &counts);
}

fn a_dns_server_that_a_socket_is_sent_to_is_named_if_it_is_slow() {
    let lab = Lab::new();
    let _servers = answering(&lab, &[(5301, 0), (5302, 0), (5303, 300)]);
    let capture = on_the_node(&lab, ELSEWHERE);
    for _ in 0..3 {
        queries_balanced(&lab, "sendto");
    }
    assert_named(&lab, &capture.stop(), "nat.backend_slow", "10.77.2.2:5303", &["10.96.0.81:53"], &[]);
}

fn three_healthy_backends_are_no_finding() {
    let lab = Lab::new();
    translate(&lab, MASQUERADE);
    let _servers = listening(&lab, &[8081, 8082, 8083]);
    let _answering = answering(&lab, &[(5301, 0), (5302, 0), (5303, 0)]);
    let capture = on_the_node(&lab, ELSEWHERE);
    connects(&lab, "10.96.0.81");
    queries(&lab, "sendto");
    lab.client.wait_until_quiet();
    let bundle = capture.stop();
    let report = analyze(&bundle.path);
    let mut netns = lab.inodes().to_vec();
    netns.push(lab.node.inode());
    let found: Vec<_> = report.findings(&netns).iter().map(crate::analyze::Finding::title).collect();
    assert!(found.is_empty(), "{found:?}");
    let of = |it: &ktrace_bundle::tracking::Backend| (it.attempt_count, it.failed_count);
    assert!(bundle.services.services.iter().flat_map(|it| &it.backends).all(|it| of(it) == (4, 0) || of(it) == (0, 0)));
}
