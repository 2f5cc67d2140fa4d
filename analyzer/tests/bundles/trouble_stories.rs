//! What happened in each case about connections in trouble, event by event.

use ktrace_bundle::event::{Event, PacketDir, Payload, Proto, RetransmitKind, Role, StallKind, TcpClose};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::why::Reason;

use crate::cases::WEB;
use crate::scene::Scene;

/// The listener turns so many away in each of some seconds.
pub fn overflowing(seconds: u64, each: u64) -> Scene {
    let mut s = Scene::of("slow-accept", 71, "*");
    let socket = s.socket();
    for n in 0..seconds {
        let at = s.event(2_000_000 * n, socket).from("*:8080").role(Role::Listener);
        s.push(at.listen_overflow(each).build());
    }
    s
}

pub fn listen_overflow() -> Scene {
    let mut s = overflowing(12, 3);
    s.now_by("curl", 1847).now_to("10.42.1.15:8080");
    for n in 0..12 {
        let (ms, socket) = (2000 * n, s.socket());
        s.syn(ms, socket).syn_again(ms + 1000, socket);
        match n % 3 {
            0 => s.gives_up(ms + 2000, socket, 2000),
            _ => s.established(ms + 1020, socket, 1020).closes(ms + 1100, socket, 12, 0, 900),
        };
    }
    s
}

pub fn is_closed(event: &Event) -> bool {
    matches!(&event.payload, Payload::TcpState(change) if change.new == TcpState::Close)
}

/// So many connections, each cut off by a reset at an age between these, ms.
pub fn cut_off(n: u64, least_ms: u64, most_ms: u64) -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for i in 0..n {
        let (ms, socket) = (1000 * i, s.socket());
        let end = ms + 1 + least_ms + (most_ms - least_ms) * i / n.max(1);
        s.syn(ms, socket).established(ms + 1, socket, 1);
        let reset = s.event(end * 1000, socket).tcp_reset(PacketDir::Received, Some(TcpState::Established)).build();
        let account = TcpClose { tx_bytes: Some(400), rx_bytes: Some(0), ..TcpClose::default() };
        let closed = s.event(end * 1000 + 2, socket).closed(TcpState::Established, account).error("ECONNRESET");
        s.push(reset).push(closed.build());
    }
    s
}

/// A server's connection with a client of this node or of another one.
fn at_the_server(s: &Scene, us: u64, socket: u64, client: &str) -> ktrace_bundle::testing::EventBuilder {
    s.event(us, socket).by("nginx", 71).from(WEB).to(client).role(Role::Server).netns(4_026_532_110)
}

pub fn reset_both_ends() -> Scene {
    let mut s = cut_off(4, 20, 20);
    for i in 0..4 {
        let (us, socket) = (1_000_000 * i, s.socket());
        let client = s.local(1001 + i);
        let at = |after| at_the_server(&s, us + after, socket, &client);
        let made = at(1100).tcp_state(TcpState::SynRecv, TcpState::Established).build();
        let reset = at(20_900).tcp_reset(PacketDir::Sent, Some(TcpState::Established)).payload(|p| {
            if let Payload::TcpReset(r) = p {
                r.reason = Some("TCP_ABORT_ON_CLOSE".into());
            }
        });
        let (reset, closed) = (reset.build(), at(20_910).closed(TcpState::Established, TcpClose::default()).build());
        s.push(made).push(reset).push(closed);
    }
    s
}

pub fn health_checks() -> Scene {
    let mut s = Scene::of("nginx", 71, "10.42.3.9:50000");
    for n in 0..40 {
        let socket = s.socket();
        let client = format!("10.42.3.9:{}", 50_000 + n);
        let at = |us: u64| at_the_server(&s, 1_000_000 * n + us, socket, &client);
        let made = at(0).tcp_state(TcpState::SynRecv, TcpState::Established).build();
        let reset = at(300).tcp_reset(PacketDir::Received, Some(TcpState::Established)).build();
        let account = TcpClose { tx_bytes: Some(0), rx_bytes: Some(0), ..TcpClose::default() };
        let closed = at(310).closed(TcpState::Established, account).error("ECONNRESET").build();
        s.push(made).push(reset).push(closed);
    }
    s
}

pub fn reset_after_close() -> Scene {
    let mut s = Scene::of("curl", 1847, WEB);
    for n in 0..20 {
        let (ms, socket) = (1000 * n, s.socket());
        s.syn(ms, socket).established(ms + 1, socket, 1);
        let at = |after: u64| s.event((ms + after) * 1000, socket);
        let left = at(40).tcp_state(TcpState::Established, TcpState::FinWait1).build();
        let reset = at(42).tcp_reset(PacketDir::Received, Some(TcpState::FinWait1)).build();
        let closed = at(43).closed(TcpState::FinWait1, TcpClose::default()).error("ECONNRESET").build();
        s.push(left).push(reset).push(closed);
    }
    s
}

