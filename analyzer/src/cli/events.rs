//! `analyze events`: the lines behind a report.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Exit};
use crate::events;

/// What to print.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// A `.bundle.tgz`, a bundle directory, a bare `events.jsonl`, or a directory of bundles, of which the newest is
    /// read [default: ./out]
    bundle: Option<PathBuf>,
    /// Line number, the `#` of a report; may be repeated
    #[arg(long, value_name = "N")]
    seq: Vec<u64>,
    /// Only events with this value; inside objects with a dot, as in `ns.net=4026532001`; all conditions must hold
    #[arg(long = "where", value_name = "KEY=VALUE")]
    conditions: Vec<String>,
    /// Print at most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
}

pub(super) fn run(args: &Events, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    let query = events::Query::new(&args.seq, &args.conditions, args.limit)?;
    let path = super::bundle(args.bundle.as_deref(), err)?;
    let printed = events::print(&path, &query, out)?;
    out.flush()?;
    if printed.matched == 0 {
        writeln!(err, "note: none of {} events matches", printed.read)?;
    } else if printed.matched > args.limit {
        writeln!(err, "note: {} of {} matching events shown: `--limit`", args.limit, printed.matched)?;
    }
    if let Some(cut) = &printed.cut {
        writeln!(err, "warning: {}", crate::escape::line(cut))?;
        return Ok(Exit::Cut);
    }
    Ok(Exit::Done)
}
