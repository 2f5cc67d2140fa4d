//! Connection tracking asked over netlink (ctnetlink): the whole table, one connection by its addresses, the counters,
//! and a stream of what changes. Asks only, with CAP_NET_ADMIN in the user namespace that owns the network namespace.
//!
//! What the kernel writes is decoded by `netlink-bindings`, which is made from the kernel's own description of it, needs
//! no other crate and copies nothing. The socket is ours: opened in another namespace, with a bound on how long an answer
//! and how large a buffer may be, none of which a library offers.

mod decode;
mod events;
mod frame;
mod requests;
mod socket;

use std::io;

use nix::errno::Errno;

pub use events::{Change, Events};
pub use requests::Ctnetlink;

/// Why connection tracking cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process lacks CAP_NET_ADMIN over this network namespace.
    #[error("connection tracking may be read with CAP_NET_ADMIN only")]
    NotPermitted,
    /// The kernel was built without it, or the module is not loaded.
    #[error("the kernel offers no connection tracking over netlink")]
    NotSupported,
    /// It may answer later: the socket has to be opened anew.
    #[error("the kernel did not answer in time")]
    TimedOut,
    /// It is no network namespace, or entering it is not allowed; the thread is where it was.
    #[error("the network namespace cannot be entered")]
    Namespace(#[source] io::Error),
    /// The thread is left in the namespace that it entered: it has to end, and its work with it.
    #[error("the network namespace that was entered cannot be left")]
    Stranded(#[source] io::Error),
    /// Anything else.
    #[error("connection tracking cannot be read")]
    Io(#[source] io::Error),
}

impl Error {
    /// Whether the thread that asked must not be used any more.
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Stranded(_))
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EPERM | Errno::EACCES => Self::NotPermitted,
            // a well-formed request is called invalid if nobody is there to serve it (nfnetlink_rcv_msg)
            Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => Self::NotSupported,
            Errno::EAGAIN | Errno::ETIMEDOUT => Self::TimedOut,
            other => Self::Io(other.into()),
        }
    }
}
