//! What is left of connection tracking without the right to ask for it, or without the module.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ktrace_bundle::event::{Endpoint, Proto};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::manifest::SourceReport;
use tempfile::TempDir;

use crate::capture::{Bundle, COMPLETE, Capture, DEGRADED, undisturbed};
use crate::limits::public_copy;
use crate::nat_full::MAY_SET;
use crate::net::{Lab, Netns, SERVER4};
use crate::privileges::PREPARED;
use crate::program::Program;
use crate::wait::{boot_ns, until_boot_ns};
use crate::workdir::Workdir;
use crate::{Test, tests};

const DNAT: &str = "table ip svc {
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr 10.96.0.80 tcp dport 80 dnat to 10.77.2.2:8080
    }
}
";
const WITHOUT_NET_ADMIN: &str = "setpriv --bounding-set=-net_admin --inh-caps=-all";
/// Who may watch sockets, but not read what is root's.
const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all,+sys_admin,+bpf,+perfmon \
                      --ambient-caps=-all,+sys_admin,+bpf,+perfmon --bounding-set=-all,+sys_admin,+bpf,+perfmon";
/// What a flow lasts so that it is in a table that is read once a second.
const LASTS_NS: u64 = 2_500_000_000;

pub fn tests() -> Vec<Test> {
    let mut tests = tests![
        without_cap_net_admin_a_flow_that_lasts_is_known_from_procfs,
        with_neither_right_events_flow_and_the_reason_is_said,
        connection_tracking_that_is_required_and_may_not_be_read_degrades,
        connection_tracking_that_is_not_wanted_is_not_asked,
    ];
    let unloaded = Test::new("where_the_module_is_not_loaded_it_stays_so", where_the_module_is_not_loaded_it_stays_so);
    tests.push(unloaded.unless(module_is_there));
    tests
}

/// Anybody may write to where ktrace is told to (`$3`).
const OPEN: &str = "mkdir -m 777 \"$3\" && chmod 777 \"${3%/*}\" && ";

/// ktrace in the router's namespace, by these words.
fn on_the_node(netns: &Netns, words: &str, flags: &[&str]) -> (TempDir, Capture) {
    let dir = public_copy(Path::new(env!("CARGO_BIN_EXE_ktrace")));
    let script = format!("{OPEN}{PREPARED}{words} \"$@\"");
    let mut command: Command = undisturbed(netns.command("unshare"));
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]).arg(dir.path().join("ktrace"));
    (dir, Capture::launch(command, &[&["--duration", "600s"], flags].concat()))
}

fn source(bundle: &Bundle) -> &SourceReport {
    bundle.manifest.head.sources.iter().find(|it| it.name == "conntrack").unwrap()
}

/// A connection to a service that lasts; the flows of both its ends.
fn converse(words: &str, flags: &[&str]) -> (Lab, Bundle) {
    let lab = Lab::new();
    lab.nft(DNAT);
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then echo --quiet"));
    server.ready();
    let (_dir, capture) = on_the_node(&lab.node, words, flags);
    let until = capture.dir().join("enough");
    let chat = lab.client.start(&format!("tcp-chat --to 10.96.0.80:80 --rounds 1 --until {}", until.display()));
    chat.ready();
    until_boot_ns(boot_ns() + LASTS_NS);
    std::fs::write(&until, "").unwrap();
    assert!(chat.wait().status.success());
    lab.client.wait_until_quiet();
    let bundle = capture.stop_under_load();
    (lab, bundle)
}

/// The flows of the client, and of the server's connection.
fn flows(lab: &Lab, bundle: &Bundle) -> Vec<FlowRecord> {
    let is_its = |flow: &&FlowRecord| {
        flow.proto == Proto::Tcp && lab.inodes().contains(&flow.netns) && flow.tuple.to.port.is_some_and(|it| it != 0)
    };
    bundle.flows.iter().filter(is_its).cloned().collect()
}

fn without_cap_net_admin_a_flow_that_lasts_is_known_from_procfs() {
    let (lab, bundle) = converse(WITHOUT_NET_ADMIN, &["--with-conntrack=auto"]);
    assert_eq!(bundle.exit_code, COMPLETE, "{:?}", bundle.manifest.degraded);
    let table = bundle.tracking.tables.iter().find(|it| it.netns == lab.node.inode()).unwrap();
    assert!(table.is_node && table.via.as_deref() == Some("procfs"), "{table:?}");
    assert!(table.error.as_ref().is_some_and(|it| it.contains("CAP_NET_ADMIN")), "{table:?}");
    assert!(table.event_count == 0 && table.highest_count >= Some(1) && table.max.is_some(), "{table:?}");
    let source = source(&bundle);
    assert_eq!((source.outcome.as_str(), source.version.as_deref()), ("answered", Some("procfs")));
    assert_eq!(source.error, table.error);
    let (vip, backend) = (Endpoint::new([10, 96, 0, 80].into(), 80), Endpoint::new(SERVER4, 8080));
    let flows = flows(&lab, &bundle);
    assert_eq!(flows.len(), 2, "{flows:#?}");
    for flow in &flows {
        let nat = flow.conntrack.as_deref().unwrap_or_else(|| panic!("{flow:?}"));
        assert_eq!((nat.original_dst, nat.backend, nat.netns), (Some(vip), Some(backend), lab.node.inode()));
    }
}

