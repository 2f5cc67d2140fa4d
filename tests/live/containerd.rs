//! What containerd tells by its own API: what begins and what ends, before anybody asks, and names where it does not
//! speak CRI. And what the others do that have no such API: CRI-O and cri-dockerd.

use std::path::{Path, PathBuf};
use std::process::Command;

use containerd_client::events::{TaskExit, TaskStart};
use ktrace_bundle::attribution::Attribution;
use ktrace_bundle::event::Event;
use ktrace_bundle::workload::{Home, Via, Workload, WorkloadRecord};
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
use crate::runtime::node::{Containerd, Node, Pod};
use crate::runtime::servers::Servers;
use crate::wait::{DEADLINE, until};
use crate::workdir::Workdir;
use crate::workloads::{capture, cgroup, every_event_names_its_pod, home, id, runtime, uid};
use crate::{Test, tests};

/// Suites of Debian with another containerd than this machine's.
const SUITES: [&str; 2] = ["trixie", "sid"];

pub fn tests() -> Vec<Test> {
    let mut tests = tests![
        what_containerd_tells_is_known_before_the_first_event,
        a_container_that_begins_later_is_known_before_its_first_event_and_so_is_its_end,
        a_containerd_without_cri_names_pods_by_its_labels,
        cri_o_and_cri_dockerd_name_pods_and_are_not_asked_for_what_they_do_not_have,
        a_stream_that_is_refused_is_not_asked_for_again,
        a_stream_that_floods_costs_no_event_and_little_else,
    ];
    tests.extend(SUITES.map(|suite| {
        let name = format!("every_event_of_a_pod_names_it_with_the_containerd_of_{suite}");
        let run = move || {
            let programs = Some(fetch(suite).unwrap());
            every_event_names_its_pod(&Node::of(Containerd { programs, ..Containerd::default() }));
        };
        Test::new(name, run).unless(move || fetch(suite).err())
    }));
    tests
}

/// The programs of this suite's containerd.
fn fetch(suite: &str) -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/containerd.sh");
    let done = Command::new(script).arg(suite).output().map_err(|e| format!("`scripts/containerd.sh`: {e}"))?;
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    if !done.status.success() {
        eprintln!("SKIP: {stderr}");
        return Err(format!("no containerd of {suite}: {}", stderr.lines().last().unwrap_or_default()));
    }
    Ok(String::from_utf8(done.stdout).unwrap().trim().into())
}

/// The line of `workloads.jsonl` for this container.
fn record(bundle: &Bundle, container: &str) -> WorkloadRecord {
    let loose = only_entry(&bundle.dir.join("out"), Path::is_dir);
    let lines = std::fs::read_to_string(loose.join("workloads.jsonl")).unwrap();
    let records = lines.lines().map(|line| serde_json::from_str::<WorkloadRecord>(line).unwrap());
    let mut its: Vec<_> = records.filter(|it| it.k8s.container_id.as_deref() == Some(container)).collect();
    assert_eq!(its.len(), 1, "{lines}");
    its.remove(0)
}

/// One pod with one container, as a runtime of this name lists them.
fn one(name: &str) -> Answers {
    let metadata = PodSandboxMetadata { name: "api-1".into(), uid: uid(1), namespace: "shop".into() };
    let container = Container {
        id: id(11),
        pod_sandbox_id: id(1),
        metadata: Some(ContainerMetadata { name: "api".into() }),
        ..Container::default()
    };
    Answers {
        name: name.into(),
        pods: ListPodSandboxResponse {
            items: vec![PodSandbox { id: id(1), metadata: Some(metadata), ..PodSandbox::default() }],
        },
        containers: ListContainersResponse { containers: vec![container] },
        ..Answers::default()
    }
}

fn its_home(via: Via) -> Home {
    Home::Pod(
        Workload {
            namespace: Some("shop".into()),
            pod: Some("api-1".into()),
            container: Some("api".into()),
            container_id: Some(id(11)),
            via,
            ..Workload::of_cgroup(uid(1))
        }
        .into(),
    )
}

/// Serves clients in this cgroup, so many that the collector sees them one after the other.
fn serve(lab: &Lab, cgroup: &Path) {
    let server = Program::start(inside(cgroup, &lab.server, &format!("tcp-server --listen {SERVER4}:0 --then echo")));
    let client = lab.client.traffic(&format!("tcp-client --to {} --count 3 --mode reset", server.ready().local));
    assert!(Program::run(client).status.success());
    server.truths(3);
    lab.server.wait_until_quiet();
}

