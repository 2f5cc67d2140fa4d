//! What the collector says: progress while it runs, the closing lines, the result of `ktrace check`.
//!
//! stdout carries data (the bundle's path, the check), stderr carries talk. A reader that has gone
//! away is never an error.

pub mod check;
pub mod closing;
pub mod escape;
pub mod hooks;
pub mod progress;

use std::io::{self, Write};

/// Writes `data` to stdout as it is.
///
/// # Errors
/// Whatever the system says, except that nobody reads any more.
pub fn to_stdout(data: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
