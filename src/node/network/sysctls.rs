//! Settings of `/proc/sys` that decide what becomes of packets: of the network namespace that the thread is in, which is what
//! `/proc/sys/net` shows to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Settings on a line.
pub const ON_A_LINE: usize = 32;
/// Bytes of a value; one that is longer is cut.
const MOST_BYTES: u64 = 256;
/// Interfaces whose own settings are read, on the node and in another namespace.
const MOST_DEVICES: [usize; 2] = [64, 8];

/// Below `/proc/sys`, of each network namespace.
const OF_EACH: &[&str] = &[
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.src_valid_mark",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.fib_multipath_hash_policy",
    "net.ipv4.fib_multipath_use_neigh",
    "net.ipv4.icmp_ratelimit",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.ip_no_pmtu_disc",
    "net.core.somaxconn",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.all.forwarding",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
];

/// What the machine has once: the first namespace shows it.
const OF_THE_MACHINE: &[&str] = &[
    "net.core.netdev_max_backlog",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.default_qdisc",
    "net.ipv4.tcp_mem",
    "net.ipv4.udp_mem",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv6.neigh.default.gc_thresh1",
    "net.ipv6.neigh.default.gc_thresh2",
    "net.ipv6.neigh.default.gc_thresh3",
    "net.ipv6.route.max_size",
    "net.bridge.bridge-nf-call-iptables",
    "kernel.pid_max",
    "vm.swappiness",
    "vm.min_free_kbytes",
];

/// Settings by their names; those that are not there are absent.
pub fn read(root: &Path, is_node: bool, devices: &[String]) -> BTreeMap<String, String> {
    let [on_node, elsewhere] = MOST_DEVICES;
    let most = if is_node { on_node } else { elsewhere };
    let of_node: &[&str] = if is_node { OF_THE_MACHINE } else { &[] };
    let value = |name: &str| value(&root.join(name.replace('.', "/")));
    let mut values: BTreeMap<_, _> =
        OF_EACH.iter().chain(of_node).filter_map(|name| Some(((*name).to_owned(), value(name).ok()?))).collect();
    // a name with a dot is a VLAN's: its path has it as it is
    for dev in devices.iter().filter(|dev| !dev.contains('/') && *dev != "..").take(most) {
        let path = root.join("net/ipv4/conf").join(dev).join("rp_filter");
        values.extend(self::value(&path).ok().map(|value| (format!("net.ipv4.conf.{dev}.rp_filter"), value)));
    }
    values
}

/// With one space where there is white space.
fn value(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The first and last of `net.ipv4.ip_local_port_range`.
pub fn port_range(value: &str) -> Option<(u16, u16)> {
    let (low, high) = value.split_once(' ')?;
    Some((low.parse().ok()?, high.parse().ok()?)).filter(|(low, high)| low <= high)
}

/// How many ports of a range `net.ipv4.ip_local_reserved_ports` keeps: `8080,9148-9150`.
pub fn reserved(value: &str, (low, high): (u16, u16)) -> u64 {
    let of = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u16>().ok()?.max(low), last.trim().parse::<u16>().ok()?.min(high));
        Some(u64::from(last.checked_sub(first)?) + 1)
    };
    value.split(',').filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_their_names_and_what_is_not_there_is_absent() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("net/ipv4/ip_local_port_range", "32768\t60999\n");
        write("net/core/rmem_max", &"9".repeat(1000));
        write("net/ipv4/conf/eth0.7/rp_filter", "1\n");
        let devices = ["eth0.7", "eth1", "..", "a/b"].map(str::to_owned);
        let own = read(root.path(), false, &devices);
        let expected = [("net.ipv4.conf.eth0.7.rp_filter", "1"), ("net.ipv4.ip_local_port_range", "32768 60999")];
        assert_eq!(own.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
        assert_eq!(read(root.path(), true, &[])["net.core.rmem_max"].len(), 256);
    }

    #[test]
    fn only_reserved_ports_of_the_range_count() {
        assert_eq!(port_range("32768 60999"), Some((32768, 60999)));
        assert_eq!(["", "7", "9 8", "1 70000"].map(port_range), [None; 4]);
        assert_eq!(reserved("80,32767-32769,60999-65535,x,9-8,", (32768, 60999)), 3);
        assert_eq!(reserved("", (1, 2)), 0);
    }

    #[test]
    fn this_namespace_has_a_range_of_ports() {
        let values = read("/proc/sys".as_ref(), true, &["lo".into()]);
        assert!(port_range(&values["net.ipv4.ip_local_port_range"]).is_some());
        assert!(values.contains_key("net.ipv4.conf.lo.rp_filter"));
    }
}
