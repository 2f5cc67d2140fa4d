//! The ktrace bundle: the only contract between the collector and the analyzer.
//!
//! Records ([`event`]), the account of them ([`ledger`]), what could have been seen ([`manifest`]),
//! and the files that carry them ([`writer`], [`reader`]). No libbpf, no command line, no clock, no printing.

pub mod attribution;
pub mod audit;
pub mod coverage;
pub mod dns;
pub mod errno;
pub mod event;
mod evidence;
pub mod flow;
mod histogram;
pub mod keys;
pub mod ledger;
pub mod line;
pub mod manifest;
pub mod nat;
pub mod node;
pub mod peer;
pub mod process;
pub mod reader;
mod socket;
pub mod summary;
pub mod tcp;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod totals;
pub mod tracking;
pub mod why;
pub mod workload;
pub mod writer;
