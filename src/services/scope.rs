//! What a rule says of the packets that it is for, and where it sends them: both as single values, ranges expanded within
//! bounds.
//!
//! A scope may be wider than the rule, where the rule asks for what is not kept here (a prefix, a device, a source). It is
//! never narrower.

use std::net::IpAddr;

use ktrace_bundle::event::Proto;

use super::{Backend, Vip};

/// Ports of a translated range that are listed one by one; a longer one counts as any port.
const MOST_PORTS: u16 = 64;
/// Addresses of a translated range that are listed one by one; a longer one counts as any address.
const MOST_ADDRESSES: u128 = 256;

/// Packets, by what a service is known by. `None`: any, or not one particular.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// Protocol.
    pub proto: Option<Proto>,
    /// Destination.
    pub addr: Option<IpAddr>,
    /// Destination ports, first and last.
    pub ports: Option<(u16, u16)>,
}

impl Scope {
    /// All packets.
    pub const ANY: Self = Self { proto: None, addr: None, ports: None };

    /// Those of a protocol.
    pub fn of_proto(proto: Proto) -> Self {
        Self { proto: Some(proto), ..Self::ANY }
    }

    /// Those to an address.
    pub fn to_addr(addr: IpAddr) -> Self {
        Self { addr: Some(addr), ..Self::ANY }
    }

    /// Those to some ports.
    pub fn to_ports(first: u16, last: u16) -> Self {
        Self { ports: Some((first, last)), ..Self::ANY }
    }

    /// Those that are in both; `None` if there are none.
    pub fn and(self, other: Self) -> Option<Self> {
        let ports = match (self.ports, other.ports) {
            (Some((a, b)), Some((c, d))) => Some((a.max(c), b.min(d))),
            (one, other) => one.or(other),
        };
        let is_empty = ports.is_some_and(|(first, last)| first > last);
        let found = Self { proto: same(self.proto, other.proto)?, addr: same(self.addr, other.addr)?, ports };
        (!is_empty).then_some(found)
    }

    /// The services that this can be: both protocols, if it says nothing of that.
    pub fn vips(self) -> impl Iterator<Item = (Proto, Vip)> {
        let (port, last_port) = self.ports.unzip();
        let vip = Vip { addr: self.addr, port, last_port: last_port.filter(|last| Some(*last) != port) };
        [Proto::Tcp, Proto::Udp]
            .into_iter()
            .filter(move |it| self.proto.is_none_or(|own| own == *it))
            .map(move |it| (it, vip))
    }
}

/// What both ask for, where at least one asks; `None` if they ask for different things.
fn same<T: PartialEq>(one: Option<T>, other: Option<T>) -> Option<Option<T>> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => None,
        (one, other) => Some(one.or(other)),
    }
}

/// Every address with every port.
pub fn backends(addrs: &[Option<IpAddr>], ports: &[Option<u16>]) -> Vec<Backend> {
    addrs.iter().flat_map(|addr| ports.iter().map(|port| Backend { addr: *addr, port: *port })).collect()
}

/// A range of ports as single ones.
pub fn spread_ports(first: u16, last: u16) -> Vec<Option<u16>> {
    match last.checked_sub(first) {
        Some(more) if more < MOST_PORTS => (first..=last).map(Some).collect(),
        _ => vec![None],
    }
}

/// A range of addresses as single ones.
pub fn spread_addrs(first: IpAddr, last: IpAddr) -> Vec<Option<IpAddr>> {
    let numbers = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Some((u128::from(a.to_bits()), u128::from(b.to_bits()))),
        (IpAddr::V6(a), IpAddr::V6(b)) => Some((a.to_bits(), b.to_bits())),
        _ => None,
    };
    let one = |bits: u128| match first {
        IpAddr::V4(_) => u32::try_from(bits).ok().map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(_) => Some(IpAddr::V6(bits.into())),
    };
    match numbers {
        Some((a, b)) if b.checked_sub(a).is_some_and(|more| more < MOST_ADDRESSES) => (a..=b).map(one).collect(),
        _ => vec![None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn two_scopes_have_in_common_what_neither_excludes() {
        let vip = Scope::to_addr(ip("10.96.0.1"));
        let web = Scope::to_ports(80, 90).and(Scope::of_proto(Proto::Tcp)).unwrap();
        let both = Scope { proto: Some(Proto::Tcp), addr: Some(ip("10.96.0.1")), ports: Some((85, 90)) };
        assert_eq!(vip.and(web).and_then(|it| it.and(Scope::to_ports(85, 443))), Some(both));
        assert_eq!(vip.and(Scope::to_addr(ip("10.96.0.2"))), None);
        assert_eq!(web.and(Scope::of_proto(Proto::Udp)), None);
        assert_eq!(web.and(Scope::to_ports(91, 92)), None);
    }

    #[test]
    fn a_scope_without_a_protocol_is_two_services() {
        let vips = |scope: Scope| scope.vips().map(|(proto, vip)| (proto, vip.port, vip.last_port)).collect::<Vec<_>>();
        assert_eq!(vips(Scope::to_ports(53, 53)), [(Proto::Tcp, Some(53), None), (Proto::Udp, Some(53), None)]);
        let range = Scope { proto: Some(Proto::Udp), ..Scope::to_ports(1, 9) };
        assert_eq!(vips(range), [(Proto::Udp, Some(1), Some(9))]);
    }

    #[test]
    fn ranges_are_listed_as_long_as_they_are_short() {
        assert_eq!(spread_ports(2000, 2002), [Some(2000), Some(2001), Some(2002)]);
        assert_eq!([spread_ports(0, u16::MAX), spread_ports(9, 8)], [[None], [None]]);
        assert_eq!(spread_addrs(ip("10.0.0.255"), ip("10.0.1.0")), [Some(ip("10.0.0.255")), Some(ip("10.0.1.0"))]);
        assert_eq!(spread_addrs(ip("fd00::1"), ip("fd00::2")).len(), 2);
        for (first, last) in [("::", "ffff::"), ("10.0.0.2", "10.0.0.1"), ("10.0.0.1", "fd00::1")] {
            assert_eq!(spread_addrs(ip(first), ip(last)), [None]);
        }
    }
}
