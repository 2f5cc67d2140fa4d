//! Who is at the other end: pods of this node by the addresses that their runtime gave them, and the node itself.

use std::process::Command;

use ktrace_bundle::event::{Identity, Role};
use ktrace_bundle::peer::{Peer, PeerVia};

use super::capture;
use crate::capture::{Bundle, Capture};
use crate::program::{Program, mortal};
use crate::requirements::built;
use crate::runtime::node::{Node, Pod, Running};
use crate::wait::{DEADLINE, until};
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    let node =
        Test::new("the_remote_end_is_the_node_where_it_is_one_of_its_addresses", the_node_is_named_by_its_addresses)
            .unless(|| own_address().is_none().then(|| "this machine has no address that others could reach".into()));
    let mut tests = tests![the_remote_end_is_named_where_it_is_a_pod_of_this_node];
    tests.push(node);
    tests
}

/// One that others can reach.
fn own_address() -> Option<String> {
    let shown = Command::new("ip").args(["-4", "-o", "addr", "show", "scope", "global"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    shown.split_whitespace().nth(3)?.split('/').next().map(str::to_owned)
}

const PORT: u16 = 8080;
const SERVER: &str = "exec /traffic/traffic tcp-server --listen 0.0.0.0:8080 --then echo";

fn pod(name: &str) -> Peer {
    Peer::Pod { namespace: "shop".into(), pod: name.into(), via: PeerVia::Cri }
}

/// Lines of connections in a namespace that have both ends, with their remote address.
fn ends(bundle: &Bundle, netns: u32, role: Role) -> Vec<&Identity> {
    let of_it = bundle.events.iter().map(|event| &event.id).filter(|id| id.netns == netns && id.role == Some(role));
    let ends: Vec<_> = of_it.filter(|id| id.remote.addr.is_some() && id.owner.value().is_some()).collect();
    assert!(!ends.is_empty());
    ends
}

fn the_remote_end_is_named_where_it_is_a_pod_of_this_node() {
    let node = Node::start();
    let run = |name: &str, on_host: bool, script: &str| {
        let pod = Pod::new(name, on_host);
        node.run(&pod, "main", script)
    };
    let listens = |server: &Running| {
        let to = format!("{}:{PORT}", node.address(server));
        let connects = || Program::run(node.netns.traffic(&format!("tcp-client --to {to} --count 1 --mode reset")));
        until("a listening pod", DEADLINE, || connects().status.success().then_some(()));
        to
    };
    let server = run("api-0", false, SERVER);
    let client = run("web-0", false, "exec sleep 1000");
    let of_host = run("agent-0", true, "exec sleep 1000");
    let to = listens(&server);
    let capture = capture(&node.socket(), &["--pod-logs", "/nonexistent"]);
    let args = |to: &str| format!("tcp-client --to {to} --count 3 --mode reset");
    for pod in [&client, &of_host] {
        assert_eq!(node.exec(pod, &args(&to)).len(), 3);
    }
    // one that begins in mid-capture, and is known when somebody connects to it
    let late = run("api-1", false, SERVER);
    let to_late = listens(&late);
    node.exec(&client, &args(&to_late));
    let address = node.address(&late);
    node.netns.wait_until_quiet();
    let bundle = capture.stop();

    let (api, late_address) = (node.address(&server), address);
    for id in ends(&bundle, client.netns, Role::Client) {
        let remote = id.remote.addr.unwrap().to_string();
        let name = if remote == api { "api-0" } else { "api-1" };
        assert!(remote == api || remote == late_address, "{id:?}");
        assert_eq!(id.peer.as_deref(), Some(&pod(name)), "{id:?}");
    }
    // a server sees the pod on the bridge by name; the one on the node's network comes from the node's address
    let web = node.address(&client);
    for id in ends(&bundle, server.netns, Role::Server) {
        let is_web = id.remote.addr.unwrap().to_string() == web;
        assert_eq!(id.peer.as_deref().cloned(), is_web.then(|| pod("web-0")), "{id:?}");
    }
    // a process that is in no pod and not in the host's namespace: the same address may be another's there
    for id in ends(&bundle, of_host.netns, Role::Client) {
        let is_in_pod = matches!(id.home.value(), Some(ktrace_bundle::workload::Home::Pod(_)));
        assert_eq!(id.peer.is_some(), is_in_pod, "{id:?}");
    }
}

fn the_node_is_named_by_its_addresses() {
    let own = own_address().unwrap();
    let capture = Capture::with(&["--node", "node-7", "--duration", "120s"]);
    let mut echo = mortal(built("traffic"));
    echo.args(["--limit-s=60", "udp-echo", "--quiet", "--listen", &format!("{own}:0")]);
    let echo = Program::start(echo);
    let to = echo.ready().local;
    let mut client = mortal(built("traffic"));
    client.args(["--limit-s=60", "udp-paced", "--to", &to.to_string(), "--count", "3", "--connected"]);
    let client = Program::start(client);
    let pid = client.pid();
    assert!(client.wait().status.success());
    let bundle = capture.stop();
    let node = Peer::Node { node: "node-7".into(), via: PeerVia::Interfaces };
    let of_client = bundle.events.iter().filter(|event| event.id.owner.value().is_some_and(|it| it.pid == pid));
    let peers: Vec<_> = of_client.map(|event| event.id.peer.as_deref().cloned()).collect();
    assert!(peers.len() >= 3 && peers.iter().all(|peer| *peer == Some(node.clone())), "{peers:?}");
    let loopback = bundle.events.iter().filter(|event| event.id.remote.addr.is_some_and(|it| it.is_loopback()));
    assert_eq!(loopback.filter(|event| event.id.peer.is_some()).count(), 0);
}
