//! `/proc/net/ip_vs` → services. As the kernel prints it (`ip_vs_info_seq_show`):
//!
//!     TCP  0A600001:0050 rr
//!       -> 0AF40105:1F90      Masq    1      0          0
//!     UDP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0035 rr persistent 10800 FFFFFFFF
//!
//! A service by mark has no address and is left out, and so is one of another protocol.

use std::io::{self, BufRead};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ktrace_bundle::event::Proto;

use super::ruleset::Services;
use super::scope::Scope;
use super::tool::lines;
use super::{Backend, Declared, RuleSource};

/// The services, and what was left out.
///
/// # Errors
/// It cannot be read to its end.
pub fn read(text: &mut dyn BufRead) -> io::Result<(Vec<Declared>, u64)> {
    let mut services = Services::default();
    let mut scope = None;
    let mut omitted = 0;
    lines(text, |line| {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("->"), Some(end)) => {
                // not of the heading, or of a service that is left out
                if let (Some(scope), Some((addr, port))) = (scope, endpoint(end)) {
                    // a service for any port leaves the port as it is
                    let port = (port != 0).then_some(port);
                    services.add(scope, &[Backend { addr: Some(addr), port }], None);
                }
            }
            (Some(proto), Some(end)) => {
                scope = service(proto, end);
                match scope {
                    Some(scope) => services.add(scope, &[], None),
                    None => omitted += u64::from(!matches!(proto, "IP" | "Prot")),
                }
            }
            _ => scope = None,
        }
    })?;
    Ok(services.finish(RuleSource::Ipvs, omitted))
}

fn service(proto: &str, end: &str) -> Option<Scope> {
    let proto = match proto {
        "TCP" => Proto::Tcp,
        "UDP" => Proto::Udp,
        _ => return None,
    };
    let (addr, port) = endpoint(end)?;
    let to = Scope { proto: Some(proto), ..Scope::to_addr(addr) };
    if port == 0 { Some(to) } else { to.and(Scope::to_ports(port, port)) }
}

/// `0A600001:0050`, or `[fd00:…:0001]:0050`.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (addr, port) = text.rsplit_once(':')?;
    let addr = match addr.strip_prefix('[') {
        Some(rest) => IpAddr::V6(rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None if addr.len() == 8 => IpAddr::V4(Ipv4Addr::from_bits(hex(addr)?)),
        None => return None,
    };
    Some((addr, hex(port)?.try_into().ok()?))
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok().filter(|_| !text.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::services::tests::{show, shown};

    /// As Linux 6.1 prints it.
    const TABLE: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
        Prot LocalAddress:Port Scheduler Flags\n  \
          -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
        TCP  0A600001:01BB rr \n  -> AC120002:192B      Masq    1      4          0         \n\
        TCP  0A600050:0050 rr persistent 10800 FFFFFFFF\n  -> 0AF40105:1F90      Masq    1      0          0         \n  \
          -> 0AF40106:1F90      Masq    0      0          0         \n\
        UDP  [fd00:0000:0000:0000:0000:0000:0000:000a]:0035 rr \n  \
          -> [fd00:0000:0000:0000:0000:0000:0001:0002]:14E9      Masq    1      0          0         \n\
        UDP  0A60000A:0035 rr ops \n\
        TCP  0A600051:0000 rr \n  -> 0AF40105:0000      Route   1      0          0         \n\
        FWM  00000001 rr \n  -> 0AF40107:0050      Masq    1      0          0         \n\
        SCTP 0A600052:0050 rr \n  -> 0AF40107:0050      Masq    1      0          0         \n";

    fn of(text: &str) -> (Vec<Declared>, u64) {
        read(&mut text.as_bytes()).unwrap()
    }

    #[test]
    fn services_of_ipvs_are_read_with_their_backends() {
        let (services, omitted) = of(TABLE);
        assert_eq!(
            show(&services),
            shown(&[
                "tcp 10.96.0.1:443 -> 172.18.0.2:6443",
                "tcp 10.96.0.80:80 -> 10.244.1.5:8080 10.244.1.6:8080",
                "tcp 10.96.0.81:* -> 10.244.1.5:*",
                "udp 10.96.0.10:53 ->",
                "udp fd00::a:53 -> fd00::1:2:5353",
            ])
        );
        assert_eq!(omitted, 2);
        assert!(services.iter().all(|it| it.source == RuleSource::Ipvs));
    }

    #[test]
    fn what_is_no_line_of_ipvs_is_no_service() {
        for text in [
            "TCP  0A600001 rr\n  -> 0AF40105:1F90 Masq\n",
            "TCP  0A6000:0050 rr\n",
            "TCP  0A600001:10050 rr\n",
            "TCP  [fd00::1:0050 rr\n",
            "TCP  +A600001:0050 rr\n",
            "  -> 0AF40105:1F90 Masq\n",
        ] {
            assert_eq!(of(text).0, [], "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..900) {
            let _ = read(&mut bytes.as_slice());
            let mut mixed = TABLE.as_bytes().get(..cut.min(TABLE.len())).unwrap().to_vec();
            mixed.extend(bytes);
            let _ = read(&mut mixed.as_slice());
        }
    }
}