/// One connection of 30 s, stalled for `each_ms` in each of its seconds from the tenth to the thirtieth.
fn stalled(s: &mut Scene, kind: StallKind, each_ms: u64) {
    let socket = s.socket();
    s.syn(5000, socket).established(5001, socket, 1);
    for n in 0..20 {
        let stall = s.event((15_000 + 1000 * n) * 1000, socket).tcp_stall(kind, each_ms, 65_536).build();
        s.push(stall);
    }
    s.closes(35_001, socket, 400, 0, 900);
}

pub fn peer_gone() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    (0..3).for_each(|n| _ = s.healthy_connection(1000 * n));
    stalled(&mut s, StallKind::Unreachable, 1000);
    s
}

pub fn peer_gone_for_a_moment() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    let socket = s.socket();
    s.syn(5000, socket).established(5001, socket, 1);
    let stall = s.event(15_000_000, socket).tcp_stall(StallKind::Unreachable, 1000, 65_536).build();
    s.push(stall).closes(35_001, socket, 400, 0, 900);
    s
}

pub fn slow_peer() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    (0..3).for_each(|n| _ = s.healthy_connection(1000 * n));
    stalled(&mut s, StallKind::ZeroWindow, 900);
    s
}

pub fn slow_reader_both_ends() -> Scene {
    let mut s = slow_peer();
    let (client, socket) = (s.local(s.last_socket()), s.socket());
    let at = |ms: u64| at_the_server(&s, ms * 1000, socket, &client).by("sleepy", 71);
    let mut events = vec![at(5001).tcp_state(TcpState::SynRecv, TcpState::Established).build()];
    events.extend((0..20).map(|n| at(15_000 + 1000 * n).tcp_stall(StallKind::ReceiveBuffer, 1000, 212_992).build()));
    events.into_iter().for_each(|e| _ = s.push(e));
    s
}

pub fn brief_stalls() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    stalled(&mut s, StallKind::ZeroWindow, 120);
    stalled(&mut s, StallKind::ReceiveBuffer, 90);
    stalled(&mut s, StallKind::SendBuffer, 1000);
    s
}

/// Data that is sent again, with the counters of its socket.
fn data_again(s: &Scene, ms: u64, socket: u64, sent: u64, again: u64) -> Event {
    let event = s.event(ms * 1000, socket).tcp_retransmit(RetransmitKind::Data, TcpState::Established);
    let event = event.payload(|p| {
        if let Payload::TcpRetransmit(r) = p {
            (r.tx_segs_count, r.retrans_count) = (Some(sent), Some(again));
        }
    });
    event.build()
}

pub fn mtu_hole(n: u64, is_seen: bool) -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for i in 0..n {
        let (ms, socket) = (4000 * i, s.socket());
        s.syn(ms, socket).established(ms + 1, socket, 1);
        for (k, after) in (1..).zip([200, 400, 800, 1600, 3200, 6400]) {
            let again = data_again(&s, ms + after, socket, 4 + k, k);
            s.push(again);
            if is_seen {
                let at = s.event((ms + after) * 1000 + 9, socket).netns(4_026_531_840).unowned(Reason::NotFound);
                s.push(at.dropped(Proto::Tcp, PacketDir::Forwarded, "PKT_TOO_BIG", 1).build());
            }
        }
    }
    s
}

pub fn plain_loss() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for i in 0..3 {
        let (ms, socket) = (4000 * i, s.socket());
        s.syn(ms, socket).established(ms + 1, socket, 1);
        for k in 1..=12 {
            let again = data_again(&s, ms + 300 * k, socket, 4 + 9 * k, k);
            s.push(again);
        }
        s.closes(ms + 3900, socket, 114, 12, 20_000);
    }
    s
}

pub fn mtu_found_out() -> Scene {
    let mut s = Scene::of("api", 1847, WEB);
    for n in 0..8 {
        let (ms, socket) = (2000 * n, s.socket());
        let again = data_again(&s, ms + 6, socket, 5, 1);
        s.syn(ms, socket).established(ms + 1, socket, 1);
        s.drops(ms + 5, socket, Proto::Tcp, PacketDir::Sent, "PKT_TOO_BIG", 1).push(again);
        s.closes(ms + 900, socket, 400, 1, 900);
    }
    s
}
