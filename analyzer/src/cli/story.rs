//! `analyze story`: connections and DNS attempts as timelines.

use std::io::Write;
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::Format;
use crate::error::{Error, Exit};
use crate::story::{self, Selector, json, text};

/// Most stories that can be asked for: each takes some 100 KiB while it is made.
const MAX_STORIES: u64 = 200;

/// What to tell.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["seq", "flow", "pod", "comm", "pid"]))]
pub(super) struct Story {
    /// A `.bundle.tgz`, a bundle directory, a bare `events.jsonl`, or a directory of bundles, of which the newest is
    /// read [default: ./out]
    bundle: Option<PathBuf>,
    /// The one that this line is of, the `#` of a report
    #[arg(long, value_name = "N")]
    seq: Option<u64>,
    /// Those with these ends, in either order and before or after translation: `10.96.0.80`, `*:53`,
    /// `tcp 10.42.1.15:41001->10.96.0.80:80`; or a community id
    #[arg(long, value_name = "FLOW")]
    flow: Option<String>,
    /// Those of this pod or to it: `web-1`, `shop/web-1` or its uid
    #[arg(long, value_name = "[NAMESPACE/]POD")]
    pod: Option<String>,
    /// Those of processes with this name
    #[arg(long, value_name = "NAME")]
    comm: Option<String>,
    /// Those of this process; all conditions must hold
    #[arg(long, value_name = "N")]
    pid: Option<u32>,
    /// Tell at most so many, the first in time
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=MAX_STORIES))]
    limit: u64,
    /// How to write them
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: &Story, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    let selector = Selector {
        seq: args.seq,
        flow: args.flow.as_deref().map(str::parse).transpose()?,
        pod: args.pod.as_deref().map(str::parse).transpose()?,
        comm: args.comm.clone(),
        pid: args.pid,
    };
    let path = super::bundle(args.bundle.as_deref(), err)?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let told = story::tell(&path, &selector, limit)?;
    match args.format {
        Format::Text => text::write(out, &told)?,
        Format::Json => json::write(out, &told)?,
    }
    out.flush()?;
    match (told.stories.len(), told.more) {
        (0, _) => {
            writeln!(err, "note: no connection, DNS attempt or UDP flow in {} events is meant", told.read.events)?
        }
        (_, 0) => {}
        (n, more) => writeln!(err, "note: {n} told, some {more} more: `--limit`")?,
    }
    super::talk(&told.capture, &told.read, err)?;
    Ok(if super::is_cut(&told.capture) { Exit::Cut } else { Exit::Done })
}
