//! Numbers of reasons → their names, as the running kernel's own types have them. Another kernel has other numbers for the
//! same names; nothing here is derived from versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use libbpf_rs::btf::{Btf, types};

const DROPS: (&str, &str) = ("skb_drop_reason", "SKB_DROP_REASON_");
const RESETS: (&str, &str) = ("sk_rst_reason", "SK_RST_REASON_");

/// The names of one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons {
    drops: BTreeMap<u32, Arc<str>>,
    resets: BTreeMap<u32, Arc<str>>,
}

/// A reason as it stands on a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Its name; `None`: this kernel's types have none, as of reasons of a module.
    pub name: Option<Arc<str>>,
    /// Its number; `None`: the kernel gave none.
    pub id: Option<u32>,
}

impl Reasons {
    /// Reads both lists; a kernel that has none, or does not publish its types, names nothing.
    pub fn of(types: Option<&Btf<'_>>) -> Self {
        let read = |list| types.map(|btf| names(btf, list)).unwrap_or_default();
        Self { drops: read(DROPS), resets: read(RESETS) }
    }

    /// As if a kernel had these.
    #[cfg(test)]
    pub fn with(drops: &[(u32, &str)], resets: &[(u32, &str)]) -> Self {
        let table = |list: &[(u32, &str)]| list.iter().map(|(id, name)| (*id, Arc::from(*name))).collect();
        Self { drops: table(drops), resets: table(resets) }
    }

    /// Of `enum skb_drop_reason`.
    pub fn of_drop(&self, id: u32) -> Named {
        named(&self.drops, id)
    }

    /// Of `enum sk_rst_reason`.
    pub fn of_reset(&self, id: u32) -> Named {
        named(&self.resets, id)
    }
}

/// 0 is what programs say where the kernel tells nothing: of drops it is `SKB_NOT_DROPPED_YET`, of resets "not specified".
fn named(table: &BTreeMap<u32, Arc<str>>, id: u32) -> Named {
    if id == 0 { Named::default() } else { Named { name: table.get(&id).cloned(), id: Some(id) } }
}

fn names(btf: &Btf<'_>, (list, prefix): (&str, &str)) -> BTreeMap<u32, Arc<str>> {
    let Some(found) = btf.type_by_name::<types::Enum<'_>>(list) else { return BTreeMap::new() };
    let member = |member: types::EnumMember<'_>| {
        let name = member.name?.to_str()?.strip_prefix(prefix)?.to_owned();
        // the enumeration is of unsigned numbers, as wide as these
        Some((u32::try_from(member.value).unwrap_or(member.value as u32), Arc::from(name)))
    };
    found.iter().filter_map(member).collect()
}
