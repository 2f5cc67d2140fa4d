//! Whose a process is: its pod and container by the cgroup that it is in, or the unit of a host process. The cgroups are real,
//! made as the kubelet and the runtimes make them, by either driver and in either version.

use std::path::{Path, PathBuf};
use std::process::Command;

use ktrace_bundle::attribution::Attribution;
use ktrace_bundle::event::Identity;
use ktrace_bundle::why::Reason;
use ktrace_bundle::workload::{Home, Via, Workload};
use nix::sys::signal::Signal;

use crate::capture::Capture;
use crate::cgroups::{Tree, roots};
use crate::net::{Lab, Netns, SERVER4};
use crate::program::Program;
use crate::requirements::built;
use crate::truth::{datagrams, is_of_a_program};
use crate::wait::PATIENCE;
use crate::workdir::Workdir;
use crate::{Test, tests};

const POD: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
const OTHER_POD: &str = "7f3e2d1c-0b9a-4877-8655-44332211ffee";
const CONTAINER: &str = "4f2a9c1b0d3e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";
/// Namespace, pod and container.
const NAMES: [&str; 3] = ["shop", "api-7d9f-x2x", "api"];
const OTHER_CONTAINER: &str = "a0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9f";

pub fn tests() -> Vec<Test> {
    let hybrid = "a_pod_that_its_runtime_moves_in_version_1_only_is_not_the_runtimes";
    let hybrid = Test::new(hybrid, a_runtime_moves_its_pods_in_version_1_only)
        .unless(|| (roots().len() < 2).then(|| "this machine has no hierarchies of both versions".into()));
    let mut tests = tests![
        processes_in_a_pods_cgroup_are_the_pods_and_others_the_hosts,
        homes_are_known_without_the_right_to_open_cgroups_by_id,
        where_only_the_kubelets_directory_is_there_it_names_pods,
        a_cgroup_that_is_gone_when_it_is_asked_for_is_known_if_it_was_seen_made,
    ];
    tests.push(hybrid);
    tests
}

/// `traffic` in a namespace and a cgroup.
pub fn inside(cgroup: &Path, netns: &Netns, args: &str) -> Command {
    let mut command = netns.command("sh");
    let procs = cgroup.join("cgroup.procs");
    command.args(["-c", &format!("echo $$ > {} && exec {} {args}", procs.display(), built("traffic").display())]);
    command
}

/// A container as its cgroup tells it, and what the kubelet calls it, if it has noted that.
fn container(pod: &str, container: Option<&str>, names: Option<[&str; 3]>) -> Option<Home> {
    let mut workload = Workload { container_id: container.map(str::to_owned), ..Workload::of_cgroup(pod.into()) };
    if let Some([namespace, pod, name]) = names {
        workload.namespace = Some(namespace.into());
        workload.pod = Some(pod.into());
        workload.container = container.map(|_| name.into());
        workload.via = Via::PodLogs;
    }
    Some(Home::Pod(workload.into()))
}

/// The kubelet's directories of logs, in which one pod with one container is noted.
fn pod_logs(dir: &Workdir) -> String {
    let [namespace, pod, name] = NAMES;
    std::fs::create_dir_all(dir.join(&format!("pods/{namespace}_{pod}_{POD}/{name}"))).unwrap();
    std::fs::create_dir(dir.join("containers")).unwrap();
    std::fs::write(dir.join(&format!("containers/{pod}_{namespace}_{name}-{CONTAINER}.log")), "").unwrap();
    dir.join("").display().to_string()
}

fn home_of(id: &Identity) -> Option<Home> {
    match &id.home {
        Attribution::Resolved(home) => Some(home.clone()),
        Attribution::Unresolved(reason) => panic!("no home because of {reason:?}: {id:?}"),
    }
}

fn processes_in_a_pods_cgroup_are_the_pods_and_others_the_hosts() {
    each_process_has_its_home(&[]);
}

