//! TCP servers that differ in who accepts (a thread each, forked workers, one loop) and in what becomes of a
//! connection (answered, closed at once, echoed, never closed). Prints each connection once it is over.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Mutex;

use clap::ValueEnum;
use ktrace_traffic::{Conn, Ready, Truth};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};
use nix::unistd::{ForkResult, fork};

use crate::sys;

/// Length of the header with which a client says how many bytes it wants back.
pub const HEADER_BYTES: usize = 8;

/// Who accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// One thread accepts, a new thread serves.
    Threaded,
    /// Forked workers accept and serve.
    Prefork,
    /// One thread accepts and serves.
    Single,
}

/// What becomes of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Then {
    /// Read to the end, send as many bytes as the header asks for, close.
    Reply,
    /// Close at once, without any I/O.
    Close,
    /// Send back what comes, until the client ends or resets.
    Echo,
    /// Read to the end and never close.
    Hold,
}

/// Flags of `tcp-server`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on; port 0 lets the kernel choose.
    #[arg(long)]
    listen: SocketAddr,
    /// Who accepts.
    #[arg(long, value_enum, default_value = "threaded")]
    model: Model,
    /// What becomes of a connection.
    #[arg(long, value_enum, default_value = "reply")]
    then: Then,
    /// Processes of the prefork model.
    #[arg(long, default_value_t = 4)]
    workers: u32,
    /// Print no line per connection.
    #[arg(long)]
    quiet: bool,
}

struct Server {
    then: Then,
    quiet: bool,
    held: Mutex<Vec<TcpStream>>,
}

/// Serves until it is killed.
pub fn run(args: &Args, limit_s: u32) -> io::Result<()> {
    let listener = listen(args.listen)?;
    let server = Server { then: args.then, quiet: args.quiet, held: Mutex::new(Vec::new()) };
    sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local: listener.local_addr()? }))?;
    match args.model {
        Model::Single => server.accept_and_serve(&listener),
        Model::Threaded => std::thread::scope(|scope| {
            loop {
                let (stream, peer) = listener.accept()?;
                let server = &server;
                scope.spawn(move || server.serve(stream, peer));
            }
        }),
        Model::Prefork => prefork(&server, &listener, args.workers, limit_s),
    }
}

/// A listener with the longest queue that the kernel allows.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    socket::listen(&fd, Backlog::MAXCONN)?;
    Ok(TcpListener::from(fd))
}

fn prefork(server: &Server, listener: &TcpListener, workers: u32, limit_s: u32) -> io::Result<()> {
    for _ in 0..workers {
        // SAFETY: this program has one thread here, so the child may use all of the library.
        if let ForkResult::Child = unsafe { fork() }? {
            sys::guard(limit_s)?;
            return server.accept_and_serve(listener);
        }
    }
    for _ in 0..workers {
        nix::sys::wait::wait()?;
    }
    Err(io::Error::other("every worker has ended"))
}

impl Server {
    fn accept_and_serve(&self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let (stream, peer) = listener.accept()?;
            self.serve(stream, peer);
        }
    }

    /// A connection that its client broke is not an error of the server: it just has no line.
    fn serve(&self, stream: TcpStream, remote: SocketAddr) {
        if let Err(e) = self.serve_one(stream, remote) {
            eprintln!("connection from {remote}: {e}");
        }
    }

    fn serve_one(&self, mut stream: TcpStream, remote: SocketAddr) -> io::Result<()> {
        let local = stream.local_addr()?;
        let (tx_bytes, rx_bytes) = match self.then {
            Then::Close => (0, 0),
            Then::Echo => echo(&mut stream)?,
            Then::Reply => {
                let (want, rx_bytes) = read_request(&mut stream)?;
                (write_filler(&mut stream, want)?, rx_bytes)
            }
            Then::Hold => (0, io::copy(&mut stream, &mut io::sink())?),
        };
        if self.then == Then::Hold {
            self.held.lock().map_err(|_| io::Error::other("a server thread has died"))?.push(stream);
        } else {
            drop(stream);
        }
        if self.quiet {
            return Ok(());
        }
        sys::tell(&Truth::Conn(Conn { pid: sys::pid(), tid: sys::tid(), local, remote, tx_bytes, rx_bytes }))
    }
}

fn echo(stream: &mut TcpStream) -> io::Result<(u64, u64)> {
    let (mut buffer, mut count) = ([0; 16384], 0);
    loop {
        let n = match stream.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
            n => n?,
        };
        if n == 0 {
            return Ok((count, count));
        }
        stream.write_all(buffer.get(..n).unwrap_or_default())?;
        count += n as u64;
    }
}

/// Reads to the end: the number of bytes that the client wants, and the number that it sent.
fn read_request(stream: &mut TcpStream) -> io::Result<(u64, u64)> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let rest = io::copy(stream, &mut io::sink())?;
    Ok((u64::from_le_bytes(header), HEADER_BYTES as u64 + rest))
}

/// Writes that many bytes.
pub fn write_filler(stream: &mut TcpStream, count: u64) -> io::Result<u64> {
    io::copy(&mut io::repeat(b'.').take(count), stream)
}
