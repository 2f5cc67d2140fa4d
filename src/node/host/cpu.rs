//! `/proc/stat`, `softirqs`, `interrupts` and `loadavg` → groups of counters.

use ktrace_bundle::node::{CounterGroup, Counters};

/// Columns of `cpu` in `/proc/stat`, in 10 ms (`USER_HZ` is 100 for all that read it).
const TIMES: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
/// Other lines of it.
const OTHERS: [&str; 4] = ["ctxt", "processes", "procs_running", "procs_blocked"];
/// Rows of `/proc/softirqs`.
const SOFTIRQS: [&str; 2] = ["NET_TX", "NET_RX"];

fn group(name: impl Into<String>, counters: Counters) -> CounterGroup {
    let mut counters = counters;
    counters.retain(|_, value| *value > 0);
    CounterGroup { group: name.into(), counters, ..CounterGroup::default() }
}

/// `cpu` and one for each of the first CPUs (`cpu.cpu0`), ms; `stat`: what else it counts.
pub fn stat(text: &str) -> Vec<CounterGroup> {
    let mut groups = Vec::new();
    let mut others = Counters::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(name) = words.next() else { continue };
        if name.starts_with("cpu") && groups.len() <= super::MOST_CPUS {
            let time =
                |(name, word): (&&str, &str)| Some(((*name).to_owned(), word.parse::<u64>().ok()?.checked_mul(10)?));
            let times = TIMES.iter().zip(words).filter_map(time).collect();
            groups.push(group(if name == "cpu" { name.to_owned() } else { format!("cpu.{name}") }, times));
        } else if OTHERS.contains(&name)
            && let Some(value) = words.next().and_then(|word| word.parse().ok())
        {
            others.insert(name.to_owned(), value);
        }
    }
    groups.push(group("stat", others));
    groups
}

/// CPUs of the heading of a table by CPU: `CPU0 CPU2`.
fn cpus(heading: &str, most: usize) -> Vec<&str> {
    heading.split_ascii_whitespace().filter_map(|word| word.strip_prefix("CPU")).take(most).collect()
}

/// `softirq.cpu0` and so on: what the network's ones did.
pub fn softirqs(text: &str, most: usize) -> Vec<CounterGroup> {
    let mut lines = text.lines();
    let cpus = cpus(lines.next().unwrap_or_default(), most);
    let mut counters = vec![Counters::new(); cpus.len()];
    for line in lines {
        let Some((name, values)) = line.split_once(':') else { continue };
        if !SOFTIRQS.contains(&name.trim()) {
            continue;
        }
        for (known, value) in counters.iter_mut().zip(values.split_ascii_whitespace()) {
            if let Ok(value) = value.parse() {
                known.insert(name.trim().to_owned(), value);
            }
        }
    }
    cpus.into_iter().zip(counters).map(|(cpu, counters)| group(format!("softirq.cpu{cpu}"), counters)).collect()
}

/// `interrupts`: how many each CPU had, all kinds added up.
pub fn interrupts(text: &str, most: usize) -> Vec<CounterGroup> {
    let mut lines = text.lines();
    let cpus = cpus(lines.next().unwrap_or_default(), most);
    let mut sums = vec![0_u64; cpus.len()];
    for line in lines {
        let Some((_, values)) = line.split_once(':') else { continue };
        // behind the numbers stands what the interrupt is for
        let values = values.split_ascii_whitespace().map_while(|word| word.parse::<u64>().ok());
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = sum.saturating_add(value));
    }
    let counters = cpus.into_iter().zip(sums).map(|(cpu, sum)| (format!("cpu{cpu}"), sum)).collect();
    vec![group("interrupts", counters)]
}

/// `0.52 0.41 0.30 2/310 4242` → `load`: averages times 100, and tasks that run and that there are.
pub fn load(text: &str) -> Vec<CounterGroup> {
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    let average = |at: usize| hundredths(words.get(at)?);
    let (running, total) = words.get(3).and_then(|it| it.split_once('/')).unwrap_or_default();
    let pairs = [
        ("load1", average(0)),
        ("load5", average(1)),
        ("load15", average(2)),
        ("running", running.parse().ok()),
        ("total", total.parse().ok()),
    ];
    vec![group("load", pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())]
}

/// `1.25` → 125: two digits behind the point, as the kernel writes them.
pub fn hundredths(text: &str) -> Option<u64> {
    let (whole, rest) = text.split_once('.')?;
    let rest: u64 = (rest.len() == 2).then(|| rest.parse().ok())??;
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(groups: &[CounterGroup]) -> Vec<(&str, Vec<(&str, u64)>)> {
        let pairs = |it: &'_ CounterGroup| it.counters.iter().map(|(k, v)| (k.clone(), *v)).collect::<Vec<_>>();
        let pairs = |it| pairs(it).into_iter().map(|(k, v)| (&*k.leak(), v)).collect();
        groups.iter().map(|it| (it.group.as_str(), pairs(it))).collect()
    }

    #[test]
    fn times_of_cpus_are_told_in_ms() {
        let text = "cpu  5 0 3 100 0 0 2 7 0 0\ncpu0 5 0 3\nintr 12345 1 2 3\nctxt 99\nprocs_running 0\n";
        assert_eq!(
            told(&stat(text)),
            [
                ("cpu", vec![("idle", 1000), ("softirq", 20), ("steal", 70), ("system", 30), ("user", 50)]),
                ("cpu.cpu0", vec![("system", 30), ("user", 50)]),
                ("stat", vec![("ctxt", 99)]),
            ]
        );
    }

    #[test]
    fn interrupts_are_added_up_by_cpu() {
        let text = "           CPU0       CPU2\n  1:  9  1  IO-APIC 1-edge 7 i8042\nNMI:  5\nERR: 0\nodd\n";
        assert_eq!(told(&interrupts(text, 8)), [("interrupts", vec![("cpu0", 14), ("cpu2", 1)])]);
        let text = "  CPU0 CPU2\n  TIMER: 3 4\n NET_TX: 1 0\n NET_RX: 7 8\n";
        let expected = [("softirq.cpu0", vec![("NET_RX", 7), ("NET_TX", 1)]), ("softirq.cpu2", vec![("NET_RX", 8)])];
        assert_eq!(told(&softirqs(text, 8)), expected);
        assert_eq!(softirqs(text, 1).len(), 1);
    }

    #[test]
    fn averages_are_told_times_100() {
        let expected = [("load1", 52), ("load15", 1230), ("load5", 41), ("running", 2), ("total", 310)];
        assert_eq!(told(&load("0.52 0.41 12.30 2/310 4242\n")), [("load", expected.to_vec())]);
        assert_eq!(["", "1", "1.5", "x.00", "-1.00", "1.000"].map(hundredths), [None; 6]);
    }
}
