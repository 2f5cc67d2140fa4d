//! A netlink socket of another network namespace, which keeps answering about that one. Reads datagrams of the kernel
//! only, into one buffer that never grows.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockopt, recvfrom, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use nix::{getsockopt_impl, sockopt_impl};

use super::Error;

/// The kernel writes at most this much at once (`netlink_dump`), and less in an event.
const BUFFER: usize = 32 << 10;

sockopt_impl!(
    /// The number that the kernel never gives to another namespace (`net->net_cookie`); from Linux 5.14 on.
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// How a socket reads.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// It waits for an answer, so long at most.
    Requests(Duration),
    /// It takes what is there of these groups, which may pile up to so many bytes.
    Events { groups: u32, receive_buffer_bytes: usize },
}

/// A netlink socket, and what it reads into.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    buffer: Box<[u8]>,
}

impl Socket {
    /// Opens it in `netns`, or where the thread is. The kernel loads `nfnetlink`, if that is a module that is not loaded.
    ///
    /// # Errors
    /// Any. After [`Error::Stranded`] the thread has to end.
    pub fn open(netns: Option<BorrowedFd<'_>>, mode: Mode) -> Result<Self, Error> {
        let fd = match netns {
            Some(netns) => inside(netns, || open(mode))??,
            None => open(mode)?,
        };
        Ok(Self { fd, buffer: vec![0; BUFFER].into_boxed_slice() })
    }

    /// Sends a request to the kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, request: &[u8]) -> Result<(), Errno> {
        loop {
            match send(self.fd.as_raw_fd(), request, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// The next datagram; empty if it is not the kernel's.
    ///
    /// # Errors
    /// The kernel's: EAGAIN if there is none, ENOBUFS if there was no room for one.
    pub fn receive(&mut self) -> Result<&[u8], Errno> {
        let (length, from) = loop {
            match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut self.buffer) {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        };
        let is_kernel = from.is_some_and(|from| from.pid() == 0);
        Ok(self.buffer.get(..length).filter(|_| is_kernel).unwrap_or_default())
    }

    /// The cookie of the namespace that it is of; `None` before Linux 5.14.
    pub fn netns_cookie(&self) -> Option<u64> {
        getsockopt(&self.fd, NetnsCookie).ok()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Does something in another network namespace. The thread is back afterwards, or else [`Error::Stranded`].
fn inside<T>(netns: BorrowedFd<'_>, act: impl FnOnce() -> T) -> Result<T, Error> {
    let home = File::open("/proc/thread-self/ns/net").map_err(Error::Namespace)?;
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|e| Error::Namespace(e.into()))?;
    let result = act();
    setns(home, CloneFlags::CLONE_NEWNET).map_err(|e| Error::Stranded(e.into()))?;
    Ok(result)
}

fn open(mode: Mode) -> Result<OwnedFd, Error> {
    let (flags, groups) = match mode {
        Mode::Requests(_) => (SockFlag::SOCK_CLOEXEC, 0),
        Mode::Events { groups, .. } => (SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, groups),
    };
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
    match mode {
        Mode::Requests(timeout) => {
            let timeout =
                TimeVal::new(i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX), timeout.subsec_micros().into());
            setsockopt(&fd, sockopt::ReceiveTimeout, &timeout)?;
        }
        Mode::Events { receive_buffer_bytes, .. } => {
            // beyond the limit for all if that is allowed
            setsockopt(&fd, sockopt::RcvBufForce, &receive_buffer_bytes)
                .or_else(|_| setsockopt(&fd, sockopt::RcvBuf, &receive_buffer_bytes))?;
        }
    }
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}
