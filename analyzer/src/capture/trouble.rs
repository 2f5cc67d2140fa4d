//! What went wrong on a connection that was made: resets, time in which data had to wait, segments sent again and again.
//!
//! Most connections have none of it, so [`super::Connection`] holds it in a box.

use std::sync::Arc;

use ktrace_bundle::event::{Errno, PacketDir, Reset, Retransmit, RetransmitKind, Stall, StallKind};
use ktrace_bundle::tcp::TcpState;

use super::connection::Mark;
use super::evidence::Evidence;

/// A reset segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetMark {
    /// When.
    pub mark: Mark,
    /// State of the socket at that moment.
    pub state: TcpState,
}

/// Time in which a connection had data and could not move it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waited {
    /// In all, ns.
    pub total_ns: u64,
    /// The most bytes that waited.
    pub queued_bytes: u64,
    /// `boot_ns` of the newest event.
    pub last_at: u64,
    /// The events that tell of it.
    pub evidence: Evidence,
}

/// The longest run of data sent again between which nothing new was sent: what is sent again is never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standstill {
    /// Segments sent again in a row.
    pub count: u64,
    /// `boot_ns` of the first of them.
    pub from: u64,
    /// And of the last.
    pub to: u64,
    /// Segments that had been sent for the first time before it, handshake included.
    pub fresh_segs: u64,
    /// The retransmits.
    pub evidence: Evidence,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trouble {
    /// First reset from the other end.
    pub reset_received: Option<ResetMark>,
    /// First reset that this end sent.
    pub reset_sent: Option<ResetMark>,
    /// Why it was sent, by the kernel's name (Linux 6.10).
    pub sent_reason: Option<Arc<str>>,
    /// For the peer to read.
    pub zero_window: Waited,
    /// For its own send buffer.
    pub send_buffer: Waited,
    /// For its own process to read.
    pub receive_buffer: Waited,
    /// For a peer that the network says cannot be reached.
    pub unreachable: Waited,
    /// With this error, the last one.
    pub unreachable_error: Option<Errno>,
    /// The longest one.
    pub standstill: Standstill,
    run: Standstill,
}

impl Trouble {
    pub(super) fn reset(&mut self, mark: Mark, reset: &Reset) {
        let Some(state) = reset.state else { return };
        let known = match reset.dir {
            PacketDir::Received => &mut self.reset_received,
            PacketDir::Sent => &mut self.reset_sent,
            PacketDir::Forwarded => return,
        };
        if known.is_none_or(|k| k.mark.at > mark.at) {
            *known = Some(ResetMark { mark, state });
            if reset.dir == PacketDir::Sent {
                self.sent_reason = reset.reason.clone();
            }
        }
    }

    pub(super) fn stalled(&mut self, mark: Mark, stall: &Stall) {
        let waited = match stall.kind {
            StallKind::ZeroWindow => &mut self.zero_window,
            StallKind::SendBuffer => &mut self.send_buffer,
            StallKind::ReceiveBuffer => &mut self.receive_buffer,
            StallKind::Unreachable => &mut self.unreachable,
        };
        waited.total_ns = waited.total_ns.saturating_add(stall.duration_ns);
        waited.queued_bytes = waited.queued_bytes.max(stall.queued_bytes.unwrap_or(0));
        waited.last_at = waited.last_at.max(mark.at);
        waited.evidence.add(mark.seq);
        if stall.kind == StallKind::Unreachable {
            self.unreachable_error = stall.error.or(self.unreachable_error);
        }
    }

    /// What was sent in all, less what was sent again, rises with every new segment.
    pub(super) fn retransmitted(&mut self, mark: Mark, r: &Retransmit) {
        let is_data = matches!(r.kind, RetransmitKind::Data | RetransmitKind::Probe);
        let is_open = matches!(r.state, TcpState::Established | TcpState::CloseWait);
        let Some((sent, again)) = r.tx_segs_count.zip(r.retrans_count).filter(|_| is_data && is_open) else { return };
        let fresh = sent.saturating_sub(again);
        if self.run.count == 0 || fresh > self.run.fresh_segs {
            self.run = Standstill { from: mark.at, fresh_segs: fresh, ..Standstill::default() };
        }
        self.run.count = self.run.count.saturating_add(1);
        self.run.to = self.run.to.max(mark.at);
        self.run.evidence.add(mark.seq);
        if self.run.count >= self.standstill.count {
            self.standstill = self.run.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(tx_segs: u64, retrans: u64) -> Retransmit {
        Retransmit {
            kind: RetransmitKind::Data,
            state: TcpState::Established,
            retrans_count: Some(retrans),
            tx_segs_count: Some(tx_segs),
            srtt_us: None,
        }
    }

    #[test]
    fn a_standstill_ends_with_the_next_new_segment() {
        let mut trouble = Trouble::default();
        for (n, (sent, retrans)) in [(4, 1), (5, 2), (6, 3), (9, 4), (10, 5)].into_iter().enumerate() {
            let at = n as u64;
            trouble.retransmitted(Mark { at, seq: at }, &again(sent, retrans));
        }
        let s = &trouble.standstill;
        assert_eq!((s.count, s.from, s.to, s.fresh_segs, s.evidence.seqs()), (3, 0, 2, 3, vec![0, 1, 2]));
    }

    #[test]
    fn the_first_reset_counts_and_one_without_a_socket_does_not() {
        let mut trouble = Trouble::default();
        for (at, state) in [(5, None), (4, Some(TcpState::Established)), (3, Some(TcpState::CloseWait))] {
            let reset = Reset { dir: PacketDir::Received, state, reason: None, reason_id: None };
            trouble.reset(Mark { at, seq: at }, &reset);
        }
        assert_eq!(trouble.reset_received.map(|r| (r.mark.at, r.state)), Some((3, TcpState::CloseWait)));
        assert_eq!(trouble.reset_sent, None);
    }
}
