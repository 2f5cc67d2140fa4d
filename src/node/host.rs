//! What the machine has once: counters and levels of CPU and memory, pressure, the clock, the system; and what its pods have each:
//! their cgroups and resolvers. What can hang, a pod's own file, comes last.

pub mod cgroups;
pub mod cpu;
pub mod memory;
pub mod pressure;
pub mod resolver;
pub mod system;

use std::path::Path;

use ktrace_bundle::node::{CounterGroup, Item};

use super::network::{put_group, tables, text};
use super::out::Out;
use super::rose::Rose;

/// Most bytes of a file that are read: `interrupts` of a machine with hundreds of CPUs is some MiB.
const MOST_BYTES: u64 = 8 << 20;
/// CPUs that are told one by one.
const MOST_CPUS: usize = 256;

/// What reads a file of `/proc`.
type Reader = fn(&str) -> Vec<CounterGroup>;
const FILES: [(&str, Reader); 7] = [
    ("stat", cpu::stat),
    ("net/softnet_stat", |text| tables::softnet(text, MOST_CPUS)),
    ("softirqs", |text| cpu::softirqs(text, MOST_CPUS)),
    ("interrupts", |text| cpu::interrupts(text, MOST_CPUS)),
    ("loadavg", cpu::load),
    ("meminfo", memory::meminfo),
    ("vmstat", memory::vmstat),
];

/// Looks at the machine; `root`: the host's root directory.
pub fn look(root: &Path, out: &mut Out, rose: &mut Rose) {
    out.at(None);
    files(Path::new("/proc"), out, rose);
    pressure::look(Path::new("/proc/pressure"), None, out, rose);
    match system::clock(Path::new("/sys")) {
        Ok(clock) => out.put(Item::Clock(clock)),
        Err(e) => out.absent("adjtimex", e),
    }
    out.put(Item::System(system::look(Path::new("/proc"), Path::new("/sys"), root)));
}

fn files(proc: &Path, out: &mut Out, rose: &mut Rose) {
    for (name, read) in FILES {
        match text(&proc.join(name), MOST_BYTES) {
            Ok(text) => read(&text).into_iter().for_each(|group| put_group(group, out, rose)),
            Err(e) => out.absent(&format!("/proc/{name}"), e),
        }
    }
}
