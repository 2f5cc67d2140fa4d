//! Finds tracefs, where classic tracepoints have their ids. Where nobody mounted it, mounts it for this process
//! alone: in a mount namespace of our own, so that nothing changes on the node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::lockdown;

/// libbpf looks in these two, and nowhere else.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Where tracefs can be read, once [`ensure`] has succeeded.
pub fn events_dir() -> Option<PathBuf> {
    PLACES.iter().map(|p| Path::new(p).join("events")).find(|p| p.is_dir())
}

/// Whether this event can be attached by the classic way.
pub fn has_event(category: &str, name: &str) -> bool {
    events_dir().is_some_and(|dir| dir.join(category).join(name).join("id").exists())
}

/// Makes tracefs visible to this thread, and to those that it starts later. Never where lockdown keeps it empty: Linux 6.12
/// and 7.3 die when the last mount of an empty tracefs goes.
///
/// # Errors
/// Why classic tracepoints are not available, and what to do.
pub fn ensure() -> Result<(), TracefsError> {
    if events_dir().is_some() {
        return Ok(());
    }
    let closed = PLACES.iter().find(|p| fs::read_dir(p).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied));
    match closed {
        Some(place) => Err(TracefsError::Closed(place)),
        None => mount_here(),
    }
}

/// Why tracefs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    /// It is there, and for root only.
    #[error("`{0}` may not be read: run as root, or give CAP_DAC_READ_SEARCH")]
    Closed(&'static str),
    /// Nobody has mounted it, and neither may we.
    #[error(
        "tracefs is not mounted and cannot be ({0}): mount it on the node, and in a container `/sys/kernel/tracing`"
    )]
    Mount(#[from] nix::errno::Errno),
    /// There would be nothing in it.
    #[error("the kernel is locked down (`lockdown=confidentiality`), which keeps tracefs empty")]
    LockedDown,
}

fn mount_here() -> Result<(), TracefsError> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // from here on nothing that we mount reaches anybody else
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    if lockdown::hides_tracefs() {
        return Err(TracefsError::LockedDown);
    }
    mount(Some("tracefs"), PLACES[0], Some("tracefs"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, None::<&str>)?;
    Ok(())
}
