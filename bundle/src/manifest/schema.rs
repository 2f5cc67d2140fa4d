//! Which document it is, and of which version.

use serde::{Deserialize, Serialize};

/// Name of the bundle schema in `schema.name`.
pub const SCHEMA_NAME: &str = "ktrace-bundle";

/// Version of the bundle schema that this crate writes, and the newest that it reads.
pub const SCHEMA_VERSION: u32 = 1;

/// Name and version of a document's schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Document type.
    pub name: String,
    /// A larger one than the reader knows is refused.
    pub version: u32,
}

impl Default for Schema {
    fn default() -> Self {
        Self { name: SCHEMA_NAME.into(), version: SCHEMA_VERSION }
    }
}
