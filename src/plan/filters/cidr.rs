//! Address prefixes: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`. An IPv4 address mapped into IPv6 is an IPv4 address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::error::Hint;

/// Bits of an IPv6 address in front of the IPv4 address that is mapped into it.
const MAPPED_BITS: u8 = 96;

/// An address prefix; bits behind its length are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    addr: IpAddr,
    bits: u8,
}

/// Why a text is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not an address.
    #[error("`{item}` is not an address or a prefix")]
    NotAnAddress {
        /// The item.
        item: String,
    },
    /// The length is no number or larger than the address.
    #[error("the prefix length of `{item}` is not between 0 and {max}")]
    Length {
        /// The item.
        item: String,
        /// Longest prefix of this family.
        max: u8,
    },
}

impl Hint for CidrError {
    fn hint(&self) -> Option<String> {
        Some("write prefixes such as `10.0.0.0/8`, `fd00::/8` or `192.0.2.1`".into())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.bits)
    }
}

/// Parses a prefix; bits behind its length are dropped.
///
/// # Errors
/// See [`CidrError`].
pub fn parse(item: &str) -> Result<Cidr, CidrError> {
    let (addr, length) = item.split_once('/').map_or((item, None), |(addr, length)| (addr, Some(length)));
    let addr: IpAddr = addr.parse().map_err(|_| CidrError::NotAnAddress { item: item.into() })?;
    let max = if addr.is_ipv4() { 32 } else { 128 };
    let bits = match length {
        None => max,
        Some(text) => {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let bits = text.parse().ok().filter(|bits| digits && *bits <= max);
            bits.ok_or_else(|| CidrError::Length { item: item.into(), max })?
        }
    };
    Ok(Cidr::new(addr, bits))
}

impl Cidr {
    fn new(addr: IpAddr, bits: u8) -> Self {
        match addr {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Self { addr: IpAddr::V4((u32::from(v4) & mask).into()), bits }
            }
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) if bits >= MAPPED_BITS => Self::new(IpAddr::V4(v4), bits - MAPPED_BITS),
                _ => {
                    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                    Self { addr: IpAddr::V6((u128::from(v6) & mask).into()), bits }
                }
            },
        }
    }

    /// All of IPv4.
    pub fn all_of_ipv4() -> Self {
        Self::new(IpAddr::V4(0.into()), 0)
    }

    /// Length and address as the kernel side looks them up: IPv4 is mapped into IPv6.
    pub fn mapped(&self) -> (u8, [u8; 16]) {
        match self.addr {
            IpAddr::V4(v4) => (self.bits + MAPPED_BITS, v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => (self.bits, v6.octets()),
        }
    }

    /// Whether it is an IPv6 prefix so wide that mapped IPv4 addresses would be in it.
    pub fn swallows_ipv4(&self) -> bool {
        const MAPPED: u128 = 0xffff << 32;
        match self.addr {
            IpAddr::V4(_) => false,
            IpAddr::V6(_) => self.bits <= MAPPED_BITS && Self::new(Ipv6Addr::from(MAPPED).into(), self.bits) == *self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        parse(text).unwrap().to_string()
    }

    #[test]
    fn prefixes_are_read_and_cut_to_their_length() {
        for (text, expected) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("255.255.255.255/0", "0.0.0.0/0"),
            ("fd77:1::2", "fd77:1::2/128"),
            ("fd77:1::2/16", "fd77::/16"),
            ("ffff::/0", "::/0"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in ["localhost", "10.0.0", "10.0.0.0.0/8", "/8", "::g"] {
            assert_eq!(parse(text), Err(CidrError::NotAnAddress { item: text.into() }));
        }
        for (text, max) in
            [("10.0.0.0/33", 32), ("10.0.0.0/", 32), ("10.0.0.0/+8", 32), ("::/129", 128), ("::/-1", 128)]
        {
            assert_eq!(parse(text), Err(CidrError::Length { item: text.into(), max }));
        }
    }

    #[test]
    fn ipv4_is_looked_up_as_a_mapped_address() {
        let mut addr = [0; 16];
        addr[10..13].copy_from_slice(&[0xff, 0xff, 10]);
        assert_eq!(parse("10.0.0.0/8").unwrap().mapped(), (104, addr));
    }

    #[test]
    fn only_wide_ipv6_prefixes_swallow_ipv4() {
        for (text, swallows) in [
            ("::/0", true),
            ("::/80", true),
            ("::ffff:0:0/96", false), // which is 0.0.0.0/0
            ("::/96", false),
            ("fd00::/8", false),
            ("0.0.0.0/0", false),
            ("::ffff:0:0/90", true),
        ] {
            assert_eq!(parse(text).unwrap().swallows_ipv4(), swallows, "{text}");
        }
    }
}
