//! Ports that a client asks for → ports on which the backends of those services listen.

use std::collections::BTreeSet;

use super::Declared;

/// The ports that are not in `wanted` and to which rules translate one that is. Ports only: the same number on any other
/// address is found, too.
pub fn ports_behind(declared: &[Declared], wanted: &BTreeSet<u16>) -> BTreeSet<u16> {
    let asked_for = |service: &&Declared| wanted.iter().any(|port| service.vip.has_port(*port));
    let ports = declared.iter().filter(asked_for).flat_map(|service| &service.backends).filter_map(|it| it.port);
    ports.filter(|port| *port != 0 && !wanted.contains(port)).collect()
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::event::Proto;

    use super::*;
    use crate::services::{Backend, RuleSource, Vip};

    fn declared(vip: (Option<u16>, Option<u16>), backends: &[Option<u16>]) -> Declared {
        let backends = backends.iter().map(|port| Backend { addr: None, port: *port }).collect();
        let vip = Vip { addr: None, port: vip.0, last_port: vip.1 };
        Declared { proto: Proto::Tcp, vip, backends, source: RuleSource::Nftables, name: None }
    }

    #[test]
    fn a_wanted_port_brings_those_that_it_is_translated_to() {
        let rules = [
            declared((Some(80), None), &[Some(8080), Some(8081), Some(80), None]),
            declared((Some(443), None), &[Some(8443)]),
            declared((Some(8000), Some(8010)), &[Some(9000)]),
            declared((Some(81), None), &[Some(80)]),
        ];
        let behind = |wanted: &[u16]| ports_behind(&rules, &wanted.iter().copied().collect());
        assert_eq!(behind(&[80]), [8080, 8081].into());
        assert_eq!(behind(&[80, 8080]), [8081].into());
        assert_eq!(behind(&[8005]), [9000].into());
        assert_eq!([behind(&[8011]), behind(&[8080]), behind(&[])], [[].into(), [].into(), [].into()]);
    }

    #[test]
    fn a_rule_for_any_port_translates_the_wanted_ones_too() {
        let all = [declared((None, None), &[Some(15001)])];
        assert_eq!(ports_behind(&all, &[80].into()), [15001].into());
        assert_eq!(ports_behind(&all, &[].into()), [].into());
    }
}
