//! One line of the bundle → what happened, in a few words without the time; escaped.

use ktrace_bundle::event::{
    Connect, Datagram, Dropped, Endpoint, Event, Identity, ListenOverflow, PacketDir, Payload, Reset, Retransmit,
    RetransmitKind, SocketRecord, Stall, StallKind, TcpClose, TcpStateChange, When,
};
use ktrace_bundle::nat::Nat;
use ktrace_bundle::tcp::TcpState;

use crate::escape::shown;
use crate::units::{bytes, count, duration};

/// What a line says.
pub(super) fn event(event: &Event) -> String {
    match &event.payload {
        Payload::TcpState(change) => state(change),
        Payload::UdpSend(d) => sent(d, &event.id),
        Payload::UdpRecv(d) => received(d, &event.id),
        Payload::Connect(c) => connect(c),
        Payload::TcpRetransmit(r) => again(r),
        Payload::TcpReset(r) => reset(r, &event.id),
        Payload::TcpStall(s) => stall(s),
        Payload::ListenOverflow(o) => overflow(o, &event.id),
        Payload::Drop(d) => dropped(d, event),
    }
}

fn state(change: &TcpStateChange) -> String {
    use TcpState::{Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent};
    let what = match (change.old, change.new) {
        (_, SynSent) => "SYN sent".to_owned(),
        (_, SynRecv) => "SYN received".to_owned(),
        (SynSent, Established) => {
            let took = change.handshake_ns.map_or_else(String::new, |ns| format!(" after {}", duration(ns)));
            let again = change.syn_retrans_count.filter(|n| *n > 0);
            let again = again.map_or_else(String::new, |n| format!(", {} sent again", count(n, "SYN", "SYNs")));
            format!("handshake complete{took}{again}")
        }
        (_, Established) => "handshake complete".to_owned(),
        (_, FinWait1) => "FIN sent".to_owned(),
        (FinWait1, FinWait2) => "FIN acknowledged".to_owned(),
        (_, CloseWait) => "FIN received".to_owned(),
        (_, LastAck) => "FIN sent in answer".to_owned(),
        (_, Closing) => "FIN received before its own was acknowledged".to_owned(),
        (old, Close) => closed(old, change.close.as_ref()),
        (old, _) => format!("left {}", old.as_str()),
    };
    format!("{what}: {}", change.new.as_str())
}

fn closed(old: TcpState, close: Option<&TcpClose>) -> String {
    let Some(close) = close else { return format!("ended in {}", old.as_str()) };
    let why = match (close.error, close.soft_error, close.gave_up_after_ns) {
        (Some(error), false, _) => format!(" with {error}"),
        (Some(error), true, _) => format!(", after {error} was seen on the way (ICMP)"),
        (None, _, Some(ns)) => format!(", given up after {}", duration(ns)),
        (None, _, None) => String::new(),
    };
    let goes_on = if close.time_wait { ", goes on in TIME_WAIT" } else { "" };
    format!("ended in {}{why}{goes_on}", old.as_str())
}

