//! The text files of `/proc/net` and `/proc` that are tables of counters → groups. Whatever the text says, a counter is a number or
//! absent; those that are 0 are left out.

use ktrace_bundle::node::{CounterGroup, Counters};

/// Groups of one file, and counters of one group; the kernel has some 10 and 150.
const MOST_GROUPS: usize = 64;
const MOST_COUNTERS: usize = 512;
/// Groups of `/proc/net/snmp6` by the beginning of its names, the longer ones first.
const SNMP6: [&str; 4] = ["UdpLite6", "Icmp6", "Udp6", "Ip6"];

fn group(name: impl Into<String>, counters: impl Iterator<Item = (String, u64)>) -> CounterGroup {
    let counters: Counters = counters.filter(|(_, value)| *value > 0).take(MOST_COUNTERS).collect();
    CounterGroup { group: name.into(), counters, ..CounterGroup::default() }
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `snmp`, `netstat`: `Tcp: ActiveOpens PassiveOpens` over `Tcp: 12 7`. What is below 0, such as `MaxConn`, is left out.
pub fn in_two_lines(text: &str) -> Vec<CounterGroup> {
    let mut groups = Vec::new();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((name, names)), Some((again, values))) = (names.split_once(": "), values.split_once(": ")) else {
            continue;
        };
        let [names, values] = [names, values].map(|it| it.split_ascii_whitespace().collect::<Vec<_>>());
        if name != again || names.len() != values.len() {
            continue;
        }
        // most are 0
        let pairs = names.into_iter().zip(values).filter(|(_, value)| *value != "0");
        groups.push(group(name, pairs.filter_map(|(name, value)| Some((name.to_owned(), number(value)?)))));
        if groups.len() >= MOST_GROUPS {
            break;
        }
    }
    groups
}

/// `snmp6`: `Ip6InReceives 12` is `InReceives` of `Ip6`.
pub fn snmp6(text: &str) -> Vec<CounterGroup> {
    let of = |wanted: &'static str| {
        let pairs = text.lines().filter_map(move |line| {
            let (name, value) = line.split_once([' ', '\t'])?;
            let prefix = SNMP6.into_iter().find(|prefix| name.starts_with(prefix)).filter(|it| *it == wanted)?;
            Some((name.strip_prefix(prefix)?.to_owned(), number(value)?))
        });
        group(wanted, pairs)
    };
    SNMP6.into_iter().map(of).collect()
}

/// `sockstat`, `sockstat6`: `TCP: inuse 5 orphan 0` is `inuse` of `sockstat.TCP`.
pub fn sockstat(text: &str) -> Vec<CounterGroup> {
    let of = |line: &str| {
        let (name, rest) = line.split_once(": ")?;
        let words: Vec<_> = rest.split_ascii_whitespace().collect();
        let pairs = words.chunks_exact(2).filter_map(|pair| match pair {
            [name, value] => Some(((*name).to_owned(), number(value)?)),
            _ => None,
        });
        let group = group(format!("sockstat.{name}"), pairs);
        (name.len() <= 32 && !group.counters.is_empty()).then_some(group)
    };
    text.lines().take(MOST_GROUPS).filter_map(of).collect()
}

/// Columns of `softnet_stat` (`softnet_seq_show`).
const SOFTNET: [(usize, &str); 6] = [
    (0, "processed"),
    (1, "dropped"),
    (2, "time_squeeze"),
    (9, "received_rps"),
    (10, "flow_limit_count"),
    (11, "backlog_len"),
];

/// `softnet_stat`: one line of hexadecimal columns for each CPU that is online, with its number from Linux 5.10 on.
pub fn softnet(text: &str, most_cpus: usize) -> Vec<CounterGroup> {
    let mut sum = Counters::new();
    let mut groups = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let columns: Vec<_> = line.split_ascii_whitespace().map(|it| u64::from_str_radix(it, 16).ok()).collect();
        let column = |at: usize| columns.get(at).copied().flatten();
        if column(2).is_none() {
            continue;
        }
        let cpu = column(12).unwrap_or(place as u64);
        let pairs = SOFTNET.iter().filter_map(|(at, name)| Some(((*name).to_owned(), column(*at)?)));
        let group = group(format!("softnet.cpu{cpu}"), pairs);
        for (name, value) in &group.counters {
            let total = sum.entry(name.clone()).or_default();
            *total = total.saturating_add(*value);
        }
        groups.push(group);
    }
    groups.truncate(most_cpus);
    groups.insert(0, CounterGroup { group: "softnet".into(), counters: sum, ..CounterGroup::default() });
    groups
}

/// Columns of `ip_vs_stats_percpu` (`ip_vs_stats_percpu_show`), behind the number of the CPU.
const IPVS: [&str; 5] = ["conns", "in_packets", "out_packets", "in_bytes", "out_bytes"];

/// `ip_vs_stats_percpu`: what all services together have counted, hexadecimal, one line for each CPU. The totals that stand
/// there, too, are as of up to two seconds before: they are left alone, and so are the rates.
pub fn ipvs(text: &str) -> Vec<CounterGroup> {
    let mut sum = [0_u64; IPVS.len()];
    let mut has_counted = false;
    for line in text.lines() {
        let columns = line.split_ascii_whitespace().map(|it| u64::from_str_radix(it, 16).ok());
        let Some([_cpu, counts @ ..]) =
            columns.collect::<Option<Vec<_>>>().and_then(|it| <[u64; 6]>::try_from(it).ok())
        else {
            continue;
        };
        has_counted = true;
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum = sum.saturating_add(count);
        }
    }
    let groups = has_counted.then(|| group("ipvs", IPVS.into_iter().map(str::to_owned).zip(sum)));
    groups.into_iter().collect()
}

