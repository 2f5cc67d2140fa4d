//! Community ID, version 1: one text for both directions of a flow, the same in every tool that knows it
//! (<https://github.com/corelight/community-id-spec>).

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ktrace_bundle::event::Proto;
use ktrace_bundle::nat::Direction;
use sha1::{Digest, Sha1};

/// With seed 0; `None`: an end is not known.
pub fn id(proto: Proto, tuple: &Direction) -> Option<String> {
    let ends = [tuple.from, tuple.to].map(|end| Some((octets(end.addr?), end.port?)));
    let [Some(mut from), Some(mut to)] = ends else { return None };
    if to < from {
        std::mem::swap(&mut from, &mut to);
    }
    let number = match proto {
        Proto::Tcp => libc::IPPROTO_TCP,
        Proto::Udp => libc::IPPROTO_UDP,
    };
    let mut hash = Sha1::new();
    hash.update(0u16.to_be_bytes());
    hash.update(&from.0);
    hash.update(&to.0);
    hash.update([u8::try_from(number).unwrap_or(0), 0]);
    hash.update(from.1.to_be_bytes());
    hash.update(to.1.to_be_bytes());
    Some(format!("1:{}", STANDARD.encode(hash.finalize())))
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::line::parse_endpoint;

    use super::*;

    fn of(proto: Proto, from: &str, to: &str) -> Option<String> {
        let [from, to] = [from, to].map(|text| parse_endpoint(text).unwrap());
        id(proto, &Direction { from, to })
    }

    /// Baselines of the specification, seed 0.
    #[test]
    fn it_is_that_of_the_specification() {
        let tcp = Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg=".to_owned());
        assert_eq!(of(Proto::Tcp, "128.232.110.120:34855", "66.35.250.204:80"), tcp);
        let udp = Some("1:d/FP5EW3wiY1vCndhwleRRKHowQ=".to_owned());
        assert_eq!(of(Proto::Udp, "192.168.1.52:54585", "8.8.8.8:53"), udp);
    }

    #[test]
    fn both_directions_have_the_same_and_half_a_flow_has_none() {
        let [a, b] = ["[fd00::1]:40000", "[fd00::2]:53"];
        assert_eq!(of(Proto::Udp, a, b), of(Proto::Udp, b, a));
        assert_eq!(of(Proto::Udp, "*:40000", b), None);
    }
}
