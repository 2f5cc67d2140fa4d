//! `analyze explain`: what lines of the kernel's log mean.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Args;

use super::Format;
use crate::error::{Error, Exit};
use crate::kernel_log::{Reading, knowledge};
use crate::report::kernel_log;

/// What to explain.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Lines as `dmesg`, journald or syslog show them; `-` reads them from stdin, as in `dmesg | analyze explain -`
    #[arg(required = true, value_name = "LINE")]
    lines: Vec<OsString>,
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: &Explain, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    let entries = knowledge::entries()?;
    let mut reading = Reading::new(&entries);
    for line in &args.lines {
        if line == "-" {
            reading.read(io::stdin().lock()).map_err(Error::Input)?;
        } else {
            reading.read(line.to_string_lossy().as_bytes()).map_err(Error::Input)?;
        }
    }
    match args.format {
        Format::Text => kernel_log::write_text(out, &reading)?,
        Format::Json => kernel_log::write_json(out, &reading)?,
    }
    out.flush()?;
    if !reading.known.is_empty() {
        return Ok(Exit::Done);
    }
    writeln!(err, "hint: families are {}", reading.families().join(", "))?;
    Ok(Exit::Unreadable)
}