/// The account of a connection; `None` if it has none.
pub(super) fn account(close: &TcpClose) -> Option<String> {
    let parts = [
        close.tx_bytes.map(|n| format!("{} sent", bytes(n))),
        close.rx_bytes.map(|n| format!("{} received", bytes(n))),
        close.tx_segs_count.map(|n| format!("{} out", count(n, "segment", "segments"))),
        close.rx_segs_count.map(|n| format!("{n} in")),
        close.retrans_count.map(|n| format!("{n} sent again")),
        close.srtt_us.map(|us| format!("round trip {}", duration(us.saturating_mul(1000)))),
        close.min_rtt_us.map(|us| format!("at least {}", duration(us.saturating_mul(1000)))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn connect(c: &Connect) -> String {
    let took = duration(c.syscall_ns);
    let asked =
        c.asked.map_or_else(String::new, |asked| format!(" to {asked}, which a program in the kernel sent here,"));
    let blocks = if c.nonblocking { ", non-blocking" } else { "" };
    match c.error {
        None => format!("connect(2){asked} succeeded within {took}{blocks}"),
        Some(error) => format!("connect(2){asked} returned {error} within {took}{blocks}"),
    }
}

fn again(r: &Retransmit) -> String {
    let what = match r.kind {
        RetransmitKind::Syn => "SYN sent again",
        RetransmitKind::Synack => "SYN-ACK sent again",
        RetransmitKind::Data => "data sent again",
        RetransmitKind::Probe => "last segment sent again as a probe",
    };
    let n = r.retrans_count.map_or_else(String::new, |n| format!(", retransmit {n}"));
    let is_told = matches!(r.kind, RetransmitKind::Syn | RetransmitKind::Synack);
    if is_told { format!("{what}{n}") } else { format!("{what} in {}{n}", r.state.as_str()) }
}

fn reset(r: &Reset, id: &Identity) -> String {
    let reason = r.reason.as_deref().map_or_else(String::new, |reason| format!(": {}", shown(reason)));
    let place = r.state.map_or_else(String::new, |state| format!(" in {}", state.as_str()));
    let whose = if r.state.is_none() { format!(" by {}, which has no such socket", id.local) } else { String::new() };
    match r.dir {
        PacketDir::Received => format!("RST received{place}{reason}"),
        PacketDir::Sent | PacketDir::Forwarded => format!("RST sent{whose}{place}{reason}"),
    }
}

fn stall(s: &Stall) -> String {
    let why = match s.kind {
        StallKind::ZeroWindow => "the other end does not read",
        StallKind::SendBuffer => "its own send buffer is full",
        StallKind::ReceiveBuffer => "its own process does not read",
        StallKind::Unreachable => "the network says that the other end cannot be reached",
    };
    let waits = s.queued_bytes.map_or_else(String::new, |n| format!(", {} wait", bytes(n)));
    format!("stood still for {}: {why}{waits}", duration(s.duration_ns))
}

fn overflow(o: &ListenOverflow, id: &Identity) -> String {
    let queue = match (o.accept_queue, o.backlog) {
        (Some(n), Some(max)) => format!(", where {n} wait to be accepted and {max} may"),
        _ => String::new(),
    };
    let who = id.owner.value().map_or_else(String::new, |o| format!(" of `{}` (pid {})", shown(&o.comm), o.pid));
    let turned_away = count(o.count, "segment of a handshake", "segments of handshakes");
    format!("listener {}{who} dropped {turned_away} within a second, perhaps this one's{queue}", id.local)
}

fn dropped(d: &Dropped, event: &Event) -> String {
    let size = d.bytes.map_or_else(String::new, |n| format!(" ({})", bytes(n)));
    let by = d.reason.as_deref().map_or_else(String::new, |reason| format!(": {}", shown(reason)));
    let at = d.symbol.as_deref().map_or_else(String::new, |symbol| format!(" in {}", shown(symbol)));
    let dev = d.dev.as_deref().map_or_else(String::new, |dev| format!(" at {}", shown(dev)));
    let first = d.first_boot_ns.map(|first| event.boot_ns.saturating_sub(first)).filter(|ns| *ns > 0);
    let sum = match (d.count, first) {
        (0 | 1, _) => String::new(),
        (_, Some(ns)) => format!(", added up over {}", duration(ns)),
        (_, None) => ", added up per second".to_owned(),
    };
    // the tuple of a received packet begins with where it was going to
    let (from, to) = match d.dir {
        PacketDir::Received => (event.id.remote, event.id.local),
        PacketDir::Sent | PacketDir::Forwarded => (event.id.local, event.id.remote),
    };
    let packets = count(d.count, "packet", "packets");
    format!("kernel dropped {packets}{size} {} {from} to {to}{by}{at}{dev}{sum}", d.dir.as_str())
}

fn sent(d: &Datagram, id: &Identity) -> String {
    let asked = d.asked.map_or_else(String::new, |asked| format!(" (asked {asked})"));
    match (d.error, d.bytes) {
        (Some(error), _) => format!("send to {}{asked} failed: {error}", id.remote),
        (None, Some(n)) => format!("{} sent to {}{asked}", bytes(n), id.remote),
        (None, None) => format!("sent to {}{asked}", id.remote),
    }
}

fn received(d: &Datagram, id: &Identity) -> String {
    match (d.error, d.bytes) {
        (Some(error), _) => format!("error read instead of an answer: {}", icmp(error)),
        (None, Some(n)) => format!("{} read from {}", bytes(n), id.remote),
        (None, None) => format!("read from {}", id.remote),
    }
}

/// What a UDP socket reads after an ICMP message.
pub(super) fn icmp(error: ktrace_bundle::event::Errno) -> String {
    match error.name() {
        Some("ECONNREFUSED") => format!("{error} (ICMP port unreachable)"),
        Some("EHOSTUNREACH" | "ENETUNREACH" | "EMSGSIZE" | "EPROTO") => format!("{error} (ICMP)"),
        _ => error.to_string(),
    }
}

/// A line of a socket table.
pub(super) fn socket(s: &SocketRecord) -> String {
    let when = match s.when {
        When::Start => "when the window opened",
        When::End => "when the window closed",
    };
    let state = s.state.map_or("open", TcpState::as_str);
    let parts = [
        s.tx_bytes.map(|n| format!("{} sent", bytes(n))),
        s.rx_bytes.map(|n| format!("{} received", bytes(n))),
        s.tx_queue_bytes.filter(|n| *n > 0).map(|n| format!("{} not acknowledged", bytes(n))),
        s.rx_queue_bytes.filter(|n| *n > 0).map(|n| format!("{} not read", bytes(n))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let sums = if parts.is_empty() { String::new() } else { format!(", {} so far", parts.join(", ")) };
    format!("{state} {when}{sums}")
}

/// What is translated on the way, as a client with this remote end or a server sees it; `None`: nothing is.
pub(super) fn translation(nat: &Nat, remote: Endpoint, is_client: bool) -> Option<String> {
    let seen_as = nat.original_src.map(|_| nat.reply.to);
    if !is_client {
        let from = nat.original.map(|original| original.from).filter(|from| *from != remote);
        let asked = nat.original_dst;
        return match (from, asked) {
            (None, None) => None,
            (Some(from), None) => Some(format!("source translated: {remote} is {from}")),
            (None, Some(asked)) => Some(format!("destination translated: {remote} asked {asked}")),
            (Some(from), Some(asked)) => Some(format!("translated: {remote} is {from}, which asked {asked}")),
        };
    }
    match (nat.backend, seen_as) {
        (None, None) => None,
        (Some(backend), None) => Some(format!("destination translated: {remote} is {backend}")),
        (Some(backend), Some(seen)) => Some(format!("translated: {remote} is {backend}, which sees it as {seen}")),
        (None, Some(seen)) => Some(format!("source translated: {remote} sees it as {seen}")),
    }
}
