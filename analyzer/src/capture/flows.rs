//! Lines of `flows.jsonl` → the connections and UDP flows that their events made.

use ktrace_bundle::event::{Endpoint, Proto};
use ktrace_bundle::flow::FlowRecord;

use super::{Builder, FlowKey};

/// Connections of one socket, the newest first, that are compared with a record.
const MAX_STEPS: usize = 16;

impl Builder {
    /// Adds what the record of a flow says to the flow that it is about; one that had no events here adds nothing.
    pub(super) fn flow(&mut self, flow: &FlowRecord) {
        if let (None, Some(why)) = (&flow.conntrack, flow.why.get("conntrack")) {
            let known = self.tracking.without.contains_key(why);
            if known || self.tracking.without.len() < super::MAX_REASONS {
                let n = self.tracking.without.entry(why.clone()).or_default();
                *n = n.saturating_add(1);
            }
        }
        let key = match flow.socket {
            Some(cookie) => FlowKey::Cookie(flow.netns, cookie),
            None => FlowKey::Ends(flow.netns, flow.tuple.from, flow.tuple.to),
        };
        match flow.proto {
            Proto::Udp => self.udp.conclude(key, flow),
            Proto::Tcp => self.conclude(key, flow),
        }
    }

    /// A socket can connect again: the newest connection with these ends is meant.
    fn conclude(&mut self, key: FlowKey, flow: &FlowRecord) {
        let mut next = self.open.get(&key).copied();
        for _ in 0..MAX_STEPS {
            let Some(connection) = next.and_then(|index| self.connections.get_mut(index)) else { return };
            if is_same(connection.local, flow.tuple.from) && is_same(connection.remote, flow.tuple.to) {
                connection.way.conclude(flow);
                return;
            }
            next = connection.before;
        }
    }
}

/// Whether both can be the same end: what one of them does not know does not tell them apart.
pub(crate) fn is_same(a: Endpoint, b: Endpoint) -> bool {
    a.addr.zip(b.addr).is_none_or(|(a, b)| a == b) && a.port.zip(b.port).is_none_or(|(a, b)| a == b)
}
