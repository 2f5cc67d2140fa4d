//! The cgroups of pods whose sockets were seen: what they may run, how often they were throttled, and how their memory did. The
//! names of version 1 are told as those of version 2.

use std::path::{Path, PathBuf};

use ktrace_bundle::node::{Cgroup, Counters, Item};

use super::pressure;
use crate::cgroup::{Hierarchy, Paths};
use crate::node::network::text;
use crate::node::out::Out;
use crate::node::rose::Rose;
use crate::node::seen::{Seen, busiest};

/// Cgroups that are looked at.
const MOST: usize = 512;
const MOST_BYTES: u64 = 16 << 10;
const MOST_COUNTERS: usize = 64;

/// Where the hierarchies are mounted that have the files.
#[derive(Debug, Default)]
pub struct Mounts {
    v2: Option<PathBuf>,
    cpu: Option<PathBuf>,
    memory: Option<PathBuf>,
}

impl Mounts {
    /// What `/proc/self/mountinfo` lists.
    pub fn read() -> Self {
        let mounts = procfs::process::Process::myself().and_then(|it| it.mountinfo());
        let mut found = Self::default();
        for mount in mounts.into_iter().flatten() {
            let has = |name: &str| mount.fs_type == "cgroup" && mount.super_options.contains_key(name);
            let places = [
                (&mut found.v2, mount.fs_type == "cgroup2"),
                (&mut found.cpu, has("cpu")),
                (&mut found.memory, has("memory")),
            ];
            for (place, _) in places.into_iter().filter(|(_, is_it)| *is_it) {
                place.get_or_insert_with(|| mount.mount_point.clone());
            }
        }
        found
    }

    /// The directories of a cgroup with the files of its CPU and of its memory.
    fn of(&self, hierarchy: Hierarchy, path: &str) -> [Option<PathBuf>; 2] {
        let below = path.trim_start_matches('/');
        let of = |root: &Option<PathBuf>| root.as_ref().map(|root| root.join(below));
        match hierarchy {
            Hierarchy::V2 => [of(&self.v2), of(&self.v2)],
            _ => [of(&self.cpu), of(&self.memory)],
        }
    }
}

/// Pairs of a name and a number.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().take(MOST_COUNTERS).filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

/// `cpu.stat`; version 1 tells the time in ns.
pub fn cpu_stat(text: &str) -> Counters {
    let rename = |(name, value)| match name {
        "throttled_time" => ("throttled_usec", value / 1000),
        other => (other, value),
    };
    pairs(text).map(rename).map(|(name, value)| (format!("cpu.{name}"), value)).collect()
}

/// `50000 100000` of `cpu.max`: quota and period, µs; `max`: as much as it likes.
pub fn cpu_max(text: &str) -> (Option<u64>, Option<u64>) {
    let mut words = text.split_ascii_whitespace();
    let mut number = || words.next().and_then(|word| word.parse().ok());
    (number(), number())
}

/// `memory.events`, or of version 1 `memory.oom_control`, which tells of kills.
pub fn memory_events(text: &str) -> Counters {
    let wanted = ["low", "high", "max", "oom", "oom_kill", "oom_group_kill"];
    let pairs = pairs(text).filter(|(name, _)| wanted.contains(name));
    pairs.map(|(name, value)| (format!("memory.{name}"), value)).collect()
}

/// Looks at those that were seen, the busiest first.
pub fn look(seen: &Seen, mounts: &Mounts, paths: &mut Paths, out: &mut Out, rose: &mut Rose) {
    let (cgroups, more) = busiest(&seen.cgroups, |count| *count, MOST);
    let mut left = cgroups.len() as u64;
    for (hierarchy, id) in cgroups {
        if out.is_late() {
            out.no_time("cgroups", Some(left));
            break;
        }
        left -= 1;
        let path = match paths.path_of(hierarchy, id) {
            Ok(path) => path,
            Err(why) => {
                out.absent(&format!("cgroup {id}"), why.text());
                continue;
            }
        };
        one(id, hierarchy, &path, mounts, out, rose);
    }
    out.no_room("cgroups", more);
}

fn one(id: u64, hierarchy: Hierarchy, path: &str, mounts: &Mounts, out: &mut Out, rose: &mut Rose) {
    let [cpu, memory] = mounts.of(hierarchy, path);
    let read = |dir: &Option<PathBuf>, name: &str| text(&dir.as_ref()?.join(name), MOST_BYTES).ok();
    let number = |dir, name| read(dir, name)?.trim().parse::<u64>().ok();
    let mut counters = cpu_stat(&read(&cpu, "cpu.stat").unwrap_or_default());
    let (quota_us, period_us) = match hierarchy {
        Hierarchy::V2 => cpu_max(&read(&cpu, "cpu.max").unwrap_or_default()),
        // without a quota it is -1
        _ => (number(&cpu, "cpu.cfs_quota_us"), number(&cpu, "cpu.cfs_period_us")),
    };
    let events = if hierarchy == Hierarchy::V2 { "memory.events" } else { "memory.oom_control" };
    counters.extend(memory_events(&read(&memory, events).unwrap_or_default()));
    counters.extend(number(&memory, "memory.failcnt").map(|it| ("memory.max".to_owned(), it)));
    counters.retain(|_, value| *value > 0);
    let path = path.chars().take(256).collect();
    let gained = rose.counters(out.when, ("cgroup", id), &counters);
    out.put(Item::Cgroup(Cgroup { cgroup_id: id, path, quota_us, period_us, counters, rose: gained }));
    if hierarchy == Hierarchy::V2 {
        pressure::look(cpu.as_deref().unwrap_or(Path::new("")), Some(id), out, rose);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(counters: Counters) -> Vec<(String, u64)> {
        counters.into_iter().collect()
    }

    #[test]
    fn both_versions_are_told_by_the_same_names() {
        let v2 = "usage_usec 9\nnr_periods 7\nnr_throttled 3\nthrottled_usec 5000\n";
        let v1 = "nr_periods 7\nnr_throttled 3\nthrottled_time 5000000\n";
        let mut new = cpu_stat(v2);
        new.remove("cpu.usage_usec");
        assert_eq!(told(cpu_stat(v1)), told(new));
        let expected = vec![("memory.oom_kill".to_owned(), 2)];
        assert_eq!(told(memory_events("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")), expected);
        assert_eq!(told(memory_events("oom_kill 2\nodd x\n")), expected);
    }

    #[test]
    fn a_cgroup_without_a_quota_may_run_as_much_as_it_likes() {
        assert_eq!(cpu_max("50000 100000\n"), (Some(50_000), Some(100_000)));
        assert_eq!(cpu_max("max 100000\n"), (None, Some(100_000)));
        assert_eq!(cpu_max(""), (None, None));
    }
}
