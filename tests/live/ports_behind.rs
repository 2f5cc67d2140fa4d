//! Services behind NAT under a filter by port: a router translates a service's port, and the filter that names that port
//! keeps the backend's side, too, whoever keeps the rules. ktrace runs in the router's namespace, as it does on a node.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use ktrace_bundle::event::{Event, Payload};
use ktrace_bundle::manifest::{Manifest, PlanSource};
use ktrace_traffic::Truth;

use crate::capture::{Bundle, Capture, undisturbed};
use crate::dns::{NAMES, client};
use crate::filters::stop;
use crate::net::{Lab, SERVER4, SERVER6};
use crate::program::Program;
use crate::truth::datagrams;
use crate::wait::PATIENCE;
use crate::workdir::Workdir;
use crate::{Test, tests};

/// Ports that no rule of the host is about.
const ASKED: u16 = 4380;
const BEHIND: u16 = 4388;
const VIP: &str = "10.96.0.80";
const VIP6: &str = "fd96::80";
const DNS_VIP: &str = "10.96.0.10";
const DNS_BEHIND: u16 = 5353;

pub fn tests() -> Vec<Test> {
    let iptables =
        |name, tool: &'static str| Test::new(name, move || iptables_translates(tool)).unless(move || unusable(tool));
    let mut tests = tests![
        a_wanted_port_brings_that_of_the_backend,
        dns_behind_another_port_is_recorded_and_paired,
        without_rules_the_backend_is_not_kept,
        a_tool_that_hangs_delays_nothing_and_is_told,
    ];
    tests.push(iptables("rules_of_the_new_iptables_are_read", "iptables-nft"));
    tests.push(iptables("rules_of_the_old_iptables_are_read", "iptables-legacy"));
    tests.push(iptables("rules_of_the_new_ip6tables_are_read", "ip6tables-nft"));
    tests.push(iptables("rules_of_the_old_ip6tables_are_read", "ip6tables-legacy"));
    tests
}

/// A capture that looks at the router's rules.
fn capture(lab: &Lab, flags: &[&str]) -> Capture {
    let duration = format!("{}s", 120 * *PATIENCE);
    let command = undisturbed(lab.node.command(env!("CARGO_BIN_EXE_ktrace")));
    Capture::launch(command, &[&["--duration", &duration], flags].concat())
}

/// Ports of the plan that came from rules.
fn recorded(manifest: &Manifest, key: &str) -> Option<BTreeSet<u16>> {
    let entry = manifest.head.plan.get(key)?;
    assert_eq!(entry.from, PlanSource::Nat);
    Some(entry.value.as_array().unwrap().iter().map(|it| it.as_u64().unwrap().try_into().unwrap()).collect())
}

/// Makes three connections to the service, which ends at `server`, and returns the backend's ends of them.
fn talk(lab: &Lab, to: &str, server: SocketAddr) -> Vec<(SocketAddr, SocketAddr)> {
    let listening = lab.server.start(&format!("tcp-server --listen {server}"));
    listening.ready();
    let told = Program::run(lab.client.traffic(&format!("tcp-client --to {to} --count 3"))).truths();
    assert_eq!(told.len(), 3);
    let ends = |truth| match truth {
        Truth::Conn(conn) => (conn.local, conn.remote),
        other => panic!("{other:?}"),
    };
    let ends = listening.truths(3).into_iter().map(ends).collect();
    lab.client.wait_until_quiet();
    lab.server.wait_until_quiet();
    ends
}

/// Asserts that each of the backend's connections has events, and that the plan tells why.
fn assert_kept(lab: &Lab, bundle: &Bundle, ends: &[(SocketAddr, SocketAddr)]) {
    for (local, remote) in ends {
        let is_it = |e: &&Event| {
            let end = |it: ktrace_bundle::event::Endpoint| Some(SocketAddr::new(it.addr?, it.port?));
            e.id.netns == lab.server.inode() && end(e.id.local) == Some(*local) && end(e.id.remote) == Some(*remote)
        };
        let states = bundle.events.iter().filter(is_it).filter(|e| matches!(e.payload, Payload::TcpState(_)));
        assert!(states.count() >= 3, "the connection from {remote} is not in the bundle");
    }
    let clients = bundle.events.iter().filter(|e| e.id.netns == lab.client.inode());
    assert!(clients.filter(|e| e.id.remote.port == Some(ASKED)).count() > 0);
    assert_eq!(recorded(&bundle.manifest, "ports-behind-nat"), Some([BEHIND].into()));
    let note = format!("ports behind NAT are recorded, too, as rules of this node tell: {BEHIND}");
    assert!(bundle.manifest.notes.contains(&note), "{:?}", bundle.manifest.notes);
}

fn a_wanted_port_brings_that_of_the_backend() {
    let lab = Lab::new();
    lab.translate(&format!("ip daddr {VIP} tcp dport {ASKED} dnat to {SERVER4}:{BEHIND}"));
    let capture = capture(&lab, &["--ports", &ASKED.to_string()]);
    let ends = talk(&lab, &format!("{VIP}:{ASKED}"), SocketAddr::new(SERVER4, BEHIND));
    assert_kept(&lab, &stop(capture), &ends);
}

