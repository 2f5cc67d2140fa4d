//! Expressions of nftables → what they select, and what they hold.

use std::net::IpAddr;

use ktrace_bundle::event::Proto;

use super::node::Node;
use crate::services::scope::{Scope, spread_addrs, spread_ports};

/// What a rule looks at in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Destination address.
    Daddr,
    /// Transport protocol.
    Proto,
    /// Destination port; of one protocol, or of any that has ports.
    Dport(Option<Proto>),
    /// Destination port of a protocol that is not recorded.
    NobodysPort,
    /// Anything else.
    Other,
}

/// What an expression looks at: several fields, if it is a concatenation.
pub fn fields(node: &Node) -> Vec<Field> {
    match node.get("concat").and_then(Node::list) {
        Some(parts) => parts.iter().map(field).collect(),
        None => vec![field(node)],
    }
}

fn field(node: &Node) -> Field {
    if let Some(meta) = node.get("meta") {
        return if meta.text_of("key") == Some("l4proto") { Field::Proto } else { Field::Other };
    }
    let of = node.get("payload").and_then(|it| Some((it.text_of("protocol")?, it.text_of("field")?)));
    match of {
        Some(("ip" | "ip6", "daddr")) => Field::Daddr,
        Some(("ip", "protocol") | ("ip6", "nexthdr")) => Field::Proto,
        Some(("tcp", "dport")) => Field::Dport(Some(Proto::Tcp)),
        Some(("udp", "dport")) => Field::Dport(Some(Proto::Udp)),
        Some(("th", "dport")) => Field::Dport(None),
        Some((_, "dport")) => Field::NobodysPort,
        _ => Field::Other,
    }
}

/// A value of a set, of a map, or of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Atom {
    /// An address.
    Addr(IpAddr),
    /// Addresses, first and last.
    Addrs(IpAddr, IpAddr),
    /// A port or another number.
    Number(u64),
    /// Ports, first and last.
    Numbers(u64, u64),
    /// A protocol, by name.
    Proto(Proto),
    /// Anything else.
    Other,
}

/// The parts of a value: several, if it is a concatenation.
pub fn atoms(node: &Node) -> Vec<Atom> {
    match node.get("concat").and_then(Node::list) {
        Some(parts) => parts.iter().map(atom).collect(),
        None => vec![atom(node)],
    }
}

fn atom(node: &Node) -> Atom {
    match node {
        Node::Number(number) => Atom::Number(*number),
        Node::Text(text) => match &**text {
            "tcp" => Atom::Proto(Proto::Tcp),
            "udp" => Atom::Proto(Proto::Udp),
            text => text.parse().map_or(Atom::Other, Atom::Addr),
        },
        _ => match node.get("range").and_then(Node::pair).map(|(first, last)| (atom(first), atom(last))) {
            Some((Atom::Addr(first), Atom::Addr(last))) => Atom::Addrs(first, last),
            Some((Atom::Number(first), Atom::Number(last))) => Atom::Numbers(first, last),
            _ => Atom::Other,
        },
    }
}

/// The packets whose fields have these values; `None` if none that is recorded has.
pub fn scope(fields: &[Field], atoms: &[Atom]) -> Option<Scope> {
    fields.iter().zip(atoms).try_fold(Scope::ANY, |scope, (field, atom)| scope.and(narrowed(*field, atom)?))
}

/// The packets that have these fields at all; `None` if that says nothing.
pub fn implied(fields: &[Field]) -> Option<Scope> {
    fields.iter().find_map(|field| match field {
        Field::Dport(proto) => proto.map(Scope::of_proto),
        _ => None,
    })
}

fn narrowed(field: Field, atom: &Atom) -> Option<Scope> {
    let port = |number: u64| u16::try_from(number).ok();
    let any = |proto: Option<Proto>| proto.map_or(Scope::ANY, Scope::of_proto);
    match (field, atom) {
        (Field::NobodysPort, _) => None,
        (Field::Daddr, Atom::Addr(addr)) => Some(Scope::to_addr(*addr)),
        (Field::Proto, Atom::Proto(proto)) => Some(Scope::of_proto(*proto)),
        (Field::Proto, Atom::Number(6)) => Some(Scope::of_proto(Proto::Tcp)),
        (Field::Proto, Atom::Number(17)) => Some(Scope::of_proto(Proto::Udp)),
        (Field::Proto, _) => None,
        (Field::Dport(proto), Atom::Number(number)) => any(proto).and(Scope::to_ports(port(*number)?, port(*number)?)),
        (Field::Dport(proto), Atom::Numbers(a, b)) => any(proto).and(Scope::to_ports(port(*a)?, port(*b)?)),
        (Field::Dport(proto), _) => Some(any(proto)),
        (Field::Daddr | Field::Other, _) => Some(Scope::ANY),
    }
}

/// The addresses that a value stands for.
pub fn addrs(atom: &Atom) -> Vec<Option<IpAddr>> {
    match atom {
        Atom::Addr(addr) => vec![Some(*addr)],
        Atom::Addrs(first, last) => spread_addrs(*first, *last),
        _ => vec![None],
    }
}

/// The ports that a value stands for.
pub fn ports(atom: &Atom) -> Vec<Option<u16>> {
    let port = |number: u64| u16::try_from(number).ok();
    match atom {
        Atom::Number(number) => vec![port(*number)],
        Atom::Numbers(first, last) => match (port(*first), port(*last)) {
            (Some(first), Some(last)) => spread_ports(first, last),
            _ => vec![None],
        },
        _ => vec![None],
    }
}
