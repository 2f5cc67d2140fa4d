//! The edges of "a receive", "an owner", "a cap" and "a filter", where a simpler collector would be wrong.

use std::net::IpAddr;

use ktrace_bundle::event::{Event, EventKind, Payload, When};
use ktrace_bundle::ledger::DropReason;

use crate::capture::{COMPLETE, Capture};
use crate::dns::{Dnsmasq, NAMES, ask};
use crate::net::{Lab, Netns, SERVER4};
use crate::program::{Ended, Program};
use crate::truth::{assert_same_operations, udp_events, with_peers};
use crate::workdir::Workdir;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        an_error_queue_read_is_no_receive,
        a_connection_that_waited_in_the_accept_queue_gets_its_owner,
        udp_leaves_a_quarter_of_both_caps_to_tcp,
        a_receive_without_its_peer_passes_a_filter_only_on_a_socket_with_a_wanted_peer,
        a_connect_that_a_signal_ended_is_recorded,
    ]
}

fn python(netns: &Netns, script: &str) -> Ended {
    let mut command = netns.command("python3");
    command.args(["-c", script]);
    let ended = Program::run(command);
    assert!(ended.status.success(), "{ended:?}");
    ended
}

fn of_kind(events: &[Event], netns: u32, kind: EventKind) -> Vec<&Event> {
    events.iter().filter(|e| e.id.netns == netns && e.payload.kind() == kind).collect()
}

/// What comes from the error queue is the sender's own datagram, given back.
fn an_error_queue_read_is_no_receive() {
    let lab = Lab::new();
    let capture = Capture::start();
    let script = "import socket, select\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.setsockopt(socket.IPPROTO_IP, 11, 1)\n\
                  s.sendto(b'probe', ('127.0.0.1', 9))\n\
                  p = select.poll(); p.register(s, 0); assert p.poll(5000)\n\
                  data, *_ = s.recvmsg(100, 500, socket.MSG_ERRQUEUE)\n\
                  assert data == b'probe', data";
    python(&lab.client, script);
    let bundle = capture.stop();

    let kinds: Vec<_> = udp_events(&bundle.events, lab.client.inode()).iter().map(|e| e.payload.kind()).collect();
    assert_eq!(kinds, [EventKind::UdpSend]);
}

fn a_connection_that_waited_in_the_accept_queue_gets_its_owner() {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let script = "import socket, sys, time, os\n\
                  def wait(path):\n\
                  \x20   while not os.path.exists(path): time.sleep(0.01)\n\
                  l = socket.create_server(('127.0.0.1', 0))\n\
                  c = socket.create_connection(l.getsockname())\n\
                  print('queued', flush=True); wait(sys.argv[1])\n\
                  a, _ = l.accept(); a.sendall(b'hello'); assert c.recv(5) == b'hello'\n\
                  print('accepted', flush=True); wait(sys.argv[2])";
    let (go, end) = (dir.join("go"), dir.join("end"));
    let mut command = lab.client.command("python3");
    command.args(["-c", script]).arg(&go).arg(&end);
    let server = Program::start(command);
    server.wait_for_lines(1);
    let capture = Capture::start();
    std::fs::write(&go, "").unwrap();
    server.wait_for_lines(2);
    let bundle = capture.stop();
    std::fs::write(&end, "").unwrap();
    assert!(server.wait().status.success());

    let mut here: Vec<_> = bundle.sockets.iter().filter(|s| s.id.netns == lab.client.inode()).collect();
    here.retain(|s| s.when == When::End);
    assert_eq!(here.len(), 3, "listener, client, server: {here:?}");
    let pids: std::collections::BTreeSet<_> =
        here.iter().map(|s| s.id.owner.value().unwrap_or_else(|| panic!("no owner: {s:?}")).pid).collect();
    assert_eq!(pids.len(), 1, "{here:?}");
}

fn udp_leaves_a_quarter_of_both_caps_to_tcp() {
    for (flags, reason) in [
        (["--max-events", "100", "--duration", "60s"], DropReason::EventCap),
        (["--max-bytes", "64KiB", "--duration", "60s"], DropReason::ByteCap),
    ] {
        let lab = Lab::new();
        let capture = Capture::with(&flags);
        let script = "import socket\n\
                      u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                      for _ in range(2000): u.sendto(b'x', ('127.0.0.1', 9))\n\
                      l = socket.create_server(('127.0.0.1', 0))\n\
                      for _ in range(200):\n\
                      \x20   c = socket.create_connection(l.getsockname()); a, _ = l.accept(); c.close(); a.close()";
        python(&lab.client, script);
        let bundle = capture.stop_under_load();

        assert_eq!(bundle.exit_code, COMPLETE, "a cap that was asked for");
        let tcp = bundle.events.iter().filter(|e| !e.payload.kind().is_bulk()).count();
        assert!(tcp >= 25, "{tcp} of {} events", bundle.events.len());
        assert!(bundle.manifest.ledger.dropped[&reason] > 2000);
        if reason == DropReason::EventCap {
            assert_eq!((bundle.events.len(), tcp), (100, 25));
        }
    }
}

fn a_receive_without_its_peer_passes_a_filter_only_on_a_socket_with_a_wanted_peer() {
    let lab = Lab::new();
    let _dnsmasq = Dnsmasq::start(&lab.server);
    let capture = Capture::with(&["--duration", "60s", "--dns-only"]);
    let script = "import socket\n\
                  a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))\n\
                  a.bind(('127.0.0.1', 0))\n\
                  for _ in range(10): b.sendto(b'no dns', a.getsockname()); a.recv(100)";
    python(&lab.client, script);
    let told = ask(&lab.client, "unconnected-recv", SERVER4, NAMES);
    let bundle = capture.stop();

    let told = if bundle.knows_udp_peers() { with_peers(told) } else { told };
    assert_same_operations(&bundle.events, lab.client.inode(), &told);
}

fn a_connect_that_a_signal_ended_is_recorded() {
    let lab = Lab::new();
    lab.fault("tcp dport 8080 counter drop");
    let capture = Capture::start();
    let script = format!("import socket; socket.create_connection(('{SERVER4}', 8080))");
    let mut command = lab.client.command("timeout");
    command.args(["-s", "KILL", "1", "python3", "-c", &script]);
    let ended = Program::run(command);
    assert!(!ended.status.success(), "{ended:?}");
    let bundle = capture.stop();

    let calls = of_kind(&bundle.events, lab.client.inode(), EventKind::Connect);
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    let Payload::Connect(connect) = &call.payload else { panic!("{call:?}") };
    assert_eq!(connect.error.map(|e| e.to_string()).as_deref(), Some("EINTR"));
    assert_eq!((call.id.remote.addr, call.id.remote.port), (Some(IpAddr::from([10, 77, 2, 2])), Some(8080)));
}
