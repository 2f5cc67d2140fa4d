//! Load balancing at sockets: a program at a cgroup changes the address inside `connect(2)`, `sendto(2)` and `sendmsg(2)`,
//! as Cilium does in the place of kube-proxy, and no packet ever bears the one that was asked for. Events tell both.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;

use ktrace_bundle::event::{Endpoint, Event, Payload};
use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder};

use crate::capture::{Bundle, Capture};
use crate::filters::Cgroups;
use crate::hook_limits::ASKED_FIRST;
use crate::net::{Lab, SERVER4, SERVER4_OTHER, SERVER6};
use crate::program::Program;
use crate::truth::{owner, udp_events};
use crate::{Test, tests};

const REWRITER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rewriter.bpf.o"));
const CLIENT: &str = include_str!("socketlb/client.py");

const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));
const OTHER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 11));
const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 10));
const OTHER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 11));

/// Ports that are asked for; those of backends are 8,000 above.
const WEB: u16 = 80;
const CLOSED: u16 = 81;
const DNS: u16 = 53;
const BEHIND: u16 = 8000;

const EINPROGRESS: u16 = 115;
const ECONNREFUSED: u16 = 111;

pub fn tests() -> Vec<Test> {
    tests![
        a_v4_address_that_is_balanced_at_the_socket_is_told_with_its_backend,
        a_v6_address_that_is_balanced_at_the_socket_is_told_with_its_backend,
        a_v4_mapped_address_that_is_balanced_at_the_socket_is_told_with_its_backend,
        what_is_not_balanced_went_where_it_was_asked_for,
    ]
}

/// The programs at a cgroup, until this is dropped.
pub struct Rewriter {
    _links: Vec<Link>,
    object: Object,
}

/// `struct end`: network order, IPv4 as v4-mapped, the port in the first half of 4 bytes.
fn end(at: SocketAddr) -> [u8; 20] {
    let addr = match at.ip() {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    };
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(&addr.octets());
    bytes[16..18].copy_from_slice(&at.port().to_be_bytes());
    bytes
}

impl Rewriter {
    /// One that leads nowhere yet.
    pub fn at(cgroup: &Path) -> Self {
        let object = ObjectBuilder::default().open_memory(REWRITER).unwrap().load().unwrap();
        let cgroup = File::open(cgroup).unwrap();
        let links = object.progs_mut().map(|program| program.attach_cgroup(cgroup.as_raw_fd()).unwrap()).collect();
        Self { _links: links, object }
    }

    /// From now on this service leads to this backend, and back.
    pub fn lead(&self, asked: SocketAddr, went: SocketAddr) {
        let map = |name: &str| self.object.maps().find(|map| map.name() == name).unwrap();
        map("backends").update(&end(asked), &end(went), MapFlags::ANY).unwrap();
        map("services").update(&end(went), &end(asked), MapFlags::ANY).unwrap();
    }
}

fn a_v4_address_that_is_balanced_at_the_socket_is_told_with_its_backend() {
    both_are_told(&Scene::balanced([VIP4, OTHER4], [SERVER4, SERVER4_OTHER]), |ip| ip.to_string());
}

fn a_v6_address_that_is_balanced_at_the_socket_is_told_with_its_backend() {
    both_are_told(&Scene::balanced([VIP6, OTHER6], [SERVER6, SERVER6]), |ip| ip.to_string());
}

fn a_v4_mapped_address_that_is_balanced_at_the_socket_is_told_with_its_backend() {
    both_are_told(&Scene::balanced([VIP4, OTHER4], [SERVER4, SERVER4_OTHER]), |ip| format!("::ffff:{ip}"));
}

fn what_is_not_balanced_went_where_it_was_asked_for() {
    both_are_told(&Scene::plain([SERVER4, SERVER4_OTHER]), |ip| ip.to_string());
    both_are_told(&Scene::plain([SERVER6, SERVER6]), |ip| ip.to_string());
}

/// What is asked for, and where it goes.
#[derive(Clone, Copy)]
struct Way {
    asked: SocketAddr,
    went: SocketAddr,
}

/// What the client asks for, in the order of its arguments.
struct Scene {
    web: Way,
    closed: Way,
    one: Way,
    other: Way,
    direct: Way,
}

impl Scene {
    fn balanced([vip, other]: [IpAddr; 2], [backend, backend_of_other]: [IpAddr; 2]) -> Self {
        let way = |port: u16, vip: IpAddr, backend: IpAddr, behind: u16| Way {
            asked: SocketAddr::new(vip, port),
            went: SocketAddr::new(backend, port + behind),
        };
        Self {
            web: way(WEB, vip, backend, BEHIND),
            closed: way(CLOSED, vip, backend, BEHIND),
            one: way(DNS, vip, backend, BEHIND),
            other: way(DNS, other, backend_of_other, BEHIND + 1),
            direct: Way::straight(backend, DNS + BEHIND),
        }
    }

    fn plain([one, other]: [IpAddr; 2]) -> Self {
        Self {
            web: Way::straight(one, WEB),
            closed: Way::straight(one, CLOSED),
            one: Way::straight(one, DNS),
            other: Way::straight(other, DNS + 1),
            direct: Way::straight(one, DNS),
        }
    }

    /// Errors of connects, in their order.
    fn connects(&self) -> Vec<(Way, Option<u16>)> {
        let (open, closed) = (self.web, self.closed);
        let waits = Some(EINPROGRESS);
        let refused = Some(ECONNREFUSED);
        vec![(open, None), (open, waits), (open, None), (closed, refused), (closed, waits), (closed, refused)]
    }

