//! Attributes of ctnetlink → entries and counters, and tuples → attributes. The bytes are the kernel's, yet nothing in
//! them is taken for granted: what is cut short, or is missing what every entry has, is undecodable.

use std::net::{IpAddr, SocketAddr};

use ktrace_bundle::event::Proto;
use netlink_bindings::conntrack::{
    ConntrackAttrs, ConntrackStatsAttrs, IterableProtoinfoAttrs, IterableTupleAttrs, IterableTupleIpAttrs,
    IterableTupleProtoAttrs, ProtoinfoAttrs, ProtoinfoTcpAttrs, PushConntrackAttrs, PushTupleAttrs, TupleAttrs,
    TupleIpAttrs, TupleProtoAttrs,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{ErrorContext, chop_header, parse_be_u32};

use crate::conntrack::counters::{Counters, add};
use crate::conntrack::entry::{Direction, Entry, TcpState, Tuple};

/// How many entries there are and may be: the kernel's description of ctnetlink leaves these two out
/// (`enum ctattr_stats_global`).
const GLOBAL_ENTRIES: u16 = 1;
const GLOBAL_MAX_ENTRIES: u16 = 2;

/// Why there is no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is neither TCP nor UDP.
    OtherProtocol,
    /// It is not what the kernel would write.
    Undecodable,
}

impl From<ErrorContext> for Unread {
    fn from(_: ErrorContext) -> Self {
        Self::Undecodable
    }
}

/// An entry of a dump, an answer or an event.
///
/// # Errors
/// It is not one that is read.
pub fn entry(attributes: &[u8]) -> Result<Entry, Unread> {
    let (mut original, mut reply, mut status) = (None, None, None);
    let (mut tcp_state, mut zone, mut mark) = (None, None, None);
    for attribute in ConntrackAttrs::new(attributes) {
        match attribute? {
            ConntrackAttrs::TupleOrig(attributes) => original = Some(tuple(attributes)?),
            ConntrackAttrs::TupleReply(attributes) => reply = Some(tuple(attributes)?),
            ConntrackAttrs::Status(bits) => status = Some(bits),
            ConntrackAttrs::Protoinfo(attributes) => tcp_state = state(attributes)?,
            ConntrackAttrs::Mark(bits) => mark = Some(bits),
            ConntrackAttrs::Zone(number) => zone = Some(number),
            _ => {}
        }
    }
    let ((original, original_zone), (reply, reply_zone)) = original.zip(reply).ok_or(Unread::Undecodable)?;
    let entry = Entry::with_status(original, reply, status.ok_or(Unread::Undecodable)?);
    // one for both directions, or one of a direction
    let zone = zone.or(original_zone).or(reply_zone).unwrap_or(0);
    (original.proto == reply.proto).then_some(Entry { tcp_state, zone, mark, ..entry }).ok_or(Unread::Undecodable)
}

/// A tuple, and the zone if it is this direction's only.
fn tuple(attributes: IterableTupleAttrs<'_>) -> Result<(Tuple, Option<u16>), Unread> {
    let (mut ips, mut ports, mut zone) = (None, None, None);
    for attribute in attributes {
        match attribute? {
            TupleAttrs::TupleIp(attributes) => ips = Some(addresses(attributes)?),
            TupleAttrs::TupleProto(attributes) => ports = Some(protocol(attributes)?),
            TupleAttrs::TupleZone(number) => zone = Some(number),
        }
    }
    let ((src, dst), (proto, from, to)) = ips.zip(ports).ok_or(Unread::Undecodable)?;
    Ok((Tuple { proto, src: SocketAddr::new(src, from), dst: SocketAddr::new(dst, to) }, zone))
}

fn addresses(attributes: IterableTupleIpAttrs<'_>) -> Result<(IpAddr, IpAddr), Unread> {
    let (mut src, mut dst) = (None, None);
    for attribute in attributes {
        match attribute? {
            TupleIpAttrs::IpV4Src(ip) => src = Some(IpAddr::V4(ip)),
            TupleIpAttrs::IpV4Dst(ip) => dst = Some(IpAddr::V4(ip)),
            TupleIpAttrs::IpV6Src(ip) => src = Some(IpAddr::V6(ip)),
            TupleIpAttrs::IpV6Dst(ip) => dst = Some(IpAddr::V6(ip)),
        }
    }
    src.zip(dst).filter(|(src, dst)| src.is_ipv4() == dst.is_ipv4()).ok_or(Unread::Undecodable)
}

