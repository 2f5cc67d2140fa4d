//! The keys of events that tell why a connection does not work, both ways: between [`crate::event`] and the table in `keys`.

use std::sync::Arc;

use super::reading::Text;
use super::values::Kind;
use super::{Line, LineError, clip};
use crate::event::{Dropped, EventKind, ListenOverflow, Payload, Reset, Stall};

impl<'a> Line<'a> {
    /// Of other payloads nothing.
    pub(super) fn set_evidence(&mut self, payload: &'a Payload) {
        let text = |text: &'a Option<Arc<str>>| -> Option<Text<'a>> { text.as_deref().map(clip) };
        match payload {
            Payload::TcpReset(r) => {
                self.dir = Some(r.dir);
                self.state = r.state;
                self.reason = text(&r.reason);
                self.reason_id = r.reason_id;
            }
            Payload::TcpStall(s) => {
                self.what = Some(Kind::Stall(s.kind));
                self.duration_ns = Some(s.duration_ns);
                self.queued_bytes = s.queued_bytes;
                self.set_error(s.error);
            }
            Payload::ListenOverflow(o) => {
                self.accept_queue = o.accept_queue;
                self.backlog = o.backlog;
                self.count = Some(o.count);
            }
            Payload::Drop(d) => {
                self.dir = Some(d.dir);
                self.reason = text(&d.reason);
                self.reason_id = d.reason_id;
                self.symbol = text(&d.symbol);
                self.dev = text(&d.dev);
                self.count = Some(d.count);
                self.bytes = d.bytes;
                self.first_boot_ns = d.first_boot_ns;
            }
            Payload::TcpState(_)
            | Payload::UdpSend(_)
            | Payload::UdpRecv(_)
            | Payload::Connect(_)
            | Payload::TcpRetransmit(_) => {}
        }
    }

    /// The payload of one of these kinds.
    pub(super) fn evidence(&self, kind: EventKind) -> Result<Payload, LineError> {
        let dir = self.dir.ok_or(LineError::Missing("dir"));
        let text = |text: &Option<Text<'a>>| text.as_deref().map(Arc::from);
        Ok(match kind {
            EventKind::TcpReset => Payload::TcpReset(Reset {
                dir: dir?,
                state: self.state,
                reason: text(&self.reason),
                reason_id: self.reason_id,
            }),
            EventKind::TcpStall => Payload::TcpStall(Stall {
                kind: match self.what {
                    Some(Kind::Stall(kind)) => kind,
                    _ => return Err(LineError::Missing("kind")),
                },
                duration_ns: self.duration_ns.ok_or(LineError::Missing("duration_ns"))?,
                queued_bytes: self.queued_bytes,
                error: self.errno(),
            }),
            EventKind::ListenOverflow => Payload::ListenOverflow(ListenOverflow {
                accept_queue: self.accept_queue,
                backlog: self.backlog,
                count: self.count.ok_or(LineError::Missing("count"))?,
            }),
            EventKind::Drop => Payload::Drop(Dropped {
                dir: dir?,
                reason: text(&self.reason),
                reason_id: self.reason_id,
                symbol: text(&self.symbol),
                dev: text(&self.dev),
                count: self.count.ok_or(LineError::Missing("count"))?,
                bytes: self.bytes,
                first_boot_ns: self.first_boot_ns,
            }),
            // the caller has these
            EventKind::TcpState
            | EventKind::UdpSend
            | EventKind::UdpRecv
            | EventKind::Connect
            | EventKind::TcpRetransmit => return Err(LineError::UnknownType(kind.as_str().to_owned())),
        })
    }
}
