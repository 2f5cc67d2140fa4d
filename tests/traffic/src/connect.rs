//! Non-blocking connects, as event loops make them: `connect(2)` returns at once, `poll(2)` tells the outcome, and
//! the program gives up when its own timeout is over. `--blocking` is the plain one, for the kernel's own timeout.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use ktrace_traffic::{Connect, Outcome, Truth};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};

use crate::sys;

/// Flags of `connect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to connect to.
    #[arg(long)]
    to: SocketAddr,
    /// Milliseconds after which the program gives up.
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u16,
    /// How often, one after the other.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Milliseconds from the end of one to the next.
    #[arg(long, default_value_t = 0)]
    interval_ms: u64,
    /// Let `connect(2)` wait as long as the kernel does.
    #[arg(long)]
    blocking: bool,
}

/// Flags of `race`.
#[derive(Debug, clap::Args)]
pub struct RaceArgs {
    /// Address tried first.
    #[arg(long)]
    first: SocketAddr,
    /// Address tried when the first did not answer within `--delay-ms`.
    #[arg(long)]
    second: SocketAddr,
    /// Head start of the first, in ms.
    #[arg(long, default_value_t = 50)]
    delay_ms: u16,
}

/// A socket whose connect has begun.
struct Attempt {
    fd: OwnedFd,
    remote: SocketAddr,
    begin_ns: u64,
    syscall_ns: u64,
    /// The outcome, if `connect(2)` told it already.
    error: Option<Errno>,
}

impl Attempt {
    fn begin(remote: SocketAddr, flags: SockFlag) -> io::Result<Self> {
        let family = if remote.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket::socket(family, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)?;
        let begin_ns = sys::boot_ns()?;
        let error = socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(remote)).err();
        Ok(Self { fd, remote, begin_ns, syscall_ns: sys::boot_ns()? - begin_ns, error })
    }

    /// Waits at most `timeout` for the outcome.
    fn outcome(&self, timeout: PollTimeout) -> io::Result<(Outcome, Option<Errno>)> {
        match self.error {
            None => return Ok((Outcome::Established, None)),
            Some(Errno::EINPROGRESS) => {}
            Some(e) => return Ok((Outcome::Failed, Some(e))),
        }
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, timeout)? == 0 {
            return Ok((Outcome::GaveUp, None));
        }
        match socket::getsockopt(&self.fd, sockopt::SocketError)? {
            0 => Ok((Outcome::Established, None)),
            e => Ok((Outcome::Failed, Some(Errno::from_raw(e)))),
        }
    }

    /// Closes the socket and prints how it ended.
    fn end(self, outcome: Outcome, error: Option<Errno>) -> io::Result<()> {
        let elapsed_ns = sys::boot_ns()? - self.begin_ns;
        let local = own_end(&self.fd);
        drop(self.fd);
        sys::tell(&Truth::Connect(Connect {
            pid: sys::pid(),
            tid: sys::tid(),
            local,
            remote: self.remote,
            outcome,
            errno: error.map(|e| e as i32),
            syscall_ns: self.syscall_ns,
            elapsed_ns,
        }))
    }
}

/// The socket's own address, unless the kernel has chosen none.
fn own_end(fd: &OwnedFd) -> Option<SocketAddr> {
    let name: SockaddrStorage = socket::getsockname(fd.as_raw_fd()).ok()?;
    let v4 = name.as_sockaddr_in().map(|a| SocketAddr::from((a.ip(), a.port())));
    v4.or_else(|| name.as_sockaddr_in6().map(|a| SocketAddr::from((a.ip(), a.port())))).filter(|a| a.port() != 0)
}

/// Connects `count` times and prints each outcome.
pub fn run(args: &Args) -> io::Result<()> {
    let flags = if args.blocking { SockFlag::empty() } else { SockFlag::SOCK_NONBLOCK };
    for n in 0..args.count {
        if n > 0 {
            std::thread::sleep(Duration::from_millis(args.interval_ms));
        }
        let attempt = Attempt::begin(args.to, flags)?;
        let (outcome, error) = attempt.outcome(PollTimeout::from(args.timeout_ms))?;
        attempt.end(outcome, error)?;
    }
    Ok(())
}

/// Happy eyeballs: prints the loser, then the winner.
pub fn race(args: &RaceArgs) -> io::Result<()> {
    let first = Attempt::begin(args.first, SockFlag::SOCK_NONBLOCK)?;
    let head_start = first.outcome(PollTimeout::from(args.delay_ms))?;
    if head_start.0 == Outcome::Established {
        return first.end(head_start.0, head_start.1);
    }
    let second = Attempt::begin(args.second, SockFlag::SOCK_NONBLOCK)?;
    let won = second.outcome(PollTimeout::from(5000_u16))?;
    first.end(head_start.0, head_start.1)?;
    // the winner stays for a moment, as a connection that is used would
    std::thread::sleep(Duration::from_millis(20));
    second.end(won.0, won.1)
}
