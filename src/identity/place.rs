//! What the path of a cgroup says about the processes in it: a container of a pod, or a service of the host.
//!
//! The kubelet names a pod's cgroup, and the runtime the container's below it, by the cgroupfs driver as directories
//! (`/kubepods/burstable/pod<uid>/<id>`) or by systemd as units
//! (`/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope`). What stands
//! below a container was made by the container, and is not believed.

/// Where a process runs, by its cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place<'a> {
    /// In a pod.
    Pod {
        /// The pod's uid, in the spelling of the API.
        uid: String,
        /// The container's id; `None`: the pod's own cgroup, or a helper of the runtime.
        container_id: Option<&'a str>,
    },
    /// On the host, in this systemd unit, or else this cgroup.
    Host {
        /// Name of the unit, or the whole path.
        unit: &'a str,
    },
}

/// What a path below the root of its hierarchy says. Any text is a path.
pub fn of(path: &str) -> Place<'_> {
    in_a_pod(path).unwrap_or_else(|| Place::Host { unit: unit_of(path) })
}

fn in_a_pod(path: &str) -> Option<Place<'_>> {
    let mut directories = path.split('/').filter(|directory| !directory.is_empty());
    loop {
        let directory = directories.next()?;
        // users name the cgroups below it
        if directory == "user.slice" {
            return None;
        }
        if is_root(directory) {
            break;
        }
        if let Some(place) = in_one_directory(directory) {
            return Some(place);
        }
    }
    let mut directory = directories.next()?;
    if is_qos(directory) {
        directory = directories.next()?;
    }
    in_one_directory(directory).or_else(|| {
        Some(Place::Pod { uid: pod_uid(directory)?, container_id: directories.next().and_then(container_id) })
    })
}

/// `<slice>:cri-containerd:<id>`: systemd's names where the runtime makes cgroups without systemd.
fn in_one_directory(directory: &str) -> Option<Place<'_>> {
    let (slice, rest) = directory.split_once(':')?;
    let (runtime, id) = rest.split_once(':')?;
    let known = slice.trim_start_matches("kubelet-").starts_with("kubepods-") && runtime == "cri-containerd";
    let container_id = container_id(id).filter(|_| known)?;
    Some(Place::Pod { uid: pod_uid(slice)?, container_id: Some(container_id) })
}

/// The cgroup of all pods.
fn is_root(segment: &str) -> bool {
    matches!(segment, "kubepods" | "kubepods.slice" | "kubelet-kubepods.slice")
}

/// The class of service; guaranteed pods have none.
fn is_qos(segment: &str) -> bool {
    let name = segment.strip_suffix(".slice").map_or(segment, |unit| unit.rsplit('-').next().unwrap_or_default());
    matches!(name, "burstable" | "besteffort")
}

/// `pod<uid>`, or a slice whose name ends so, with `_` for `-`.
fn pod_uid(segment: &str) -> Option<String> {
    let name = segment.strip_suffix(".slice").map_or(segment, |unit| unit.rsplit('-').next().unwrap_or_default());
    let uid = name.strip_prefix("pod")?.replace('_', "-");
    is_pod_uid(&uid).then_some(uid)
}

/// A UUID, or of a static pod the hash of its manifest.
pub fn is_pod_uid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    matches!(lengths[..], [8, 4, 4, 4, 12] | [32]) && text.split('-').all(is_hex)
}

/// 64 hexadecimal digits.
pub fn is_container_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// What runtimes put before an id, and whether the process is in the container. (`conmon` watches it from outside.)
const RUNTIMES: &[(&str, bool)] =
    &[("cri-containerd-", true), ("crio-conmon-", false), ("crio-", true), ("docker-", true), ("", true)];

/// `<id>` or `<runtime>-<id>.scope`.
fn container_id(segment: &str) -> Option<&str> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    let (id, inside) = RUNTIMES.iter().find_map(|(prefix, inside)| Some((name.strip_prefix(prefix)?, *inside)))?;
    (inside && is_container_id(id)).then_some(id)
}