/// Of the events that have an owner, none has another home than this one, and all of its name.
fn assert_named(bundle: &Bundle, is_its: impl Fn(&Event) -> bool, home: &Home) {
    let its: Vec<_> = bundle.events.iter().filter(|e| is_its(e) && e.id.owner.value().is_some()).collect();
    assert!(its.len() >= 3, "{its:?}");
    for event in its {
        assert_eq!(event.id.home, Attribution::Resolved(home.clone()), "{event:?}");
        assert_eq!(event.id.why.get("k8s.pod").or(event.id.why.get("k8s.container")), None, "{event:?}");
    }
}

fn without_logs(socket: &Path) -> Capture {
    capture(socket, &["--pod-logs", "/nonexistent"])
}

/// After what it told it answers nothing more: whoever asks with the first event has no names for it.
fn what_containerd_tells_is_known_before_the_first_event() {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let nothing = Answers { name: "containerd".into(), has_events: true, ..Answers::default() };
    let fake = Fake::start(dir.join("told.sock"), nothing);
    let capture = without_logs(fake.socket());
    until("a subscription", DEADLINE, || (fake.asked("Subscribe") == 1).then_some(()));
    // at the start, and once the stream is open
    let listed = until("a look after that", DEADLINE, || Some(fake.asked("ListPodSandbox")).filter(|it| *it >= 2));
    fake.change(|answers| *answers = Answers { has_events: true, ..one("containerd") });
    fake.tell("/tasks/start", &TaskStart { container_id: id(11), pid: 1 });
    until("a look at what begins", DEADLINE, || (fake.asked("ListPodSandbox") > listed).then_some(()));
    fake.hang();
    let mut tree = Tree::new(roots().remove(0));
    serve(&lab, &tree.make(&format!("kubepods/burstable/pod{}/{}", uid(1), id(11))));
    let mut exit = TaskExit { container_id: id(11), id: id(11), ..TaskExit::default() };
    let at = exit.exited_at.get_or_insert_default();
    (at.seconds, at.nanos) = (1_769_291_874, 326_118_000);
    fake.tell("/tasks/exit", &exit);
    let bundle = capture.stop();
    assert_named(&bundle, |event| event.id.netns == lab.server.inode(), &its_home(Via::Cri));
    let ended_at = record(&bundle, &id(11)).ended_at.map(|at| at.to_rfc3339());
    assert_eq!(ended_at.as_deref(), Some("2026-01-24T21:57:54.326118+00:00"));
    let report = runtime(&bundle);
    assert_eq!((report.errors, report.notices, fake.asked("Subscribe")), (Some(0), Some(2), 1), "{report:?}");
}

/// The same of a real one, which is stopped as soon as it has told.
fn a_container_that_begins_later_is_known_before_its_first_event_and_so_is_its_end() {
    let node = Node::of(Containerd { is_talkative: true, ..Containerd::default() });
    let servers = Servers::start(&node);
    let capture = without_logs(&node.socket());
    let pod = Pod::new("api-1", true);
    let running = node.run(&pod, "main", "exec sleep 1000");
    node.wait_until_listed(&running);
    node.signal(Signal::SIGSTOP);
    let talk = inside(&cgroup(&pod, &running), &node.netns, &servers.tcp);
    assert_eq!(Program::run(talk).truths().len(), 3, "connections");
    node.netns.wait_until_quiet();
    node.signal(Signal::SIGCONT);
    let before = chrono::Utc::now();
    node.remove(&running);
    let after = chrono::Utc::now();
    let bundle = capture.stop();
    let is_its = |event: &Event| {
        let home = event.id.home.value();
        matches!(home, Some(Home::Pod(workload)) if workload.container_id.as_deref() == Some(&running.id))
    };
    assert_named(&bundle, is_its, &home(&pod, "main", &running));
    let its = record(&bundle, &running.id);
    let ended_at = its.ended_at.expect("the end of a container");
    assert!((before..=after).contains(&ended_at), "{before} {ended_at} {after}");
    assert!(its.created_at.is_some_and(|at| at < before), "{its:?}");
}

