//! What the kernel under these tests says, each in a network namespace of its own. They need root and `nft`; without,
//! they say that they did nothing.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ktrace_bundle::event::Proto;
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};

use super::counters::Counters;
use super::entry::{Direction, Entry, Tuple};
use super::netlink::{Change, Ctnetlink, Error, Events};
use super::{module, procfs};

/// A client, the address that it asks, and the one that a rule leads it to.
const ROADS: [[&str; 3]; 2] =
    [["127.0.0.1:0", "127.0.0.2:80", "127.0.0.1:8080"], ["[::1]:0", "[fd00::2]:80", "[::1]:8080"]];
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// `IPS_DST_NAT`.
const DST_NAT: u32 = 1 << 5;
const RULES: &str = "table inet nat {
    chain output {
        type nat hook output priority -100
        ip daddr 127.0.0.2 meta l4proto { tcp, udp } dnat ip to 127.0.0.1:8080
        ip6 daddr fd00::2 meta l4proto { tcp, udp } dnat ip6 to [::1]:8080
    }
}
";

/// Runs in a namespace that ends with it, with [`RULES`].
fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    let inside = || {
        let is_away = Command::new("nft").arg("-v").output().is_ok() && unshare(CloneFlags::CLONE_NEWNET).is_ok();
        if !is_away {
            return eprintln!("skipped: this needs root and nft");
        }
        run("ip", &["-batch", "-"], "link set lo up\naddress add fd00::2/128 dev lo nodad\n");
        run("nft", &["-f", "-"], RULES);
        test();
    };
    std::thread::spawn(inside).join().unwrap();
}

fn run(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} {arguments:?}");
}

/// Sends and gets an answer; the sockets keep the flow as it is.
fn udp([client, asked, server]: [&str; 3]) -> (Tuple, Tuple, impl Sized) {
    let [client, server] = [client, server].map(|at| UdpSocket::bind(at).unwrap());
    [&client, &server].iter().for_each(|it| it.set_read_timeout(Some(PATIENCE)).unwrap());
    client.connect(asked).unwrap();
    client.send(b"?").unwrap();
    let (_, from) = server.recv_from(&mut [0]).unwrap();
    server.send_to(b"!", from).unwrap();
    client.recv(&mut [0]).unwrap();
    let [local, asked, answers] = [client.local_addr(), client.peer_addr(), server.local_addr()].map(Result::unwrap);
    (tuple(Proto::Udp, local, asked), tuple(Proto::Udp, answers, local), (client, server))
}

fn tcp([_, asked, server]: [&str; 3]) -> (Tuple, Tuple, impl Sized) {
    let listener = TcpListener::bind(server).unwrap();
    let mut client = TcpStream::connect(asked).unwrap();
    let (mut accepted, from) = listener.accept().unwrap();
    accepted.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let [asked, answers] = [client.peer_addr(), listener.local_addr()].map(Result::unwrap);
    (tuple(Proto::Tcp, from, asked), tuple(Proto::Tcp, answers, from), (client, accepted, listener))
}

const fn tuple(proto: Proto, src: SocketAddr, dst: SocketAddr) -> Tuple {
    Tuple { proto, src, dst }
}

fn dumped(netlink: &mut Ctnetlink) -> Vec<Entry> {
    let mut entries = Vec::new();
    let dump = netlink.dump(|entry| entries.push(entry)).unwrap();
    assert_eq!((dump.entries, dump.undecodable, dump.is_interrupted), (entries.len() as u64, 0, false));
    entries
}

