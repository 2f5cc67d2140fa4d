//! What connection tracking reports by itself: connections that begin, change and end. From the moment of subscription
//! on; what was there before is in a dump that is taken afterwards.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::Error;
use super::decode::{self, Unread};
use super::frame::{Kind, Messages};
use super::socket::{Mode, Socket};
use crate::conntrack::entry::Entry;

/// The groups of new, changed and ended connections (`NF_NETLINK_CONNTRACK_*`).
const GROUPS: u32 = 1 | 1 << 1 | 1 << 2;
/// `IPCTNL_MSG_CT_*`: the first also if it is only changed.
const NEW: u8 = 0;
const DELETE: u8 = 2;

/// What happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its first packet went through: addresses are translated by now.
    New,
    /// Its state, status or mark changed. What did not change may be absent in the entry, except tuples and status.
    Update,
    /// It ended, or ran out of time.
    Destroyed,
}

/// What a reading was like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// There may be more to read.
    pub more: bool,
    /// How often the kernel had no room for events: each time an unknown number of them is lost (ENOBUFS).
    pub overruns: u64,
    /// Events that could not be read.
    pub undecodable: u64,
}

/// The events of one network namespace.
#[derive(Debug)]
pub struct Events(Socket);

impl Events {
    /// Subscribes in `netns`, or in the calling thread's own namespace; of the thread see [`super::Ctnetlink::open`]. The
    /// kernel keeps at most `receive_buffer_bytes` of events, twice that with its own overhead; an event takes some 1 KiB.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`]. After [`Error::Stranded`] the thread has to end.
    pub fn open(netns: Option<BorrowedFd<'_>>, receive_buffer_bytes: usize) -> Result<Self, Error> {
        Socket::open(netns, Mode::Events { groups: GROUPS, receive_buffer_bytes }).map(Self)
    }

    /// Takes at most `most` events that are there, without waiting. Those of other protocols than TCP and UDP are passed
    /// over, and count.
    ///
    /// # Errors
    /// [`Error::Io`]: what was taken until then is all there is.
    pub fn read(&mut self, most: usize, mut take: impl FnMut(Change, Entry)) -> Result<Read, Error> {
        let mut read = Read::default();
        for _ in 0..most {
            let datagram = match self.0.receive() {
                Ok(datagram) => datagram,
                Err(Errno::EAGAIN) => return Ok(read),
                Err(Errno::ENOBUFS) => {
                    read.overruns += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for message in Messages(datagram) {
                let Ok(message) = message else {
                    read.undecodable += 1;
                    continue;
                };
                let change = match message.kind {
                    Kind::Conntrack(NEW) if i32::from(message.flags) & libc::NLM_F_CREATE != 0 => Change::New,
                    Kind::Conntrack(NEW) => Change::Update,
                    Kind::Conntrack(DELETE) => Change::Destroyed,
                    _ => {
                        read.undecodable += 1;
                        continue;
                    }
                };
                match decode::entry(message.attributes) {
                    Ok(entry) => take(change, entry),
                    Err(Unread::OtherProtocol) => {}
                    Err(Unread::Undecodable) => read.undecodable += 1,
                }
            }
        }
        read.more = true;
        Ok(read)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
