//! Names of pods by the directory that the kubelet keeps for itself, where nobody else tells them:
//!
//!     pods/<pod uid>/etc-hosts                                            the pod's host name, which is its name
//!     pods/<pod uid>/volumes/kubernetes.io~projected/<volume>/namespace   its namespace, as its service account has it
//!
//! Which container has which id is not told here. What the kubelet writes, others can change for their own pod: root in
//! a container the first file, and the pod's owner, by volumes of his own, the second. So this is believed after all
//! others, no link is followed out of a volume, nothing is waited for, and a pod whose volumes disagree has no name.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use super::names::{Names, PodName};
use super::place::is_pod_uid;

/// Pods that are read, and volumes of one. Of a pod with more volumes nothing is known.
const MOST: usize = 1 << 14;
const MOST_VOLUMES: usize = 64;
/// Read of `etc-hosts`, bytes: the pod's line comes after some 170; aliases follow it.
const LONGEST_HOSTS: usize = 4096;
/// Read of `namespace`, bytes: one more than a namespace has (RFC 1123).
const LONGEST_NAMESPACE: usize = 64;
/// A host name that is as long may have been cut: the kubelet does so (`truncatePodHostnameIfNeeded`).
const LONGEST_HOST_NAME: usize = 63;

/// First line of a pod's `etc-hosts`. One on the host's network has another one, and the host's names.
const HEADER: &[u8] = b"# Kubernetes-managed hosts file.\n";

