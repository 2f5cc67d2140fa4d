//! The kernel side as Rust sees it: the skeleton, what this kernel supports, and the loaded programs.

pub mod attachment;
#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "of tests alone")]
mod core_reach;
#[cfg(test)]
mod core_tests;
mod drops;
pub mod features;
pub mod filters;
pub mod ladder;
pub mod loader;
pub mod lockdown;
pub mod log;
pub mod looks;
pub mod observed;
mod refused;
mod remedy;
pub mod session;
pub mod tracefs;
pub mod trial;
pub mod types;

/// The linked BPF object and, through its BTF, the types of `bpf/wire.h`.
#[allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, unsafe_op_in_unsafe_fn)]
#[allow(missing_docs)]
pub mod skel {
    include!(concat!(env!("OUT_DIR"), "/ktrace.skel.rs"));
}

/// Programs for trial loads.
#[allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, unsafe_op_in_unsafe_fn)]
#[allow(missing_docs, dead_code)]
pub mod preflight_skel {
    include!(concat!(env!("OUT_DIR"), "/preflight.skel.rs"));
}