    /// In their order; the last one of `one` and the one before come from the same socket.
    fn sends(&self) -> Vec<Way> {
        let Self { one, other, direct, .. } = *self;
        vec![one, other, direct, one, other, one, direct]
    }

    /// Those of the sends that are answered: a socket that is connected takes no answer of another.
    fn receives(&self) -> Vec<Way> {
        let Self { one, other, direct, .. } = *self;
        vec![one, other, direct, one, one, direct]
    }
}

impl Way {
    fn straight(addr: IpAddr, port: u16) -> Self {
        Self { asked: SocketAddr::new(addr, port), went: SocketAddr::new(addr, port) }
    }

    fn changes(self) -> bool {
        self.asked != self.went
    }

    /// As events tell it: what was asked only if it is not where it went.
    fn told(self) -> Told {
        (Some(self.asked).filter(|_| self.changes()), Some(self.went))
    }
}

/// What was asked for, if it went elsewhere, and the remote end.
type Told = (Option<SocketAddr>, Option<SocketAddr>);

fn told(asked: Option<Endpoint>, event: &Event) -> Told {
    let socket_addr = |end: Endpoint| Some(SocketAddr::new(end.addr?, end.port?));
    (asked.map(|end| socket_addr(end).unwrap()), socket_addr(event.id.remote))
}

/// Runs the client in a cgroup of its own; its process id, its namespace and the bundle.
fn capture_of(scene: &Scene, shown: impl Fn(IpAddr) -> String) -> (u32, u32, Bundle) {
    let (lab, cgroups) = (Lab::new(), Cgroups::new());
    let all = [scene.web, scene.closed, scene.one, scene.other, scene.direct];
    let services: Vec<_> = all.into_iter().filter(|way| way.changes()).collect();
    let rewriter = Rewriter::at(&cgroups.0);
    services.iter().for_each(|Way { asked, went }| rewriter.lead(*asked, *went));
    let _servers = [
        lab.server.start(&format!("tcp-server --listen {} --then close", scene.web.went)),
        lab.server.start(&format!("udp-echo --listen {}", scene.one.went)),
        lab.server.start(&format!("udp-echo --listen {}", scene.other.went)),
    ]
    .map(|server| (server.ready(), server));
    let capture = Capture::start();
    let mut command = lab.client.command("sh");
    command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec python3 -I -S -c \"$@\""]).arg(&cgroups.0).arg(CLIENT);
    command.args(all.map(|way| format!("{} {}", shown(way.asked.ip()), way.asked.port())));
    let client = Program::start(command);
    let pid = client.pid();
    let ended = client.wait();
    assert!(ended.status.success(), "{ended:?}");
    lab.client.wait_until_quiet();
    (pid, lab.client.inode(), capture.stop())
}

fn both_are_told(scene: &Scene, shown: impl Fn(IpAddr) -> String) {
    let (pid, netns, bundle) = capture_of(scene, shown);
    connections_tell_both(scene, &bundle, pid, netns);
    datagrams_tell_both(scene, &bundle, netns);
}

fn connections_tell_both(scene: &Scene, bundle: &Bundle, pid: u32, netns: u32) {
    let calls = bundle.events.iter().filter(|e| e.id.netns == netns).filter_map(|e| match &e.payload {
        Payload::Connect(call) => Some((e, call)),
        _ => None,
    });
    let mut calls: Vec<_> = calls.collect();
    calls.sort_by_key(|(event, _)| event.boot_ns);
    assert!(calls.iter().all(|(event, _)| owner(event).pid == pid));
    let recorded: Vec<_> = calls.iter().map(|(e, call)| (told(call.asked, e), call.error.map(|e| e.0))).collect();
    let expected: Vec<_> = scene.connects().into_iter().map(|(way, error)| (way.told(), error)).collect();
    assert_eq!(recorded, expected);
    for (call, _) in calls {
        let of_socket = bundle.events.iter().filter(|e| e.id.netns == netns && e.id.socket == call.id.socket);
        let elsewhere: Vec<_> = of_socket.filter(|e| e.id.remote != call.id.remote).collect();
        assert!(elsewhere.is_empty(), "the socket of {call:?} went elsewhere: {elsewhere:?}");
    }
}

fn datagrams_tell_both(scene: &Scene, bundle: &Bundle, netns: u32) {
    let udp = bundle.manifest.head.hooks.iter().find(|hook| hook.name == "udp").unwrap();
    let is_late = udp.limits.iter().any(|limit| limit == ASKED_FIRST.text);
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for event in udp_events(&bundle.events, netns) {
        match &event.payload {
            Payload::UdpSend(d) => sent.push(told(d.asked, event)),
            Payload::UdpRecv(d) => received.push((told(d.asked, event), d.query_seq.is_some())),
            _ => unreachable!("an event of UDP"),
        }
    }
    let expected = scene.sends().into_iter().map(|way| if is_late { (None, Some(way.went)) } else { way.told() });
    assert_eq!(sent, expected.collect::<Vec<_>>());
    if is_late {
        return eprintln!("not looked at: receives, {}", ASKED_FIRST.text);
    }
    // that it is DNS shows in what was asked for
    let expected = scene.receives().into_iter().map(|way| ((None, Some(way.went)), way.asked.port() == DNS));
    assert_eq!(received, expected.collect::<Vec<_>>());
}
