//! Container runtimes for the tests: a real one, and one that answers what it is told to.

pub mod cri;
pub mod fake;
pub mod node;
pub mod servers;

/// Ends what killed runs have left.
pub fn sweep() {
    let dirs = crate::workdir::of_the_dead();
    dirs.iter().filter(|dir| dir.join("containerd.toml").exists()).for_each(|dir| node::clean(dir));
}
