//! Events → what `flows.jsonl` says of their flow.

use std::sync::Arc;

use ktrace_bundle::attribution::Attribution;
use ktrace_bundle::event::{Datagram, Errno, Event, Payload, TcpStateChange};
use ktrace_bundle::flow::{ClosedBy, FlowRecord};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::workload::Home;

/// Adds one event.
pub fn add(record: &mut FlowRecord, event: &Event) {
    record.event_count += 1;
    record.first_at = record.first_at.min(event.at);
    record.last_at = record.last_at.max(event.at);
    let id = &event.id;
    record.socket = id.socket.or(record.socket);
    record.role = id.role.or(record.role);
    // a failed connect has lost its own address
    record.tuple.from.addr = id.local.addr.or(record.tuple.from.addr);
    record.tuple.from.port = id.local.port.or(record.tuple.from.port);
    if let Attribution::Resolved(owner) = &id.owner {
        if record.comm.as_deref() != Some(&*owner.comm) {
            record.comm = Some(owner.comm.as_str().into());
        }
        record.pid = Some(owner.pid);
    }
    if let Attribution::Resolved(Home::Pod(pod)) = &id.home {
        record.k8s = Some(Arc::clone(pod));
    }
    match &event.payload {
        Payload::TcpState(change) => state(record, change),
        Payload::UdpSend(datagram) => {
            count(&mut record.send_count, 1);
            record.asked = datagram.asked.or(record.asked);
            bytes(&mut record.tx_bytes, datagram);
            error(record, datagram.error);
        }
        Payload::UdpRecv(datagram) => {
            count(&mut record.recv_count, u64::from(datagram.error.is_none()));
            bytes(&mut record.rx_bytes, datagram);
            error(record, datagram.error);
        }
        Payload::Connect(connect) => {
            record.asked = connect.asked.or(record.asked);
            error(record, connect.error.filter(|e| !is_under_way(*e)));
        }
        Payload::TcpRetransmit(again) => record.retrans_count = again.retrans_count.or(record.retrans_count),
        // they tell why, not what became of it
        Payload::TcpReset(_) | Payload::TcpStall(_) | Payload::ListenOverflow(_) | Payload::Drop(_) => {}
    }
}

fn count(sum: &mut Option<u64>, part: u64) {
    *sum = Some(sum.unwrap_or(0) + part);
}

fn bytes(sum: &mut Option<u64>, datagram: &Datagram) {
    if let Some(part) = datagram.bytes {
        count(sum, part);
    }
}

fn error(record: &mut FlowRecord, error: Option<Errno>) {
    if let Some(error) = error {
        record.error = Some(error.name().map_or_else(|| error.to_string(), str::to_owned));
    }
}

/// A non-blocking connect goes on behind the call.
fn is_under_way(error: Errno) -> bool {
    matches!(error.name(), Some("EINPROGRESS" | "EALREADY" | "EINTR" | "EAGAIN"))
}

fn state(record: &mut FlowRecord, change: &TcpStateChange) {
    let TcpStateChange { old, new, handshake_ns, close, .. } = change;
    record.state = Some(*new);
    record.handshake_ns = handshake_ns.or(record.handshake_ns);
    match (old, new) {
        (_, TcpState::SynSent) => record.is_connected = Some(false),
        (TcpState::SynSent, TcpState::Established) => record.is_connected = Some(true),
        (TcpState::Established, TcpState::FinWait1) => {
            record.closed_by.get_or_insert(ClosedBy::Local);
        }
        (TcpState::Established, TcpState::CloseWait) => {
            record.closed_by.get_or_insert(ClosedBy::Remote);
        }
        _ => {}
    }
    if let Some(close) = close {
        record.tx_bytes = close.tx_bytes.or(record.tx_bytes);
        record.rx_bytes = close.rx_bytes.or(record.rx_bytes);
        record.retrans_count = close.retrans_count.or(record.retrans_count);
        record.srtt_us = close.srtt_us.or(record.srtt_us);
        error(record, close.error);
    }
}
