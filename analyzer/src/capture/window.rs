//! When the window opened and closed, by the best witness that the bundle has.

use chrono::{DateTime, Utc};
use ktrace_bundle::manifest::{Checkpoint, Head};

use super::Builder;

/// See the module.
pub(super) struct Window {
    pub(super) start_at: Option<DateTime<Utc>>,
    pub(super) end_at: Option<DateTime<Utc>>,
    pub(super) end_ns: u64,
    pub(super) duration_ns: u64,
}

impl Builder {
    pub(super) fn head(&self) -> Option<&Head> {
        self.manifest.as_ref().map(|m| &m.head).or_else(|| self.partial.as_ref().map(|p| &p.head))
    }

    fn checkpoint(&self) -> Option<&Checkpoint> {
        self.partial.as_ref().and_then(|p| p.checkpoint.as_ref())
    }

    pub(super) fn window(&self) -> Window {
        let last_ns = self.last.map_or(0, |l| l.1);
        let start_ns = self.head().map(|h| h.clocks.start_boot_ns).or(self.first.map(|f| f.1)).unwrap_or(0);
        let start_at = self.head().map(|h| h.start_at).or(self.first.map(|f| f.0));
        let by_checkpoint = self.checkpoint().filter(|c| c.boot_ns > last_ns).map(|c| (c.at, c.boot_ns));
        let (end_at, end_ns) = match &self.manifest {
            Some(m) => (Some(m.end_at), m.head.clocks.end_boot_ns.unwrap_or(start_ns.saturating_add(m.duration_ns))),
            None => match by_checkpoint.or(self.last) {
                Some((at, ns)) => (Some(at), ns),
                None => (None, start_ns),
            },
        };
        let duration_ns = self.manifest.as_ref().map_or(end_ns.saturating_sub(start_ns), |m| m.duration_ns);
        Window { start_at, end_at, end_ns, duration_ns }
    }
}