/// The outermost service or scope, as `systemctl status PID` has it; else the path.
fn unit_of(path: &str) -> &str {
    let is_unit = |segment: &&str| segment.ends_with(".service") || segment.ends_with(".scope");
    path.split('/').find(is_unit).unwrap_or(if path.is_empty() { "/" } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
    const STATIC: &str = "6e2c1d7f8a9b0c3d4e5f60718293a4b5";
    const ID: &str = "4f2a9c1b0d3e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";
    const OTHER: &str = "a0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9f";

    /// `U`, `u`, `S`, `I` and `O` in angle brackets stand for the constants, `u` with `_`.
    fn path(shape: &str) -> String {
        let spellings = [("<U>", UID), ("<u>", &UID.replace('-', "_")), ("<S>", STATIC), ("<I>", ID), ("<O>", OTHER)];
        spellings.iter().fold(shape.to_owned(), |path, (mark, text)| path.replace(mark, text))
    }

    #[test]
    fn every_shape_of_a_container_names_its_pod_and_id() {
        let shapes = [
            // cgroupfs driver: burstable, best effort, guaranteed, static
            ("/kubepods/burstable/pod<U>/<I>", UID),
            ("/kubepods/besteffort/pod<U>/<I>", UID),
            ("/kubepods/pod<U>/<I>", UID),
            ("/kubepods/burstable/pod<S>/<I>", STATIC),
            // systemd driver
            ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<u>.slice/cri-containerd-<I>.scope", UID),
            ("/kubepods.slice/kubepods-pod<u>.slice/cri-containerd-<I>.scope", UID),
            ("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<u>.slice/crio-<I>.scope", UID),
            ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<S>.slice/docker-<I>.scope", STATIC),
            // kind: the kubelet below a slice of its own
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
                 kubelet-kubepods-burstable-pod<u>.slice/cri-containerd-<I>.scope",
                UID,
            ),
            ("/kubelet/kubepods/besteffort/pod<U>/<I>", UID),
            // containerd, told systemd's names without systemd's cgroups: one directory
            ("/system.slice/containerd.service/kubepods-burstable-pod<u>.slice:cri-containerd:<I>", UID),
            ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<u>.slice:cri-containerd:<I>", UID),
            // a node that is a container, seen from outside
            ("/docker/<O>/kubelet/kubepods/burstable/pod<U>/<I>", UID),
            ("/system.slice/docker-<O>.scope/kubepods/pod<U>/<I>", UID),
            // what the container made below itself
            ("/kubepods/burstable/pod<U>/<I>/init.scope", UID),
            ("/kubepods/burstable/pod<U>/<I>/system.slice/nginx.service", UID),
            ("/kubepods/burstable/pod<U>/<I>/docker/<O>", UID),
            // from a private cgroup namespace
            ("/../../kubepods/burstable/pod<U>/<I>", UID),
            ("/../kubepods.slice/kubepods-pod<u>.slice/cri-containerd-<I>.scope", UID),
        ];
        for (shape, uid) in shapes {
            let path = path(shape);
            match of(&path) {
                Place::Pod { uid: found, container_id } => {
                    assert_eq!((&*found, container_id), (uid, Some(ID)), "{path}")
                }
                Place::Host { .. } => panic!("{path}"),
            }
        }
    }

    #[test]
    fn a_pods_own_cgroup_and_its_watchers_have_no_container() {
        for shape in [
            "/kubepods/burstable/pod<U>",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<u>.slice",
            "/kubepods.slice/kubepods-pod<u>.slice/crio-conmon-<I>.scope",
            "/kubepods/burstable/pod<U>/helper",
        ] {
            assert_eq!(of(&path(shape)), Place::Pod { uid: UID.into(), container_id: None }, "{shape}");
        }
    }

    #[test]
    fn the_host_is_named_by_unit_or_path() {
        for (shape, unit) in [
            ("/system.slice/kubelet.service", "kubelet.service"),
            ("/system.slice/containerd.service/sub", "containerd.service"),
            ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/evil.service", "user@1000.service"),
            ("/system.slice/docker-<I>.scope", "docker-<I>.scope"),
            ("/docker/<I>", "/docker/<I>"),
            ("/init.scope", "init.scope"),
            ("/kubepods", "/kubepods"),
            ("/kubepods.slice/kubepods-burstable.slice", "/kubepods.slice/kubepods-burstable.slice"),
            ("/", "/"),
            ("", "/"),
        ] {
            assert_eq!(of(&path(shape)), Place::Host { unit: &path(unit) }, "{shape}");
        }
    }

    #[test]
    fn nobody_poses_as_a_pod() {
        // a user's own cgroups
        for shape in [
            "/user.slice/user-1000.slice/user@1000.service/kubepods/pod<U>/<I>",
            "/user.slice/kubepods.slice/kubepods-pod<u>.slice/crio-<I>.scope",
        ] {
            assert!(matches!(of(&path(shape)), Place::Host { .. }), "{shape}");
        }
        // a container that makes another pod's cgroup below its own
        for shape in [
            "/kubepods/burstable/pod<U>/<I>/kubepods/pod<S>/<O>",
            "/kubepods/burstable/pod<U>/<I>/pod<S>/<O>",
            "/kubepods/pod<U>/<I>/kubepods-pod<S>.slice:cri-containerd:<O>",
        ] {
            assert_eq!(of(&path(shape)), Place::Pod { uid: UID.into(), container_id: Some(ID) }, "{shape}");
        }
        // names that only look like one
        for shape in [
            "/kubepods/podx<U>/<I>",
            "/kubepods/pod0b1c6c2e/<I>",
            "/kubepods/pod0B1C6C2E-4A77-4D8A-9D2B-3F5E8C7A9B10/<I>",
            "/kubepods/pod0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b1\u{2028}/<I>",
            "/kubepods-burstable-pod<u>.slice/<I>",
            "/kubepods/burstable/burstable/pod<U>/<I>",
            "/system.slice/x.service/pod<u>.slice:cri-containerd:<I>",
            "/system.slice/x.service/kubepods-pod<u>.slice:mine:<I>",
        ] {
            assert!(matches!(of(&path(shape)), Place::Host { .. }), "{shape}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_has_a_place(path: String) {
            of(&path);
        }

        #[test]
        fn whatever_a_container_makes_below_itself_its_identity_stays(below in "[/:a-z0-9.-]{0,80}") {
            let path = format!("/kubepods/burstable/pod{UID}/{ID}/{below}");
            proptest::prop_assert_eq!(of(&path), Place::Pod { uid: UID.into(), container_id: Some(ID) });
        }
    }
}
