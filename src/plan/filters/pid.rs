//! Processes by their id. One that is wanted has to exist: its number may soon be another's.

use std::path::Path;

use crate::error::Hint;
use crate::preflight;

/// Why a text is no process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PidError {
    /// Not a whole number of at least 1.
    #[error("`{item}` is not a process id")]
    NotANumber {
        /// The item.
        item: String,
    },
    /// No such process.
    #[error("there is no process {pid}")]
    NotThere {
        /// The number.
        pid: u32,
    },
    /// A thread other than the first one of its process.
    #[error("{tid} is a thread of process {pid}, not a process")]
    Thread {
        /// The number.
        tid: u32,
        /// Its process.
        pid: u32,
    },
}

impl Hint for PidError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotANumber { .. } => "pass numbers such as `1234`; `--comm` takes names".into(),
            Self::NotThere { .. } => {
                "look it up with `ps -e` in the node's own pid namespace, or filter by name with `--comm`".into()
            }
            Self::Thread { pid, .. } => format!("pass `{pid}`"),
        })
    }
}

/// Parses one process id.
///
/// # Errors
/// [`PidError::NotANumber`].
pub fn parse(item: &str) -> Result<u32, PidError> {
    let digits = item.bytes().all(|b| b.is_ascii_digit());
    let pid = item.parse().ok().filter(|pid| digits && *pid > 0);
    pid.ok_or_else(|| PidError::NotANumber { item: item.into() })
}

/// Whether there is such a process, as far as can be seen from here.
///
/// # Errors
/// [`PidError::NotThere`] and [`PidError::Thread`].
pub fn check(pid: u32) -> Result<(), PidError> {
    // in a pid namespace of our own, the numbers of `/proc` are not those of the kernel
    if !preflight::sees_all_processes() {
        return Ok(());
    }
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let status = std::fs::read_to_string(path).map_err(|_| PidError::NotThere { pid })?;
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    match group {
        Some(group) if group != pid => Err(PidError::Thread { tid: pid, pid: group }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_process_id_is_refused() {
        for item in ["nginx", "-1", "+1", "0", "1.5", "99999999999"] {
            assert_eq!(parse(item), Err(PidError::NotANumber { item: item.into() }));
        }
    }

    #[test]
    fn a_process_has_to_exist() {
        assert_eq!(check(std::process::id()), Ok(()));
        // above the largest `pid_max`
        assert_eq!(check(1 << 30), Err(PidError::NotThere { pid: 1 << 30 }));
    }

    #[test]
    fn a_thread_is_met_with_its_process() {
        let tid = std::thread::spawn(|| {
            let tid = nix::unistd::gettid().as_raw().unsigned_abs();
            check(tid)
        });
        let refused = tid.join().unwrap().unwrap_err();
        assert_eq!(refused.hint(), Some(format!("pass `{}`", std::process::id())));
    }
}
