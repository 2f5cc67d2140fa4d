//! Many processes with many open sockets each, all of them idle: what a busy node looks like to whoever lists it.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

use ktrace_traffic::{Ready, Truth};
use nix::unistd::{ForkResult, fork, pause};

use crate::sys;

/// Connections of each process to itself: with its listener and its UDP socket ten sockets.
const CONNECTIONS: usize = 4;

/// Flags of `crowd`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Processes.
    #[arg(long, default_value_t = 10)]
    processes: u32,
}

/// Each process prints a line when its sockets are open; then all of them wait to be killed.
pub fn run(args: &Args, limit_s: u32) -> io::Result<()> {
    let first = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local: first.local_addr()? }))?;
    for _ in 0..args.processes {
        // SAFETY: this program has one thread, so the child may use all of the library.
        if let ForkResult::Child = unsafe { fork() }? {
            sys::guard(limit_s)?;
            drop(first);
            return idle();
        }
    }
    loop {
        pause();
    }
}

fn idle() -> io::Result<()> {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to = listener.local_addr()?;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(TcpStream::connect(to)?);
        held.push(listener.accept()?.0);
    }
    sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local: udp.local_addr()? }))?;
    loop {
        pause();
    }
}
