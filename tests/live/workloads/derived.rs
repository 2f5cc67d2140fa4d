//! The workload that keeps a pod running, by the labels of the pods of a real containerd.

use std::path::Path;

use ktrace_bundle::event::Role;
use ktrace_bundle::workload::{Home, Via, Workload};
use ktrace_traffic::Truth;
use nix::sys::signal::Signal;

use super::{Ports, capture, cgroup, home, sockets};
use crate::capture::{Capture, only_entry};
use crate::identity::inside;
use crate::program::Program;
use crate::runtime::node::{NODE_ADDRESS, Node, Pod, Running};
use crate::wait::{DEADLINE, until};
use crate::workdir::Workdir;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        a_pods_lines_have_the_workload_that_its_labels_and_its_name_agree_on,
        a_runtime_that_is_slower_than_the_logs_adds_the_workload,
    ]
}

const HASH: (&str, &str) = ("pod-template-hash", "7d9f8c6b5");

/// The same, kept running by this.
fn kept_by(home: Home, name: &str, from: &str) -> Home {
    let Home::Pod(workload) = home else { panic!("{home:?}") };
    Home::Pod(
        Workload { workload: Some(name.into()), workload_from: Some(from.into()), ..Workload::clone(&workload) }.into(),
    )
}

fn a_pods_lines_have_the_workload_that_its_labels_and_its_name_agree_on() {
    let node = Node::start();
    let server = node.netns.start(&format!("tcp-server --listen {NODE_ADDRESS}:0 --then echo"));
    let pods = [
        (Pod::new("api-7d9f8c6b5-x2x4z", true).with(&[HASH]), Some(("api", "pod-template-hash"))),
        (
            Pod::new("web-0", true)
                .with(&[("controller-revision-hash", "web-5c8f"), ("statefulset.kubernetes.io/pod-name", "web-0")]),
            Some(("web", "controller-revision-hash")),
        ),
        // they say that they are somebody else's, and each is called what its owner calls it
        (Pod::new("miner-6c5b4d3f2-x2x4z", true).with(&[HASH, ("job-name", "etcd")]), None),
        (Pod::new("kube-system-api-k4k2z", true).with(&[("pod-template-hash", "system-api")]), None),
    ];
    let pods = pods.map(|(pod, workload)| {
        let running = node.run(&pod, "main", "exec sleep 1000");
        let home = home(&pod, "main", &running);
        let home = workload.iter().fold(home, |home, (name, from)| kept_by(home, name, from));
        (running, home)
    });
    let capture = capture(&node.socket(), &["--pod-logs", "/nonexistent"]);
    let args = format!("tcp-client --to {} --count 2 --mode reset", server.ready().local);
    let told = pods.each_ref().map(|(running, _)| sockets(&node.exec(running, &args)));
    node.netns.wait_until_quiet();
    let bundle = capture.stop();
    let ports = Ports::of(&bundle);
    for ((_, home), own) in pods.iter().zip(&told) {
        let is_its = |port| own.contains(&port);
        let of_clients =
            bundle.events.iter().filter(|e| e.id.netns == node.netns.inode() && e.id.role == Some(Role::Client));
        let found: Vec<_> = of_clients.filter(|e| is_its(ports.socket(e))).filter_map(|e| e.id.home.value()).collect();
        assert!(found.len() >= 2 * 3 && found.iter().all(|it| *it == home), "{home:?}: {found:?}");
    }
}

/// What the kubelet notes of this pod in its directories of logs.
fn logs(dir: &Workdir, pod: &Pod, running: &Running) -> String {
    let log = format!("containers/{}_{}_main-{}.log", pod.name, pod.namespace, running.id);
    std::fs::create_dir_all(dir.join(&format!("pods/{}_{}_{}", pod.namespace, pod.name, pod.uid))).unwrap();
    std::fs::create_dir(dir.join("containers")).unwrap();
    std::fs::write(dir.join(&log), "").unwrap();
    dir.join("").display().to_string()
}

fn a_runtime_that_is_slower_than_the_logs_adds_the_workload() {
    let (node, dir) = (Node::start(), Workdir::new());
    let server = node.netns.start(&format!("tcp-server --listen {NODE_ADDRESS}:0 --then echo"));
    let client = format!("tcp-client --to {} --count 1 --mode reset", server.ready().local);
    let pod = Pod::new("api-7d9f8c6b5-x2x4z", true).with(&[HASH]);
    let running = node.run(&pod, "main", "exec sleep 1000");
    let cgroup = cgroup(&pod, &running);
    let talk = |node: &Node| -> Vec<Truth> { Program::run(inside(&cgroup, &node.netns, &client)).truths() };
    node.signal(Signal::SIGSTOP);
    let capture: Capture = capture(&node.socket(), &["--pod-logs", &logs(&dir, &pod, &running)]);
    let journal = only_entry(&capture.dir().join("out"), Path::is_dir).join("events.jsonl");
    let written = |text: &str| std::fs::read_to_string(&journal).unwrap().contains(text);
    let early = sockets(&talk(&node));
    until("events with the names of the logs", DEADLINE, || written(r#""via":"pod_logs""#).then_some(()));
    node.signal(Signal::SIGCONT);
    // of this one the logs know nothing, so that the runtime is asked
    let other = node.run(&Pod::new("web-0", true), "main", &format!("/traffic/traffic {client} && exec sleep 1000"));
    other.truths(1);
    until("events with the workload", DEADLINE, || {
        talk(&node);
        written(r#""workload":"api","workload_from":"pod-template-hash""#).then_some(())
    });
    node.netns.wait_until_quiet();
    let bundle = capture.stop();
    let Home::Pod(named) = home(&pod, "main", &running) else { unreachable!() };
    let by_logs = Home::Pod(Workload { via: Via::PodLogs, ..Workload::clone(&named) }.into());
    let ports = Ports::of(&bundle);
    let of_early =
        bundle.events.iter().filter(|e| e.id.netns == node.netns.inode() && early.contains(&ports.socket(e)));
    let of_early: Vec<_> = of_early.filter(|event| event.id.home.value().is_some()).collect();
    assert!(!of_early.is_empty());
    for event in of_early {
        assert_eq!(event.id.home.value(), Some(&by_logs), "{event:?}");
        let later = kept_by(home(&pod, "main", &running), "api", "pod-template-hash");
        assert_eq!(bundle.workloads.join(&event.id), Some(later), "the runtime is believed before the logs");
    }
}
