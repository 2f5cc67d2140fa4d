//! The plan's filters → settings before load, and values in maps after it. `bpf/filter.bpf.h` reads both.

use libbpf_rs::{ErrorKind, Map, MapCore, MapFlags};

use super::skel::types::{kt_cgroup, kt_filter, kt_listed};
use super::skel::{KtraceSkel, OpenKtraceSkel, types};
use crate::cgroup::Hierarchy;
use crate::plan::filters::Listed;
use crate::plan::filters::cgroup::Cgroup;
use crate::plan::filters::cidr::Cidr;
use crate::plan::filters::home::{Answer, HomeFilter};
use crate::plan::{Plan, PortFilter};

/// Cgroups of which it is known whether filters by pod refuse them.
const MAX_HOMES: u32 = 1 << 14;
/// Sockets whose connect failed and has not returned yet.
const MAX_FAILED: u32 = 4096;

/// Whether a filter has wanted and whether it has unwanted values.
fn sides(plan: &Plan) -> Vec<(kt_filter, bool, bool)> {
    fn side<T>(filter: kt_filter, listed: &Listed<T>) -> (kt_filter, bool, bool) {
        (filter, !listed.wanted.is_empty(), !listed.unwanted.is_empty())
    }
    let ports = match &plan.filter {
        PortFilter::All => (kt_filter::KT_FILTER_PORTS, false, false),
        PortFilter::Dns(_) => (kt_filter::KT_FILTER_PORTS, true, false),
        PortFilter::Ports(listed) => side(kt_filter::KT_FILTER_PORTS, listed),
    };
    let filters = &plan.filters;
    vec![
        ports,
        side(kt_filter::KT_FILTER_CIDR, &filters.cidr),
        side(kt_filter::KT_FILTER_NETNS, &filters.netns),
        side(kt_filter::KT_FILTER_PID, &filters.pid),
        side(kt_filter::KT_FILTER_COMM, &filters.comm),
        side(kt_filter::KT_FILTER_CGROUP, &filters.cgroup),
        side(kt_filter::KT_FILTER_NAMESPACE, &filters.homes.namespace),
        side(kt_filter::KT_FILTER_POD, &filters.homes.pod),
        side(kt_filter::KT_FILTER_CONTAINER, &filters.homes.container),
    ]
}

fn bits(plan: &Plan, of: impl Fn(&(kt_filter, bool, bool)) -> bool) -> u32 {
    sides(plan).iter().filter(|side| of(side)).map(|(filter, ..)| 1 << filter.0).sum()
}

/// `kt_config.wants`.
pub fn wants(plan: &Plan) -> u32 {
    bits(plan, |(_, wanted, _)| *wanted)
}

/// `kt_config.refuses`.
pub fn refuses(plan: &Plan) -> u32 {
    bits(plan, |(_, _, unwanted)| *unwanted)
}

/// The bitmaps of ports.
pub fn set_ports(rodata: &mut types::rodata, plan: &Plan) {
    let mut set = |port: &u16, wanted: bool| {
        let bitmap = if wanted { &mut rodata.kt_ports } else { &mut rodata.kt_unwanted_ports };
        if let Some(word) = bitmap.get_mut(usize::from(port >> 6)) {
            *word |= 1 << (port & 63);
        }
    };
    plan.behind.ports.iter().for_each(|port| set(port, true));
    match &plan.filter {
        PortFilter::All => {}
        PortFilter::Dns(ports) => ports.iter().for_each(|port| set(port, true)),
        PortFilter::Ports(listed) => listed.iter().for_each(|(port, wanted)| set(port, wanted)),
    }
}

/// Room for the values; the maps of filters that are off keep the least size there is.
///
/// # Errors
/// The object is loaded already.
pub fn size_maps(open: &mut OpenKtraceSkel<'static>, plan: &Plan) -> libbpf_rs::Result<()> {
    let filters = &plan.filters;
    open.maps.filter_cidrs.set_max_entries(room(prefixes(&filters.cidr).len()))?;
    open.maps.filter_netns.set_max_entries(room(filters.netns.iter().count()))?;
    open.maps.filter_pids.set_max_entries(room(filters.pid.iter().count()))?;
    open.maps.filter_comms.set_max_entries(room(filters.comm.iter().count()))?;
    open.maps.filter_cgroups.set_max_entries(room(cgroups(&filters.cgroup).count()))?;
    open.maps.filter_homes.set_max_entries(if filters.homes.is_off() { 1 } else { MAX_HOMES })?;
    open.maps.failed_ends.set_max_entries(if plan.with_connect_latency { MAX_FAILED } else { 1 })
}

fn room(values: usize) -> u32 {
    u32::try_from(values.max(1)).unwrap_or(u32::MAX)
}

