//! `analyze node`: what the machine looked like.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::Format;
use crate::error::{Error, Exit};
use crate::kb::Kb;
use crate::report::node::NodeReport;

/// What to say.
#[derive(Debug, Args)]
pub(super) struct Node {
    /// A `.bundle.tgz`, a bundle directory, or a directory of bundles, of which the newest is read [default: ./out]
    bundle: Option<PathBuf>,
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Say all that is unusual, however much that is
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: &Node, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    let path = super::bundle(args.bundle.as_deref(), err)?;
    let (capture, read) = super::load(&path, &Kb::new()?)?;
    let report = NodeReport::new(&capture);
    match args.format {
        Format::Text => report.write_text(out, args.all)?,
        Format::Json => report.write_json(out, args.all)?,
    }
    out.flush()?;
    super::talk(&capture, &read, err)?;
    Ok(if super::is_cut(&capture) { Exit::Cut } else { Exit::Done })
}
