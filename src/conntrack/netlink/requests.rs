//! What is asked, and what the answer must be. Answers to an older question are passed over.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Error;
use super::decode::{self, Unread};
use super::frame::{self, Kind, Message, Messages};
use super::socket::{Mode, Socket};
use crate::conntrack::counters::Counters;
use crate::conntrack::entry::{Direction, Entry, Tuple};

/// Longest wait for the next piece of an answer. The kernel mostly answers before `send` is back.
const PIECE: Duration = Duration::from_secs(2);
/// Longest wait for a whole answer. A million entries take two seconds.
const WHOLE: Duration = Duration::from_secs(20);
/// `IPCTNL_MSG_CT_*`.
const GET: u8 = 1;
const GET_STATS_CPU: u8 = 4;
const GET_STATS: u8 = 5;

/// What a dump was like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dump {
    /// Entries that were taken.
    pub entries: u64,
    /// Entries of other protocols than TCP and UDP.
    pub others: u64,
    /// Entries that could not be read.
    pub undecodable: u64,
    /// The table was resized meanwhile: entries may be missing, or there twice (`NLM_F_DUMP_INTR`).
    pub is_interrupted: bool,
}

/// How an answer ended.
#[derive(Debug, Default)]
struct Answer {
    /// A part of it that was not a message.
    malformed: u64,
    is_interrupted: bool,
}

/// Asks about one network namespace.
#[derive(Debug)]
pub struct Ctnetlink {
    socket: Socket,
    sequence: u32,
}

impl Ctnetlink {
    /// Opens a socket in `netns`, or in the calling thread's own namespace. For another one the thread goes there and back:
    /// it must be one that does nothing else, of a process that no one else moves.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`]. After [`Error::Stranded`] the thread has to end.
    pub fn open(netns: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(netns, Mode::Requests(PIECE))?, sequence: 0 })
    }

    /// The number that the kernel never gives to another network namespace; `None` before Linux 5.14.
    pub fn netns_cookie(&self) -> Option<u64> {
        self.socket.netns_cookie()
    }

    /// Takes all TCP and UDP entries. A connection that comes or goes meanwhile may be missing.
    ///
    /// # Errors
    /// What was taken until then is all there is; after [`Error::TimedOut`] open another socket.
    pub fn dump(&mut self, mut take: impl FnMut(Entry)) -> Result<Dump, Error> {
        let mut dump = Dump::default();
        let answer = self.ask(GET, libc::NLM_F_DUMP, 0, &[], |message| match decode::entry(message.attributes) {
            Ok(entry) => {
                dump.entries += 1;
                take(entry);
            }
            Err(Unread::OtherProtocol) => dump.others += 1,
            Err(Unread::Undecodable) => dump.undecodable += 1,
        })?;
        dump.undecodable += answer.malformed;
        dump.is_interrupted = answer.is_interrupted;
        Ok(dump)
    }

    /// The connection with this tuple in this direction; `None`: there is none. Some 5 µs.
    ///
    /// # Errors
    /// [`Error::Io`] also if the answer is not what was asked for.
    pub fn get(&mut self, tuple: &Tuple, direction: Direction, zone: u16) -> Result<Option<Entry>, Error> {
        let family = if tuple.src.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let question = decode::question(tuple, direction, zone);
        let mut found = None;
        let taken = self.ask(GET, 0, u8::try_from(family).unwrap_or(0), &question, |message| {
            found = Some(decode::entry(message.attributes));
        });
        match (taken, found) {
            (Err(Error::Io(error)), _) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            (Err(error), _) => Err(error),
            // the kernel looks for it in both directions
            (Ok(_), Some(Ok(entry))) => Ok(Some(entry).filter(|entry| *tuple == entry.tuple(direction))),
            (Ok(_), Some(Err(_)) | None) => Err(Error::Io(io::ErrorKind::InvalidData.into())),
        }
    }

    /// What the kernel has counted in this namespace, and how full its table is.
    ///
    /// # Errors
    /// Any.
    pub fn counters(&mut self) -> Result<Counters, Error> {
        let mut counters = Counters::default();
        let mut is_whole = true;
        let answer = self.ask(GET_STATS_CPU, libc::NLM_F_DUMP, 0, &[], |message| {
            is_whole &= decode::add_cpu(&mut counters, message.attributes);
        })?;
        if !is_whole || answer.malformed > 0 {
            return Err(Error::Io(io::ErrorKind::InvalidData.into()));
        }
        self.ask(GET_STATS, 0, 0, &[], |message| decode::set_global(&mut counters, message.attributes))?;
        Ok(counters)
    }

    /// Sends a request, and takes all messages that answer it.
    fn ask(
        &mut self,
        kind: u8,
        flags: i32,
        family: u8,
        attributes: &[u8],
        mut take: impl FnMut(Message<'_>),
    ) -> Result<Answer, Error> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.socket.send(&frame::request(kind, flags, self.sequence, family, attributes))?;
        let mut answer = Answer::default();
        let until = Instant::now() + WHOLE;
        while Instant::now() < until {
            for message in Messages(self.socket.receive()?) {
                let Ok(message) = message else {
                    answer.malformed += 1;
                    continue;
                };
                if message.sequence != self.sequence {
                    continue;
                }
                answer.is_interrupted |= has(message, libc::NLM_F_DUMP_INTR);
                match message.kind {
                    Kind::Done(0) | Kind::Error(0) => return Ok(answer),
                    Kind::Done(error) | Kind::Error(error) => return Err(Errno::from_raw(error.wrapping_neg()).into()),
                    Kind::Conntrack(_) => take(message),
                    Kind::Other => answer.malformed += 1,
                }
                // each entry is marked as one of many, also if it is the only one
                if flags & libc::NLM_F_DUMP == 0 {
                    return Ok(answer);
                }
            }
        }
        Err(Error::TimedOut)
    }
}

fn has(message: Message<'_>, flag: i32) -> bool {
    i32::from(message.flags) & flag != 0
}
