//! Many TCP connections, spread over processes and threads, each with a byte count of its own in both directions:
//! connection `i` sends `bytes + i` and asks for `reply + 2 i`. Prints each connection once it is closed.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use ktrace_traffic::{Conn, Truth};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{ForkResult, fork};

use crate::sys;
use crate::tcp_server::{HEADER_BYTES, write_filler};

/// What is done with a connection that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Send, end the sending side, read the answer to the end, close.
    Request,
    /// Send to an `echo` server, read as much back, close with a reset (`SO_LINGER` 0).
    Reset,
    /// Send nothing, wait for the server's end, close.
    Listen,
    /// Close at once, as a health check does.
    Probe,
}

/// Flags of `tcp-client`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Server.
    #[arg(long)]
    to: SocketAddr,
    /// Connections altogether.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Processes to spread them over.
    #[arg(long, default_value_t = 1)]
    processes: u32,
    /// Threads in each process.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// Bytes that connection 0 sends, the header of 8 included.
    #[arg(long, default_value_t = 100)]
    bytes: u64,
    /// Bytes that connection 0 asks for.
    #[arg(long, default_value_t = 100)]
    reply: u64,
    /// What is done with a connection.
    #[arg(long, value_enum, default_value = "request")]
    mode: Mode,
    /// Begin again after the last connection, until killed, and print nothing.
    #[arg(long)]
    forever: bool,
    /// Pause of each thread after each connection, in µs.
    #[arg(long, default_value_t = 0)]
    pause_us: u64,
}

/// Makes the connections and returns when all are closed.
pub fn run(args: &Args, limit_s: u32) -> io::Result<()> {
    let per_process = args.count.div_ceil(u64::from(args.processes.max(1)));
    for process in 1..u64::from(args.processes.max(1)) {
        // SAFETY: this program has one thread here, so the child may use all of the library.
        if let ForkResult::Child = unsafe { fork() }? {
            sys::guard(limit_s)?;
            return share(args, per_process * process, args.count.min(per_process * (process + 1)));
        }
    }
    share(args, 0, args.count.min(per_process))?;
    for _ in 1..args.processes.max(1) {
        if !matches!(nix::sys::wait::wait()?, nix::sys::wait::WaitStatus::Exited(_, 0)) {
            return Err(io::Error::other("a client process has failed"));
        }
    }
    Ok(())
}

/// The connections `from..to` of this process.
fn share(args: &Args, from: u64, to: u64) -> io::Result<()> {
    loop {
        let next = AtomicU64::new(from);
        std::thread::scope(|scope| {
            let work = || -> io::Result<()> {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= to {
                        return Ok(());
                    }
                    one(args, i)?;
                    if args.pause_us > 0 {
                        std::thread::sleep(Duration::from_micros(args.pause_us));
                    }
                }
            };
            let threads: Vec<_> = (0..args.threads.max(1)).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|t| t.join().map_err(|_| io::Error::other("a client thread has died"))?)
        })?;
        if !args.forever {
            return Ok(());
        }
    }
}

fn one(args: &Args, i: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect(args.to)?;
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    let (tx_bytes, rx_bytes) = match args.mode {
        Mode::Probe => (0, 0),
        Mode::Listen => (0, io::copy(&mut stream, &mut io::sink())?),
        Mode::Request => request(&mut stream, args.bytes + i, args.reply + 2 * i)?,
        Mode::Reset => echoed(&mut stream, args.bytes + i)?,
    };
    drop(stream);
    if args.forever {
        return Ok(());
    }
    sys::tell(&Truth::Conn(Conn { pid: sys::pid(), tid: sys::tid(), local, remote, tx_bytes, rx_bytes }))
}

fn request(stream: &mut TcpStream, bytes: u64, reply: u64) -> io::Result<(u64, u64)> {
    stream.write_all(&reply.to_le_bytes())?;
    let filler = bytes.saturating_sub(HEADER_BYTES as u64);
    let sent = write_filler(stream, filler)?;
    stream.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    if rest.len() as u64 != reply {
        return Err(io::Error::other(format!("{} bytes came back, not {reply}", rest.len())));
    }
    Ok((HEADER_BYTES as u64 + sent, reply))
}

fn echoed(stream: &mut TcpStream, bytes: u64) -> io::Result<(u64, u64)> {
    let sent = write_filler(stream, bytes)?;
    let got = io::copy(&mut Read::by_ref(stream).take(sent), &mut io::sink())?;
    setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok((sent, got))
}
