//! What the kernel's connection tracking knows of a flow: the addresses that its sender wrote, those that the answer
//! comes with, and how far it got. Read only: nothing is enabled, and no module is loaded for it.
//!
//! [`netlink`] is the better source, [`procfs`] the one that needs no privilege; [`module`] tells whether the first can be
//! asked at all. Connection tracking is a network namespace's own: each answer is about one of them.

pub mod ask;
pub mod counters;
pub mod entry;
mod module;
pub mod netlink;
mod procfs;
pub mod seen;
mod table;
mod tables;
pub mod watch;

#[cfg(test)]
mod kernel_tests;
