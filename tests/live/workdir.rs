//! A directory for one test. It goes away with the test, unless the test failed: then its path is printed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "live-";

/// Removed on drop.
#[derive(Debug)]
pub struct Workdir(PathBuf);

impl Workdir {
    /// A new, empty directory under cargo's directory for the files of tests.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Path of `name` in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("KTRACE_LIVE_KEEP").is_some() {
            eprintln!("kept: {}", self.0.display());
        } else if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {e}", self.0.display());
        }
    }
}

/// What runs have kept whose process is gone.
pub fn of_the_dead() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(env!("CARGO_TARGET_TMPDIR")).into_iter().flatten().flatten();
    let is_dead = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    entries.map(|entry| entry.path()).filter(is_dead).collect()
}

/// Removes what failed runs have kept, once their process is gone.
pub fn sweep() {
    for path in of_the_dead() {
        // what cannot be removed now is tried again by the next run
        let _ = std::fs::remove_dir_all(path);
    }
}