fn without_rules_the_backend_is_not_kept() {
    let lab = Lab::new();
    let capture = capture(&lab, &["--ports", &ASKED.to_string()]);
    let ends = talk(&lab, &format!("{SERVER4}:{BEHIND}"), SocketAddr::new(SERVER4, BEHIND));
    let bundle = stop(capture);
    assert_eq!(ends.len(), 3);
    assert_eq!(recorded(&bundle.manifest, "ports-behind-nat"), Some([].into()));
    let netns = lab.inodes();
    let kept = bundle.events.iter().filter(|e| netns.contains(&e.id.netns) && e.id.remote.port.is_some());
    assert_eq!(kept.filter(|e| [e.id.local.port, e.id.remote.port].contains(&Some(BEHIND))).count(), 0);
}

fn dns_behind_another_port_is_recorded_and_paired() {
    let lab = Lab::new();
    lab.translate(&format!("ip daddr {DNS_VIP} udp dport 53 dnat to {SERVER4}:{DNS_BEHIND}"));
    // what comes back is no answer; ktrace reads neither
    let server = lab.server.start(&format!("udp-echo --listen {SERVER4}:{DNS_BEHIND}"));
    server.ready();
    let capture = capture(&lab, &["--dns-only"]);
    let ask =
        |to: std::net::IpAddr, port| datagrams(Program::run(client(&lab.client, "sendto", to, port, NAMES)).truths());
    let by_vip = ask(DNS_VIP.parse().unwrap(), 53);
    // as a cache on the node does
    let directly = ask(SERVER4, DNS_BEHIND);
    let bundle = stop(capture);

    assert!(recorded(&bundle.manifest, "ports-behind-nat").unwrap().contains(&DNS_BEHIND));
    assert!(recorded(&bundle.manifest, "dns-ports-behind-nat").unwrap().contains(&DNS_BEHIND));
    let of = |netns| bundle.events.iter().filter(move |e| e.id.netns == netns).collect::<Vec<_>>();
    let clients = of(lab.client.inode());
    assert_eq!(clients.len(), by_vip.len() + directly.len());
    let is_pair = |e: &&&Event| matches!(&e.payload, Payload::UdpRecv(d) if d.dns_rtt_ns.is_some());
    assert_eq!(clients.iter().filter(is_pair).count(), 2 * NAMES.len());
    // the backend's own side: each query received, each answer sent
    let servers = of(lab.server.inode());
    assert_eq!(servers.len(), 4 * NAMES.len());
    assert!(servers.iter().all(|e| e.id.local.port == Some(DNS_BEHIND)));
    let dns = &bundle.summary.dns;
    assert_eq!((dns.counts.sent, dns.counts.answered), (2 * NAMES.len() as u64, 2 * NAMES.len() as u64));
}

/// Rules by `tool`, such as `iptables-legacy`, in the router.
fn iptables_translates(tool: &str) {
    let (vip, server) = if tool.starts_with("ip6") { (VIP6, SERVER6) } else { (VIP, SERVER4) };
    let lab = Lab::new();
    let backend = SocketAddr::new(server, BEHIND);
    lab.node.run(&format!("{tool} -t nat -N KUBE-SERVICES"));
    lab.node.run(&format!("{tool} -t nat -A PREROUTING -j KUBE-SERVICES"));
    lab.node.run(&format!(
        "{tool} -t nat -A KUBE-SERVICES -d {vip} -p tcp --dport {ASKED} -m comment --comment shop/api:http -j DNAT \
         --to-destination {backend}"
    ));
    let capture = capture(&lab, &["--ports", &ASKED.to_string()]);
    let vip: std::net::IpAddr = vip.parse().unwrap();
    let ends = talk(&lab, &SocketAddr::new(vip, ASKED).to_string(), backend);
    assert_kept(&lab, &stop(capture), &ends);
}

/// Why this tool cannot be used here; what it says about its own table in a namespace that nobody else has.
fn unusable(tool: &str) -> Option<String> {
    let tried = Command::new("unshare").args(["--net", tool, "-t", "nat", "-N", "KTRACE-LIVE"]).output().unwrap();
    (!tried.status.success()).then(|| format!("`{tool}`: {}", String::from_utf8_lossy(&tried.stderr).trim()))
}

fn a_tool_that_hangs_delays_nothing_and_is_told() {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let slow = dir.join("nft");
    // nobody else sleeps so long
    let sleep = format!("sleep 6{}", std::process::id());
    std::fs::write(&slow, format!("#!/bin/sh\n{sleep}\n")).unwrap();
    std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = "mount --bind \"$0\" \"$(command -v nft)\" && exec \"$@\"";
    let mut command = lab.node.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&slow);
    command.arg(env!("CARGO_BIN_EXE_ktrace"));
    // what looks at the node asks the same tool, beside the window
    let flags = ["--duration", "120s", "--with-node=false", "--ports", &ASKED.to_string()];
    let capture = Capture::launch(undisturbed(command), &flags);
    let left = crate::program::mortal("pgrep").args(["-f", "-x", &sleep]).output().unwrap();
    let bundle = stop(capture);

    // neither the tool nor what it started, which has the tool's group
    assert!(left.stdout.is_empty(), "{left:?}");
    let said =
        |it: &&String| it.contains("rules of nftables could not be read") && it.contains("has not ended in time");
    assert_eq!(bundle.manifest.notes.iter().filter(said).count(), 1, "{:?}", bundle.manifest.notes);
}
