//! What pods and containers are called, by the runtime that runs them: a real containerd with real pods, and one that answers
//! what no sane runtime does.

mod derived;
mod filters;
mod peers;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ktrace_bundle::attribution::Attribution;
use ktrace_bundle::event::{Event, Identity, Payload, Role};
use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::why::Reason;
use ktrace_bundle::workload::{Home, Via, Workload};
use ktrace_traffic::Truth;
use nix::sys::signal::Signal;

use crate::capture::{Bundle, Capture, only_entry};
use crate::cgroups::{Tree, roots};
use crate::identity::inside;
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::runtime::cri::{
    Container, ContainerMetadata, ListContainersResponse, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata,
};
use crate::runtime::fake::{Answers, Fake};
use crate::runtime::node::{NODE_ADDRESS, Node, Pod, Running};
use crate::runtime::servers::{ROUND, Servers};
use crate::truth::is_of_a_program;
use crate::wait::{DEADLINE, PATIENCE, boot_ns, until, until_boot_ns};
use crate::workdir::Workdir;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    let tests = tests![
        every_event_of_a_pod_names_it_and_those_of_the_host_none,
        a_hundred_containers_that_live_for_a_moment_are_all_named,
        a_runtime_that_hangs_dies_and_comes_back_costs_no_event_and_no_time,
        five_hundred_containers_with_large_specs_are_listed_within_a_second,
        what_a_pod_says_about_itself_names_nobody_else,
        a_runtime_that_was_asked_for_and_is_not_there_degrades_the_capture,
    ];
    tests.into_iter().chain(derived::tests()).chain(filters::tests()).chain(peers::tests()).collect()
}

/// What a process in this container belongs to.
pub fn home(pod: &Pod, container: &str, running: &Running) -> Home {
    Home::Pod(
        Workload {
            namespace: Some(pod.namespace.into()),
            pod: Some(pod.name.clone()),
            container: Some(container.into()),
            container_id: Some(running.id.clone()),
            via: Via::Cri,
            ..Workload::of_cgroup(pod.uid.clone())
        }
        .into(),
    )
}

/// The own end of each socket: whether it is UDP, and its port.
fn sockets(truths: &[Truth]) -> BTreeSet<(bool, u16)> {
    let socket = |truth: &Truth| match truth {
        // of the programs here only those of UDP say that they are ready
        Truth::Ready(ready) => (true, ready.local.port()),
        Truth::Datagram(datagram) => (true, datagram.local.port()),
        Truth::Conn(conn) => (false, conn.local.port()),
        other => panic!("{other:?}"),
    };
    truths.iter().map(socket).collect()
}

/// The same of each event: a connection's first states come before its port.
struct Ports(HashMap<u64, u16>);

impl Ports {
    fn of(bundle: &Bundle) -> Self {
        let port = |event: &Event| Some((event.id.socket?, event.id.local.port?));
        Self(bundle.events.iter().filter_map(port).collect())
    }

    fn socket(&self, event: &Event) -> (bool, u16) {
        let is_udp = matches!(event.payload, Payload::UdpSend(_) | Payload::UdpRecv(_));
        (is_udp, self.0.get(&event.id.socket.unwrap()).copied().unwrap_or(0))
    }
}

pub fn capture(socket: &Path, flags: &[&str]) -> Capture {
    let (seconds, socket) = (format!("{}s", 120 * *PATIENCE), socket.display().to_string());
    Capture::with(&[&["--duration", &seconds, "--cri-socket", &socket], flags].concat())
}

pub fn runtime(bundle: &Bundle) -> &SourceReport {
    let mut runtimes = bundle.manifest.head.sources.iter().filter(|it| ["cri", "containerd"].contains(&&*it.name));
    let runtime = runtimes.next().unwrap();
    assert_eq!(runtimes.next(), None, "one for each socket");
    runtime
}

fn every_event_of_a_pod_names_it_and_those_of_the_host_none() {
    every_event_names_its_pod(&Node::start());
}

