//! Cgroup file systems: which hierarchies are mounted where, and the path that belongs to an id. An id is the inode number of
//! the cgroup's directory and not used again until the next boot (`kernfs_node->id`).

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ktrace_bundle::why::Reason;

/// Where an id is unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hierarchy {
    /// The one of version 2.
    V2,
    /// Version 1, memory.
    V1Memory,
    /// Version 1, pids.
    V1Pids,
}

impl Hierarchy {
    /// The hierarchy that a line's `why.cgroup_id` tells.
    pub fn of(why: Option<&Reason>) -> Self {
        match why {
            Some(Reason::CgroupV1(name)) if name == "memory" => Self::V1Memory,
            Some(Reason::CgroupV1(_)) => Self::V1Pids,
            _ => Self::V2,
        }
    }
}

impl Hierarchy {
    /// The other way round; `None`: version 2.
    pub const fn why(self) -> Option<Reason> {
        match self {
            Self::V2 => None,
            Self::V1Memory => Some(Reason::CgroupV1(Cow::Borrowed("memory"))),
            Self::V1Pids => Some(Reason::CgroupV1(Cow::Borrowed("pids"))),
        }
    }
}

/// The hierarchies by their numbers (`/proc/self/cgroup`), but for those that ktrace does not read.
pub fn numbers() -> HashMap<u32, Hierarchy> {
    let cgroups = procfs::process::Process::myself().and_then(|it| it.cgroups());
    let number = |it: procfs::ProcessCGroup| {
        let has = |name: &str| it.controllers.iter().any(|controller| controller == name);
        let hierarchy = match it.hierarchy {
            0 => Hierarchy::V2,
            _ if has("memory") => Hierarchy::V1Memory,
            _ if has("pids") => Hierarchy::V1Pids,
            _ => return None,
        };
        Some((it.hierarchy, hierarchy))
    };
    cgroups.map(|cgroups| cgroups.into_iter().filter_map(number).collect()).unwrap_or_default()
}

/// A mounted hierarchy.
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// `None`: one that ktrace does not read.
    pub hierarchy: Option<Hierarchy>,
    /// How far above this process's own root of cgroups the mount begins: it may show a part only.
    pub height: usize,
}

/// What `/proc/self/mountinfo` lists; nothing where that cannot be read.
pub fn mounts() -> Vec<Mount> {
    let Ok(mounts) = procfs::process::Process::myself().and_then(|it| it.mountinfo()) else { return Vec::new() };
    let mounts = mounts.into_iter().filter_map(|m| {
        let hierarchy = match m.fs_type.as_str() {
            "cgroup2" => Some(Hierarchy::V2),
            "cgroup" if m.super_options.contains_key("memory") => Some(Hierarchy::V1Memory),
            "cgroup" if m.super_options.contains_key("pids") => Some(Hierarchy::V1Pids),
            "cgroup" => None,
            _ => return None,
        };
        let height = m.root.split('/').filter(|part| *part == "..").count();
        Some(Mount { point: m.mount_point, hierarchy, height })
    });
    mounts.collect()
}

/// Ids to paths, by one mount of each hierarchy.
pub struct Paths(Vec<Root>);

struct Root {
    hierarchy: Hierarchy,
    point: PathBuf,
    directory: File,
    /// `None` while cgroups can be opened by their ids.
    walk: Option<Walk>,
}

/// What `open_by_handle_at(2)` takes for a kernfs node: `FILEID_KERNFS`, the id.
#[repr(C)]
struct Handle {
    head: libc::file_handle,
    id: u64,
}

const FILEID_KERNFS: libc::c_int = 0xfe;

impl Paths {
    /// Of what is mounted now. Where a hierarchy is mounted twice, the mount that shows more of it.
    pub fn open() -> Self {
        let mut mounts = mounts();
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.height));
        let mut roots: Vec<Root> = Vec::new();
        for Mount { point, hierarchy, .. } in mounts {
            let Some(hierarchy) = hierarchy.filter(|it| roots.iter().all(|root| root.hierarchy != *it)) else {
                continue;
            };
            if let Ok(directory) = File::open(&point) {
                roots.push(Root { hierarchy, point, directory, walk: None });
            }
        }
        Self(roots)
    }

    /// Whether any hierarchy is mounted that ktrace reads.
    pub const fn are_there(&self) -> bool {
        !self.0.is_empty()
    }

    /// The path of a cgroup below the root of its hierarchy, as `/proc/PID/cgroup` has it. Bytes that are no UTF-8 are
    /// replaced. By its id, in microseconds; without `CAP_DAC_READ_SEARCH` by a walk, see [`Walk`].
    ///
    /// # Errors
    /// `source_absent`: the hierarchy is not mounted here; `gone`: the cgroup was removed; `not_found`: it was not among those
    /// that a walk found; `source_error`: anything else.
    pub fn path_of(&mut self, hierarchy: Hierarchy, id: u64) -> Result<String, Reason> {
        let root = self.0.iter_mut().find(|root| root.hierarchy == hierarchy).ok_or(Reason::SourceAbsent)?;
        if let Some(walk) = &mut root.walk {
            return walk.path_of(&root.point, id).ok_or(Reason::NotFound);
        }
        let found = root.open(id).and_then(|file| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())));
        match found {
            Ok(path) => {
                let below = path.strip_prefix(&root.point).unwrap_or(&path).to_string_lossy();
                // it went while it was open
                let below = below.strip_suffix(" (deleted)").unwrap_or(&below);
                Ok(if below.starts_with('/') { below.to_owned() } else { format!("/{below}") })
            }
            Err(e) => match e.raw_os_error() {
                Some(libc::ESTALE) => Err(Reason::Gone),
                Some(libc::EPERM) => root.walk.insert(Walk::default()).path_of(&root.point, id).ok_or(Reason::NotFound),
                _ => Err(Reason::SourceError),
            },
        }
    }
}

