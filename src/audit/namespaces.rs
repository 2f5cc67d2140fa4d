//! Which network namespaces there are, and how their counters stay readable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ktrace_bundle::audit::Unaudited;
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit};
use procfs::process::MountInfo;

use super::counters::Reading;

/// Most namespaces that are watched; three open files each.
const MAX_WATCHED: usize = 256;
/// Descriptors that the rest of the capture needs.
const OTHER_FILES: u64 = 256;
/// Most bytes of one file that are read; the kernel writes about 5 KiB.
const MAX_BYTES: usize = 128 << 10;
/// Most network devices that are looked at.
const MAX_DEVICES: usize = 4096;
/// Most processes of a namespace that are kept: the first may end before it is looked at.
const MAX_ANCHORS: usize = 4;
/// Kinds of device whose datagrams the kernel itself takes in.
const TUNNELS: [&str; 5] = ["vxlan", "geneve", "wireguard", "gtp", "bareudp"];

/// How many namespaces the limit of open files allows.
pub fn room() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(files.saturating_sub(OTHER_FILES) / 3).unwrap_or(usize::MAX).min(MAX_WATCHED)
}

/// What shows that a namespace is in use, and gives access to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// A process in it.
    Process(i32),
    /// Where it is mounted, as `ip netns add` does.
    Mount(PathBuf),
}

impl Anchor {
    /// A file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Process(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            Self::Mount(path) => path.clone(),
        }
    }

    fn holds(&self, netns: u32) -> bool {
        fs::metadata(self.path()).is_ok_and(|m| m.ino() == u64::from(netns))
    }
}

/// What a look at the machine found.
#[derive(Debug, Default)]
pub struct Found {
    /// By inode number: some of what leads there, the first is the best.
    pub anchors: BTreeMap<u32, Vec<Anchor>>,
    /// What could not be looked at.
    pub unaudited: BTreeMap<Unaudited, u64>,
}

impl Found {
    fn add(&mut self, netns: u32, anchor: Anchor) {
        let anchors = self.anchors.entry(netns).or_default();
        if anchors.len() < MAX_ANCHORS || matches!(anchor, Anchor::Mount(_)) && anchors.len() == MAX_ANCHORS {
            anchors.push(anchor);
        }
    }
}

/// Looks at every process, then at the mounts that this process sees.
pub fn scan() -> Found {
    let mut found = Found::default();
    for pid in
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok())
    {
        match fs::read_link(format!("/proc/{pid}/ns/net")) {
            Ok(link) => {
                if let Some(netns) = link.to_str().and_then(inode) {
                    found.add(netns, Anchor::Process(pid));
                }
            }
            // one that is ending has left its namespaces
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                *found.unaudited.entry(Unaudited::NoPermission).or_default() += 1;
            }
            Err(_) => {}
        }
    }
    // line by line: a node may have very many mounts
    let lines = File::open("/proc/self/mountinfo").map(|file| BufReader::new(file).split(b'\n'));
    for line in lines.into_iter().flatten().map_while(Result::ok) {
        if let Some((netns, path)) = std::str::from_utf8(&line).ok().and_then(mounted) {
            found.add(netns, Anchor::Mount(path));
        }
    }
    found
}

/// The network namespace that a line of mountinfo is about, and where it is.
fn mounted(line: &str) -> Option<(u32, PathBuf)> {
    let nsfs = line.contains(" - nsfs ").then(|| MountInfo::from_line(line).ok())??;
    Some((inode(&nsfs.root)?, nsfs.mount_point))
}

/// Of `net:[4026531833]`.
fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// A namespace whose counters can be read as long as this lives, also when nothing else is left of it.
pub struct Namespace {
    /// Inode number.
    pub netns: u32,
    /// The kernel takes in datagrams for tunnels here.
    pub has_tunnels: bool,
    /// The last is the one that held when it was looked at.
    anchors: Vec<Anchor>,
    snmp: File,
    snmp6: Option<File>,
    netstat: Option<File>,
}

impl Namespace {
    /// Opens the files of a namespace by the first anchor that holds.
    ///
    /// # Errors
    /// Why it cannot be audited.
    pub fn open(netns: u32, mut anchors: Vec<Anchor>) -> Result<Self, Unaudited> {
        anchors.reverse();
        let mut result = Err(Unaudited::Gone);
        while let Some(anchor) = anchors.last() {
            match Self::open_by(netns, anchor) {
                Ok(opened) => return Ok(Self { anchors, ..opened }),
                Err(why) => result = Err(why),
            }
            anchors.pop();
        }
        result
    }

    fn open_by(netns: u32, anchor: &Anchor) -> Result<Self, Unaudited> {
        let [snmp, snmp6, netstat] = match anchor {
            Anchor::Process(pid) => open_files(&format!("/proc/{pid}/net")),
            Anchor::Mount(path) => enter(path, netns)?,
        };
        let snmp = snmp.map_err(|e| unaudited(&e))?;
        let has_tunnels = own_inode() == Some(netns) && has_tunnel_device();
        let opened = Self { netns, has_tunnels, anchors: Vec::new(), snmp, snmp6: snmp6.ok(), netstat: netstat.ok() };
        // the process may have ended, and its number may be another's by now
        if anchor.holds(netns) { Ok(opened) } else { Err(Unaudited::Gone) }
    }

    /// Whether something of what led to it still does; what does not is forgotten.
    pub fn is_anchored(&mut self) -> bool {
        while let Some(anchor) = self.anchors.last() {
            if anchor.holds(self.netns) {
                return true;
            }
            self.anchors.pop();
        }
        false
    }

