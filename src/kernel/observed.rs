//! The audit's maps → what the hooks saw in each network namespace.

use libbpf_rs::{MapCore, MapFlags};

use super::session::{Session, SessionError};
use super::skel::types::kt_audit_counts;
use crate::audit::{Observed, Seen};
use crate::hooks::wire;

impl Session {
    /// What the hooks saw since the gate opened, by namespace, summed over CPUs; and what they saw in namespaces for
    /// which the map had no room.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn observed(&self) -> Result<(Vec<Observed>, Seen), SessionError> {
        let what = "cannot read the audit's counts";
        let mut rows = Vec::new();
        for key in self.skel.maps.audit.keys() {
            let Some(id) = key.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)) else { continue };
            let per_cpu = self.skel.maps.audit.lookup_percpu(&key, MapFlags::ANY);
            let (netns, seen) = sum(per_cpu.map_err(SessionError::map(what))?.unwrap_or_default())?;
            rows.push(Observed { id, netns, seen });
        }
        let rest = self.skel.maps.audit_rest.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY);
        let (_, rest) = sum(rest.map_err(SessionError::map(what))?.unwrap_or_default())?;
        Ok((rows, rest))
    }
}

/// Only the CPU that made the entry knows the namespace.
fn sum(per_cpu: Vec<Vec<u8>>) -> Result<(u32, Seen), SessionError> {
    let mut total = (0, Seen::default());
    for cpu in per_cpu {
        let kt_audit_counts { counts, netns, reserved: _ } = wire::read(&cpu)?;
        total.0 = total.0.max(netns);
        total.1.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
    }
    Ok(total)
}