/// Puts the values into the maps.
///
/// # Errors
/// The kernel refused one.
pub fn fill(skel: &KtraceSkel<'static>, plan: &Plan) -> libbpf_rs::Result<()> {
    let filters = &plan.filters;
    for (key, listed) in prefixes(&filters.cidr) {
        skel.maps.filter_cidrs.update(&key, &[listed], MapFlags::ANY)?;
    }
    for (key, listed) in cgroups(&filters.cgroup) {
        skel.maps.filter_cgroups.update(&key, &[listed], MapFlags::ANY)?;
    }
    put(&skel.maps.filter_netns, &filters.netns, |inode| inode.to_ne_bytes())?;
    put(&skel.maps.filter_pids, &filters.pid, |pid| pid.to_ne_bytes())?;
    put(&skel.maps.filter_comms, &filters.comm, |comm| comm.0)
}

/// Says of a cgroup which filter by pod refuses it, or that none does. What is not known is not said.
///
/// # Errors
/// The kernel refused it; a map that is full is no error, as events of other cgroups are still sent to be asked about.
pub fn tell_home(
    skel: &KtraceSkel<'static>,
    (hierarchy, id): (Hierarchy, u64),
    answer: Answer,
) -> libbpf_rs::Result<()> {
    let filter = match answer {
        Answer::Unknown => return Ok(()),
        Answer::Passes => kt_filter::KT_FILTER_MAX,
        Answer::Refused(HomeFilter::Namespace) => kt_filter::KT_FILTER_NAMESPACE,
        Answer::Refused(HomeFilter::Pod) => kt_filter::KT_FILTER_POD,
        Answer::Refused(HomeFilter::Container) => kt_filter::KT_FILTER_CONTAINER,
    };
    match skel.maps.filter_homes.update(&cgroup_key(hierarchy, id), &[filter.0 as u8], MapFlags::ANY) {
        Err(e) if e.kind() != ErrorKind::TooBig => Err(e),
        _ => Ok(()),
    }
}

/// `struct kt_cgroup_key` and value of every cgroup.
fn cgroups(cgroups: &Listed<Cgroup>) -> impl Iterator<Item = ([u8; 16], u8)> {
    cgroups.iter().flat_map(|(cgroup, wanted)| {
        cgroup.ids.iter().map(move |(hierarchy, id)| (cgroup_key(*hierarchy, *id), listed(wanted)))
    })
}

/// `struct kt_cgroup_key`.
fn cgroup_key(hierarchy: Hierarchy, id: u64) -> [u8; 16] {
    let hierarchy = match hierarchy {
        Hierarchy::V2 => kt_cgroup::KT_CGROUP_V2,
        Hierarchy::V1Memory => kt_cgroup::KT_CGROUP_V1_MEMORY,
        Hierarchy::V1Pids => kt_cgroup::KT_CGROUP_V1_PIDS,
    };
    let mut key = [0; 16];
    let (left, right) = key.split_at_mut(8);
    left.copy_from_slice(&id.to_ne_bytes());
    right.copy_from_slice(&u64::from(hierarchy.0).to_ne_bytes());
    key
}

fn put<T: Ord, const N: usize>(
    map: &Map<'_>,
    values: &Listed<T>,
    key: impl Fn(&T) -> [u8; N],
) -> libbpf_rs::Result<()> {
    values.iter().try_for_each(|(value, wanted)| map.update(&key(value), &[listed(wanted)], MapFlags::ANY))
}

/// `enum kt_listed`.
const fn listed(wanted: bool) -> u8 {
    let listed = if wanted { kt_listed::KT_LISTED_WANTED } else { kt_listed::KT_LISTED_UNWANTED };
    listed.0 as u8
}

/// `struct kt_prefix` and value of every prefix. One that says nothing keeps IPv4 out of wide IPv6 prefixes.
fn prefixes(cidrs: &Listed<Cidr>) -> Vec<([u8; 20], u8)> {
    let mut all: Vec<_> = cidrs.iter().map(|(cidr, wanted)| (prefix(cidr), listed(wanted))).collect();
    let ipv4 = prefix(&Cidr::all_of_ipv4());
    if cidrs.iter().any(|(cidr, _)| cidr.swallows_ipv4()) && all.iter().all(|(key, _)| *key != ipv4) {
        all.push((ipv4, 0));
    }
    all
}

fn prefix(cidr: &Cidr) -> [u8; 20] {
    let (bits, addr) = cidr.mapped();
    let mut key = [0; 20];
    let (length, rest) = key.split_at_mut(4);
    length.copy_from_slice(&u32::from(bits).to_ne_bytes());
    rest.copy_from_slice(&addr);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::filters;

    #[test]
    fn a_wide_ipv6_prefix_leaves_ipv4_alone_unless_that_is_listed() {
        let keys = |text: &str| prefixes(&filters::cidr(text).unwrap()).len();
        assert_eq!(keys("::/0"), 2);
        assert_eq!(keys("::/0,!0.0.0.0/0"), 2);
        assert_eq!(keys("::/0,10.0.0.0/8"), 3);
        assert_eq!(keys("fd00::/8"), 1);
    }
}
