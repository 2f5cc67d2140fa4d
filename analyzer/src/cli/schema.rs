//! `analyze schema`: the JSON Schemas of what is read and written.

use std::io::Write;

use clap::{Args, ValueEnum};

use crate::error::{Error, Exit};
use crate::schema::{BUNDLE, FINDINGS};

/// What to print.
#[derive(Debug, Args)]
pub(super) struct Schema {
    /// Whose schema
    #[arg(value_enum, default_value_t = Of::Bundle)]
    of: Of,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    /// The files of a bundle by name: of lines, and of documents
    Bundle,
    /// What `analyze BUNDLE --format json` prints
    Findings,
}

pub(super) fn run(args: &Schema, out: &mut dyn Write) -> Result<Exit, Error> {
    let text = match args.of {
        Of::Bundle => BUNDLE,
        Of::Findings => FINDINGS,
    };
    out.write_all(text.as_bytes())?;
    Ok(Exit::Done)
}
