//! Cgroups for programs of the tests, made as the kubelet and the runtimes make them, in either version.

use std::path::{Path, PathBuf};

use crate::wait::{DEADLINE, until};

/// Cgroups below the root of a hierarchy, removed on drop when the programs in them have ended.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    made: Vec<PathBuf>,
}

impl Tree {
    /// Below this root.
    pub fn new(root: PathBuf) -> Self {
        Self { root, made: Vec::new() }
    }

    /// Makes a cgroup, and those above it that are not there.
    pub fn make(&mut self, path: &str) -> PathBuf {
        let mut cgroup = self.root.clone();
        for part in path.split('/') {
            cgroup.push(part);
            if !cgroup.exists() {
                std::fs::create_dir(&cgroup).unwrap();
                self.made.push(cgroup.clone());
            }
        }
        cgroup
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for cgroup in self.made.iter().rev() {
            until("an empty cgroup", DEADLINE, || std::fs::remove_dir(cgroup).ok());
        }
    }
}

/// The hierarchies that ktrace reads here: version 2, and where it is there the one of version 1 with the memory controller.
pub fn roots() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let is_read = |w: &Vec<&str>| w[2] == "cgroup2" || (w[2] == "cgroup" && w[3].split(',').any(|o| o == "memory"));
    mounts.filter(is_read).map(|w| PathBuf::from(w[1])).collect()
}

/// Cgroups of this path with a tenth of a CPU, and what a shell does to join them.
pub fn with_a_tenth_of_a_cpu(path: &str) -> (Vec<Tree>, String) {
    let first_version = Path::new("/sys/fs/cgroup/cpu").exists();
    let roots = match first_version {
        true => vec![PathBuf::from("/sys/fs/cgroup/memory"), PathBuf::from("/sys/fs/cgroup/cpu")],
        false => roots(),
    };
    let mut trees: Vec<_> = roots.into_iter().map(Tree::new).collect();
    let cgroups: Vec<_> = trees.iter_mut().map(|tree| tree.make(path)).collect();
    let cpu = cgroups.last().unwrap();
    if first_version {
        std::fs::write(cpu.join("cpu.cfs_quota_us"), "10000").unwrap();
    } else {
        for above in cpu.ancestors().skip(1).take(4).collect::<Vec<_>>().into_iter().rev() {
            std::fs::write(above.join("cgroup.subtree_control"), "+cpu").unwrap();
        }
        std::fs::write(cpu.join("cpu.max"), "10000 100000").unwrap();
    }
    let join = cgroups.iter().map(|cgroup| format!("echo $$ > {}/cgroup.procs; ", cgroup.display()));
    (trees, join.collect())
}
