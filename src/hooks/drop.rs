//! `drop`: which packets of TCP and UDP the kernel throws away, where, and why.

use std::sync::Arc;

use ktrace_bundle::event::{Dropped, Event, EventKind, Payload};

use super::reasons::Named;
use super::wire::{Context, DecodeError, RawEvent, packet_dir, text};
use super::{COOKIE, Hook, Store, Variant, limits};
use crate::kernel::features::Need;
use crate::kernel::skel::types::kt_dropped;
use crate::plan::Plan;

/// See the module.
pub struct Drops;

static VARIANTS: &[Variant] = &[
    Variant {
        name: "tp_btf_socket",
        programs: &["drop__tp_btf_socket"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::TpBtf("kfree_skb", 4), COOKIE],
        store: Store::Any,
        limits: &[&limits::DROPS_ON_TOP],
    },
    Variant {
        name: "tp_btf",
        programs: &["drop__tp_btf_reason"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::TpBtf("kfree_skb", 3), COOKIE],
        store: Store::Any,
        limits: &[&limits::DROPS_ON_TOP],
    },
    Variant {
        name: "tp_btf_2",
        programs: &["drop__tp_btf"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::TpBtf("kfree_skb", 2), COOKIE],
        store: Store::Any,
        limits: &[&limits::DROPS_ON_TOP, &limits::DROPS_WITHOUT_REASON],
    },
    Variant {
        name: "tracepoint",
        programs: &["drop__tracepoint"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Tracepoint("skb", "kfree_skb")],
        store: Store::Hash,
        limits: &[&limits::DROPS_ON_TOP, &limits::LISTENERS_OWNER, &limits::HASHED_OWNERS],
    },
];

impl Hook for Drops {
    fn name(&self) -> &'static str {
        "drop"
    }

    fn question(&self) -> &'static str {
        "which packets of TCP and UDP does the kernel throw away, where, and why?"
    }

    fn kinds(&self) -> &'static [EventKind] {
        &[EventKind::Drop]
    }

    fn wanted(&self, plan: &Plan) -> bool {
        plan.with_drops
    }

    fn flag(&self) -> Option<&'static str> {
        Some("with-drops")
    }

    /// It is skipped on top of itself for packets of every kind, most of which would have been no event.
    fn counts_missed(&self) -> bool {
        false
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn decode(&self, raw: RawEvent<'_>, context: &Context) -> Result<Event, DecodeError> {
        let kt_dropped { hdr, first_ns, count, bytes, symbol, dev, reason, dir, reserved: _ } = raw.read()?;
        let Named { name, id } = context.reasons.of_drop(reason);
        let payload = Payload::Drop(Dropped {
            dir: packet_dir(dir)?,
            reason: name,
            reason_id: id,
            symbol: function(&text(&symbol)),
            dev: Some(text(&dev)).filter(|name| !name.is_empty()).map(Arc::from),
            count,
            bytes: Some(bytes),
            first_boot_ns: Some(first_ns),
        });
        context.event(hdr, payload)
    }
}

/// Without symbols the kernel writes the address, which says nothing to anybody and is nobody's business.
fn function(name: &str) -> Option<Arc<str>> {
    (!name.is_empty() && !name.starts_with("0x")).then(|| Arc::from(name))
}