    /// Takes other ways to it; returns whether there is one.
    pub fn anchor_to(&mut self, mut anchors: Vec<Anchor>) -> bool {
        anchors.reverse();
        self.anchors = anchors;
        self.is_anchored()
    }

    /// Its counters.
    ///
    /// # Errors
    /// They are not what they should be.
    pub fn read(&self) -> Result<Reading, Unaudited> {
        let [snmp, snmp6, netstat] = [Some(&self.snmp), self.snmp6.as_ref(), self.netstat.as_ref()]
            .map(|file| file.map_or_else(|| Ok(String::new()), text).map_err(|_| Unaudited::Unreadable));
        Reading::parse(&snmp?, &snmp6?, &netstat?).ok_or(Unaudited::Unreadable)
    }
}

fn unaudited(error: &io::Error) -> Unaudited {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Unaudited::NoPermission,
        io::ErrorKind::NotFound => Unaudited::Gone,
        _ => Unaudited::Unreadable,
    }
}

fn open_files(dir: &str) -> [io::Result<File>; 3] {
    ["snmp", "snmp6", "netstat"].map(|name| File::open(format!("{dir}/{name}")))
}

/// Opens the files on a thread of its own that goes into the namespace and ends there.
fn enter(path: &Path, netns: u32) -> Result<[io::Result<File>; 3], Unaudited> {
    let file = File::open(path).map_err(|e| unaudited(&e))?;
    if !file.metadata().is_ok_and(|m| m.ino() == u64::from(netns)) {
        return Err(Unaudited::Gone);
    }
    let inside = move || match setns(file, CloneFlags::CLONE_NEWNET) {
        Ok(()) => Ok(open_files("/proc/thread-self/net")),
        Err(_) => Err(Unaudited::NoPermission),
    };
    let thread = std::thread::Builder::new().name("audit".into()).spawn(inside);
    thread.map_err(|_| Unaudited::Unreadable)?.join().unwrap_or(Err(Unaudited::Unreadable))
}

/// The file from its start: the kernel counts anew for each such reading.
fn text(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; MAX_BYTES];
    let mut held = 0;
    while let Some(free) = bytes.get_mut(held..).filter(|free| !free.is_empty()) {
        match file.read_at(free, held as u64) {
            Ok(0) => {
                bytes.truncate(held);
                return String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
            }
            Ok(got) => held += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "too long"))
}

fn own_inode() -> Option<u32> {
    inode(fs::read_link("/proc/self/ns/net").ok()?.to_str()?)
}

/// Whether this process's namespace has a device of a kind in [`TUNNELS`]. sysfs may show another namespace's devices:
/// only those count that procfs has, too.
fn has_tunnel_device() -> bool {
    let own = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let is_own = |name: &str| own.lines().any(|line| line.trim_start().split_once(':').is_some_and(|(n, _)| n == name));
    let devices = fs::read_dir("/sys/class/net").into_iter().flatten().flatten().take(MAX_DEVICES);
    devices.filter(|d| d.file_name().to_str().is_some_and(is_own)).any(|device| {
        let about = fs::read_to_string(device.path().join("uevent")).unwrap_or_default();
        about.lines().filter_map(|line| line.strip_prefix("DEVTYPE=")).any(|kind| TUNNELS.contains(&kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_namespaces_have_a_number_here() {
        assert_eq!(inode("net:[4026531833]"), Some(4_026_531_833));
        for odd in ["mnt:[4026531833]", "net:[]", "net:[-1]", "net:[99999999999]", "net:[12", ""] {
            assert_eq!(inode(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_own_namespace_is_found_and_read_again_and_again() {
        let netns = own_inode().unwrap();
        let mut anchors = scan().anchors.remove(&netns).unwrap();
        anchors.insert(0, Anchor::Process(i32::MAX)); // one that has ended
        let mut namespace = Namespace::open(netns, anchors).unwrap();
        assert!(namespace.is_anchored());
        let count = || namespace.read().unwrap().get(super::super::counters::Counter::UdpOut).unwrap();
        let before = count();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert!(count() > before);
    }

    #[test]
    fn the_next_process_holds_it_when_the_first_has_ended() {
        let child = || std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut children = [child(), child()];
        let anchors = children.iter().map(|c| Anchor::Process(c.id().try_into().unwrap())).collect();
        let mut namespace = Namespace::open(own_inode().unwrap(), anchors).unwrap();
        for (child, is_held) in children.iter_mut().zip([true, false]) {
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(namespace.is_anchored(), is_held);
        }
    }

    #[test]
    fn only_mounted_network_namespaces_are_taken_from_mountinfo() {
        let line = "41 25 0:4 net:[4026532281] /run/netns/blue rw shared:25 - nsfs nsfs rw";
        assert_eq!(mounted(line), Some((4_026_532_281, PathBuf::from("/run/netns/blue"))));
        for other in [
            &line.replace("net:[", "mnt:["),
            &line.replace("- nsfs", "- tmpfs"),
            "25 1 0:4 / /tmp rw - tmpfs nsfs rw",
            "41 - nsfs ",
            "",
        ] {
            assert_eq!(mounted(other), None, "{other}");
        }
    }

    #[test]
    fn a_number_that_is_another_namespaces_is_refused() {
        let own = Anchor::Process(std::process::id().try_into().unwrap());
        assert_eq!(Namespace::open(1, vec![own]).map(|n| n.netns), Err(Unaudited::Gone));
    }
}
