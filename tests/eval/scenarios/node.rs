//! Pods: held back by their CPU limit, or not answering the kubelet.

use super::{Scenario, fault};
use crate::cgroups::{Tree, roots, with_a_tenth_of_a_cpu};
use crate::stage::{At, Stage};
use crate::subject::Subject;

const PROBE: &[&[&str]] = &[&["kubelet.probe_failing"]];

pub const SCENARIOS: &[Scenario] = &[
    fault("node_pod_throttled", "a pod with a tenth of a CPU wants a whole one", &[&["pod.cpu_throttled"]], throttled),
    fault("node_probe_refused", "the kubelet probes a port on which its pod does not listen", PROBE, probe_refused)
        .never(&["policy.drop"]),
    fault("node_probe_unanswered", "the kubelet's probes connect, and get no answer in time", PROBE, probe_unanswered)
        .never(&["policy.drop"]),
    fault("node_probe_lost", "the kubelet's SYNs to a pod vanish elsewhere", PROBE, probe_lost).never(&["policy.drop"]),
];

/// The path of a pod's cgroup, and the pod's uid.
fn pod(stage: &mut Stage) -> (String, String) {
    let mut hex = |digits: usize| (0..digits).map(|_| format!("{:x}", stage.rng.range(0..=15))).collect::<String>();
    let uid = [8, 4, 4, 4, 12].map(&mut hex).join("-");
    let path = format!("kubepods/burstable/pod{uid}/{}", hex(64));
    stage.note("pod", &uid);
    (path, uid)
}

/// A server in a pod's cgroup, which is what makes its address a pod's.
fn serve_in_pod(stage: &mut Stage, args: &str) {
    let (path, _) = pod(stage);
    let mut tree = Tree::new(roots().remove(0));
    let cgroup = tree.make(&path);
    let join = format!("echo $$ > {}/cgroup.procs; ", cgroup.display());
    let server = stage.joined(&join, At::Server, args);
    server.wait_for_lines(1);
    stage.keep(server);
    stage.keep_cgroups(vec![tree]);
}

/// Waits for the kubelet to have done its probes of this port.
fn probes(stage: &mut Stage, port: u64, args: &str) -> Vec<Subject> {
    let server = stage.server4();
    let kubelet = stage.called("kubelet", At::Client, &format!("{args} at={server} port={port}"));
    let subject = Subject::of(&kubelet).with("remote", server, port);
    kubelet.wait();
    vec![subject]
}

fn throttled(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    let (path, uid) = pod(stage);
    let (trees, join) = with_a_tenth_of_a_cpu(&path);
    stage.keep_cgroups(trees);
    stage.serve(At::Server, &format!("serve at={server} port={port}"));
    stage.open();
    let pod = stage.joined(&join, At::Client, &format!("spin at={server} port={port} for=5000"));
    pod.wait();
    vec![Subject::anybody().saying(uid)]
}

fn probe_refused(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    serve_in_pod(stage, &format!("serve at={server} port={port}"));
    let (other, count, pause) = (stage.port(), stage.draw("probes", 4..=10), stage.draw("pause", 100..=400));
    stage.open();
    let healthy = stage.called("kubelet", At::Client, &format!("ask at={server} port={port} count=5"));
    healthy.wait();
    probes(stage, other, &format!("probe count={count} pause={pause}"))
}

fn probe_unanswered(stage: &mut Stage) -> Vec<Subject> {
    let (server, port) = (stage.server4(), stage.port());
    serve_in_pod(stage, &format!("serve at={server} port={port} think=20000"));
    stage.open();
    probes(stage, port, "leave count=5 timeout=1000 pause=100")
}

fn probe_lost(stage: &mut Stage) -> Vec<Subject> {
    let (server, port, other) = (stage.server4(), stage.port(), stage.port());
    serve_in_pod(stage, &format!("serve at={server} port={port}"));
    stage.vanish(&format!("ip daddr {server} tcp dport {other}"));
    stage.open();
    probes(stage, other, "probe count=5 timeout=1000 pause=100")
}
