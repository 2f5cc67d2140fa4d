//! Rows of what the kernel throws away → records, when the second that a row adds up is over and no program adds to it any
//! more. Between the map of `bpf/hooks/drop.bpf.c` and the event path.

use libbpf_rs::{MapCore, MapFlags};

use super::session::SessionError;
use super::skel::types::kt_drop_key;
use crate::hooks::wire;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Takes the rows out of the map whose second is over at this boot time by more than one, which no program takes to run;
/// `None`: all of them. `on_record` gets their bytes.
///
/// # Errors
/// The map could not be read.
pub fn take(map: &impl MapCore, now: Option<u64>, mut on_record: impl FnMut(&[u8])) -> Result<(), SessionError> {
    let failed = || SessionError::map("cannot read what was thrown away");
    let before = now.map(|ns| (ns / NS_PER_SECOND).saturating_sub(1));
    let mut over = Vec::new();
    for key in map.keys() {
        let kt_drop_key { second, .. } = wire::read(&key)?;
        if before.is_none_or(|before| u64::from(second) < before) {
            over.push(key);
        }
    }
    for key in over {
        // only this thread takes rows out
        if let Some(row) = map.lookup(&key, MapFlags::ANY).map_err(failed())? {
            on_record(&row);
            map.delete(&key).map_err(failed())?;
        }
    }
    Ok(())
}
