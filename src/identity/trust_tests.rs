//! Which source is believed when several know a pod.

use super::*;
use crate::plan::filters;
use crate::plan::filters::home::HomeFilter;

const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";

#[test]
fn what_the_kubelets_directory_says_is_believed_until_the_logs_say_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let pod = dir.path().join("kubelet/pods").join(UID);
    std::fs::create_dir_all(pod.join("volumes/kubernetes.io~projected/token/..1")).unwrap();
    std::os::unix::fs::symlink("..1", pod.join("volumes/kubernetes.io~projected/token/..data")).unwrap();
    std::fs::write(pod.join("volumes/kubernetes.io~projected/token/..1/namespace"), "shop").unwrap();
    std::fs::write(pod.join("etc-hosts"), "# Kubernetes-managed hosts file.\n10.0.0.1\tetcd\n").unwrap();
    for sub in ["pods", "containers"] {
        std::fs::create_dir_all(dir.path().join("log").join(sub)).unwrap();
    }
    let (pod_logs, kubelet_dir) = (dir.path().join("log"), dir.path().join("kubelet"));
    let naming = Naming { pod_logs: pod_logs.clone(), kubelet_dir, ..Naming::default() };
    let filters = HomeFilters { pod: filters::name("api-*").unwrap(), ..HomeFilters::default() };
    let mut homes = Homes::new(&naming, &filters, "n");
    homes.wait_for_first_names();
    let cgroup = (Hierarchy::V2, 7);
    let (home, missing) = homes.home_of(&format!("/kubepods/pod{UID}"));
    let answer = answer(&filters, &homes.watch, &home, missing);
    let known = Known { home, missing, answer, first_seen: Instant::now(), generation: homes.watch.generation() };
    homes.known.insert(cgroup, known);
    let name = |homes: &mut Homes| {
        homes.refresh(false);
        homes.look_up(cgroup);
        let Attribution::Resolved(Home::Pod(found)) = &homes.known[&cgroup].home else { panic!("no pod") };
        (found.via, found.pod.clone().unwrap(), homes.known[&cgroup].missing)
    };
    assert_eq!(name(&mut homes), (Via::KubeletDir, "etcd".into(), None));
    assert_eq!(homes.answer(Some(cgroup)).0, Answer::Refused(HomeFilter::Pod));
    std::fs::create_dir(pod_logs.join(format!("pods/shop_api-1_{UID}"))).unwrap();
    homes.watch.ask_and_wait(LATEST);
    assert_eq!(name(&mut homes), (Via::PodLogs, "api-1".into(), None));
    // and the kernel is told, for what it refused until now
    assert_eq!(homes.answer(Some(cgroup)).0, Answer::Passes);
    assert_eq!(homes.decided(), [(cgroup, Answer::Passes)]);
}
