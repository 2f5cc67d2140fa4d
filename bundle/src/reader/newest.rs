//! A directory that holds bundles, such as `./out` → the newest of them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, NaiveDateTime, Utc};

/// The newest `*.bundle.tgz` in `dir`, or the loose directory of a run that left no tgz.
///
/// New means the time in the name (`ktrace.<node>.<YYYYmmddTHHMMSSZ>`, then its `-2`, `-3`); of a renamed
/// bundle it is the time of its last change. `None` if there is no bundle or `dir` cannot be read.
pub fn newest_bundle(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    entries.filter_map(|e| candidate(&e.ok()?.path())).max().map(|(_, path)| path)
}

type Age = (DateTime<Utc>, u32);

fn candidate(path: &Path) -> Option<(Age, PathBuf)> {
    let name = path.file_name()?.to_str()?;
    let meta = std::fs::symlink_metadata(path).ok()?;
    let stem = match name.strip_suffix(".bundle.tgz") {
        Some(stem) if meta.is_file() => stem,
        None if meta.is_dir() && is_unpacked_only(path, name) => name,
        _ => return None,
    };
    let age = age_in_name(stem).or_else(|| Some((meta.modified().map(to_utc).ok()?, 0)))?;
    Some((age, path.to_owned()))
}

fn is_unpacked_only(dir: &Path, name: &str) -> bool {
    dir.join("events.jsonl").is_file() && !dir.with_file_name(format!("{name}.bundle.tgz")).exists()
}

fn to_utc(time: SystemTime) -> DateTime<Utc> {
    time.into()
}

fn age_in_name(stem: &str) -> Option<Age> {
    let (_, stamp) = stem.rsplit_once('.')?;
    let (stamp, suffix) = match stamp.split_once('-') {
        Some((stamp, n)) => (stamp, n.parse().ok()?),
        None => (stamp, 1),
    };
    let at = NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ").ok()?;
    Some((at.and_utc(), suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bundle_is_found_by_the_time_in_its_name() {
        let out = tempfile::tempdir().unwrap();
        assert_eq!(newest_bundle(out.path()), None);
        for name in [
            "ktrace.zeta.20260124T215754Z.bundle.tgz",
            "ktrace.a.b.20260124T215755Z.bundle.tgz",
            "ktrace.a.b.20260124T215755Z-2.bundle.tgz",
            "ktrace.a.20260124T230000Z.bundle.tgz.partial",
            "notes.txt",
        ] {
            std::fs::write(out.path().join(name), "").unwrap();
        }
        let newest = out.path().join("ktrace.a.b.20260124T215755Z-2.bundle.tgz");
        assert_eq!(newest_bundle(out.path()), Some(newest));
    }

    #[test]
    fn a_crashed_run_counts_and_a_sealed_one_is_its_tgz() {
        let out = tempfile::tempdir().unwrap();
        let (crashed, sealed) = ("ktrace.a.20260124T215754Z", "ktrace.a.20260124T215753Z");
        for name in [crashed, sealed] {
            std::fs::create_dir(out.path().join(name)).unwrap();
            std::fs::write(out.path().join(name).join("events.jsonl"), "").unwrap();
        }
        std::fs::write(out.path().join(format!("{sealed}.bundle.tgz")), "").unwrap();
        assert_eq!(newest_bundle(out.path()), Some(out.path().join(crashed)));
        std::fs::remove_dir_all(out.path().join(crashed)).unwrap();
        assert_eq!(newest_bundle(out.path()), Some(out.path().join(format!("{sealed}.bundle.tgz"))));
    }
}