fn protocol(attributes: IterableTupleProtoAttrs<'_>) -> Result<(Proto, u16, u16), Unread> {
    let (mut proto, mut src, mut dst) = (None, None, None);
    for attribute in attributes {
        match attribute? {
            TupleProtoAttrs::ProtoNum(number) => proto = Some(proto_of(number).ok_or(Unread::OtherProtocol)?),
            TupleProtoAttrs::ProtoSrcPort(port) => src = Some(port),
            TupleProtoAttrs::ProtoDstPort(port) => dst = Some(port),
            _ => {}
        }
    }
    match (proto, src, dst) {
        (Some(proto), Some(src), Some(dst)) => Ok((proto, src, dst)),
        _ => Err(Unread::Undecodable),
    }
}

/// `None`: it is another protocol.
pub fn proto_of(number: u8) -> Option<Proto> {
    match i32::from(number) {
        libc::IPPROTO_TCP => Some(Proto::Tcp),
        libc::IPPROTO_UDP => Some(Proto::Udp),
        _ => None,
    }
}

const fn number_of(proto: Proto) -> u8 {
    match proto {
        Proto::Tcp => 6,
        Proto::Udp => 17,
    }
}

fn state(attributes: IterableProtoinfoAttrs<'_>) -> Result<Option<TcpState>, Unread> {
    for attribute in attributes {
        let ProtoinfoAttrs::ProtoinfoTcp(attributes) = attribute? else { continue };
        for attribute in attributes {
            if let ProtoinfoTcpAttrs::TcpState(number) = attribute? {
                return TcpState::from_number(number).map(Some).ok_or(Unread::Undecodable);
            }
        }
    }
    Ok(None)
}

/// Adds what one CPU has counted; returns whether all of it could be read.
pub fn add_cpu(counters: &mut Counters, attributes: &[u8]) -> bool {
    for attribute in ConntrackStatsAttrs::new(attributes) {
        let Ok(attribute) = attribute else { return false };
        let (sum, part) = match attribute {
            ConntrackStatsAttrs::Found(part) => (&mut counters.found, part),
            ConntrackStatsAttrs::Invalid(part) => (&mut counters.invalid, part),
            ConntrackStatsAttrs::Insert(part) => (&mut counters.insert, part),
            ConntrackStatsAttrs::InsertFailed(part) => (&mut counters.insert_failed, part),
            ConntrackStatsAttrs::Drop(part) => (&mut counters.drop, part),
            ConntrackStatsAttrs::EarlyDrop(part) => (&mut counters.early_drop, part),
            ConntrackStatsAttrs::Error(part) => (&mut counters.error, part),
            ConntrackStatsAttrs::SearchRestart(part) => (&mut counters.search_restart, part),
            ConntrackStatsAttrs::ClashResolve(part) => (&mut counters.clash_resolve, part),
            ConntrackStatsAttrs::ChainToolong(part) => (&mut counters.chain_toolong, part),
            _ => continue,
        };
        add(sum, part.into());
    }
    true
}

/// Takes the table's size and its limit.
pub fn set_global(counters: &mut Counters, attributes: &[u8]) {
    let mut at = 0;
    while let Some((header, value)) = attributes.get(at..).and_then(|_| chop_header(attributes, &mut at)) {
        match header.r#type {
            GLOBAL_ENTRIES => counters.count = parse_be_u32(value).map(u64::from),
            GLOBAL_MAX_ENTRIES => counters.max = parse_be_u32(value).map(u64::from),
            _ => {}
        }
    }
}

