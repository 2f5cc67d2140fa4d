//! Workloads that are well, though some look ill at first sight.

mod clients;
mod lookups;
mod servers;

use super::Scenario;
use crate::stage::{At, Stage};

/// Longer than a query may wait before its silence counts.
const UNANSWERED_MS: u64 = 5_300;

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [lookups::SCENARIOS, clients::SCENARIOS, servers::SCENARIOS].into_iter().flatten()
}

/// A server of `traffic` that stays until the window is closed.
fn serve_all(stage: &mut Stage, port: u64) {
    let server = stage.server4();
    let listening = stage.traffic(At::Server, &format!("tcp-server --listen {server}:{port} --quiet"));
    listening.wait_for_lines(1);
    stage.keep(listening);
}

/// `traffic` at the client, to its end.
fn run(stage: &mut Stage, args: &str) {
    let ended = stage.traffic(At::Client, args).wait();
    assert!(ended.status.success(), "{ended:?}");
}

/// `actor.py` at the client, to its end.
fn actor(stage: &mut Stage, args: &str) {
    let ended = stage.actor(At::Client, args).wait();
    assert!(ended.status.success(), "{ended:?}");
}
