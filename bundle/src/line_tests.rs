use std::sync::Arc;

use super::*;
use crate::event::{Dropped, ListenOverflow, PacketDir, Reset, RetransmitKind, Role, Stall, StallKind, When};
use crate::tcp::TcpState;
use crate::why::Why;
use crate::workload::Home;
use chrono::DateTime;

const PUBLISHED: &str = r#"{"ts":"2026-01-24T21:57:54.326Z","type":"tcp_state","node":"etcd-1","comm":"kubelet","pid":928,"uid":0,"tuple":"192.168.122.60:24801 -> 192.168.18.69:6443","old_state":"SYN_SENT","new_state":"ESTABLISHED","ns":{"net":4026532001,"mnt":4026531840,"pid":4026531836,"user":4026531837},"sec":{"seccomp_mode":2,"caps_eff":"0x00000000_00000000"},"conntrack":{"state":"ESTABLISHED","reply":"192.168.18.69:6443 -> 192.168.122.60:24801"}}"#;

pub(super) fn an_event() -> Event {
    Event {
        seq: 1,
        at: DateTime::parse_from_rfc3339("2026-01-24T21:57:54.326118Z").unwrap().to_utc(),
        boot_ns: 5_123_456_789_012,
        cpu: 1,
        id: Identity {
            node: Arc::from("etcd-1"),
            proto: Proto::Tcp,
            local: Endpoint::new([192, 168, 122, 60].into(), 24801),
            remote: Endpoint::new([192, 168, 18, 69].into(), 6443),
            netns: 4_026_532_001,
            socket: Some(40961),
            role: Some(Role::Client),
            owner: Attribution::Resolved(Owner {
                source: OwnerSource::Connect,
                pid: 928,
                tid: Some(941),
                ppid: Some(1),
                uid: Some(0),
                gid: Some(0),
                comm: "kubelet".into(),
                thread: None,
                proc_start_ns: Some(48_127_000_000),
                mnt_ns: Some(4_026_531_840),
                pid_ns: Some(4_026_531_836),
                user_ns: Some(4_026_531_837),
                sec: Some(Security { seccomp_mode: 2, caps_eff: 0 }),
                cgroup_id: Some(3251),
            }),
            home: Attribution::Resolved(Home::Host("kubelet.service".into())),
            peer: None,
            nat: None,
            why: Why::none(),
        },
        payload: Payload::TcpState(TcpStateChange {
            old: TcpState::SynSent,
            new: TcpState::Established,
            handshake_ns: Some(812_345),
            syn_retrans_count: Some(0),
            close: None,
        }),
    }
}

