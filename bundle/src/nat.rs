//! What connection tracking says of a flow: `conntrack` of an event and of a line of `flows.jsonl`.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::Endpoint;
use crate::line::parse_endpoint;

/// Which of its addresses the kernel rewrites on the way (`ip_conntrack_status`, `IPS_SRC_NAT` and `IPS_DST_NAT`, or
/// where they are not told, the difference between the two directions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NatKind {
    /// Nothing.
    #[default]
    None,
    /// Where it comes from.
    Snat,
    /// Where it goes to.
    Dnat,
    /// Both.
    Both,
}

/// From where to where one direction of a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Direction {
    /// Sender.
    pub from: Endpoint,
    /// Receiver.
    pub to: Endpoint,
}

/// `from -> to`, as a `tuple`.
impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

impl Serialize for Direction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Direction {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(d)?;
        let ends = text.split_once(" -> ").and_then(|(from, to)| parse_endpoint(from).zip(parse_endpoint(to)));
        ends.map(|(from, to)| Self { from, to }).ok_or_else(|| serde::de::Error::custom("not `addr:port -> addr:port`"))
    }
}

/// The entry of a flow in a table of connection tracking.
///
/// The same entry tells both ends the same, whichever of its directions they see: a client is `original.from`, a server is
/// `reply.from`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nat {
    /// TCP: the kernel's name of its state (`enum tcp_conntrack`). UDP: `UNREPLIED`, `REPLIED` or `ASSURED`.
    pub state: Cow<'static, str>,
    /// As the one who began it sent it; absent of other writers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Direction>,
    /// As answers come in.
    pub reply: Direction,
    /// What is rewritten.
    #[serde(default)]
    pub nat: NatKind,
    /// Who really got it, if that is not whom it was sent to: `reply.from`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "end")]
    pub backend: Option<Endpoint>,
    /// Whom it was sent to, if somebody else got it, such as the address of a Service: `original.to`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "end")]
    pub original_dst: Option<Endpoint>,
    /// Who really sent it, if the other end sees somebody else: `original.from`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "end")]
    pub original_src: Option<Endpoint>,
    /// Bits of `enum ip_conntrack_status`; absent where only `/proc` could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// Zone of the table (`nf_conntrack_zone`); absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub zone: u16,
    /// Mark of the connection; absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mark: u32,
    /// Network namespace whose table says so, as `ns.net`; 0: not said.
    #[serde(default)]
    pub netns: u32,
}

impl Nat {
    /// What the two directions of an entry say; the rest is zero or unknown.
    pub fn new(state: &'static str, original: Direction, reply: Direction, netns: u32) -> Self {
        let (is_dnat, is_snat) = (reply.from != original.to, reply.to != original.from);
        let nat = match (is_snat, is_dnat) {
            (false, false) => NatKind::None,
            (true, false) => NatKind::Snat,
            (false, true) => NatKind::Dnat,
            (true, true) => NatKind::Both,
        };
        Self {
            state: Cow::Borrowed(state),
            original: Some(original),
            reply,
            nat,
            backend: is_dnat.then_some(reply.from),
            original_dst: is_dnat.then_some(original.to),
            original_src: is_snat.then_some(original.from),
            status: None,
            zone: 0,
            mark: 0,
            netns,
        }
    }
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// An endpoint as one string.
pub(crate) mod end {
    use super::{Cow, Deserialize, Deserializer, Endpoint, Serializer, parse_endpoint};

    #[expect(clippy::ref_option, reason = "serde passes references")]
    pub fn serialize<S: Serializer>(end: &Option<Endpoint>, serializer: S) -> Result<S::Ok, S::Error> {
        match end {
            Some(end) => serializer.collect_str(end),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Endpoint>, D::Error> {
        let text = <Option<Cow<'de, str>>>::deserialize(d)?;
        let parse =
            |text: Cow<'_, str>| parse_endpoint(&text).ok_or_else(|| serde::de::Error::custom("not `addr:port`"));
        text.map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> Endpoint {
        parse_endpoint(text).unwrap()
    }

    fn direction(from: &str, to: &str) -> Direction {
        Direction { from: end(from), to: end(to) }
    }

    #[test]
    fn what_is_rewritten_follows_from_the_two_directions() {
        let client_to_vip = direction("10.0.0.1:4000", "10.96.0.10:53");
        let of = |from: &str, to: &str| {
            let nat = Nat::new("REPLIED", client_to_vip, direction(from, to), 1);
            (nat.nat, nat.backend.is_some(), nat.original_dst.is_some(), nat.original_src.is_some())
        };
        assert_eq!(of("10.96.0.10:53", "10.0.0.1:4000"), (NatKind::None, false, false, false));
        assert_eq!(of("10.244.0.7:5353", "10.0.0.1:4000"), (NatKind::Dnat, true, true, false));
        assert_eq!(of("10.96.0.10:53", "192.0.2.1:4000"), (NatKind::Snat, false, false, true));
        assert_eq!(of("10.244.0.7:5353", "192.0.2.1:60001"), (NatKind::Both, true, true, true));
        // a port alone is rewritten, too
        assert_eq!(of("10.96.0.10:5353", "10.0.0.1:4000").0, NatKind::Dnat);
    }

    #[test]
    fn it_is_read_as_it_was_written_and_zeros_are_not_written() {
        let (vip, to) = (direction("[fd00::1]:4000", "[fd00::a]:53"), direction("[fd00::7]:5353", "[fd00::1]:4000"));
        let nat = Nat::new("UNREPLIED", vip, to, 7);
        let text = serde_json::to_string(&nat).unwrap();
        assert_eq!(
            text,
            r#"{"state":"UNREPLIED","original":"[fd00::1]:4000 -> [fd00::a]:53","reply":"[fd00::7]:5353 -> [fd00::1]:4000","nat":"dnat","backend":"[fd00::7]:5353","original_dst":"[fd00::a]:53","netns":7}"#
        );
        assert_eq!(serde_json::from_str::<Nat>(&text).unwrap(), nat);
        let marked = Nat { status: Some(0x18e), zone: 3, mark: 9, ..nat };
        assert_eq!(serde_json::from_str::<Nat>(&serde_json::to_string(&marked).unwrap()).unwrap(), marked);
    }
}
