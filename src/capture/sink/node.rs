//! Lines of `node/`, as the threads that look at the node find them.

use ktrace_bundle::manifest::{ClockSample, SourceReport};
use ktrace_bundle::node::NodeRecord;
use ktrace_bundle::writer::{BundleWriter, WriteError};

use super::Sink;

impl Sink {
    /// Begins the first look at the node, and waits for most of it.
    pub fn begin_node(&mut self, first: &ClockSample) {
        let Self { node, writer, failure, .. } = self;
        node.begin(first.clone(), &mut |record| write(writer, failure, &record));
    }

    /// Writes what was found meanwhile.
    pub fn turn_node(&mut self) {
        let Self { node, writer, failure, .. } = self;
        node.turn(&mut |record| write(writer, failure, &record));
    }

    /// Waits for the last look, and says how the sources did.
    pub fn finish_node(&mut self) -> Vec<SourceReport> {
        let Self { node, writer, failure, .. } = self;
        node.finish(&mut |record| write(writer, failure, &record))
    }
}

fn write(writer: &mut BundleWriter, failure: &mut Option<WriteError>, record: &NodeRecord) {
    if failure.is_none()
        && let Err(e) = writer.push_node(record)
    {
        *failure = Some(e);
    }
}