impl Root {
    fn open(&self, id: u64) -> io::Result<OwnedFd> {
        let head =
            libc::file_handle { handle_bytes: size_of::<u64>() as u32, handle_type: FILEID_KERNFS, f_handle: [] };
        let mut handle = Handle { head, id };
        let (directory, flags) = (self.directory.as_raw_fd(), libc::O_PATH | libc::O_CLOEXEC);
        // SAFETY: `handle` is a header that says 8 bytes, followed by these 8; the kernel only reads it.
        let fd = unsafe { libc::open_by_handle_at(directory, (&raw mut handle).cast(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has made this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Directories that a walk looks at: it takes some 5 us for each, and the events wait meanwhile.
const MOST: usize = 1 << 14;
/// Between two walks.
const PAUSE: Duration = Duration::from_millis(500);

/// What stands in for opening by id where that is not allowed: all cgroups, read again when one is asked for that was not
/// among them. One that lives shorter than the pause may be missed.
#[derive(Default)]
struct Walk {
    paths: HashMap<u64, String>,
    at: Option<Instant>,
}

impl Walk {
    fn path_of(&mut self, point: &Path, id: u64) -> Option<String> {
        if !self.paths.contains_key(&id) && self.at.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.paths = walk(point);
            self.at = Some(Instant::now());
        }
        self.paths.get(&id).cloned()
    }
}

/// Every cgroup below `point` by its id, the upper ones first.
fn walk(point: &Path) -> HashMap<u64, String> {
    let mut paths = HashMap::new();
    if let Ok(root) = std::fs::metadata(point) {
        paths.insert(root.ino(), "/".to_owned());
    }
    let mut waiting = VecDeque::from([String::new()]);
    while let Some(above) = waiting.pop_front() {
        let Ok(entries) = std::fs::read_dir(format!("{}{above}", point.display())) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir())) {
            if paths.len() >= MOST {
                return paths;
            }
            let path = format!("{above}/{}", entry.file_name().to_string_lossy());
            // as elsewhere, a directory has two names and one more for each that it holds
            if entry.metadata().is_ok_and(|it| it.nlink() > 2) {
                waiting.push_back(path.clone());
            }
            paths.insert(entry.ino(), path);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever this process is in, in each hierarchy that is mounted.
    fn own() -> Vec<(Hierarchy, String, u64)> {
        let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let path_in = |hierarchy| {
            let is_it = |line: &&str| match hierarchy {
                Hierarchy::V2 => line.starts_with("0::"),
                Hierarchy::V1Memory => line.split(':').nth(1).is_some_and(|it| it.split(',').any(|c| c == "memory")),
                Hierarchy::V1Pids => line.split(':').nth(1).is_some_and(|it| it.split(',').any(|c| c == "pids")),
            };
            cgroups.lines().find(is_it)?.splitn(3, ':').nth(2).map(str::to_owned)
        };
        let own = mounts().into_iter().filter_map(|mount| {
            let path = path_in(mount.hierarchy?)?;
            let id = std::fs::metadata(mount.point.join(path.trim_start_matches('/'))).ok()?.ino();
            Some((mount.hierarchy?, path, id))
        });
        own.collect()
    }

    #[test]
    fn an_id_and_a_walk_lead_to_the_path_that_proc_tells() {
        let mut paths = Paths::open();
        for (hierarchy, path, id) in own() {
            let point = paths.0.iter().find(|root| root.hierarchy == hierarchy).unwrap().point.clone();
            assert_eq!(paths.path_of(hierarchy, id), Ok(path.clone()), "{hierarchy:?}");
            assert_eq!(walk(&point).get(&id), Some(&path), "{hierarchy:?}");
        }
    }

    #[test]
    fn an_id_that_no_cgroup_has_is_gone() {
        let mut paths = Paths::open();
        for (hierarchy, ..) in own() {
            let reason = paths.path_of(hierarchy, u64::MAX >> 1).unwrap_err();
            assert!(matches!(reason, Reason::Gone | Reason::NotFound), "{reason:?}");
        }
    }

    #[test]
    fn a_walk_finds_what_is_nested_and_ends_at_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        std::fs::write(dir.path().join("a/cgroup.procs"), "").unwrap();
        let mut found: Vec<_> = walk(dir.path()).into_values().collect();
        found.sort();
        assert_eq!(found, ["/", "/a", "/a/b", "/a/b/c"]);
    }
}
