//! Values with a spelling of their own, as they are read. How they are written stands in `put`.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};

use super::reading::Text;
use crate::event::{Endpoint, RetransmitKind, StallKind};

/// RFC 3339, UTC, exactly six decimals, so that lines sort as text.
#[derive(Debug)]
pub struct Timestamp(pub DateTime<Utc>);

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <Text<'de>>::deserialize(d)?;
        let at = DateTime::parse_from_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(at.with_timezone(&Utc)))
    }
}

/// `local -> remote`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tuple {
    /// The socket's own end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
}

impl<'de> Deserialize<'de> for Tuple {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <Text<'de>>::deserialize(d)?;
        let (local, remote) =
            text.split_once(" -> ").ok_or_else(|| serde::de::Error::custom("`tuple` is not `local -> remote`"))?;
        match (parse_endpoint(local), parse_endpoint(remote)) {
            (Some(local), Some(remote)) => Ok(Self { local, remote }),
            _ => Err(serde::de::Error::custom("an end of `tuple` is not `addr:port`")),
        }
    }
}

/// An endpoint as one string, for `asked`.
#[derive(Debug, Clone, Copy)]
pub struct End(pub Endpoint);

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <Text<'de>>::deserialize(d)?;
        parse_endpoint(&text).map(Self).ok_or_else(|| serde::de::Error::custom("not `addr:port`"))
    }
}

/// The inverse of [`Endpoint`]'s display.
pub fn parse_endpoint(text: &str) -> Option<Endpoint> {
    if text == "*" {
        return Some(Endpoint::default());
    }
    if let Some(port) = text.strip_prefix("*:") {
        return Some(Endpoint { addr: None, port: Some(port.parse().ok()?) });
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (addr, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(p) => Some(p.parse().ok()?),
            None if port.is_empty() => None,
            None => return None,
        };
        return Some(Endpoint { addr: Some(IpAddr::V6(addr.parse().ok()?)), port });
    }
    match text.split_once(':') {
        Some((addr, port)) => {
            Some(Endpoint { addr: Some(IpAddr::V4(addr.parse().ok()?)), port: Some(port.parse().ok()?) })
        }
        None => Some(Endpoint { addr: Some(IpAddr::V4(text.parse().ok()?)), port: None }),
    }
}

/// `0x%08x_%08x`: high and low word.
#[derive(Debug, Clone, Copy)]
pub struct CapsEff(pub u64);

impl<'de> Deserialize<'de> for CapsEff {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <Text<'de>>::deserialize(d)?;
        let digits: String = text.trim_start_matches("0x").chars().filter(|c| *c != '_').collect();
        u64::from_str_radix(&digits, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What `kind` can be: of a retransmit or of a stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Kind {
    /// Of `tcp_retransmit`.
    Retransmit(RetransmitKind),
    /// Of `tcp_stall`.
    Stall(StallKind),
}

impl Kind {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retransmit(kind) => kind.as_str(),
            Self::Stall(kind) => kind.as_str(),
        }
    }
}
