//! Lines of `node/`, as the threads that look at the node find them.

use ktrace_bundle::manifest::{ClockSample, SourceReport};
use ktrace_bundle::writer::{BundleWriter, WriteError};

use super::Sink;
use crate::node::Line;

impl Sink {
    /// Begins the first look at the node, and waits for most of it.
    pub fn begin_node(&mut self, first: &ClockSample) {
        let Self { node, writer, failure, .. } = self;
        node.begin(first.clone(), &mut |line| write(writer, failure, &line));
    }

    /// Writes what was found meanwhile.
    pub fn turn_node(&mut self) {
        let Self { node, writer, failure, .. } = self;
        node.turn(&mut |line| write(writer, failure, &line));
    }

    /// Waits for the last look, and says how the sources did.
    pub fn finish_node(&mut self) -> Vec<SourceReport> {
        let Self { node, writer, failure, .. } = self;
        node.finish(&mut |line| write(writer, failure, &line))
    }
}

fn write(writer: &mut BundleWriter, failure: &mut Option<WriteError>, line: &Line) {
    if failure.is_none()
        && let Err(e) = writer.push_node_line(&line.text, line.is_of_network)
    {
        *failure = Some(e);
    }
}
