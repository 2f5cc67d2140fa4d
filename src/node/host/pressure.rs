//! Pressure stall information, of the machine (`/proc/pressure`) or of a cgroup.

use std::path::Path;
use std::time::Duration;

use ktrace_bundle::event::When;
use ktrace_bundle::node::{Item, Pressure};

use super::cpu::hundredths;
use crate::node::network::text;
use crate::node::out::Out;
use crate::node::rose::Rose;

const MOST_BYTES: u64 = 4 << 10;
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// `some avg10=0.12 avg60=0.00 avg300=0.00 total=4242`, and the same of `full`. `None`: it does not say how long some waited.
pub fn read(resource: &str, text: &str) -> Option<Pressure> {
    let field = |kind: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    Some(Pressure {
        resource: resource.to_owned(),
        some_total_us: field("some", "total")?.parse().ok()?,
        full_total_us: field("full", "total").and_then(|it| it.parse().ok()),
        some_avg10: field("some", "avg10").and_then(hundredths)?,
        some_avg60: field("some", "avg60").and_then(hundredths)?,
        ..Pressure::default()
    })
}

/// Looks below a directory: of a cgroup its own one, where files are called `cpu.pressure`.
pub fn look(dir: &Path, cgroup_id: Option<u64>, out: &mut Out, rose: &mut Rose) {
    for resource in RESOURCES {
        let name = if cgroup_id.is_some() { format!("{resource}.pressure") } else { resource.to_owned() };
        let path = dir.join(&name);
        let what = if cgroup_id.is_some() { name } else { path.display().to_string() };
        match text(&path, MOST_BYTES).map(|text| read(resource, &text)) {
            Ok(Some(pressure)) => out.put(Item::Pressure(risen(Pressure { cgroup_id, ..pressure }, out, rose))),
            Ok(None) => out.absent(&what, "it does not say what it should"),
            // of cgroups there are many, and the machine's line says it once for all of them
            Err(_) if cgroup_id.is_some() => {}
            Err(e) => out.absent(&what, e),
        }
    }
}

fn risen(mut it: Pressure, out: &Out, rose: &mut Rose) -> Pressure {
    let key = |kind| ("pressure", it.cgroup_id, it.resource.clone(), kind);
    it.some_rose_us = rose.one(out.when, key("some"), it.some_total_us);
    it.full_rose_us = it.full_total_us.and_then(|total| rose.one(out.when, key("full"), total));
    let now = Duration::from_nanos(crate::clock::boot_ns()).as_micros();
    let elapsed = rose.one(out.when, key("time"), u64::try_from(now).unwrap_or(0));
    it.elapsed_us = elapsed.filter(|_| out.when == When::End);
    it
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_with_its_averages_times_100() {
        let text =
            "some avg10=1.25 avg60=0.50 avg300=0.00 total=4242\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let expected = Pressure {
            resource: "io".into(),
            some_total_us: 4242,
            full_total_us: Some(7),
            some_avg10: 125,
            some_avg60: 50,
            ..Pressure::default()
        };
        assert_eq!(read("io", text), Some(expected));
        let some = text.lines().next().unwrap();
        assert_eq!(read("cpu", some).unwrap().full_total_us, None);
        for end in 0..some.len() - 3 {
            assert_eq!(read("cpu", &some[..end]), None, "{end}");
        }
        assert_eq!(read("cpu", "full avg10=0.00 avg60=0.00 avg300=0.00 total=7"), None);
    }
}