fn a_containerd_without_cri_names_pods_by_its_labels() {
    let node = Node::of(Containerd { without_cri: true, ..Containerd::default() });
    let lab = Lab::new();
    let path = format!("kubepods/burstable/pod{}", uid(1));
    let of_pod = [
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.pod.name", "api-1"),
        ("io.kubernetes.pod.uid", &*uid(1)),
    ];
    let run = |number: usize, labels: &[(&str, &str)]| {
        let cgroup = format!("/{path}/{}", id(number));
        node.run_labelled(&id(number), &cgroup, &[&of_pod[..], labels].concat());
        roots().into_iter().map(|root| root.join(&cgroup[1..])).find(|it| it.exists()).expect("its cgroup")
    };
    run(1, &[("io.cri-containerd.kind", "sandbox")]);
    let capture = without_logs(&node.socket());
    let cgroup = run(11, &[("io.cri-containerd.kind", "container"), ("io.kubernetes.container.name", "api")]);
    serve(&lab, &cgroup);
    node.end_labelled(&id(11));
    let bundle = capture.stop();
    node.end_labelled(&id(1));
    assert_named(&bundle, |event| event.id.netns == lab.server.inode(), &its_home(Via::Containerd));
    let its = record(&bundle, &id(11));
    assert!(its.created_at.is_some() && its.created_at < its.ended_at, "{its:?}");
    let report = runtime(&bundle);
    assert_eq!((&*report.name, &*report.outcome, report.errors), ("containerd", "answered", Some(0)), "{report:?}");
    assert!(report.version.as_deref().is_some_and(|it| it.starts_with("containerd 1.")), "{report:?}");
    assert_eq!((report.entries, report.latency_us.is_some()), (Some(3), true), "{report:?}");
    assert!(report.notices.is_some_and(|count| count >= 3), "{report:?}");
}

fn cri_o_and_cri_dockerd_name_pods_and_are_not_asked_for_what_they_do_not_have() {
    for (name, scope) in [("cri-o", "crio"), ("docker", "docker")] {
        let (lab, dir) = (Lab::new(), Workdir::new());
        let fake = Fake::start(dir.join("other.sock"), one(name));
        let capture = without_logs(fake.socket());
        let mut tree = Tree::new(roots().remove(0));
        let slice = format!("kubepods-burstable-pod{}.slice", uid(1).replace('-', "_"));
        let path = format!("kubepods.slice/kubepods-burstable.slice/{slice}/{scope}-{}.scope", id(11));
        serve(&lab, &tree.make(&path));
        let bundle = capture.stop();
        assert_named(&bundle, |event| event.id.netns == lab.server.inode(), &its_home(Via::Cri));
        let report = runtime(&bundle);
        assert_eq!(report.version, Some(format!("{name} 1.0")));
        assert_eq!((&*report.outcome, report.errors, report.notices), ("answered", Some(0), None), "{report:?}");
        assert_eq!((fake.asked("Version"), fake.asked("Subscribe")), (1, 0), "once each who it is");
    }
}

fn a_stream_that_is_refused_is_not_asked_for_again() {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let fake = Fake::start(dir.join("old.sock"), Answers { name: "containerd".into(), ..Answers::default() });
    let capture = without_logs(fake.socket());
    let mut tree = Tree::new(roots().remove(0));
    // of a container that it does not have it is asked again and again
    serve(&lab, &tree.make(&format!("kubepods/burstable/pod{}/{}", uid(1), id(11))));
    until("looks", DEADLINE, || (fake.asked("ListPodSandbox") >= 4).then_some(()));
    let bundle = capture.stop();
    let report = runtime(&bundle);
    assert_eq!((&*report.outcome, report.errors, report.notices), ("answered", Some(0), None), "{report:?}");
    assert_eq!((fake.asked("Version"), fake.asked("Subscribe")), (1, 1));
}

/// Messages of the flood: of containers that nobody has, each of which asks for a look.
const FLOOD: usize = 50_000;

fn a_stream_that_floods_costs_no_event_and_little_else() {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let fake = Fake::start(dir.join("flood.sock"), Answers { has_events: true, ..one("containerd") });
    let quiet = without_logs(fake.socket()).stop().manifest.cost.peak_rss_bytes;
    let capture = without_logs(fake.socket());
    until("a subscription", DEADLINE, || (fake.asked("Subscribe") == 2).then_some(()));
    let (before, begin) = (fake.asked("ListPodSandbox"), std::time::Instant::now());
    (0..FLOOD).for_each(|it| fake.tell("/tasks/start", &TaskStart { container_id: id(100 + it), pid: 1 }));
    let mut tree = Tree::new(roots().remove(0));
    serve(&lab, &tree.make(&format!("kubepods/burstable/pod{}/{}", uid(1), id(11))));
    let took = begin.elapsed();
    let bundle = capture.stop();
    assert_named(&bundle, |event| event.id.netns == lab.server.inode(), &its_home(Via::Cri));
    let looks = (fake.asked("ListPodSandbox") - before) as u128;
    // one in 50 ms, and those that the end of a capture makes
    assert!(looks <= took.as_millis() / 50 + 40, "{looks} looks in {took:?}");
    let report = runtime(&bundle);
    assert!(report.notices.is_some_and(|count| count >= 256) && report.errors == Some(0), "{report:?}");
    let cost = bundle.manifest.cost;
    assert!(cost.peak_rss_bytes.saturating_sub(quiet) < 8 << 20, "{} bytes, and {quiet} without", cost.peak_rss_bytes);
    assert!(cost.longest_stall_ns.unwrap() < 100_000_000, "{cost:?}");
}