/// What is there now, in the kubelet's `/var/lib/kubelet`.
///
/// # Errors
/// Its directory of pods cannot be read.
pub fn read(root: &Path) -> io::Result<Names> {
    let mut pods =
        Dir::open(&root.join("pods"), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Names::default();
    for uid in entries(&mut pods, MOST).iter().filter(|name| is_pod_uid(name)) {
        let name = directory(&pods, uid).and_then(|pod| name_of(&pod));
        name.into_iter().for_each(|name| names.add_pod(uid, name));
    }
    Ok(names)
}

fn name_of(pod: &Dir) -> Option<PodName> {
    let hosts = text(pod, "etc-hosts", LONGEST_HOSTS)?;
    let (_, name) = noted(&hosts)?;
    PodName::new(&namespace_of(pod)?, name)
}

/// The pod's own address, the first if it has two, and its host name: what follows the addresses that every pod has.
/// That is another one than its name where `spec.hostname` says so.
fn noted(hosts: &[u8]) -> Option<(IpAddr, &str)> {
    let lines = hosts.strip_prefix(HEADER)?;
    // the last one may be cut
    let end = lines.iter().rposition(|b| *b == b'\n')?;
    for line in lines.get(..end)?.split(|b| *b == b'\n') {
        let mut fields = std::str::from_utf8(line).ok()?.split('\t');
        // an empty line, and what stands below it, was made up by the pod's owner (`spec.hostAliases`)
        let address: IpAddr = fields.next()?.parse().ok()?;
        let (first, second) = (fields.next()?, fields.next());
        if is_everybodys(address) {
            continue;
        }
        // with `spec.subdomain` the whole name stands first
        let name = second.unwrap_or(first);
        let is_whole = second.is_none() || first.strip_prefix(name).is_some_and(|domain| domain.starts_with('.'));
        return (is_whole && fields.next().is_none() && name.len() < LONGEST_HOST_NAME).then_some((address, name));
    }
    None
}

/// The loopback addresses, and what the kubelet gives the names of multicast groups.
fn is_everybodys(address: IpAddr) -> bool {
    let is_group = matches!(address, IpAddr::V6(v6) if v6.segments().first() == Some(&0xfe00));
    address.is_loopback() || is_group
}

/// What all volumes agree on that have a file of this name, one at least.
fn namespace_of(pod: &Dir) -> Option<String> {
    let mut projected = directory(&directory(pod, "volumes")?, "kubernetes.io~projected")?;
    let volumes = entries(&mut projected, MOST_VOLUMES + 1);
    let mut found = volumes.iter().filter_map(|volume| namespace_in(&directory(&projected, volume)?));
    let first = found.next().filter(|_| volumes.len() <= MOST_VOLUMES)?;
    found.all(|it| it == first).then_some(first)
}

/// The kubelet replaces all files of a volume at once: `namespace` is a link to `..data/namespace`, and `..data` one
/// to a directory `..<time>`.
fn namespace_in(volume: &Dir) -> Option<String> {
    let version = readlinkat(volume, "..data").ok()?.into_string().ok()?;
    if !version.starts_with("..") || version.len() == 2 || version.contains('/') {
        return None;
    }
    let text = text(&directory(volume, &version)?, "namespace", LONGEST_NAMESPACE)?;
    String::from_utf8(text).ok().filter(|text| text.len() < LONGEST_NAMESPACE)
}

/// The names in a directory, as far as they are text.
fn entries(directory: &mut Dir, most: usize) -> Vec<String> {
    let entries =
        directory.iter().map_while(Result::ok).filter_map(|it| it.file_name().to_str().ok().map(str::to_owned));
    entries.filter(|name| !matches!(&**name, "." | "..")).take(most).collect()
}

fn directory(at: &Dir, name: &str) -> Option<Dir> {
    Dir::from_fd(openat(at, name, FLAGS | OFlag::O_DIRECTORY, Mode::empty()).ok()?).ok()
}

/// The first so many bytes of a regular file.
fn text(at: &Dir, name: &str, longest: usize) -> Option<Vec<u8>> {
    let file = File::from(openat(at, name, FLAGS, Mode::empty()).ok()?);
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut text = Vec::new();
    file.take(longest as u64).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Neither follows a link nor waits for somebody to write into a pipe.
const FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use nix::unistd::mkfifo;
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
    /// As `managedHostsFileContent` of the kubelet writes them for every pod.
    const EVERYBODYS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                              fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

    fn hosts(lines: &str) -> String {
        format!("# Kubernetes-managed hosts file.\n{EVERYBODYS}{lines}")
    }

    /// A pod's directory, removed on drop.
    struct Pod(tempfile::TempDir);

    impl Pod {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("pods").join(UID)).unwrap();
            Self(root)
        }

        fn path(&self, below: &str) -> PathBuf {
            self.0.path().join("pods").join(UID).join(below)
        }

        fn hosts(self, lines: &str) -> Self {
            std::fs::write(self.path("etc-hosts"), hosts(lines)).unwrap();
            self
        }

        /// A directory of a volume's version, and the links to it.
        fn volume(&self, name: &str) -> PathBuf {
            let volume = self.path("volumes/kubernetes.io~projected").join(name);
            let version = volume.join("..2026_11_22_05_52_06.123");
            std::fs::create_dir_all(&version).unwrap();
            symlink("..2026_11_22_05_52_06.123", volume.join("..data")).unwrap();
            symlink("..data/namespace", volume.join("namespace")).unwrap();
            version
        }

        fn namespace(self, volume: &str, text: &str) -> Self {
            std::fs::write(self.volume(volume).join("namespace"), text).unwrap();
            self
        }

        fn name(&self) -> Option<(String, String)> {
            let name = read(self.0.path()).unwrap().pod(UID).cloned()?;
            Some((name.namespace, name.pod))
        }
    }

    fn healthy() -> Pod {
        Pod::new().hosts("10.244.1.5\tapi-1\n").namespace("kube-api-access-x2x4z", "shop")
    }

    #[test]
    fn a_pod_is_named_by_its_hosts_file_and_its_service_account() {
        let named = Some(("shop".to_owned(), "api-1".to_owned()));
        assert_eq!(healthy().name(), named);
        // a second volume that says the same, and one that says nothing
        let pod = healthy().namespace("mine", "shop");
        std::fs::write(pod.volume("config").join("key"), "value").unwrap();
        assert_eq!(pod.name(), named);
        let dir = Pod::new();
        std::fs::create_dir(dir.0.path().join("pods/not-a-uid")).unwrap();
        assert_eq!(read(dir.0.path()).unwrap().len(), 0);
        assert_eq!(read(Path::new("/nonexistent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_pods_own_line_is_found_between_everybodys_and_its_owners() {
        let own =
            |lines: &str| noted(hosts(lines).as_bytes()).map(|(address, name)| (address.to_string(), name.to_owned()));
        for (lines, address, name) in [
            ("10.244.1.5\tapi-1\n", "10.244.1.5", "api-1"),
            ("fd00::5\tapi-1\n", "fd00::5", "api-1"),
            ("10.244.1.5\tapi-1\nfd00::5\tapi-1\n", "10.244.1.5", "api-1"),
            ("10.244.1.5\tweb-0.nginx.shop.svc.cluster.local\tweb-0\n", "10.244.1.5", "web-0"),
            ("10.244.1.5\ta.b\n", "10.244.1.5", "a.b"),
            ("10.244.1.5\tapi-1\n\n# Entries added by HostAliases.\n1.2.3.4\tetcd\n", "10.244.1.5", "api-1"),
            ("10.244.1.5\tapi-1\n1.2.3", "10.244.1.5", "api-1"),
        ] {
            assert_eq!(own(lines), Some((address.to_owned(), name.to_owned())), "{lines:?}");
        }
        let long = format!("10.244.1.5\t{}\n", "x".repeat(LONGEST_HOST_NAME));
        for lines in [
            "",
            "10.244.1.5\tapi-1",
            "10.244.1.5\n",
            "10.244.1.5 api-1\n",
            "api-1\t10.244.1.5\n",
            "10.244.1.5\tetcd.shop\tapi-1\n",
            "10.244.1.5\tapi-1.shop\tapi-1\tetcd\n",
            "\n# Entries added by HostAliases.\n1.2.3.4\tetcd\n",
            "127.0.0.1\tapi-1\n",
            &long,
        ] {
            assert_eq!(own(lines), None, "{lines:?}");
        }
        let of_host = format!("# Kubernetes-managed hosts file (host network).\n{EVERYBODYS}10.0.0.1\tnode-1\n");
        let of_others = format!("{EVERYBODYS}10.0.0.1\tnode-1\n");
        assert_eq!([of_host, of_others].map(|text| noted(text.as_bytes()).is_some()), [false; 2]);
    }

    type Spoil = fn(&Pod);

    #[test]
    fn a_hostile_pod_has_no_name_and_keeps_nobody() {
        let spoils: [(&str, Spoil); 14] = [
            ("a pipe for a hosts file", |pod| {
                std::fs::remove_file(pod.path("etc-hosts")).unwrap();
                mkfifo(&pod.path("etc-hosts"), Mode::S_IRWXU).unwrap();
            }),
            ("a link for a hosts file", |pod| {
                std::fs::rename(pod.path("etc-hosts"), pod.path("elsewhere")).unwrap();
                symlink("elsewhere", pod.path("etc-hosts")).unwrap();
            }),
            ("a directory for a hosts file", |pod| {
                std::fs::remove_file(pod.path("etc-hosts")).unwrap();
                std::fs::create_dir(pod.path("etc-hosts")).unwrap();
            }),
            ("a name that obeys a terminal", |pod| {
                std::fs::write(pod.path("etc-hosts"), hosts("10.0.0.1\tapi\u{1b}[31m\n")).unwrap();
            }),
            ("a huge line", |pod| {
                let line = format!("10.0.0.1\t{}\n", "x".repeat(1 << 20));
                std::fs::write(pod.path("etc-hosts"), hosts(&line)).unwrap();
            }),
            ("two namespaces", |pod| {
                std::fs::write(pod.volume("mine").join("namespace"), "kube-system").unwrap();
            }),
            ("many volumes", |pod| (0..MOST_VOLUMES).for_each(|n| drop(pod.volume(&n.to_string())))),
            ("a namespace too long", |pod| of_version(pod, |at| std::fs::write(at, "x".repeat(64)).unwrap())),
            ("a namespace of two lines", |pod| of_version(pod, |at| std::fs::write(at, "shop\n").unwrap())),
            ("no namespace", |pod| of_version(pod, |_| {})),
            ("a pipe for a namespace", |pod| of_version(pod, |at| mkfifo(at, Mode::S_IRWXU).unwrap())),
            ("a link for a namespace", |pod| {
                std::fs::write(pod.path("mine"), "kube-system").unwrap();
                of_version(pod, |at| symlink(pod.path("mine"), at).unwrap());
            }),
            ("a link out of the volume", |pod| {
                std::fs::create_dir(pod.path("..mine")).unwrap();
                std::fs::write(pod.path("..mine/namespace"), "kube-system").unwrap();
                of_data(pod, "../../../..mine");
            }),
            ("a link to a link", |pod| {
                let volume = pod.path("volumes/kubernetes.io~projected/kube-api-access-x2x4z");
                symlink("..2026_11_22_05_52_06.123", volume.join("..other")).unwrap();
                of_data(pod, "..other");
            }),
        ];
        for (what, spoil) in spoils {
            let pod = healthy();
            spoil(&pod);
            assert_eq!(pod.name(), None, "{what}");
        }
        // a volume that its pod may write to is never looked at
        let pod = Pod::new().hosts("10.0.0.1\tapi-1\n");
        std::fs::create_dir_all(pod.path("volumes/kubernetes.io~empty-dir/mine")).unwrap();
        symlink("kubernetes.io~empty-dir", pod.path("volumes/kubernetes.io~projected")).unwrap();
        std::fs::write(pod.volume("mine").join("namespace"), "kube-system").unwrap();
        assert_eq!(pod.name(), None);
    }

    /// Makes the file with the namespace anew.
    fn of_version(pod: &Pod, make: impl FnOnce(&PathBuf)) {
        let path = pod.path("volumes/kubernetes.io~projected/kube-api-access-x2x4z/..data/namespace");
        std::fs::remove_file(&path).unwrap();
        make(&path);
    }

    fn of_data(pod: &Pod, target: &str) {
        let data = pod.path("volumes/kubernetes.io~projected/kube-api-access-x2x4z/..data");
        std::fs::remove_file(&data).unwrap();
        symlink(target, data).unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hosts_file_or_none(bytes: Vec<u8>) {
            let _ = noted(&bytes);
            let _ = noted(&[HEADER, &bytes].concat());
        }

        #[test]
        fn what_the_kubelet_writes_is_read_as_far_as_it_is_whole(
            address: IpAddr,
            name in "[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?",
            domain in proptest::option::of("[a-z]{1,8}\\.shop\\.svc\\.cluster\\.local"),
            aliases in "(\n# Entries added by HostAliases.\n(1.2.3.4\tetcd\n){1,3})?",
            cut: proptest::sample::Index,
        ) {
            prop_assume!(!is_everybodys(address));
            let line = domain.map_or_else(|| name.clone(), |domain| format!("{name}.{domain}\t{name}"));
            let text = hosts(&format!("{address}\t{line}\n"));
            let whole = format!("{text}{aliases}");
            prop_assert_eq!(noted(whole.as_bytes()), Some((address, &*name)));
            let cut = cut.index(whole.len());
            let expected = (cut >= text.len()).then_some((address, &*name));
            prop_assert_eq!(noted(&whole.as_bytes()[..cut]), expected);
        }
    }
}
