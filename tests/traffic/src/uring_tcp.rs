//! TCP through io_uring: no `connect`, `accept`, `send` or `recv` system call ever happens on the sockets.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};

use io_uring::{IoUring, opcode, types};
use ktrace_traffic::{Conn, Ready, Truth};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, socket};
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, fork};

use crate::sys;
use crate::tcp_server::listen;
use crate::uring::run_one;

/// Flags of `tcp-uring`.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Args {
    /// Connect to this address, and have `BYTES` echoed.
    #[arg(long)]
    to: Option<SocketAddr>,
    /// Listen on this address; a child accepts one connection, and echoes until its client ends it.
    #[arg(long)]
    listen: Option<SocketAddr>,
}

const BYTES: usize = 100;

/// Serves one connection, or makes it.
pub fn run(args: &Args, limit_s: u32) -> io::Result<()> {
    match (args.listen, args.to) {
        (Some(addr), _) => serve(addr, limit_s),
        (None, Some(to)) => connect(to),
        (None, None) => Err(io::Error::other("neither an address to listen on nor one to connect to")),
    }
}

fn serve(addr: SocketAddr, limit_s: u32) -> io::Result<()> {
    let listener = listen(addr)?;
    sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local: listener.local_addr()? }))?;
    // SAFETY: this program has one thread here, so the child may use all of the library.
    if let ForkResult::Child = unsafe { fork() }? {
        sys::guard(limit_s)?;
        return accept(&listener);
    }
    wait()?;
    Ok(())
}

fn accept(listener: &TcpListener) -> io::Result<()> {
    let mut ring = IoUring::new(8)?;
    let fd = types::Fd(listener.as_raw_fd());
    let accept = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build();
    let accepted = i32::try_from(run_one(&mut ring, &accept)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, for nobody else.
    let stream = unsafe { TcpStream::from_raw_fd(accepted) };
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    let mut count = 0;
    loop {
        let some = recv(&mut ring, &stream)?;
        if some == 0 {
            break;
        }
        send(&mut ring, &stream, some)?;
        count += some as u64;
    }
    drop(stream);
    sys::tell(&Truth::Conn(Conn { pid: sys::pid(), tid: sys::tid(), local, remote, tx_bytes: count, rx_bytes: count }))
}

fn connect(to: SocketAddr) -> io::Result<()> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let stream = TcpStream::from(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?);
    let mut ring = IoUring::new(8)?;
    let addr = SockaddrStorage::from(to);
    let connect = opcode::Connect::new(types::Fd(stream.as_raw_fd()), addr.as_ptr().cast(), addr.len()).build();
    run_one(&mut ring, &connect)?;
    send(&mut ring, &stream, BYTES)?;
    let mut left = BYTES;
    while left > 0 {
        let some = recv(&mut ring, &stream)?;
        if some == 0 {
            return Err(io::Error::other("the server has ended the connection"));
        }
        left = left.saturating_sub(some);
    }
    Ok(())
}

fn send(ring: &mut IoUring, stream: &TcpStream, bytes: usize) -> io::Result<()> {
    let payload = vec![b'.'; bytes];
    let length = u32::try_from(bytes).map_err(io::Error::other)?;
    let sent = run_one(ring, &opcode::Send::new(types::Fd(stream.as_raw_fd()), payload.as_ptr(), length).build())?;
    if sent == bytes { Ok(()) } else { Err(io::Error::other("not all was sent")) }
}

fn recv(ring: &mut IoUring, stream: &TcpStream) -> io::Result<usize> {
    let mut room = [0_u8; BYTES];
    let length = u32::try_from(room.len()).map_err(io::Error::other)?;
    run_one(ring, &opcode::Recv::new(types::Fd(stream.as_raw_fd()), room.as_mut_ptr(), length).build())
}