/// The attributes that ask for one connection.
pub fn question(tuple: &Tuple, direction: Direction, zone: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    let attributes = PushConntrackAttrs::new(&mut bytes);
    let attributes = match direction {
        Direction::Original => push(attributes.nested_tuple_orig(), tuple).end_nested(),
        Direction::Reply => push(attributes.nested_tuple_reply(), tuple).end_nested(),
    };
    drop(if zone == 0 { attributes } else { attributes.push_zone(zone) });
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn push<P: Pusher>(attributes: PushTupleAttrs<P>, tuple: &Tuple) -> PushTupleAttrs<P> {
    let ips = attributes.nested_tuple_ip();
    let ips = match (tuple.src.ip(), tuple.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ips.push_ip_v4_src(src).push_ip_v4_dst(dst),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ips.push_ip_v6_src(src).push_ip_v6_dst(dst),
        // the kernel misses the other one, and says so
        (IpAddr::V4(src), IpAddr::V6(_)) => ips.push_ip_v4_src(src),
        (IpAddr::V6(src), IpAddr::V4(_)) => ips.push_ip_v6_src(src),
    };
    let protocol = ips.end_nested().nested_tuple_proto().push_proto_num(number_of(tuple.proto));
    protocol.push_proto_src_port(tuple.src.port()).push_proto_dst_port(tuple.dst.port()).end_nested()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tuple_of(proto: Proto, src: &str, dst: &str) -> Tuple {
        Tuple { proto, src: src.parse().unwrap(), dst: dst.parse().unwrap() }
    }

    /// As the kernel writes it.
    fn written(original: &Tuple, reply: &Tuple) -> Vec<u8> {
        let mut bytes = question(original, Direction::Original, 0);
        bytes.extend(question(reply, Direction::Reply, 9));
        let tcp = PushConntrackAttrs::new(&mut bytes).push_status(14).push_mark(5).nested_protoinfo();
        drop(tcp.nested_protoinfo_tcp().push_tcp_state(3));
        bytes
    }

    fn expected() -> Entry {
        let original = tuple_of(Proto::Tcp, "[fd00::1]:40000", "[fd00::2]:80");
        let reply = tuple_of(Proto::Tcp, "[fd00::7]:8080", "[fd00::1]:40000");
        let tcp_state = Some(TcpState::Established);
        Entry { tcp_state, zone: 9, mark: Some(5), ..Entry::with_status(original, reply, 14) }
    }

    #[test]
    fn an_entry_has_both_tuples_and_what_is_known_of_it() {
        let expected = expected();
        assert_eq!(entry(&written(&expected.original, &expected.reply)), Ok(expected));
        assert_eq!((expected.is_replied, expected.is_assured), (true, true));
    }

    #[test]
    fn what_lacks_a_part_is_no_entry() {
        let expected = expected();
        let original = question(&expected.original, Direction::Original, 0);
        assert_eq!(entry(&original), Err(Unread::Undecodable), "no reply");
        let both = [original.clone(), question(&expected.reply, Direction::Reply, 0)].concat();
        assert_eq!(entry(&both), Err(Unread::Undecodable), "no status");
        let udp = Tuple { proto: Proto::Udp, ..expected.reply };
        assert_eq!(entry(&written(&expected.original, &udp)), Err(Unread::Undecodable), "two protocols");
        let v4 = "1.2.3.4:5".parse().unwrap();
        let mixed = Tuple { src: v4, ..expected.original };
        assert_eq!(entry(&written(&mixed, &expected.reply)), Err(Unread::Undecodable), "two families");
    }

    #[test]
    fn another_protocol_is_told_from_what_cannot_be_read() {
        let mut bytes = Vec::new();
        let protocol = PushConntrackAttrs::new(&mut bytes).nested_tuple_orig().nested_tuple_proto();
        drop(protocol.push_proto_num(1).push_proto_icmp_id(7));
        assert_eq!(entry(&bytes), Err(Unread::OtherProtocol));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = entry(&bytes);
            add_cpu(&mut Counters::default(), &bytes);
            set_global(&mut Counters::default(), &bytes);
        }

        #[test]
        fn a_changed_or_cut_entry_is_read_or_refused(at in 0..300_usize, to: u8, length in 0..300_usize) {
            let whole = expected();
            let mut bytes = written(&whole.original, &whole.reply);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            bytes.truncate(length);
            let _ = entry(&bytes);
        }
    }
}
