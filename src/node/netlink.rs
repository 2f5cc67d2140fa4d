//! Asks netlink of the network namespace that the thread is in: one dump after the other, each read into one buffer that never
//! grows, until a deadline. No length is believed, and only what the kernel itself sends is read.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

/// Length of a message's header (`struct nlmsghdr`).
const HEADER: usize = 16;
/// The kernel writes at most this much at once (`netlink_dump`).
const BUFFER: usize = 32 << 10;
/// Longest wait for the next piece of an answer. The kernel mostly answers before `send` is back.
const PIECE: Duration = Duration::from_millis(100);

/// A message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is, by its protocol.
    pub kind: u16,
    flags: u16,
    sequence: u32,
    /// What follows its header.
    pub body: &'a [u8],
}

/// The messages of a datagram. After one that does not fit there are no others.
#[derive(Debug)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let body = bytes.get(HEADER..length)?;
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let (kind, flags) = (u16::from_ne_bytes([k0, k1]), u16::from_ne_bytes([f0, f1]));
        Some(Message { kind, flags, sequence: u32::from_ne_bytes([s0, s1, s2, s3]), body })
    }
}

/// Why an answer is not whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The time was over first.
    #[error("there was no time for it")]
    Late,
    /// It was answered, and changed meanwhile.
    #[error("it changed while it was read: some of it may be missing, or there twice")]
    Changed,
    /// The kernel says no.
    #[error("{0}")]
    Refused(#[from] Errno),
}

/// A socket of one protocol.
#[derive(Debug)]
pub struct Netlink {
    protocol: SockProtocol,
    fd: OwnedFd,
    buffer: Box<[u8]>,
    sequence: u32,
}

impl Netlink {
    /// Opens it in the thread's own namespace, of which it stays.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(protocol: SockProtocol) -> Result<Self, Errno> {
        Ok(Self { protocol, fd: connect(protocol)?, buffer: vec![0; BUFFER].into_boxed_slice(), sequence: 0 })
    }

    /// Opens it again where the thread is now.
    ///
    /// # Errors
    /// The kernel's; it is still of the namespace before then.
    pub fn reopen(&mut self) -> Result<(), Errno> {
        self.fd = connect(self.protocol)?;
        Ok(())
    }

    /// Asks for all that there is of a kind, and hands each message on.
    ///
    /// # Errors
    /// See [`Error`]; what was handed on until then is all there is, but after [`Error::Changed`].
    pub fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        until: Instant,
        take: &mut dyn FnMut(Message<'_>),
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let request = request(kind, self.sequence, body);
        send(self.fd.as_raw_fd(), &request, MsgFlags::empty())?;
        let outcome = self.answer(until, take);
        if matches!(outcome, Err(Error::Late)) {
            // what is left of the answer would stand before the next one
            self.reopen()?;
        }
        outcome
    }

    fn answer(&mut self, until: Instant, take: &mut dyn FnMut(Message<'_>)) -> Result<(), Error> {
        let mut has_changed = false;
        while Instant::now() < until {
            let (length, from) = match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut self.buffer) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(Error::Late),
                received => received?,
            };
            if from.is_none_or(|from| from.pid() != 0) {
                continue;
            }
            for message in Messages(self.buffer.get(..length).unwrap_or_default()) {
                if message.sequence != self.sequence {
                    continue;
                }
                has_changed |= i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0;
                let number = || message.body.first_chunk().map_or(0, |number| i32::from_ne_bytes(*number));
                match i32::from(message.kind) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR if number() != 0 => {
                        return Err(Errno::from_raw(number().wrapping_neg()).into());
                    }
                    libc::NLMSG_DONE | libc::NLMSG_ERROR if has_changed => return Err(Error::Changed),
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => return Ok(()),
                    _ => take(message),
                }
            }
        }
        Err(Error::Late)
    }
}

fn connect(protocol: SockProtocol) -> Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, PIECE.subsec_micros().into()))?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(fd)
}

fn request(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = HEADER + body.len();
    let mut bytes = Vec::with_capacity(length);
    // both fit: bodies have some ten bytes
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or(0).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]); // from whom: the kernel knows
    bytes.extend_from_slice(body);
    bytes
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error.to_string())
    }
}

/// The attributes (`struct nlattr`) in some bytes, by number. After one that does not fit there are no others.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_that_does_not_fit_ends_the_datagram() {
        let whole = request(18, 7, &[1, 2, 3, 4]);
        assert_eq!(
            Messages(&whole).map(|it| (it.kind, it.sequence, it.body)).collect::<Vec<_>>(),
            [(18, 7, [1, 2, 3, 4].as_slice())]
        );
        for cut in 0..whole.len() {
            assert_eq!(Messages(&whole[..cut]).count(), 0, "{cut}");
        }
        for length in [0_u32, 15, u32::MAX] {
            let mut bytes = whole.clone();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Messages(&bytes).count(), 0, "{length}");
        }
    }

    #[test]
    fn the_loopback_answers_and_a_deadline_that_is_over_is_told() {
        let mut netlink = Netlink::open(SockProtocol::NetlinkRoute).unwrap();
        let mut count = 0;
        let soon = Instant::now() + Duration::from_secs(10);
        netlink.dump(libc::RTM_GETLINK, &[0; 16], soon, &mut |_| count += 1).unwrap();
        assert!(count >= 1);
        let late = netlink.dump(libc::RTM_GETLINK, &[0; 16], Instant::now(), &mut |_| count += 1);
        assert!(matches!(late, Err(Error::Late)));
        assert!(netlink.dump(libc::RTM_GETADDR, &[0; 8], soon, &mut |_| count += 1).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_and_attributes_or_none(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(Messages(&bytes).count() <= bytes.len());
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
