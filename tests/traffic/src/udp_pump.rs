//! Datagrams from one socket of a process to another one of the same process, many per system call: the most events a
//! second that one CPU can make, all of them counted by the program that makes them.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use ktrace_traffic::{Ready, Total, Truth};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use crate::sys;

/// Datagrams per system call.
const BATCH: usize = 64;

/// Flags of `udp-pump`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port to send from; the one above it is sent to.
    #[arg(long)]
    port: u16,
    /// Payload bytes of the first of each batch; each further one has one more.
    #[arg(long, default_value_t = 16)]
    bytes: usize,
    /// Milliseconds to go on.
    #[arg(long, default_value_t = 1000)]
    duration_ms: u64,
}

/// Sends and receives for `duration_ms`, then prints how much.
pub fn run(args: &Args) -> io::Result<()> {
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, args.port))?;
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, args.port + 1))?;
    let to = receiver.local_addr()?;
    sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local: sender.local_addr()? }))?;
    let payload = vec![b'.'; args.bytes + BATCH];
    let slices: Vec<_> =
        (0..BATCH).map(|i| [IoSlice::new(payload.get(..args.bytes + i).unwrap_or_default())]).collect();
    let addresses = vec![Some(SockaddrStorage::from(to)); BATCH];
    let mut buffers = vec![[0_u8; 2048]; BATCH];
    let mut total = Total { pid: sys::pid(), ..Total::default() };
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(args.duration_ms) {
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        for sent in sendmmsg(sender.as_raw_fd(), &mut headers, &slices, &addresses, [], MsgFlags::empty())? {
            total.send_count += 1;
            total.tx_bytes += sent.bytes as u64;
        }
        receive(&receiver, &mut buffers, &mut total)?;
    }
    total.elapsed_ns = u64::try_from(begin.elapsed().as_nanos()).map_err(io::Error::other)?;
    sys::tell(&Truth::Total(total))
}

/// Reads what waits, at most one batch.
fn receive(socket: &UdpSocket, buffers: &mut [[u8; 2048]], total: &mut Total) -> io::Result<()> {
    let mut slices: Vec<_> = buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(slices.len(), None);
    match recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
        Err(Errno::EAGAIN) => {}
        received => {
            for got in received? {
                total.recv_count += 1;
                total.rx_bytes += got.bytes as u64;
            }
        }
    }
    Ok(())
}