pub fn every_event_names_its_pod(node: &Node) {
    let servers = Servers::start(node);
    let early = [Pod::new("api-7d9f-x2x", false), Pod::new("agent-k4k", true)];
    let early = early.map(|pod| (node.run(&pod, "main", "exec sleep 1000"), pod));
    let capture = capture(&node.socket(), &[]);
    let mut expected = HashMap::new();
    for (running, pod) in &early {
        let told = [node.exec(running, &servers.dns), node.exec(running, &servers.tcp)].concat();
        assert_eq!(told.len(), ROUND);
        expected.extend(sockets(&told).into_iter().map(|it| ((running.netns, it), home(pod, "main", running))));
    }
    // one that begins in mid-capture, and talks at once
    let pod = Pod::new("web-0", false);
    let late = node.run(&pod, "web", &servers.script());
    expected.extend(sockets(&late.truths(ROUND)).into_iter().map(|it| ((late.netns, it), home(&pod, "web", &late))));
    let of_host = [&servers.dns, &servers.tcp].map(|args| Program::run(node.netns.traffic(args)).truths()).concat();
    let of_host = sockets(&of_host);
    node.netns.wait_until_quiet();
    let bundle = capture.stop();
    let spaces = [node.netns.inode(), early[0].0.netns, late.netns];
    let ports = Ports::of(&bundle);
    let (mut of_pods, mut of_others) = (0, 0);
    let of_programs = bundle.events.iter().filter(|event| is_of_a_program(event));
    for event in of_programs.filter(|event| spaces.contains(&event.id.netns)) {
        let key = (event.id.netns, ports.socket(event));
        match (&event.id.home, expected.get(&key)) {
            (Attribution::Resolved(found), Some(home)) => {
                assert_eq!(found, home, "{event:?}");
                of_pods += 1;
            }
            (Attribution::Resolved(found), None) => {
                assert!(matches!(found, Home::Host(_)), "{event:?}");
                of_others += usize::from(key.0 == node.netns.inode() && of_host.contains(&key.1));
            }
            // nobody's: such as a connection's end that outlives the process
            (Attribution::Unresolved(reason), _) => assert_eq!(*reason, Reason::NoOwner, "{event:?}"),
        }
    }
    // of each: 5 queries and at least 5 answers or states of 3 connections
    assert!(of_pods >= 3 * 10 && of_others >= 10, "{of_pods} {of_others}");
    let named = expected.iter().filter(|((netns, _), _)| *netns != node.netns.inode());
    assert_eq!(named.count(), 2 * 4, "a socket for queries and three connections in each pod of the bridge");
    let report = runtime(&bundle);
    assert_eq!((&*report.outcome, report.errors), ("answered", Some(0)), "{report:?}");
    assert!(report.version.as_deref().is_some_and(|it| it.starts_with("containerd ")), "{report:?}");
    // of the late one: its sandbox and its container are made and started
    assert!(report.notices.is_some_and(|count| count >= 4), "{report:?}");
}

