//! Two bounds and the size of a volume → how long `events.jsonl` may get, and whose bound that is.

use std::path::Path;

use ktrace_bundle::manifest::ByteBound;
use nix::sys::statvfs::statvfs;

use crate::plan::Plan;

/// Flag of the bound in bytes.
pub const MAX_BYTES: &str = "max-bytes";
/// Flag of the bound by the volume's size.
pub const MAX_DISK_SHARE: &str = "max-disk-share";

/// The smaller of `--max-bytes` and `--max-disk-share`. A volume that does not tell its size bounds nothing.
pub fn byte_bound(plan: &Plan) -> ByteBound {
    bound(plan, volume_bytes(&plan.out_dir))
}

fn bound(plan: &Plan, volume_bytes: Option<u64>) -> ByteBound {
    match volume_bytes.map(|size| plan.max_disk_share.of(size)) {
        Some(share) if share < plan.max_bytes => ByteBound { bytes: share, by: MAX_DISK_SHARE.into(), volume_bytes },
        _ => ByteBound { bytes: plan.max_bytes, by: MAX_BYTES.into(), volume_bytes },
    }
}

/// Size of the volume that `dir` is on.
fn volume_bytes(dir: &Path) -> Option<u64> {
    let volume = statvfs(dir).ok()?;
    volume.blocks().checked_mul(volume.fragment_size()).filter(|size| *size > 0)
}

/// What the events that the byte cap refused are to be told as.
pub fn reached(plan: &Plan, bound: &ByteBound, count: u64) -> String {
    let bytes = bound.bytes;
    match (bound.by == MAX_DISK_SHARE, plan.is_given(&bound.by)) {
        (true, given) => {
            let share = plan.max_disk_share;
            let of = if given { "" } else { ", which is the default" };
            let dir = plan.out_dir.display();
            format!(
                "{count} events were counted only: `--max-disk-share` was reached, {share} of the volume of `{dir}` ({bytes} bytes){of}"
            )
        }
        (false, true) => format!("{count} events were counted only: `--max-bytes` was reached ({bytes} bytes)"),
        (false, false) => format!("{count} events were counted only: the default of `--max-bytes` was reached"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Request, parse};

    fn plan(args: &[&str]) -> Plan {
        match parse([&["ktrace", "--node", "n1"], args].concat()).unwrap() {
            Request::Capture(args, origins) => Plan::from_args(&args, &origins).unwrap(),
            other => panic!("not a capture: {other:?}"),
        }
    }

    #[test]
    fn the_smaller_bound_is_the_one_that_holds() {
        let plan = plan(&["--max-bytes", "1MiB"]);
        let small = bound(&plan, Some(1 << 20));
        assert_eq!((small.bytes, small.by.as_str()), (314_572, MAX_DISK_SHARE));
        let large = bound(&plan, Some(1 << 30));
        assert_eq!((large.bytes, large.by.as_str(), large.volume_bytes), (1 << 20, MAX_BYTES, Some(1 << 30)));
        assert_eq!(bound(&plan, None).by, MAX_BYTES);
    }

    #[test]
    fn the_sentence_names_the_bound_and_whether_anybody_asked_for_it() {
        let by_default = plan(&[]);
        let told = |plan: &Plan, volume| reached(plan, &bound(plan, volume), 7);
        assert_eq!(
            told(&by_default, Some(1000)),
            "7 events were counted only: `--max-disk-share` was reached, 30% of the volume of `./out` (300 bytes), \
             which is the default"
        );
        assert_eq!(
            told(&plan(&["--max-disk-share=50%"]), Some(1000)),
            "7 events were counted only: `--max-disk-share` was reached, 50% of the volume of `./out` (500 bytes)"
        );
        assert_eq!(told(&by_default, None), "7 events were counted only: the default of `--max-bytes` was reached");
    }

    #[test]
    fn this_machine_tells_the_size_of_its_volumes() {
        assert!(volume_bytes(Path::new("/")).unwrap() > 1 << 20);
        assert_eq!(volume_bytes(Path::new("/proc")), None);
    }
}