pub(super) fn text(event: &Event) -> String {
    let mut out = Vec::new();
    write_event(&mut out, event);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_published_example_parses() {
    let parsed = parse_event(PUBLISHED.as_bytes(), 7).unwrap();
    assert_eq!(parsed.unknown_keys, 0);
    let e = parsed.record;
    let nat = e.id.nat.as_deref().unwrap();
    assert_eq!(
        (&*nat.state, nat.reply.to_string()),
        ("ESTABLISHED", "192.168.18.69:6443 -> 192.168.122.60:24801".into())
    );
    assert_eq!(e.seq, 7);
    assert_eq!(e.id.local, Endpoint::new([192, 168, 122, 60].into(), 24801));
    assert_eq!(e.id.remote, Endpoint::new([192, 168, 18, 69].into(), 6443));
    assert_eq!((e.id.proto, e.id.netns), (Proto::Tcp, 4_026_532_001));
    let owner = e.id.owner.value().unwrap();
    assert_eq!((owner.comm.as_str(), owner.pid, owner.source), ("kubelet", 928, OwnerSource::Unstated));
    assert_eq!(owner.sec, Some(Security { seccomp_mode: 2, caps_eff: 0 }));
    let Payload::TcpState(p) = e.payload else { panic!("{:?}", e.payload) };
    assert_eq!((p.old, p.new), (TcpState::SynSent, TcpState::Established));
}

#[test]
fn a_line_has_the_contract_s_keys_in_the_contract_s_order() {
    assert_eq!(
        text(&an_event()),
        concat!(
            r#"{"v":1,"seq":1,"ts":"2026-01-24T21:57:54.326118Z","type":"tcp_state","node":"etcd-1","comm":"kubelet","#,
            r#""pid":928,"tid":941,"ppid":1,"uid":0,"gid":0,"tuple":"192.168.122.60:24801 -> 192.168.18.69:6443","#,
            r#""old_state":"SYN_SENT","new_state":"ESTABLISHED","handshake_ns":812345,"syn_retrans_count":0,"proto":"tcp","#,
            r#""laddr":"192.168.122.60","lport":24801,"raddr":"192.168.18.69","rport":6443,"role":"client","socket":40961,"#,
            r#""boot_ns":5123456789012,"cpu":1,"owner":"connect","proc_start_ns":48127000000,"#,
            r#""ns":{"net":4026532001,"mnt":4026531840,"pid":4026531836,"user":4026531837},"#,
            r#""sec":{"seccomp_mode":2,"caps_eff":"0x00000000_00000000"},"cgroup_id":3251,"unit":"kubelet.service"}"#
        )
    );
}

#[test]
fn every_payload_survives_the_round_trip() {
    let payloads = [
        Payload::TcpState(TcpStateChange {
            old: TcpState::SynSent,
            new: TcpState::Close,
            close: Some(TcpClose {
                duration_ns: Some(9),
                tx_bytes: Some(0),
                retrans_count: Some(1),
                error: Some(Errno(113)),
                soft_error: true,
                gave_up_after_ns: Some(5),
                ..TcpClose::default()
            }),
            ..TcpStateChange::default()
        }),
        Payload::UdpSend(Datagram { error: Some(Errno(101)), ..Datagram::default() }),
        Payload::UdpSend(Datagram {
            bytes: Some(45),
            asked: Some(Endpoint::new("10.96.0.10".parse().unwrap(), 53)),
            ..Datagram::default()
        }),
        Payload::UdpRecv(Datagram {
            bytes: Some(0),
            dns_rtt_ns: Some(1),
            query_seq: Some(2),
            late: true,
            sample: Some(10),
            ..Datagram::default()
        }),
        Payload::Connect(Connect {
            syscall_ns: 31_000,
            error: Some(Errno(115)),
            nonblocking: true,
            asked: Some(Endpoint::new("2001:db8::1".parse().unwrap(), 443)),
        }),
        Payload::TcpRetransmit(Retransmit {
            kind: RetransmitKind::Synack,
            state: TcpState::SynRecv,
            retrans_count: Some(2),
            tx_segs_count: None,
            srtt_us: None,
        }),
        Payload::TcpReset(Reset {
            dir: PacketDir::Sent,
            state: Some(TcpState::Established),
            reason: Some("TCP_ABORT_ON_DATA".into()),
            reason_id: Some(7),
        }),
        Payload::TcpReset(Reset { dir: PacketDir::Received, state: None, reason: None, reason_id: None }),
        Payload::TcpStall(Stall {
            kind: StallKind::ReceiveBuffer,
            duration_ns: 204_000_000,
            queued_bytes: Some(65_536),
            error: None,
        }),
        Payload::TcpStall(Stall {
            kind: StallKind::Unreachable,
            duration_ns: 1_000_000_000,
            queued_bytes: Some(45),
            error: Some(Errno(113)),
        }),
        Payload::ListenOverflow(ListenOverflow { accept_queue: Some(129), backlog: Some(128), count: 17 }),
        Payload::Drop(Dropped {
            dir: PacketDir::Forwarded,
            reason: Some("NETFILTER_DROP".into()),
            reason_id: Some(8),
            symbol: Some("nf_hook_slow".into()),
            dev: Some("eth0".into()),
            count: 3,
            bytes: Some(180),
            first_boot_ns: Some(4),
        }),
    ];
    for payload in payloads {
        let mut event = an_event();
        if matches!(payload, Payload::UdpSend(_) | Payload::UdpRecv(_)) {
            event.id.proto = Proto::Udp;
        }
        event.payload = payload;
        assert_eq!(parse_event(text(&event).as_bytes(), 1).unwrap(), Parsed { record: event, unknown_keys: 0 });
    }
}

#[test]
fn an_unknown_owner_gives_its_reason() {
    let mut event = an_event();
    event.id.owner = Attribution::Unresolved(Reason::Softirq);
    event.id.local = Endpoint { addr: None, port: Some(8080) };
    event.id.why.set("laddr", Reason::WildcardBind);
    let line = text(&event);
    assert!(line.contains(r#""why":{"laddr":"wildcard_bind","pid":"softirq"}"#), "{line}");
    assert!(!line.contains("null"), "{line}");
    assert_eq!(parse_event(line.as_bytes(), 1).unwrap().record, event);
}

#[test]
fn a_hostile_name_is_cut_and_escaped() {
    let mut event = an_event();
    if let Attribution::Resolved(o) = &mut event.id.owner {
        o.comm = format!("\u{1b}[31m\n{}", "é".repeat(400));
    }
    let line = text(&event);
    assert!(line.len() < MAX_LINE_BYTES && line.contains(r"\u001b[31m\n"), "{line}");
}

#[test]
fn a_newer_line_is_refused_and_an_unknown_type_is_named() {
    assert!(matches!(parse_event(br#"{"v":2,"type":"tcp_state"}"#, 1), Err(LineError::Version(2))));
    let unknown = parse_event(br#"{"v":1,"ts":"2026-01-24T21:57:54Z","type":"gpu_stall"}"#, 1);
    assert!(matches!(unknown, Err(LineError::UnknownType(t)) if t == "gpu_stall"));
}

#[test]
fn endpoints_survive_their_text() {
    for text in ["*", "*:53", "10.0.0.1:80", "10.0.0.1", "[::1]:53", "[fe80::1]"] {
        assert_eq!(parse_endpoint(text).unwrap().to_string(), text);
    }
    assert_eq!(parse_endpoint("[::1]x"), None);
    assert_eq!(parse_endpoint("10.0.0.1:99999"), None);
}

#[test]
fn names_are_written_as_they_are_read() {
    fn check<T: serde::Serialize + Copy>(values: &[T], as_str: impl Fn(T) -> &'static str) {
        for value in values {
            assert_eq!(serde_json::to_string(value).unwrap(), format!("\"{}\"", as_str(*value)));
        }
    }
    use crate::event::RetransmitKind as R;
    check(&[Role::Client, Role::Server, Role::Listener], Role::as_str);
    check(&[R::Data, R::Syn, R::Synack, R::Probe], R::as_str);
    let stalls = [StallKind::ZeroWindow, StallKind::SendBuffer, StallKind::ReceiveBuffer, StallKind::Unreachable];
    check(&stalls, StallKind::as_str);
    check(&[PacketDir::Sent, PacketDir::Received, PacketDir::Forwarded], PacketDir::as_str);
    check(&[When::Start, When::End], When::as_str);
    check(&[Proto::Tcp, Proto::Udp], Proto::as_str);
    use OwnerSource as O;
    let sources = [
        O::Current,
        O::Connect,
        O::Accept,
        O::Listen,
        O::FirstIo,
        O::Close,
        O::Inherited,
        O::FdTable,
        O::Kernel,
        O::Unstated,
    ];
    check(&sources, OwnerSource::as_str);
}

#[test]
fn every_character_survives_and_no_control_is_written_raw() {
    let all: String = (0..0x300u32).filter_map(char::from_u32).collect();
    for name in [all.as_str(), "", "\u{9f}", "a\u{85}b", "\"\\\u{7f}"] {
        let mut event = an_event();
        event.id.node = Arc::from(&*clip(name));
        let line = text(&event);
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert_eq!(parse_event(line.as_bytes(), 1).unwrap().record.id.node, event.id.node);
    }
}

#[test]
fn times_and_addresses_are_written_as_their_libraries_do() {
    for text_of in ["1970-01-01T00:00:00.000000Z", "2026-12-31T23:59:59.999999Z", "2024-02-29T01:02:03.000007Z"] {
        let mut event = an_event();
        event.at = DateTime::parse_from_rfc3339(text_of).unwrap().to_utc();
        assert!(text(&event).contains(&format!("\"ts\":\"{text_of}\"")));
    }
    for end in ["0.0.0.0:1", "255.255.255.255:65535", "[::1]:53", "[2001:db8::ffff:1]:443", "*:9", "*"] {
        let mut event = an_event();
        event.id.remote = parse_endpoint(end).unwrap();
        assert!(text(&event).contains(&format!(" -> {end}\"")), "{}", text(&event));
        assert_eq!(parse_event(text(&event).as_bytes(), 1).unwrap().record, event);
    }
}