/// As jobs do that a controller starts, on the pod network: each makes one connection and ends. Several at a time, as
/// most of a pod's start is waiting.
fn a_hundred_containers_that_live_for_a_moment_are_all_named() {
    const JOBS: usize = 100;
    const AT_ONCE: usize = 4;
    let node = Node::start();
    let server = node.netns.start(&format!("tcp-server --listen {NODE_ADDRESS}:0 --then echo"));
    let job = format!("/traffic/traffic tcp-client --to {} --count 1 --mode reset; sleep 0.04", server.ready().local);
    let capture = capture(&node.socket(), &["--pod-logs", "/nonexistent"]);
    let begin = std::time::Instant::now();
    let run = |number: usize| {
        let pod = Pod::new(&format!("job-{number}"), false);
        let running = node.run(&pod, "job", &job);
        node.end(&running);
        (running.netns, home(&pod, "job", &running))
    };
    let expected: BTreeSet<_> = std::thread::scope(|scope| {
        let row = |first: usize| scope.spawn(move || (first..JOBS).step_by(AT_ONCE).map(run).collect::<Vec<_>>());
        let rows: Vec<_> = (0..AT_ONCE).map(row).collect();
        rows.into_iter().flat_map(|row| row.join().unwrap()).collect()
    });
    eprintln!("{JOBS} pods in {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(30) * *PATIENCE);
    node.netns.wait_until_quiet();
    let bundle = capture.stop();
    let homes: BTreeSet<_> = expected.iter().map(|(_, home)| home.clone()).collect();
    let spaces: BTreeSet<_> = expected.iter().map(|(netns, _)| *netns).collect();
    let of_jobs = bundle.events.iter().filter(|e| spaces.contains(&e.id.netns) && e.id.role == Some(Role::Client));
    let mut found = BTreeSet::new();
    for event in of_jobs.filter(|event| event.id.owner.value().is_some()) {
        match &event.id.home {
            Attribution::Resolved(home) => drop(found.insert(home.clone())),
            Attribution::Unresolved(reason) => panic!("{reason:?}: {event:?}"),
        }
    }
    assert_eq!((found.len(), found), (JOBS, homes));
}

/// The cgroup of a container in the hierarchy that tells of it here.
pub fn cgroup(pod: &Pod, running: &Running) -> PathBuf {
    let path = format!("kubepods/burstable/pod{}/{}", pod.uid, running.id);
    roots().into_iter().map(|root| root.join(&path)).find(|it| it.exists()).expect("a cgroup of the container")
}

fn a_runtime_that_hangs_dies_and_comes_back_costs_no_event_and_no_time() {
    let mut node = Node::start();
    let servers = Servers::start(&node);
    let pod = Pod::new("agent-k4k", true);
    let running = node.run(&pod, "main", "exec sleep 1000");
    let cgroup = cgroup(&pod, &running);
    let talk = |node: &Node| Program::run(inside(&cgroup, &node.netns, &servers.tcp)).truths();
    node.signal(Signal::SIGSTOP);
    let capture = capture(&node.socket(), &["--pod-logs", "/nonexistent"]);
    let journal = only_entry(&capture.dir().join("out"), Path::is_dir).join("events.jsonl");
    let written = |text: &str| std::fs::read_to_string(&journal).unwrap().contains(text);
    // it hangs: the ids are there, and the reason
    let nameless = sockets(&talk(&node));
    until("events without names", DEADLINE, || written(r#""k8s.pod":"source_timeout""#).then_some(()));
    node.signal(Signal::SIGCONT);
    let mut told = until("events with names", DEADLINE, || {
        let told = talk(&node);
        written(r#""via":"cri""#).then_some(told)
    });
    // it is dead: what is known stays known
    node.kill_containerd();
    told.extend(talk(&node));
    // it is back, and starts another pod
    node.start_containerd();
    let other = Pod::new("web-0", true);
    let late = node.run(&other, "web", &servers.script());
    let of_late = sockets(&late.truths(ROUND));
    // so long at most after its return it is listened to again
    until_boot_ns(boot_ns() + 1_000_000_000);
    node.remove(&late);
    node.netns.wait_until_quiet();
    let bundle = capture.stop();
    let is_its = |event: &&Event| event.id.netns == node.netns.inode() && is_of_a_program(event);
    let events: Vec<_> = bundle.events.iter().filter(is_its).collect();
    let ports = Ports::of(&bundle);
    let homes_of = |wanted: &BTreeSet<(bool, u16)>| {
        let its = events.iter().filter(|event| wanted.contains(&ports.socket(event)));
        let homes: Vec<_> = its.filter_map(|event| event.id.home.value().map(|home| (home.clone(), *event))).collect();
        assert!(homes.len() >= wanted.len(), "{homes:?}");
        homes
    };
    let ids = Workload { container_id: Some(running.id.clone()), ..Workload::of_cgroup(pod.uid.clone()) };
    for (found, event) in homes_of(&nameless) {
        assert_eq!((found, event.id.why.get("k8s.pod")), (Home::Pod(ids.clone().into()), Some(&Reason::SourceTimeout)));
        assert_eq!(bundle.workloads.join(&event.id), Some(home(&pod, "main", &running)), "the name came later");
    }
    for (found, event) in homes_of(&sockets(&told)) {
        assert_eq!(found, home(&pod, "main", &running), "{event:?}");
    }
    for (found, event) in homes_of(&of_late) {
        assert_eq!(found, home(&other, "web", &late), "{event:?}");
    }
    let report = runtime(&bundle);
    assert_eq!(report.outcome, "answered", "{report:?}");
    assert!(report.errors.is_some_and(|count| count > 0) && report.error.is_some(), "{report:?}");
    // nothing began or ended before it was dead: it tells again, of the late container and its sandbox at least the end
    assert!(report.notices.is_some_and(|count| count >= 2), "{report:?}");
    let stall = bundle.manifest.cost.longest_stall_ns.unwrap();
    assert!(stall < 100_000_000, "{stall} ns");
}

pub fn uid(number: usize) -> String {
    format!("0b1c6c2e-4a77-4d8a-9d2b-{number:012x}")
}

pub fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// Bytes of the labels and annotations of one container, as a large specification has them.
const LARGE: usize = 20 << 10;

fn five_hundred_containers_with_large_specs_are_listed_within_a_second() {
    const PODS: usize = 100;
    let text = |key: &str| HashMap::from([(key.to_owned(), "x".repeat(LARGE / 2))]);
    let sandbox = |number: usize| PodSandbox {
        id: id(number),
        metadata: Some(PodSandboxMetadata {
            name: format!("pod-{number}"),
            uid: uid(number),
            namespace: "shop".into(),
        }),
        labels: text("label"),
        annotations: text("annotation"),
    };
    let container = |number: usize| Container {
        id: id(PODS + number),
        pod_sandbox_id: id(number % PODS),
        metadata: Some(ContainerMetadata { name: format!("c-{}", number / PODS) }),
        labels: text("label"),
        annotations: text("annotation"),
    };
    let answers = Answers {
        name: "large".into(),
        pods: ListPodSandboxResponse { items: (0..PODS).map(sandbox).collect() },
        containers: ListContainersResponse { containers: (0..500).map(container).collect() },
        ..Answers::default()
    };
    let dir = Workdir::new();
    let fake = Fake::start(dir.join("large.sock"), answers);
    let without = Capture::with(&["--duration", "1s", "--with-cri=false"]).deadline();
    let with = capture(fake.socket(), &["--duration", "1s"]).deadline();
    let report = runtime(&with);
    assert_eq!((&*report.outcome, report.entries), ("answered", Some((PODS + PODS + 500) as u64)), "{report:?}");
    assert!(report.latency_us.unwrap() < 1_000_000, "{report:?}");
    let [with, without] = [&with, &without].map(|it| it.manifest.cost.peak_rss_bytes);
    assert!(with.saturating_sub(without) < 50 << 20, "{with} bytes, and {without} without a runtime");
}

/// A pod's labels are its owner's to write, and so are names in a runtime that is not the kubelet's alone.
fn what_a_pod_says_about_itself_names_nobody_else() {
    let labels = HashMap::from([
        ("io.kubernetes.pod.namespace".to_owned(), "kube-system".to_owned()),
        ("io.kubernetes.pod.name".to_owned(), "etcd".to_owned()),
        ("io.kubernetes.pod.uid".to_owned(), uid(9)),
        ("io.kubernetes.container.name".to_owned(), "etcd".to_owned()),
        ("large".to_owned(), "x".repeat(1 << 20)),
        ("\u{1b}[31m\n\"".to_owned(), "\u{7f}\u{9b}".to_owned()),
    ]);
    let sandbox = |number: usize, namespace: &str, name: &str| PodSandbox {
        id: id(number),
        metadata: Some(PodSandboxMetadata { name: name.into(), uid: uid(number), namespace: namespace.into() }),
        labels: labels.clone(),
        annotations: labels.clone(),
    };
    let container = |number: usize, of: usize, name: &str| Container {
        id: id(number),
        pod_sandbox_id: id(of),
        metadata: Some(ContainerMetadata { name: name.into() }),
        labels: labels.clone(),
        annotations: labels.clone(),
    };
    let answers = Answers {
        name: "\u{1b}[31mevil\n\"".into(),
        pods: ListPodSandboxResponse {
            items: vec![
                sandbox(1, "shop", "api-1"),
                sandbox(2, "shop", "api\u{1b}[31m\n\""),
                sandbox(3, &"x".repeat(1 << 20), "api-3"),
            ],
        },
        containers: ListContainersResponse {
            containers: vec![
                container(11, 1, "api"),
                container(12, 2, "api"),
                container(13, 3, "api"),
                container(14, 1, "api\u{9b}31m"),
                // of the first pod, by the runtime; in the fourth, by its cgroup
                container(15, 1, "api"),
            ],
        },
        ..Answers::default()
    };
    let (lab, dir) = (Lab::new(), Workdir::new());
    let fake = Fake::start(dir.join("evil.sock"), answers);
    let named = |number: usize, container: Option<&str>| Workload {
        namespace: Some("shop".into()),
        pod: Some("api-1".into()),
        container: container.map(Into::into),
        container_id: Some(id(number)),
        via: Via::Cri,
        ..Workload::of_cgroup(uid(1))
    };
    let nameless =
        |pod: usize, number: usize| Workload { container_id: Some(id(number)), ..Workload::of_cgroup(uid(pod)) };
    let expected = [
        (1, 11, named(11, Some("api"))),
        (1, 14, named(14, None)),
        (2, 12, nameless(2, 12)),
        (3, 13, nameless(3, 13)),
        (4, 15, nameless(4, 15)),
    ];
    let mut tree = Tree::new(roots().remove(0));
    let servers = expected.map(|(pod, number, workload)| {
        let cgroup = tree.make(&format!("kubepods/burstable/pod{}/{}", uid(pod), id(number)));
        let args = format!("tcp-server --listen {SERVER4}:0 --then echo");
        (Program::start(inside(&cgroup, &lab.server, &args)), workload)
    });
    let tos = servers.each_ref().map(|(server, _)| server.ready().local);
    let capture = capture(fake.socket(), &["--pod-logs", "/nonexistent"]);
    for to in &tos {
        let client = lab.client.traffic(&format!("tcp-client --to {to} --count 1 --mode reset"));
        assert!(Program::run(client).status.success());
    }
    lab.server.wait_until_quiet();
    let bundle = capture.stop();
    for ((_, workload), to) in servers.iter().zip(&tos) {
        let is_its = |id: &Identity| id.netns == lab.server.inode() && id.local.port == Some(to.port());
        let its = bundle.events.iter().filter(|event| is_its(&event.id));
        let homes: Vec<_> = its.filter_map(|event| event.id.home.value()).collect();
        assert!(!homes.is_empty());
        assert!(homes.iter().all(|home| **home == Home::Pod(workload.clone().into())), "{homes:?}");
    }
    assert_eq!(runtime(&bundle).version.as_deref(), Some("[31mevil\" 1.0"), "without what a terminal obeys");
}

fn a_runtime_that_was_asked_for_and_is_not_there_degrades_the_capture() {
    let dir = Workdir::new();
    let nowhere = dir.join("nobody.sock").display().to_string();
    let asked = Capture::with(&["--duration", "1s", "--cri-socket", &nowhere, "--with-cri"]).deadline();
    assert_eq!(asked.exit_code, crate::capture::DEGRADED);
    let why = format!("`--with-cri=true` asks for a container runtime, and none answers: `{nowhere}` is not there");
    assert_eq!(asked.manifest.degraded, [why]);
    let if_any = Capture::with(&["--duration", "1s", "--cri-socket", &nowhere]).deadline();
    assert_eq!((if_any.exit_code, &*runtime(&if_any).outcome), (crate::capture::COMPLETE, "absent"));
}
