//! Where the time of a run goes: CI has a limit, and the tests wait for a real machine.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Tests that a run ends with.
const TOLD: usize = 25;

static TOOK: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Runs what shows the behaviour of this name.
pub fn take(name: String, run: impl FnOnce()) {
    let begin = Instant::now();
    run();
    TOOK.lock().unwrap().push((begin.elapsed(), name));
}

/// Tells which tests that passed took longest, if there were many.
pub fn tell() {
    let mut took = TOOK.lock().unwrap();
    if took.len() <= TOLD {
        return;
    }
    let all: Duration = took.iter().map(|it| it.0).sum();
    took.sort_unstable_by(|a, b| b.cmp(a));
    eprintln!("{} tests took {} s, the longest of them:", took.len(), all.as_secs());
    took.iter().take(TOLD).for_each(|(time, name)| eprintln!("{:7.1} s  {name}", time.as_secs_f64()));
}
