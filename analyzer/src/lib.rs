//! Reads a ktrace bundle offline and names the cause.
//!
//! A bundle's records stream into a [`capture::Capture`] (memory grows with flows, not with events), a static
//! table of [`detectors`] judges it, and a [`report`] says what was found, what could not be judged and why,
//! and what was not measured. Needs no kernel, no libbpf and no network; every string of a bundle is hostile.

pub mod ask;
pub mod capture;
pub mod cli;
pub mod detectors;
pub mod error;
mod escape;
pub mod events;
pub mod finding;
pub mod kb;
pub mod kernel_log;
pub mod report;
pub mod schema;
pub mod story;
mod units;
