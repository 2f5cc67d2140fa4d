//! Every hook, in one table: what it answers, how it can be attached, and how its bytes become events.
//!
//! A hook turns records of its kinds into [`Event`]s and nothing else: it does not read clocks, files or the
//! ledger. Adding one: a file in `bpf/hooks`, a file here, a line in [`HOOKS`].

mod connect;
pub mod cost;
mod drop;
mod lifetimes;
pub mod limits;
mod owner;
pub mod reasons;
mod sockets;
mod tcp_reset;
mod tcp_retransmit;
mod tcp_state;
mod tcp_wait;
mod udp;
pub mod wire;

use ktrace_bundle::event::{Event, EventKind};

use crate::kernel::features::Need;
use crate::plan::{Plan, PortFilter};
use limits::Limit;
pub use sockets::{NAME as SOCKETS, decode_socket};
pub use tcp_wait::NAME as TCP_WAIT;
pub use udp::{CGROUP_PROGRAMS, FIRST_PROGRAMS};
use wire::{Context, DecodeError, RawEvent};

/// Which memory of sockets a variant's programs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// None.
    None,
    /// Socket storage with the hash as fallback.
    Any,
    /// Only the hash: probed programs cannot reach socket storage.
    Hash,
}

/// `bpf_get_socket_cookie` in programs with typed sockets (5.12), by the name of the kernel's function. Younger
/// tracepoints imply it.
const COOKIE: Need = Need::Helper("bpf_get_socket_ptr_cookie");

/// One way to attach a hook.
#[derive(Debug)]
pub struct Variant {
    /// `tp_btf`, `fentry`, `kprobe`, `tracepoint`, `iter`.
    pub name: &'static str,
    /// BPF programs, all of which must load and attach.
    pub programs: &'static [&'static str],
    /// BPF programs that take what those of `programs` are skipped for; all of them must load and attach, too.
    pub seconds: &'static [&'static str],
    /// Further ones, where the kernel preempts programs; they run after those of `programs` and before `seconds`.
    pub more: &'static [&'static str],
    /// BPF programs that may be missing.
    pub optional: &'static [Optional],
    /// What the kernel must offer.
    pub needs: &'static [Need],
    /// Which memory of sockets they use.
    pub store: Store,
    /// What this variant cannot see.
    pub limits: &'static [&'static Limit],
}

impl Variant {
    /// Whether the kernel skips its programs on top of other ones; older ones do not count how often.
    pub fn is_skipped(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Need::Kprobe(_) | Need::Tracepoint(..)))
    }
}

/// Programs of a variant that degrade it when they cannot be attached.
#[derive(Debug)]
pub struct Optional {
    /// BPF programs.
    pub programs: &'static [&'static str],
    /// What the kernel must offer for them; where it does not, that is a limit and no failure.
    pub needs: &'static [Need],
    /// What is not seen without them.
    pub limit: &'static Limit,
}

/// Something that ktrace attaches for.
pub trait Hook: Sync {
    /// Name in plan, manifest and documents.
    fn name(&self) -> &'static str;

    /// The question that it answers.
    fn question(&self) -> &'static str;

    /// Event kinds that it makes; empty for hooks that serve others.
    fn kinds(&self) -> &'static [EventKind];

    /// Whether the plan asks for it.
    fn wanted(&self, plan: &Plan) -> bool;

    /// What it will not see because of what the plan asks for, one sentence each.
    fn plan_limits(&self, _plan: &Plan) -> &'static [&'static str] {
        &[]
    }

    /// Flag that turns it off with `=false`; `None` if it always runs.
    fn flag(&self) -> Option<&'static str> {
        None
    }

    /// Whether an event may be lost each time that the kernel skips one of its programs.
    fn counts_missed(&self) -> bool {
        true
    }

    /// Ways to attach it, best first.
    fn variants(&self) -> &'static [Variant];

    /// One record of one of its kinds. A hook that has none keeps this.
    ///
    /// # Errors
    /// The record is not what `wire.h` says; the caller counts it as undecodable.
    fn decode(&self, raw: RawEvent<'_>, _context: &Context) -> Result<Event, DecodeError> {
        Err(DecodeError::NoHook(raw.kind()))
    }
}

/// Under a filter by port: what is on another port than the one that a client asked for.
fn translated(plan: &Plan, limit: &'static [&'static str]) -> &'static [&'static str] {
    if plan.filter == PortFilter::All { &[] } else { limit }
}

/// All hooks, in the order in which they are attached.
pub static HOOKS: &[&dyn Hook] = &[
    &tcp_state::TcpState,
    &owner::Owner,
    &udp::Udp,
    &connect::Connect,
    &tcp_retransmit::TcpRetransmit,
    &tcp_reset::TcpReset,
    &drop::Drops,
    &tcp_wait::TcpWait,
    &sockets::Sockets,
    &lifetimes::Lifetimes,
];

/// Turns one record from a ring into an event.
///
/// # Errors
/// The record is too short to name its kind, of an unknown kind, or not what its hook expects.
pub fn decode(bytes: &[u8], context: &Context) -> Result<Event, DecodeError> {
    let raw = RawEvent::new(bytes)?;
    match HOOKS.iter().find(|hook| hook.kinds().contains(&raw.kind())) {
        Some(hook) => hook.decode(raw, context),
        None => Err(DecodeError::NoHook(raw.kind())),
    }
}

#[cfg(test)]
#[path = "hooks_tests.rs"]
pub mod tests;
