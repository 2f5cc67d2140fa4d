//! `analyze`: a bundle in, a report out. Everything it does stands in the library.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use ktrace_analyzer::cli;

fn main() -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut err = io::stderr().lock();
    let result = cli::run(std::env::args_os(), &mut out, &mut err);
    let flushed = out.flush().map_err(ktrace_analyzer::error::Error::Write);
    let exit = match result.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit,
        Err(e) => {
            e.print(&mut err);
            e.exit()
        }
    };
    ExitCode::from(exit.code())
}
