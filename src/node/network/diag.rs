//! `sock_diag`: a socket as the kernel dumps it, read at fixed offsets (`struct inet_diag_msg`), so that tens of thousands are
//! cheap; and the requests for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::tcp::TcpState;

use crate::node::netlink::attributes;

/// `SOCK_DIAG_BY_FAMILY`.
pub const KIND: u16 = 20;
/// `INET_DIAG_SKMEMINFO`, and the place of `SK_MEMINFO_DROPS` in it.
const SKMEMINFO: u16 = 7;
const DROPS: usize = 8;
/// Length of `struct inet_diag_msg`.
const FIXED: usize = 72;
/// All states but those of a listener; `TCP_NEW_SYN_RECV` is number 12.
pub const NOT_LISTENING: u32 = 0x1fff & !LISTENING;
/// Of listeners.
pub const LISTENING: u32 = 1 << 10;
/// Any: of UDP.
pub const ALL: u32 = u32::MAX;

/// A request (`struct inet_diag_req_v2`) for the sockets of a protocol in these states, with their memory or without.
pub fn request(family: i32, protocol: i32, states: u32, with_memory: bool) -> [u8; 56] {
    let mut bytes = [0; 56];
    let head = [family, protocol, if with_memory { 1 << (SKMEMINFO - 1) } else { 0 }, 0];
    for (to, from) in bytes.iter_mut().zip(head.map(|it| it.to_le_bytes()[0]).into_iter().chain(states.to_ne_bytes())) {
        *to = from;
    }
    bytes
}

/// A socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Kernel number of its state.
    pub state: u8,
    /// Its own end; a wildcard has no address.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// Socket cookie.
    pub cookie: u64,
    /// Bytes that wait to be read; of a listener connections that wait to be accepted.
    pub rx_queue: u32,
    /// Bytes that are not acknowledged; of a listener how many may wait.
    pub tx_queue: u32,
    /// What was thrown away (`sk_drops`), if it was asked for.
    pub drops: Option<u32>,
}

/// Of the state's name, `SYN_RECV` also of a request that has no socket yet.
pub fn state_name(state: u8) -> String {
    TcpState::from_kernel(state).map_or_else(|| format!("state_{state}"), |it| it.as_str().to_owned())
}

/// Reads one; `None` if it is too short, or of another family.
pub fn socket(body: &[u8]) -> Option<Socket> {
    let fixed = body.first_chunk::<FIXED>()?;
    let word = |at: usize| fixed.get(at..at + 4).and_then(|it| it.try_into().ok()).map(u32::from_ne_bytes);
    let port = |at: usize| fixed.get(at..at + 2).and_then(|it| it.try_into().ok()).map(u16::from_be_bytes);
    let [family, state, ..] = *fixed;
    let end = |port_at: usize, at: usize| {
        let bytes: [u8; 16] = fixed.get(at..at + 16)?.try_into().ok()?;
        let addr = match i32::from(family) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
            libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
            _ => return None,
        };
        Some(Endpoint { addr: Some(addr).filter(|it| !it.is_unspecified()), port: port(port_at).filter(|it| *it > 0) })
    };
    let drops = attributes(body.get(FIXED..)?).find(|(kind, _)| *kind == SKMEMINFO);
    let drops = drops.and_then(|(_, memory)| memory.get(4 * DROPS..4 * DROPS + 4)?.try_into().ok());
    Some(Socket {
        state,
        local: end(4, 8)?,
        remote: end(6, 24)?,
        cookie: u64::from(word(44)?) | u64::from(word(48)?) << 32,
        rx_queue: word(56)?,
        tx_queue: word(60)?,
        drops: drops.map(u32::from_ne_bytes),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> Vec<u8> {
        let mut bytes = vec![2, 10, 0, 0];
        bytes.extend(8080_u16.to_be_bytes());
        bytes.extend(443_u16.to_be_bytes());
        bytes.extend([10, 0, 0, 1].into_iter().chain([0; 12]));
        bytes.extend([0; 16]); // any other end
        bytes.extend([0; 4]); // interface
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend([0, 129, 128, 0, 0].map(u32::to_ne_bytes).concat());
        bytes.extend([40, 0, 7, 0]);
        bytes.extend([0; 32]);
        bytes.extend(5_u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_listener_is_read_with_its_queue_and_what_it_threw_away() {
        let expected = Socket {
            state: 10,
            local: "10.0.0.1:8080".parse::<std::net::SocketAddr>().map(|it| Endpoint::new(it.ip(), it.port())).unwrap(),
            remote: Endpoint { addr: None, port: Some(443) },
            cookie: 1 << 32 | 7,
            rx_queue: 129,
            tx_queue: 128,
            drops: Some(5),
        };
        assert_eq!(socket(&bytes()), Some(expected));
        assert_eq!((state_name(10), state_name(99)), ("LISTEN".to_owned(), "state_99".to_owned()));
    }

    #[test]
    fn what_is_cut_off_is_none_or_lacks_what_was_cut() {
        let whole = bytes();
        for end in 0..whole.len() {
            let cut = socket(&whole[..end]);
            assert_eq!(cut.is_some(), end >= FIXED, "{end}");
            assert!(cut.is_none_or(|it| it.drops.is_none()));
        }
        let mut other = whole;
        other[0] = 1;
        assert_eq!(socket(&other), None);
    }

    #[test]
    fn v4_in_v6_is_shown_as_v4() {
        let mut bytes = bytes();
        bytes[0] = 10;
        bytes[8..24].copy_from_slice(&Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets());
        assert_eq!(socket(&bytes).unwrap().local.addr, Some([10, 0, 0, 1].into()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_socket_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            socket(&bytes);
        }
    }
}
