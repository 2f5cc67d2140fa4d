//! Cgroup file systems: which hierarchies are mounted where, and the path that belongs to an id. An id is the inode number of
//! the cgroup's directory and not used again until the next boot (`kernfs_node->id`).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

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
                roots.push(Root { hierarchy, point, directory });
            }
        }
        Self(roots)
    }

    /// The path of a cgroup below the root of its hierarchy, as `/proc/PID/cgroup` has it. Bytes that are no UTF-8 are
    /// replaced.
    ///
    /// # Errors
    /// `source_absent`: the hierarchy is not mounted here; `gone`: the cgroup was removed; `no_permission`:
    /// `CAP_DAC_READ_SEARCH` is missing; `source_error`: anything else.
    pub fn path_of(&self, hierarchy: Hierarchy, id: u64) -> Result<String, Reason> {
        let root = self.0.iter().find(|root| root.hierarchy == hierarchy).ok_or(Reason::SourceAbsent)?;
        let found = root.open(id).and_then(|file| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())));
        let path = found.map_err(|e| match e.raw_os_error() {
            Some(libc::ESTALE) => Reason::Gone,
            Some(libc::EPERM | libc::EACCES) => Reason::NoPermission,
            _ => Reason::SourceError,
        })?;
        let below = path.strip_prefix(&root.point).unwrap_or(&path).as_os_str();
        let below = below.as_encoded_bytes();
        let below = below.strip_suffix(b" (deleted)").unwrap_or(below);
        let text = String::from_utf8_lossy(below);
        Ok(if text.starts_with('/') { text.into_owned() } else { format!("/{text}") })
    }
}

impl Root {
    fn open(&self, id: u64) -> io::Result<OwnedFd> {
        let head =
            libc::file_handle { handle_bytes: size_of::<u64>() as u32, handle_type: FILEID_KERNFS, f_handle: [] };
        let mut handle = Handle { head, id };
        // SAFETY: `handle` is a header that says 8 bytes, followed by these 8; the kernel only reads it.
        let fd = unsafe {
            libc::open_by_handle_at(
                self.directory.as_raw_fd(),
                (&raw mut handle).cast(),
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has made this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}
