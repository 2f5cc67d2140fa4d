//! The account checked against the kernel's own counters, not against ourselves: per network namespace and counter
//! what the kernel counted over the window, what the hooks saw, and what explains the difference.
//!
//! A difference is explained only by a reason with a bound that was measured; what is left is
//! [`AuditEntry::unexplained`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Why the kernel's count and the hooks' may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditReason {
    /// Counted while the window opened or closed: the counters were read before and after both.
    Edges,
    /// Sends that waited for more (`MSG_MORE`, `UDP_CORK`) were sent by something that is no send.
    Corked,
    /// The queue below dropped a datagram whose sender was told of success: `SndbufErrors`.
    SendBuffer,
    /// A request without a socket yet was reset: `EmbryonicRsts`.
    EmbryonicReset,
    /// A segment was counted and could not be sent: `TCPRetransFail`.
    RetransmitFailed,
    /// Tunnels of the kernel (VXLAN, WireGuard, …) took the datagrams, no process did.
    Tunnels,
    /// Programs that the kernel skipped: `ledger.missed`.
    Missed,
    /// The hook was not asked for.
    NotRequested,
    /// A later version's reason.
    #[serde(other)]
    Other,
}

impl AuditReason {
    /// Every reason that is written.
    pub const ALL: [Self; 8] = [
        Self::Edges,
        Self::Corked,
        Self::SendBuffer,
        Self::EmbryonicReset,
        Self::RetransmitFailed,
        Self::Tunnels,
        Self::Missed,
        Self::NotRequested,
    ];
}

/// A part of a difference with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Why.
    pub reason: AuditReason,
    /// How much of the difference it stands for.
    pub count: u64,
    /// How much it could stand for: what was measured.
    pub at_most: u64,
}

/// One counter of one network namespace over the window. Counters that moved on neither side have no entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The kernel's name, such as `Udp.OutDatagrams`.
    pub counter: String,
    /// Inode of the network namespace.
    pub netns: u32,
    /// How much it rose, both edges of the window included.
    pub kernel_delta: u64,
    /// What the hooks saw, before filters and caps; absent where the hook was not attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ktrace_seen: Option<u64>,
    /// What explains the difference, if there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub explained: Vec<Explained>,
}

impl AuditEntry {
    /// How far the two are apart.
    pub fn difference(&self) -> u64 {
        self.kernel_delta.abs_diff(self.ktrace_seen.unwrap_or(0))
    }

    /// What of the difference no reason explains.
    pub fn unexplained(&self) -> u64 {
        let explained = self.explained.iter().fold(0_u64, |sum, e| sum.saturating_add(e.count.min(e.at_most)));
        self.difference().saturating_sub(explained)
    }
}

/// Why a network namespace could not be audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unaudited {
    /// Something was seen in it, and nothing leads to it: it appeared and ended within the window, or had ended before
    /// and its sockets lived on; or it has left its number to another.
    Gone,
    /// More namespaces than are looked at.
    TooMany,
    /// Its processes may not be looked at, or it may not be entered; counts processes and mounts.
    NoPermission,
    /// Its counters cannot be read, or are not what they should be.
    Unreadable,
    /// A later version's reason.
    #[serde(other)]
    Other,
}

impl Unaudited {
    /// Every reason that is written.
    pub const ALL: [Self; 4] = [Self::Gone, Self::TooMany, Self::NoPermission, Self::Unreadable];

    /// The reason in a sentence.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Gone => "ended",
            Self::TooMany => "more than are looked at",
            Self::NoPermission => "no permission to look at them",
            Self::Unreadable => "their counters cannot be read",
            Self::Other => "for a reason of a later version",
        }
    }
}

/// What the audit covers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Audited {
    /// Network namespaces whose counters were compared.
    pub netns_count: u64,
    /// Those that were not, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unaudited: BTreeMap<Unaudited, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn an_entry(kernel_delta: u64, ktrace_seen: Option<u64>, explained: Vec<Explained>) -> AuditEntry {
        AuditEntry { counter: "Udp.OutDatagrams".into(), netns: 7, kernel_delta, ktrace_seen, explained }
    }

    #[test]
    fn what_no_reason_explains_is_left_in_both_directions() {
        assert_eq!(an_entry(10, Some(10), vec![]).unexplained(), 0);
        assert_eq!(an_entry(10, Some(7), vec![]).unexplained(), 3);
        assert_eq!(an_entry(7, Some(10), vec![]).unexplained(), 3);
        assert_eq!(an_entry(10, None, vec![]).unexplained(), 10);
        let edges = |count, at_most| vec![Explained { reason: AuditReason::Edges, count, at_most }];
        assert_eq!(an_entry(10, Some(7), edges(2, 5)).unexplained(), 1);
        assert_eq!(an_entry(10, Some(7), edges(3, 5)).unexplained(), 0);
        // a bundle is a stranger's file: more than the bound explains nothing
        assert_eq!(an_entry(10, Some(7), edges(u64::MAX, 1)).unexplained(), 2);
    }

    #[test]
    fn a_reason_of_a_later_version_is_read() {
        let text = r#"{"counter":"X","netns":1,"kernel_delta":2,"explained":[{"reason":"new","count":1,"at_most":1}]}"#;
        let entry: AuditEntry = serde_json::from_str(text).unwrap();
        assert_eq!((entry.explained[0].reason, entry.unexplained()), (AuditReason::Other, 1));
        let audited: Audited = serde_json::from_str(r#"{"netns_count":1,"unaudited":{"new":2}}"#).unwrap();
        assert_eq!(audited.unaudited, BTreeMap::from([(Unaudited::Other, 2)]));
    }
}
