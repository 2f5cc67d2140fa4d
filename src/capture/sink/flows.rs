//! Lines of `flows.jsonl`, as flows end, and what the end of a capture adds.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::manifest::SourceReport;

use super::Sink;

impl Sink {
    /// One turn of the flows, at this boot time, ns.
    pub(super) fn turn_flows(&mut self, boot_ns: u64) {
        let since = Duration::from_nanos(boot_ns.saturating_sub(self.context.boot_ns));
        let lines = self.flows.turn(self.context.utc + since);
        self.write_flows(&lines);
    }

    /// Ends all flows, and fills `conntrack.json` and `services.json`. `end`: when the window closed.
    pub fn finish_flows(&mut self, end: DateTime<Utc>) -> SourceReport {
        let ended = self.flows.finish(end);
        self.write_flows(&ended.lines);
        self.writer.set_tracking(ended.tracking, ended.services);
        ended.source
    }

    fn write_flows(&mut self, lines: &[FlowRecord]) {
        for line in lines {
            if self.failure.is_none()
                && let Err(e) = self.writer.push_flow(line)
            {
                self.failure = Some(e);
            }
        }
    }
}
