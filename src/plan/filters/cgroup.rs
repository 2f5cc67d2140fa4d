//! Cgroups by path or by id. A path is a directory of a cgroup file system, or what `/proc/PID/cgroup` says, below
//! its root. Of the v1 hierarchies, ktrace reads those of the memory and of the pids controller.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::cgroup::{Hierarchy, Mount, mounts};
use crate::error::Hint;

/// A cgroup and all below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cgroup {
    /// Ids by hierarchy; several where the same path, or number, is one in each.
    pub ids: Vec<(Hierarchy, u64)>,
    /// What it was given as, if that was a path.
    path: Option<String>,
}

/// Why a text is no cgroup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgroupError {
    /// Neither a number nor a directory of a cgroup file system.
    #[error("`{item}` is not a cgroup")]
    NotThere {
        /// The item.
        item: String,
    },
    /// A hierarchy of version 1 with other controllers.
    #[error("`{item}` is in a hierarchy that ktrace does not read")]
    Hierarchy {
        /// The item.
        item: String,
    },
}

impl Hint for CgroupError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotThere { .. } => {
                "pass a directory such as `/sys/fs/cgroup/system.slice`, a path of `/proc/PID/cgroup`, or a `cgroup_id`"
                    .into()
            }
            Self::Hierarchy { .. } => "pass the cgroup of version 2, or of the memory or pids controller".into(),
        })
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.ids.first().map_or(0, |(_, id)| *id);
        match &self.path {
            Some(path) => write!(f, "{id} ({path})"),
            None => write!(f, "{id}"),
        }
    }
}

/// Reads a number, or looks up a path.
///
/// # Errors
/// See [`CgroupError`].
pub fn resolve(item: &str) -> Result<Cgroup, CgroupError> {
    let mounts = mounts();
    resolve_in(item, &mounts)
}

fn resolve_in(item: &str, mounts: &[Mount]) -> Result<Cgroup, CgroupError> {
    let not_there = || CgroupError::NotThere { item: item.into() };
    if item.bytes().all(|b| b.is_ascii_digit()) {
        let id = item.parse().ok().filter(|id| *id > 0).ok_or_else(not_there)?;
        let everywhere = [Hierarchy::V2, Hierarchy::V1Memory, Hierarchy::V1Pids];
        return Ok(Cgroup { ids: everywhere.map(|hierarchy| (hierarchy, id)).to_vec(), path: None });
    }
    let found = |mount: &Mount, path: &Path| Some((mount.hierarchy?, directory(path)?));
    let given = std::fs::canonicalize(item).ok().and_then(|path| {
        let mount = mounts.iter().filter(|m| path.starts_with(&m.point)).max_by_key(|m| m.point.as_os_str().len())?;
        Some((mount, path))
    });
    let ids: Vec<_> = match given {
        Some((mount, path)) => {
            let id = found(mount, &path).ok_or_else(|| CgroupError::Hierarchy { item: item.into() })?;
            vec![id]
        }
        None => {
            let below = Path::new(item.trim_start_matches('/'));
            let mut ids: Vec<_> = mounts.iter().filter_map(|m| found(m, &m.point.join(below))).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        }
    };
    if ids.is_empty() {
        return Err(not_there());
    }
    Ok(Cgroup { ids, path: Some(item.into()) })
}

/// Inode of a directory: the kernel's id of the cgroup.
fn directory(path: &Path) -> Option<u64> {
    let metadata = std::fs::metadata(path).ok()?;
    metadata.is_dir().then(|| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that stands for the mounted hierarchies `v2`, `memory` and `cpu`, each with a cgroup `a/b`.
    fn tree() -> (tempfile::TempDir, Vec<Mount>) {
        let dir = tempfile::tempdir().unwrap();
        let kinds = [("v2", Some(Hierarchy::V2)), ("memory", Some(Hierarchy::V1Memory)), ("cpu", None)];
        let root = std::fs::canonicalize(dir.path()).unwrap();
        let mounts = kinds.map(|(name, hierarchy)| Mount { point: root.join(name), hierarchy, height: 0 });
        for mount in &mounts {
            std::fs::create_dir_all(mount.point.join("a/b")).unwrap();
        }
        std::fs::create_dir(mounts[0].point.join("only")).unwrap();
        (dir, mounts.into())
    }

    #[test]
    fn a_directory_is_one_cgroup() {
        let (_dir, mounts) = tree();
        let path = mounts[1].point.join("a/b");
        let inode = std::fs::metadata(&path).unwrap().ino();
        let cgroup = resolve_in(path.to_str().unwrap(), &mounts).unwrap();
        assert_eq!(cgroup.ids, [(Hierarchy::V1Memory, inode)]);
        assert_eq!(cgroup.to_string(), format!("{inode} ({})", path.display()));
    }

    #[test]
    fn a_path_below_the_root_is_looked_up_in_every_hierarchy() {
        let (_dir, mounts) = tree();
        let kinds = |item: &str| resolve_in(item, &mounts).map(|c| c.ids.iter().map(|(h, _)| *h).collect::<Vec<_>>());
        assert_eq!(kinds("/a/b"), Ok(vec![Hierarchy::V2, Hierarchy::V1Memory]));
        assert_eq!(kinds("only"), Ok(vec![Hierarchy::V2]));
        assert_eq!(kinds("/c"), Err(CgroupError::NotThere { item: "/c".into() }));
    }

    #[test]
    fn a_hierarchy_that_is_not_read_is_refused() {
        let (_dir, mounts) = tree();
        let item = mounts[2].point.join("a").to_str().unwrap().to_owned();
        assert_eq!(resolve_in(&item, &mounts), Err(CgroupError::Hierarchy { item }));
        assert!(resolve_in("/etc/passwd", &mounts).is_err());
    }

    #[test]
    fn a_number_is_an_id_in_any_hierarchy() {
        assert_eq!(resolve_in("7712", &[]).unwrap().ids.len(), 3);
        assert!(resolve_in("0", &[]).is_err());
    }
}