/// As in the container that `deploy/` makes: cgroups cannot be opened by their ids, and are looked for.
fn homes_are_known_without_the_right_to_open_cgroups_by_id() {
    each_process_has_its_home(&["setpriv", "--bounding-set", "-dac_read_search", "--"]);
}

fn each_process_has_its_home(wrapper: &[&str]) {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let logs = pod_logs(&dir);
    let of_pod = POD.replace('-', "_");
    for root in roots() {
        let mut tree = Tree::new(root.clone());
        let mut start = |path: &str, home: Option<Home>| {
            let args = format!("tcp-server --listen {SERVER4}:0 --then echo");
            let program = match path {
                "" => lab.server.start(&args),
                _ => Program::start(inside(&tree.make(path), &lab.server, &args)),
            };
            (program.ready().local, program, home)
        };
        let slice = format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{of_pod}.slice");
        let named = |id| container(POD, id, Some(NAMES));
        // the kubelet has noted the pod, but no other container than the first
        let half_named = || {
            let Some(Home::Pod(workload)) = named(Some(OTHER_CONTAINER)) else { unreachable!() };
            Some(Home::Pod(Workload { container: None, ..(*workload).clone() }.into()))
        };
        let servers = [
            start(&format!("kubepods/burstable/pod{POD}/{CONTAINER}"), named(Some(CONTAINER))),
            start(
                &format!("kubepods/pod{OTHER_POD}/{OTHER_CONTAINER}"),
                container(OTHER_POD, Some(OTHER_CONTAINER), None),
            ),
            start(&format!("{slice}/cri-containerd-{OTHER_CONTAINER}.scope"), half_named()),
            start(&format!("{slice}/crio-conmon-{CONTAINER}.scope"), named(None)),
            // a container that makes another pod's cgroup below its own
            start(
                &format!("kubepods/burstable/pod{POD}/{CONTAINER}/kubepods/pod{OTHER_POD}/{OTHER_CONTAINER}"),
                named(Some(CONTAINER)),
            ),
            start("ktlive.slice/ktlive.service/worker", Some(Home::Host("ktlive.service".into()))),
            start("ktlive.slice/worker", Some(Home::Host("/ktlive.slice/worker".into()))),
            start("", None),
        ];
        let capture = Capture::under(wrapper, &["--duration", &format!("{}s", 120 * *PATIENCE), "--pod-logs", &logs]);
        for (to, ..) in &servers {
            let client = lab.client.traffic(&format!("tcp-client --to {to} --count 2 --mode reset"));
            assert!(Program::run(client).status.success());
        }
        for (_, server, _) in &servers {
            server.truths(2);
        }
        lab.server.wait_until_quiet();
        let bundle = capture.stop();
        for (to, server, home) in &servers {
            let is_its = |id: &Identity| id.netns == lab.server.inode() && id.local.port == Some(to.port());
            let events = bundle.events.iter().filter(|event| is_its(&event.id));
            let owned: Vec<_> = events.filter(|event| event.id.owner.value().is_some()).collect();
            assert!(owned.len() >= 2, "{}: {owned:?}", root.display());
            for event in owned {
                assert_eq!(event.id.owner.value().map(|owner| owner.pid), Some(server.pid()), "{event:?}");
                match home {
                    Some(_) => assert_eq!(&home_of(&event.id), home, "{event:?}"),
                    None => assert!(matches!(home_of(&event.id), Some(Home::Host(_))), "{event:?}"),
                }
            }
        }
        let listeners = bundle.sockets.iter().filter(|s| s.id.netns == lab.server.inode());
        let in_pods = listeners.filter(|s| matches!(s.id.home, Attribution::Resolved(Home::Pod(_))));
        assert_eq!(in_pods.count(), 2 * 5, "five listeners, at the start and at the end");
        let sources = &bundle.manifest.head.sources;
        let of_names = sources.iter().filter(|it| it.name != "conntrack" && !it.name.starts_with("node_"));
        let outcomes: Vec<_> = of_names.map(|it| (&*it.name, &*it.outcome)).collect();
        let expected = [
            ("cgroup", "answered"),
            ("cri", "absent"),
            ("pod_logs", "answered"),
            ("kubelet_dir", "absent"),
            ("processes", "answered"),
        ];
        assert_eq!(outcomes, expected);
    }
}

