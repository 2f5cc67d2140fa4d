//! Homes by path and by what sources say.

use std::path::Path;

use super::*;

const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
const ID: &str = "4f2a9c1b0d3e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";

fn naming(pod_logs: &Path) -> Naming {
    Naming { pod_logs: pod_logs.into(), ..Naming::default() }
}

fn homes(pod_logs: &Path) -> Homes {
    let homes = Homes::new(&naming(pod_logs), &HomeFilters::default(), "n");
    homes.wait_for_first_names();
    homes
}

fn workload(home: &Attribution<Home>) -> &Workload {
    match home {
        Attribution::Resolved(Home::Pod(workload)) => workload,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ids_come_from_the_cgroup_and_names_from_the_logs() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join(format!("pods/shop_api-1_{UID}"))).unwrap();
    std::fs::create_dir(dir.path().join("containers")).unwrap();
    let homes = homes(dir.path());
    let (home, missing) = homes.home_of(&format!("/kubepods/pod{UID}/{ID}"));
    let found = workload(&home);
    assert_eq!((found.namespace.as_deref(), found.pod.as_deref()), (Some("shop"), Some("api-1")));
    assert_eq!(
        (found.container.as_deref(), found.container_id.as_deref(), missing),
        (None, Some(ID), Some("k8s.container"))
    );
    // the kubelet says what it is called once it runs
    std::fs::write(dir.path().join(format!("containers/api-1_shop_api-{ID}.log")), "").unwrap();
    homes.watch.ask_and_wait(LATEST);
    let (found, missing) = named(&homes.watch, found.clone());
    assert_eq!((found.container.as_deref(), missing), (Some("api"), None));
}

#[test]
fn without_any_source_the_ids_are_there_and_nothing_waits() {
    let mut homes = homes(Path::new("/nonexistent"));
    let (home, missing) = homes.home_of(&format!("/kubepods/pod{UID}/{ID}"));
    assert_eq!(workload(&home), &Workload { container_id: Some(ID.into()), ..Workload::of_cgroup(UID.into()) });
    assert_eq!(missing, Some("k8s.pod"));
    assert!(!homes.watch.has_anybody());
    assert_eq!(homes.why_nameless(), Reason::SourceAbsent);
    let reports = homes.reports();
    let outcomes: Vec<_> = reports.iter().map(|it| (&*it.name, &*it.outcome)).collect();
    let directories = [("pod_logs", "absent"), ("kubelet_dir", "absent")];
    assert_eq!(outcomes, [&[("cgroup", "answered"), ("cri", "not_requested")][..], &directories].concat());
}

#[test]
fn a_runtime_that_hangs_is_not_one_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("silent.sock").to_string_lossy().into_owned();
    assert_eq!(runtimes(std::slice::from_ref(&socket)), Err(format!("`{socket}` is not there")));
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(runtimes(std::slice::from_ref(&socket)), Err(format!("`{socket}`: no answer within 2 s")));
}
