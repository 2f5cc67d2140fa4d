//! Datagrams through io_uring: no `send` or `recv` system call ever happens on the socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use ktrace_traffic::{Dir, Truth};

use crate::sys;
use crate::udp::{datagram, wildcard_socket};

/// Flags of `udp-uring`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A `udp-echo` server.
    #[arg(long)]
    to: SocketAddr,
    /// Round trips; the first sends `--bytes`, each further one byte more.
    #[arg(long, default_value_t = 5)]
    count: usize,
    /// Payload bytes of the first.
    #[arg(long, default_value_t = 48)]
    bytes: usize,
}

/// Sends and waits for the echo, `count` times.
pub fn run(args: &Args) -> io::Result<()> {
    let socket = wildcard_socket(args.to)?;
    socket.connect(args.to)?;
    let fd = types::Fd(socket.as_raw_fd());
    let mut ring = IoUring::new(8)?;
    let mut answer = vec![0_u8; args.bytes + args.count];
    let payload = vec![b'.'; args.bytes + args.count];
    for i in 0..args.count {
        let length = u32::try_from(args.bytes + i).map_err(io::Error::other)?;
        let send = opcode::Send::new(fd, payload.as_ptr(), length).build();
        tell(&mut ring, &send, Dir::Send, &socket, args.to)?;
        let room = u32::try_from(answer.len()).map_err(io::Error::other)?;
        let recv = opcode::Recv::new(fd, answer.as_mut_ptr(), room).build();
        tell(&mut ring, &recv, Dir::Recv, &socket, args.to)?;
    }
    Ok(())
}

/// Runs one operation to its end and prints it.
fn tell(ring: &mut IoUring, entry: &Entry, dir: Dir, socket: &std::net::UdpSocket, to: SocketAddr) -> io::Result<()> {
    let begin_ns = sys::boot_ns()?;
    let result = run_one(ring, entry);
    let truth: Truth = datagram(dir, "io_uring", socket, Some(to), &result, begin_ns)?;
    sys::tell(&truth)
}

/// What the operation returned.
pub fn run_one(ring: &mut IoUring, entry: &Entry) -> io::Result<usize> {
    // SAFETY: what `entry` points to outlives this call, which waits for its completion: all callers keep it.
    unsafe { ring.submission().push(entry) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().ok_or_else(|| io::Error::other("io_uring has no completion"))?;
    usize::try_from(done.result()).map_err(|_| io::Error::from_raw_os_error(-done.result()))
}