/// The kubelet's own directory, in which one pod with one container is noted, and one that is on the host's network.
fn kubelet_dir(dir: &Workdir) -> String {
    let [namespace, pod, name] = NAMES;
    for (uid, header, host_name) in [(POD, "", pod), (OTHER_POD, " (host network)", "node-1")] {
        let of_pod = dir.join("pods").join(uid);
        let volume = of_pod.join("volumes/kubernetes.io~projected/kube-api-access-x2x4z");
        std::fs::create_dir_all(volume.join("..2026")).unwrap();
        std::fs::create_dir_all(of_pod.join("containers").join(name)).unwrap();
        std::fs::write(volume.join("..2026/namespace"), namespace).unwrap();
        std::os::unix::fs::symlink("..2026", volume.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/namespace", volume.join("namespace")).unwrap();
        let hosts = format!(
            "# Kubernetes-managed hosts file{header}.\n127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::2\tip6-allrouters\n10.244.1.5\t{host_name}\n"
        );
        std::fs::write(of_pod.join("etc-hosts"), hosts).unwrap();
    }
    dir.join("").display().to_string()
}

fn where_only_the_kubelets_directory_is_there_it_names_pods() {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let mut tree = Tree::new(roots().remove(0));
    let ids = |pod: &str, container: &str| Workload {
        container_id: Some(container.into()),
        ..Workload::of_cgroup(pod.into())
    };
    let named = Workload {
        namespace: Some(NAMES[0].into()),
        pod: Some(NAMES[1].into()),
        via: Via::KubeletDir,
        ..ids(POD, CONTAINER)
    };
    let servers =
        [(named, "k8s.container"), (ids(OTHER_POD, OTHER_CONTAINER), "k8s.pod")].map(|(workload, missing)| {
            let id = workload.container_id.as_deref().unwrap();
            let cgroup = tree.make(&format!("kubepods/burstable/pod{}/{id}", workload.pod_uid));
            let args = format!("tcp-server --listen {SERVER4}:0 --then echo");
            (Program::start(inside(&cgroup, &lab.server, &args)), Home::Pod(workload.into()), missing)
        });
    let kubelet_dir = kubelet_dir(&dir);
    let nowhere = ["--with-cri=false", "--pod-logs", "/nonexistent", "--kubelet-dir", &kubelet_dir];
    let capture = Capture::with(&[&["--duration", &format!("{}s", 120 * *PATIENCE)], &nowhere[..]].concat());
    for (server, ..) in &servers {
        let client = format!("tcp-client --to {} --count 2 --mode reset", server.ready().local);
        assert!(Program::run(lab.client.traffic(&client)).status.success());
    }
    lab.server.wait_until_quiet();
    let bundle = capture.stop();
    for (server, home, missing) in &servers {
        let port = Some(server.ready().local.port());
        let its = bundle.events.iter().filter(|e| e.id.netns == lab.server.inode() && e.id.local.port == port);
        let its: Vec<_> = its.filter(|event| event.id.owner.value().is_some()).collect();
        assert!(its.len() >= 2, "{its:?}");
        for event in its {
            let found = (home_of(&event.id), event.id.why.get(missing));
            assert_eq!(found, (Some(home.clone()), Some(&Reason::NotFound)), "{event:?}");
        }
    }
    let sources = &bundle.manifest.head.sources;
    let of_names = sources.iter().filter(|it| it.name != "conntrack" && !it.name.starts_with("node_"));
    let outcomes: Vec<_> = of_names.map(|it| (&*it.name, &*it.outcome, it.entries)).collect();
    let cgroups = outcomes[0].2;
    let expected = [
        ("cgroup", "answered", cgroups),
        ("cri", "not_requested", None),
        ("pod_logs", "absent", Some(0)),
        ("kubelet_dir", "answered", Some(1)),
        ("processes", "answered", outcomes[4].2),
    ];
    assert_eq!(outcomes, expected);
}

/// The collector stands still while a program sends, ends and loses its cgroup: one that was made meanwhile has told where it
/// was, one that was there before has not.
fn a_cgroup_that_is_gone_when_it_is_asked_for_is_known_if_it_was_seen_made() {
    let lab = Lab::new();
    let path = format!("kubepods/burstable/pod{POD}/{CONTAINER}");
    let echo = lab.server.start(&format!("udp-echo --listen {SERVER4}:0"));
    let to = echo.ready().local;
    for (root, is_older) in roots().into_iter().flat_map(|root| [(root.clone(), true), (root, false)]) {
        let mut older = Tree::new(root.clone());
        if is_older {
            older.make(&path);
        }
        let capture = Capture::start();
        capture.signal(Signal::SIGSTOP);
        let mut tree = Tree::new(root);
        let cgroup = tree.make(&path);
        let told = Program::run(inside(&cgroup, &lab.client, &format!("udp-paced --to {to} --count 1"))).truths();
        drop((tree, older));
        capture.signal(Signal::SIGCONT);
        let bundle = capture.stop();
        // who sent it may have gone before what comes of it is thrown away
        let is_ours =
            |event: &&ktrace_bundle::event::Event| event.id.netns == lab.client.inode() && is_of_a_program(event);
        let events: Vec<_> = bundle.events.iter().filter(is_ours).collect();
        assert_eq!(events.len(), datagrams(told).len(), "{events:?}");
        for event in events {
            match &event.id.home {
                Attribution::Unresolved(reason) if is_older => assert_eq!(*reason, Reason::Gone, "{event:?}"),
                home => assert_eq!(home.value().cloned(), container(POD, Some(CONTAINER), None), "{event:?}"),
            }
        }
    }
}

/// As with the cgroupfs driver on a host that has both versions: in version 2 the pod stays where its runtime is.
fn a_runtime_moves_its_pods_in_version_1_only() {
    let lab = Lab::new();
    let roots = roots();
    let is_v2 = |root: &&PathBuf| root.join("cgroup.controllers").exists();
    let (v2, v1) = (roots.iter().find(is_v2).unwrap(), roots.iter().find(|root| !is_v2(root)).unwrap());
    let (mut of_runtime, mut of_pod) = (Tree::new(v2.clone()), Tree::new(v1.clone()));
    let runtime = of_runtime.make("ktlive.slice/containerd.service").join("cgroup.procs");
    let pod = of_pod.make(&format!("kubepods/burstable/pod{POD}/{CONTAINER}"));
    let echo = lab.server.start(&format!("udp-echo --listen {SERVER4}:0"));
    let capture = Capture::start();
    let args = format!("udp-paced --to {} --count 1", echo.ready().local);
    let mut command = lab.client.command("sh");
    let join = format!("echo $$ > {} && echo $$ > {}/cgroup.procs", runtime.display(), pod.display());
    command.args(["-c", &format!("{join} && exec {} {args}", built("traffic").display())]);
    let told = Program::run(command).truths();
    let bundle = capture.stop();
    let events: Vec<_> =
        bundle.events.iter().filter(|event| event.id.netns == lab.client.inode() && is_of_a_program(event)).collect();
    assert_eq!(events.len(), datagrams(told).len(), "{events:?}");
    for event in events {
        assert_eq!(event.id.home.value().cloned(), container(POD, Some(CONTAINER), None), "{event:?}");
    }
}
