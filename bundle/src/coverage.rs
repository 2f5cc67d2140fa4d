//! `coverage.jsonl`: when evidence was lost. One line per hook and interval in which something was; what no line
//! covers is complete.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ledger::DropReason;

/// Lines that `coverage.jsonl` holds at most; more are counted as omitted. Over five hours of loss in one hook.
pub const MAX_COVERAGE: u64 = 20_000;

/// A line of `coverage.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LossRecord {
    /// Version of the contract.
    pub v: u32,
    /// Begin of the interval, ns since the window opened.
    pub from_ns: u64,
    /// End of the interval, ns since the window opened; about a second after its begin.
    pub to_ns: u64,
    /// When in the window is not known: the interval is all of it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub undated: bool,
    /// Hook that lost something.
    pub hook: String,
    /// Events that the kernel side saw in the interval; 0 on a line that is `undated`.
    pub seen: u64,
    /// Lines of `events.jsonl` written in the interval, those that waited in the ring before it included.
    pub written: u64,
    /// Events that were lost in the interval, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<DropReason, u64>,
    /// Events that the hook's programs missed in the interval, at most.
    #[serde(default)]
    pub missed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}