#[test]
fn a_translated_connection_is_found_in_the_table_and_by_its_addresses() {
    in_a_namespace(|| {
        let mut netlink = Ctnetlink::open(None).unwrap();
        for road in ROADS {
            let (udp, tcp) = (udp(road), tcp(road));
            for (original, reply, state) in [(udp.0, udp.1, "REPLIED"), (tcp.0, tcp.1, "ESTABLISHED")] {
                let entry = dumped(&mut netlink).into_iter().find(|entry| entry.original == original).unwrap();
                assert_eq!(entry.reply, reply);
                assert_eq!((entry.is_dnat(), entry.is_snat(), entry.is_replied), (true, false, true));
                assert_eq!((entry.state(), entry.zone, entry.mark), (Some(state), 0, Some(0)));
                assert_eq!(entry.status.unwrap() & DST_NAT, DST_NAT);
                let mut get = |tuple: &Tuple, direction, zone| netlink.get(tuple, direction, zone).unwrap();
                assert_eq!(get(&original, Direction::Original, 0), Some(entry));
                assert_eq!(get(&reply, Direction::Reply, 0), Some(entry));
                assert_eq!(get(&reply, Direction::Original, 0), None, "the other direction's");
                assert_eq!(get(&original, Direction::Original, 7), None, "another zone");
                assert_eq!(get(&original.reversed(), Direction::Original, 0), None);
            }
        }
    });
}

#[test]
fn what_is_no_address_is_refused_and_the_next_question_answered() {
    in_a_namespace(|| {
        let mut netlink = Ctnetlink::open(None).unwrap();
        let [v4, v6] = ["127.0.0.1:1", "[::1]:1"].map(|at| at.parse().unwrap());
        for (src, dst) in [(v4, v6), (v6, v4)] {
            assert!(netlink.get(&tuple(Proto::Udp, src, dst), Direction::Original, 0).is_err());
        }
        assert!(dumped(&mut netlink).is_empty());
    });
}

#[test]
fn events_tell_how_a_connection_begins_changes_and_ends() {
    in_a_namespace(|| {
        let mut events = Events::open(None, 1 << 20).unwrap();
        let mut netlink = Ctnetlink::open(None).unwrap();
        fs::write("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "1").unwrap();
        for road in ROADS {
            let flows = udp(road);
            let (original, reply) = (flows.0, flows.1);
            let mut told = Vec::new();
            let until = Instant::now() + PATIENCE;
            while told.last() != Some(&(Change::Destroyed, Some("REPLIED"))) {
                assert!(Instant::now() < until, "{told:?}");
                dumped(&mut netlink); // what is out of time goes when it is looked at
                let read = events.read(100, |change, entry| {
                    assert_eq!((entry.original, entry.reply), (original, reply));
                    told.push((change, entry.state()));
                });
                let read = read.unwrap();
                assert_eq!((read.overruns, read.undecodable), (0, 0));
            }
            assert_eq!(told[..2], [(Change::New, Some("UNREPLIED")), (Change::Update, Some("REPLIED"))]);
        }
    });
}

#[test]
fn events_that_find_no_room_are_counted_and_the_next_ones_come() {
    in_a_namespace(|| {
        let mut events = Events::open(None, 8 << 10).unwrap();
        let server = UdpSocket::bind("127.0.0.1:9000").unwrap();
        let send = || {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"?", server.local_addr().unwrap()).unwrap();
            client.local_addr().unwrap()
        };
        for _ in 0..200 {
            send();
        }
        let mut count = 0;
        let read = events.read(1000, |_, _| count += 1).unwrap();
        assert!(read.overruns > 0 && count > 0 && count < 200, "{read:?} {count}");
        let client = send();
        let mut next = None;
        let read = events.read(1, |change, entry| next = Some((change, entry.original.src))).unwrap();
        assert_eq!((next, read.more, read.overruns), (Some((Change::New, client)), true, 0));
    });
}

#[test]
fn without_the_capability_it_is_not_permitted() {
    in_a_namespace(|| {
        let own = File::open("/proc/thread-self/ns/net").unwrap();
        // of this thread only, unlike that of the C library
        let id = |id: u32| libc::c_long::from(id);
        // SAFETY: takes three numbers
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, id(65534), id(65534), id(65534)) }, 0);
        let mut netlink = Ctnetlink::open(None).unwrap();
        assert!(matches!(netlink.dump(drop), Err(Error::NotPermitted)));
        assert!(matches!(netlink.counters(), Err(Error::NotPermitted)));
        let at = "127.0.0.1:1".parse().unwrap();
        let asked = netlink.get(&tuple(Proto::Udp, at, at), Direction::Original, 0);
        assert!(matches!(asked, Err(Error::NotPermitted)));
        assert!(matches!(Events::open(None, 1 << 20), Err(Error::NotPermitted)));
        let entered = Ctnetlink::open(Some(own.as_fd()));
        assert!(matches!(entered, Err(Error::Namespace(e)) if e.kind() == ErrorKind::PermissionDenied));
    });
}