/// What is a level, and has no difference: the whole group.
pub fn is_level(group: &str) -> bool {
    group.starts_with("sockstat") || ["meminfo", "load"].contains(&group)
}

/// The counters of a group that count, without its levels.
pub fn counting(group: &CounterGroup) -> Counters {
    const LEVELS: [&str; 7] =
        ["backlog_len", "CurrEstab", "Forwarding", "DefaultTTL", "procs_running", "procs_blocked", "RtoMin"];
    let mut counters = group.counters.clone();
    counters.retain(|name, _| !LEVELS.contains(&name.as_str()));
    counters
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(groups: &[CounterGroup]) -> Vec<(String, Vec<(&str, u64)>)> {
        let pairs =
            |it: &CounterGroup| it.counters.iter().map(|(name, value)| (name.clone(), *value)).collect::<Vec<_>>();
        let leak = |name: String| &*name.leak();
        groups
            .iter()
            .map(|it| (it.group.clone(), pairs(it).into_iter().map(|(name, value)| (leak(name), value)).collect()))
            .collect()
    }

    #[test]
    fn counters_are_read_by_their_names_and_zeros_are_left_out() {
        let text =
            "Ip: Forwarding InDelivers X\nIp: 2 9282 0\nTcp: MaxConn ActiveOpens\nTcp: -1 153\nOdd: A B\nOdd: 1\n";
        let expected = [
            ("Ip".to_owned(), vec![("Forwarding", 2), ("InDelivers", 9282)]),
            ("Tcp".to_owned(), vec![("ActiveOpens", 153)]),
        ];
        assert_eq!(told(&in_two_lines(text)), expected);
        let text = "       Total Incoming Outgoing         Incoming         Outgoing\nCPU    Conns  Packets  Packets            \
            Bytes            Bytes\n  0        3       1B        0              6A4                0\n  A        1        2        0              \
            6A4                0\n  ~        2        2        0                2                0\n\n     Conns/s   Pkts/s   Pkts/s          \
            Bytes/s          Bytes/s\n           1        1        1                1                1\n";
        let sum = vec![("conns", 4), ("in_bytes", 2 * 0x6a4), ("in_packets", 0x1d)];
        assert_eq!(told(&ipvs(text)), [("ipvs".to_owned(), sum)]);
        assert_eq!(told(&ipvs("  0 0 0 0 0 0\n")), [("ipvs".to_owned(), vec![])]);
        for other in ["", "\n\n", "0 1 2 3 4\n", "0 1 2 3 4 x\n", "0 1 2 3 4 5 6\n"] {
            assert_eq!(told(&ipvs(other)), []);
        }
        let text =
            "Ip6InReceives    \t12\nIcmp6InMsgs 1\nUdp6InDatagrams\t3\nUdpLite6InDatagrams 4\nOther 5\nIp6Odd x\n";
        let expected = [
            ("UdpLite6", 4, "InDatagrams"),
            ("Icmp6", 1, "InMsgs"),
            ("Udp6", 3, "InDatagrams"),
            ("Ip6", 12, "InReceives"),
        ];
        assert_eq!(told(&snmp6(text)), expected.map(|(group, value, name)| (group.to_owned(), vec![(name, value)])));
    }

    #[test]
    fn sockets_in_use_are_levels() {
        let text = "sockets: used 290\nTCP: inuse 5 orphan 0 tw 7 alloc\nUDP: inuse 0\n";
        let expected = [
            ("sockstat.sockets".to_owned(), vec![("used", 290)]),
            ("sockstat.TCP".to_owned(), vec![("inuse", 5), ("tw", 7)]),
        ];
        assert_eq!(told(&sockstat(text)), expected);
        assert!(is_level("sockstat.TCP") && is_level("meminfo") && !is_level("TcpExt"));
    }

    #[test]
    fn softnet_is_told_by_cpu_and_added_up_also_by_old_kernels() {
        let new = "000000ff 00000002 00000001 0 0 0 0 0 0 00000000 00000000 00000000 00000000 0 0\n\
                   00000001 00000001 00000000 0 0 0 0 0 0 00000000 00000000 00000005 00000003 0 0\n";
        let groups = softnet(new, 8);
        assert_eq!(
            told(&groups),
            [
                (
                    "softnet".to_owned(),
                    vec![("backlog_len", 5), ("dropped", 3), ("processed", 256), ("time_squeeze", 1)]
                ),
                ("softnet.cpu0".to_owned(), vec![("dropped", 2), ("processed", 255), ("time_squeeze", 1)]),
                ("softnet.cpu3".to_owned(), vec![("backlog_len", 5), ("dropped", 1), ("processed", 1)]),
            ]
        );
        assert_eq!(counting(&groups[2]).len(), 2);
        let old = "00000001 00000000 00000000 0 0 0 0 0 0 00000000 00000000\n";
        assert_eq!(told(&softnet(old, 8))[1], ("softnet.cpu0".to_owned(), vec![("processed", 1)]));
        assert_eq!(softnet(new, 1).len(), 2);
    }

    proptest! {
        #[test]
        fn any_text_is_groups_of_bounded_size(text in "(\\PC{0,40}[: \n]){0,40}") {
            let groups = [in_two_lines(&text), snmp6(&text), sockstat(&text), softnet(&text, 4)].concat();
            prop_assert!(groups.iter().all(|it| it.counters.len() <= MOST_COUNTERS));
        }
    }
}
