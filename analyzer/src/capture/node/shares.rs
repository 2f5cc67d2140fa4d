//! Counters of the machine as shares of the window: who waited, and where the CPUs' time went.

use super::Node;
use crate::units::share;

/// Times of `/proc/stat`; those of guests are in `user` and `nice`, too.
const CPU_TIMES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// Shares of the window in which tasks waited for something, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waiting {
    /// Some task waited.
    pub some: f64,
    /// All tasks waited; `None` where the kernel does not tell.
    pub full: Option<f64>,
}

impl Node {
    /// How much of the window tasks of a cgroup, or with `None` of the machine, waited for `cpu`, `memory` or `io`.
    pub fn waited(&self, cgroup: Option<u64>, resource: &str) -> Option<Waiting> {
        let p = self.pressure.get(&(cgroup, resource.to_owned()))?.over_window()?;
        let elapsed = p.elapsed_us.filter(|us| *us > 0)?;
        Some(Waiting { some: share(p.some_rose_us?, elapsed), full: p.full_rose_us.map(|us| share(us, elapsed)) })
    }

    /// The share of the CPUs' time that went there: `idle`, `steal` and so on.
    pub fn cpu_share(&self, time: &str) -> Option<f64> {
        let rose = |time: &str| self.rose("cpu", time);
        let all = CPU_TIMES.iter().filter_map(|t| rose(t)).fold(0_u64, u64::saturating_add);
        (all > 0).then(|| share(rose(time).unwrap_or(0), all))
    }

    /// Tasks that ran or waited, as an average of the last minute, and the number of CPUs.
    pub fn load(&self) -> Option<(f64, u64)> {
        let load = self.value("load", "load1")?;
        let cpus = self.system.latest().map(|s| s.cpu_count).filter(|n| *n > 0)?;
        Some((load as f64 / 100.0, cpus))
    }
}
