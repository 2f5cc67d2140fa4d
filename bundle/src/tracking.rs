//! `conntrack.json`: how the tables of connection tracking were doing; `services.json`: who stands behind which address.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Endpoint, Proto};
use crate::manifest::{SCHEMA_VERSION, Schema};
use crate::nat::end;

/// `schema.name` of `conntrack.json`.
pub const TRACKING_SCHEMA: &str = "ktrace-conntrack";
/// `schema.name` of `services.json`.
pub const SERVICES_SCHEMA: &str = "ktrace-services";

/// Tables that `conntrack.json` tells of at most.
pub const MAX_TABLES: usize = 256;
/// Services that `services.json` tells of at most.
pub const MAX_SERVICES: usize = 4096;
/// Backends of one service that it tells of at most.
pub const MAX_BACKENDS: usize = 256;
/// Backends of all services that it tells of at most: so it stays below what a reader accepts.
pub const MAX_ALL_BACKENDS: usize = 1 << 13;

/// `conntrack.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackingReport {
    /// What it is.
    pub schema: Schema,
    /// One for each network namespace that was looked at.
    pub tables: Vec<Table>,
    /// Namespaces that there was no room to look at.
    #[serde(default)]
    pub omitted_count: u64,
}

impl Default for TrackingReport {
    fn default() -> Self {
        let schema = Schema { name: TRACKING_SCHEMA.to_owned(), version: SCHEMA_VERSION };
        Self { schema, tables: Vec::new(), omitted_count: 0 }
    }
}

/// The table of one network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// The namespace, as `ns.net`.
    pub netns: u32,
    /// It is the node's own one: what pods send to others passes it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_node: bool,
    /// How it was read: `ctnetlink`, `procfs`; absent where it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Why it could not be read, or not fully.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Entries that the table may hold (`nf_conntrack_max`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// When the capture began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<TableCounts>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<TableCounts>,
    /// What the counters gained in between; a counter that went back is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub difference: BTreeMap<String, u64>,
    /// The most entries that were seen at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_count: Option<u64>,
    /// New entries, changes and ends that the kernel told.
    #[serde(default)]
    pub event_count: u64,
    /// How often it had told more than there was room for (`ENOBUFS`): an unknown number is lost each time.
    #[serde(default)]
    pub overrun_count: u64,
    /// Flows that were looked up one by one.
    #[serde(default)]
    pub lookup_count: u64,
    /// Of these, found.
    #[serde(default)]
    pub found_count: u64,
}

/// What a table's own counters say (`struct ip_conntrack_stat`, summed over all CPUs).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableCounts {
    /// Entries in the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// By the kernel's names: `insert_failed`, `drop`, `early_drop`, `search_restart`, `invalid` and so on.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

/// `services.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesReport {
    /// What it is.
    pub schema: Schema,
    /// By protocol, address and port.
    pub services: Vec<Service>,
    /// Where rules were looked for, and what came of it.
    #[serde(default)]
    pub sources: Vec<RuleSource>,
    /// Services and backends beyond the bounds.
    #[serde(default)]
    pub omitted_count: u64,
}

impl Default for ServicesReport {
    fn default() -> Self {
        let schema = Schema { name: SERVICES_SCHEMA.to_owned(), version: SCHEMA_VERSION };
        Self { schema, services: Vec::new(), sources: Vec::new(), omitted_count: 0 }
    }
}

/// A place where rules are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuleSource {
    /// `nftables`, `iptables`, `ip6tables` or `ipvs`.
    pub name: String,
    /// `answered`, `absent` or `failed`.
    pub outcome: String,
    /// Why it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Services that it declares.
    #[serde(default)]
    pub entries: u64,
    /// Those that found no room.
    #[serde(default)]
    pub omitted_count: u64,
}

/// An address that stands for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Transport protocol.
    pub proto: Proto,
    /// What clients ask for. Without an address: any of the node's.
    #[serde(with = "endpoint")]
    pub vip: Endpoint,
    /// Its name, where the rules tell it, such as `shop/api:http`. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who gets what is sent there, by address.
    pub backends: Vec<Backend>,
}

/// One of those behind a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its address.
    #[serde(with = "endpoint")]
    pub end: Endpoint,
    /// How it is known: `conntrack`, `socket` (a program in the kernel sent a socket there), or a place of rules.
    pub from: Vec<String>,
    /// TCP connects, and UDP flows, of this node's own sockets that went there.
    #[serde(default)]
    pub attempt_count: u64,
    /// Of these: connects that failed, and UDP flows without any answer.
    #[serde(default)]
    pub failed_count: u64,
    /// Flows of anybody that connection tracking saw go there.
    #[serde(default)]
    pub tracked_count: u64,
    /// Of these: ended, or stood at the end, without any answer.
    #[serde(default)]
    pub unreplied_count: u64,
}

impl Backend {
    /// One of which nothing was seen.
    pub const fn new(end: Endpoint) -> Self {
        Self { end, from: Vec::new(), attempt_count: 0, failed_count: 0, tracked_count: 0, unreplied_count: 0 }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// An endpoint that is always there, as one string.
mod endpoint {
    use serde::{Deserializer, Serializer};

    use super::{Endpoint, end};

    pub fn serialize<S: Serializer>(value: &Endpoint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Endpoint, D::Error> {
        end::deserialize(d)?.ok_or_else(|| serde::de::Error::custom("not `addr:port`"))
    }
}
