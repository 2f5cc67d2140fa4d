//! `/proc/PID/net/snmp`, `snmp6` and `netstat` → the counters that the audit needs. Whatever the text says, the result
//! is a number or its absence.

/// A counter of the kernel that is audited, or that bounds an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    UdpIn,
    UdpOut,
    UdpSendBuffer,
    Udp6In,
    Udp6Out,
    Udp6SendBuffer,
    ActiveOpens,
    PassiveOpens,
    AttemptFails,
    EstabResets,
    RetransSegs,
    EmbryonicResets,
    RetransmitFails,
    IpDelivered,
    TcpSegs,
    IcmpMessages,
    Ip6Delivered,
    Icmp6Messages,
}

/// Every counter with its name: `Group.Name` in `snmp` and `netstat`, one word in `snmp6`.
const COUNTERS: &[(Counter, &str)] = &[
    (Counter::UdpIn, "Udp.InDatagrams"),
    (Counter::UdpOut, "Udp.OutDatagrams"),
    (Counter::UdpSendBuffer, "Udp.SndbufErrors"),
    (Counter::Udp6In, "Udp6InDatagrams"),
    (Counter::Udp6Out, "Udp6OutDatagrams"),
    (Counter::Udp6SendBuffer, "Udp6SndbufErrors"),
    (Counter::ActiveOpens, "Tcp.ActiveOpens"),
    (Counter::PassiveOpens, "Tcp.PassiveOpens"),
    (Counter::AttemptFails, "Tcp.AttemptFails"),
    (Counter::EstabResets, "Tcp.EstabResets"),
    (Counter::RetransSegs, "Tcp.RetransSegs"),
    (Counter::EmbryonicResets, "TcpExt.EmbryonicRsts"),
    (Counter::RetransmitFails, "TcpExt.TCPRetransFail"),
    (Counter::IpDelivered, "Ip.InDelivers"),
    (Counter::TcpSegs, "Tcp.InSegs"),
    (Counter::IcmpMessages, "Icmp.InMsgs"),
    (Counter::Ip6Delivered, "Ip6InDelivers"),
    (Counter::Icmp6Messages, "Icmp6InMsgs"),
];
const COUNT: usize = COUNTERS.len();

/// All counters of one namespace at one moment; those of a protocol that it does not have are absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading([Option<u64>; COUNT]);

impl Reading {
    /// Of a namespace that was not there yet.
    pub const fn zero() -> Self {
        Self([Some(0); COUNT])
    }

    /// One counter.
    pub fn get(&self, counter: Counter) -> Option<u64> {
        let place = COUNTERS.iter().position(|(c, _)| *c == counter)?;
        self.0.get(place).copied().flatten()
    }

    /// What the three files say. `None` if the first, which every kernel has, is not what it should be.
    pub fn parse(snmp: &str, snmp6: &str, netstat: &str) -> Option<Self> {
        let mut reading = Self([None; COUNT]);
        for text in [snmp, netstat] {
            let mut lines = text.lines();
            while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
                reading.take_table(names, values);
            }
        }
        for (name, value) in snmp6.lines().filter_map(|line| line.split_once(char::is_whitespace)) {
            reading.take(|known| known == name, value);
        }
        reading.get(Counter::UdpOut).and(reading.get(Counter::RetransSegs)).map(|_| reading)
    }

    /// `Tcp: ActiveOpens PassiveOpens` over `Tcp: 12 7`.
    fn take_table(&mut self, names: &str, values: &str) {
        let (Some((group, names)), Some((group_again, values))) = (names.split_once(": "), values.split_once(": "))
        else {
            return;
        };
        if group != group_again || names.split_whitespace().count() != values.split_whitespace().count() {
            return;
        }
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            self.take(|known| known.split_once('.') == Some((group, name)), value);
        }
    }

    fn take(&mut self, is_it: impl Fn(&str) -> bool, value: &str) {
        let place = COUNTERS.iter().position(|(_, known)| is_it(known));
        if let Some(slot) = place.and_then(|place| self.0.get_mut(place)) {
            *slot = value.trim().parse().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Ip: Forwarding InDelivers\nIp: 2 9282\nTcp: MaxConn ActiveOpens RetransSegs\nTcp: -1 153 4\n\
                        Udp: InDatagrams OutDatagrams\nUdp: 77 78\n";

    #[test]
    fn counters_are_found_by_name_in_any_order() {
        let snmp6 = "Udp6InDatagrams                 \t5\nUdp6OutDatagrams\t6\n";
        let netstat = "TcpExt: SyncookiesSent EmbryonicRsts\nTcpExt: 1 2\nIpExt: X\nIpExt: 9\n";
        let reading = Reading::parse(SNMP, snmp6, netstat).unwrap();
        let got =
            [Counter::UdpIn, Counter::Udp6Out, Counter::ActiveOpens, Counter::EmbryonicResets].map(|c| reading.get(c));
        assert_eq!(got, [Some(77), Some(6), Some(153), Some(2)]);
        assert_eq!(reading.get(Counter::RetransmitFails), None);
    }

    #[test]
    fn without_ipv6_the_rest_is_read() {
        assert_eq!(Reading::parse(SNMP, "", "").map(|r| r.get(Counter::Udp6In)), Some(None));
    }

    #[test]
    fn what_is_cut_or_torn_is_absent() {
        for end in 0..SNMP.len() {
            let cut = Reading::parse(&SNMP[..end], "", "");
            // a last number that lost digits cannot be told from a smaller one: only the last one can be wrong
            assert!(cut.is_none() || end >= SNMP.len() - 2, "{end}: {cut:?}");
        }
        for odd in [
            "Tcp: A B\nTcp: 1\n",
            "Udp: InDatagrams\nTcp: 1\n",
            "\u{0}\u{0}",
            "Udp:\nUdp:\n",
            "Udp: OutDatagrams\nUdp: 99999999999999999999999\n",
        ] {
            assert_eq!(Reading::parse(odd, odd, odd), None, "{odd:?}");
        }
    }

    #[test]
    fn this_machine_has_them_all() {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/net/{name}")).unwrap();
        let reading = Reading::parse(&read("snmp"), &read("snmp6"), &read("netstat")).unwrap();
        assert!(COUNTERS.iter().all(|(counter, _)| reading.get(*counter).is_some()), "{reading:?}");
    }
}