/// Nothing is known of any flow, and why.
fn assert_absent(lab: &Lab, bundle: &Bundle, why: &str) {
    assert_eq!(source(bundle).outcome, "absent", "{:?}", source(bundle));
    assert!(bundle.tracking.tables.iter().all(|it| it.via.is_none() && it.error.is_some()), "{:?}", bundle.tracking);
    let flows = flows(lab, bundle);
    assert!(!flows.is_empty() && flows.iter().all(|it| it.event_count > 0), "{flows:?}");
    for flow in &flows {
        assert_eq!((&flow.conntrack, flow.why.get("conntrack").map(String::as_str)), (&None, Some(why)), "{flow:?}");
    }
}

/// What is said of connection tracking among what is missing.
fn said(bundle: &Bundle) -> Vec<&String> {
    bundle.manifest.degraded.iter().filter(|it| it.contains("connection tracking")).collect()
}

fn with_neither_right_events_flow_and_the_reason_is_said() {
    let (lab, bundle) = converse(NOBODY, &["--with-conntrack=auto"]);
    assert!(source(&bundle).error.as_ref().is_some_and(|it| it.contains("CAP_NET_ADMIN")), "{:?}", source(&bundle));
    assert_absent(&lab, &bundle, "no_permission");
    // who may not read tracefs lacks hooks: nothing else is missing
    assert_eq!(said(&bundle), [] as [&String; 0]);
    assert!(bundle.manifest.degraded.iter().all(|it| it.starts_with("hook ")), "{:?}", bundle.manifest.degraded);
}

fn connection_tracking_that_is_required_and_may_not_be_read_degrades() {
    let (_lab, bundle) = converse(NOBODY, &["--with-conntrack=true"]);
    assert_eq!((bundle.exit_code, said(&bundle).len()), (DEGRADED, 1), "{:?}", bundle.manifest.degraded);
    let said = said(&bundle)[0];
    assert!(said.contains("--with-conntrack=true") && said.contains("CAP_NET_ADMIN"), "{said}");
}

fn connection_tracking_that_is_not_wanted_is_not_asked() {
    let lab = Lab::new();
    lab.nft(DNAT);
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then reply --quiet"));
    server.ready();
    let capture = crate::nat::on_the_node(&lab, &["--with-conntrack=false"]);
    Program::run(lab.client.traffic("tcp-client --to 10.96.0.80:80 --mode request"));
    lab.client.wait_until_quiet();
    let bundle = capture.stop();
    assert_eq!((source(&bundle).outcome.as_str(), bundle.tracking.tables.len()), ("not_requested", 0));
    let flows = flows(&lab, &bundle);
    let is_said = |it: &FlowRecord| it.why.get("conntrack").is_some_and(|why| why == "not_requested");
    assert!(!flows.is_empty() && flows.iter().all(is_said), "{flows:?}");
}

/// Names of the modules that are loaded.
fn modules() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    text.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

fn module_is_there() -> Option<String> {
    let is_loaded = modules().iter().any(|it| it == "nf_conntrack");
    let is_there = is_loaded || Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists();
    if is_there {
        return Some("`nf_conntrack` is loaded, or a part of this kernel".into());
    }
    let is_allowed = std::env::var_os(MAY_SET).is_some();
    (!is_allowed).then(|| "it sets what loads modules for the machine: a virtual one runs it".into())
}

/// What the kernel runs to load a module, as it was before on drop.
struct Loader(String);

impl Loader {
    const PATH: &str = "/proc/sys/kernel/modprobe";

    /// From now on a program that loads nothing, and writes down what it was asked for.
    fn trap(dir: &Workdir) -> Self {
        let (program, asked) = (dir.join("modprobe"), dir.join("asked"));
        std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> {}\nexit 1\n", asked.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let before = std::fs::read_to_string(Self::PATH).unwrap();
        std::fs::write(Self::PATH, program.to_str().unwrap()).unwrap();
        Self(before)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        if let Err(e) = std::fs::write(Self::PATH, &self.0) {
            eprintln!("cannot set {} back: {e}", Self::PATH);
        }
    }
}

fn where_the_module_is_not_loaded_it_stays_so() {
    let (lab, dir) = (Netns::alone(), Workdir::new());
    let before = modules();
    let _loader = Loader::trap(&dir);
    let asked = || std::fs::read_to_string(dir.join("asked")).unwrap_or_default();
    for (choice, exit) in [("auto", COMPLETE), ("true", DEGRADED)] {
        let (_dir, capture) = on_the_node(&lab, "", &[&format!("--with-conntrack={choice}")]);
        Program::run(lab.traffic("udp-paced --to 127.0.0.1:7007 --count 3"));
        let bundle = capture.stop_under_load();
        assert_eq!(bundle.exit_code, exit, "{:?}", bundle.manifest.degraded);
        let source = source(&bundle);
        assert_eq!(source.outcome, "absent");
        assert!(source.error.as_ref().is_some_and(|it| it.contains("`nf_conntrack` is not loaded")), "{source:?}");
        let flow = bundle.flows.iter().find(|it| it.netns == lab.inode()).unwrap();
        assert_eq!(flow.why["conntrack"], "source_absent");
        let netfilter: Vec<_> =
            asked().lines().filter(|it| it.contains("nf") || it.contains("net-pf")).map(str::to_owned).collect();
        assert_eq!((modules(), netfilter), (before.clone(), vec![]));
    }
    // whoever asks for a module is written down
    let ended = Program::run({
        let mut command = lab.command("ip");
        command.args(["link", "add", "type", "ktnone"]);
        command
    });
    assert!(!ended.status.success() && asked().contains("ktnone"), "{ended:?}, {}", asked());
}
