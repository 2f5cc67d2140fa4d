//! One TCP connection that stays open and carries a small request and its answer every now and then.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use ktrace_traffic::{Conn, Ready, Truth};

use crate::sys;

/// Flags of `tcp-chat`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An `echo` server.
    #[arg(long)]
    to: SocketAddr,
    /// Requests before it closes.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// After these, goes on until this file is there.
    #[arg(long)]
    until: Option<PathBuf>,
    /// Pause after each, in ms.
    #[arg(long, default_value_t = 100)]
    interval_ms: u64,
    /// Text of each request.
    #[arg(long, default_value = "ping")]
    text: String,
}

/// Connects, says that it is ready, chats, closes.
pub fn run(args: &Args) -> io::Result<()> {
    let mut stream = TcpStream::connect(args.to)?;
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local }))?;
    let mut count = 0;
    let mut answer = vec![0; args.text.len()];
    let mut rounds = 0;
    while rounds < args.rounds || args.until.as_ref().is_some_and(|file| !file.exists()) {
        rounds += 1;
        stream.write_all(args.text.as_bytes())?;
        stream.read_exact(&mut answer)?;
        count += answer.len() as u64;
        std::thread::sleep(Duration::from_millis(args.interval_ms));
    }
    drop(stream);
    sys::tell(&Truth::Conn(Conn { pid: sys::pid(), tid: sys::tid(), local, remote, tx_bytes: count, rx_bytes: count }))
}