#[test]
fn another_namespace_is_asked_from_outside_of_it() {
    in_a_namespace(|| {
        let first = File::open("/proc/thread-self/ns/net").unwrap();
        let flow = udp(ROADS[0]);
        let cookie = Ctnetlink::open(None).unwrap().netns_cookie();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let here = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let mut netlink = Ctnetlink::open(Some(first.as_fd())).unwrap();
        let mut events = Events::open(Some(first.as_fd()), 1 << 20).unwrap();
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), here);
        assert_eq!(netlink.netns_cookie(), cookie);
        assert_ne!(Ctnetlink::open(None).unwrap().netns_cookie(), cookie);
        assert_eq!(dumped(&mut netlink).first().map(|entry| entry.original), Some(flow.0));
        assert!(dumped(&mut Ctnetlink::open(None).unwrap()).is_empty());
        let read = events.read(1, |_, _| ()).unwrap();
        assert_eq!((read.more, read.overruns, read.undecodable), (false, 0, 0));
        let no_namespace = File::open("/dev/null").unwrap();
        assert!(matches!(Ctnetlink::open(Some(no_namespace.as_fd())), Err(Error::Namespace(_))));
    });
}

#[test]
fn the_counters_are_this_namespaces() {
    in_a_namespace(|| {
        let flows = ROADS.map(udp);
        let counters = Ctnetlink::open(None).unwrap().counters().unwrap();
        assert_eq!(counters.count, Some(flows.len() as u64));
        assert!(counters.max > Some(1000));
        for none in [counters.drop, counters.early_drop, counters.insert_failed, counters.error] {
            assert_eq!(none, Some(0));
        }
    });
}

#[test]
fn procfs_has_the_same_connections() {
    in_a_namespace(|| {
        let flows = (ROADS.map(udp), ROADS.map(tcp));
        let thread = nix::unistd::gettid().as_raw();
        let mut netlink = Ctnetlink::open(None).unwrap();
        let mut read = Vec::new();
        match procfs::entries(thread, |entry| read.push(entry)) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return eprintln!("skipped: this kernel has no table in procfs");
            }
            table => assert_eq!(table.unwrap(), procfs::Table { entries: 4, ..procfs::Table::default() }),
        }
        let key = |entry: &Entry| entry.original;
        let mut expected = dumped(&mut netlink);
        expected.iter_mut().for_each(|entry| entry.status = None);
        expected.sort_by_key(key);
        read.sort_by_key(key);
        assert_eq!(read, expected);
        let (counters, expected) = (procfs::counters(thread).unwrap(), netlink.counters().unwrap());
        assert_eq!(Counters { max: expected.max, insert: expected.insert, ..counters }, expected);
        assert_eq!(procfs::own_limit(), expected.max);
        drop(flows);
    });
}

#[test]
fn this_kernel_can_be_asked_if_the_module_is_said_to_be_there() {
    in_a_namespace(|| {
        let modules = module::look();
        assert!(modules.ctnetlink.is_there() && modules.conntrack.is_there(), "{modules:?}");
    });
}

/// Of this thread, the kernel's work for it included: how busy the machine is does not matter.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

#[test]
fn a_table_of_50_000_costs_less_than_200_ms() {
    in_a_namespace(|| {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for n in 0..50_000_u16 {
            let _ = client.send_to(b"?", (format!("127.0.1.{}", n >> 15), n | 1 << 15));
        }
        let mut netlink = Ctnetlink::open(None).unwrap();
        let mut took = [Duration::MAX; 5];
        for took in &mut took {
            let (begin, mut bytes) = (cpu_time(), 0);
            let dump = netlink.dump(|entry| bytes += size_of_val(&entry)).unwrap();
            *took = cpu_time() - begin;
            assert_eq!((dump.entries, bytes), (50_000, 50_000 * size_of::<Entry>()));
        }
        assert!(took.iter().min() < Some(&Duration::from_millis(200)), "{took:?}");
    });
}
