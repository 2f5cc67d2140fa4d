//! Lines of the members beside the events: each is one record that says its version.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Record;
use crate::coverage::LossRecord;
use crate::event::LINE_VERSION;
use crate::flow::FlowRecord;
use crate::line::LineError;
use crate::node::{Item, NodeRecord};
use crate::process::ProcessRecord;
use crate::workload::WorkloadRecord;

/// A record that is a line by itself.
pub(super) trait Side: DeserializeOwned {
    /// Its version of the contract.
    fn version(&self) -> u32;

    /// As the reader hands it on.
    fn into_record(self) -> Record;

    /// Reads one.
    ///
    /// # Errors
    /// If it is none, or of a newer version.
    fn of(text: &[u8]) -> Result<Self, LineError> {
        let record: Self = serde_json::from_slice(text)?;
        let version = record.version();
        if version > LINE_VERSION { Err(LineError::Version(version)) } else { Ok(record) }
    }
}

macro_rules! sides {
    ($($type:ty: $record:ident => $into:expr;)*) => {
        $(impl Side for $type {
            fn version(&self) -> u32 {
                self.v
            }

            fn into_record(self) -> Record {
                let $record = self;
                $into
            }
        })*
    };
}

sides! {
    LossRecord: it => Record::Loss(it);
    WorkloadRecord: it => Record::Workload(it);
    ProcessRecord: it => Record::Process(Box::new(it));
    FlowRecord: it => Record::Flow(Box::new(it));
}

/// What every version of a line of `node/` has.
#[derive(Deserialize)]
struct Headed<'a> {
    v: u32,
    #[serde(borrow)]
    item: Cow<'a, str>,
}

impl Side for NodeRecord {
    fn version(&self) -> u32 {
        self.v
    }

    fn into_record(self) -> Record {
        Record::Node(Box::new(self))
    }

    fn of(text: &[u8]) -> Result<Self, LineError> {
        let head: Headed = serde_json::from_slice(text)?;
        match () {
            () if head.v > LINE_VERSION => Err(LineError::Version(head.v)),
            () if !Item::NAMES.contains(&head.item.as_ref()) => Err(LineError::UnknownType(head.item.into_owned())),
            () => Ok(serde_json::from_slice(text)?),
        }
    }
}
