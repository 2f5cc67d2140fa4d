//! UDP with one system call per datagram: an echo server, a flood, and a steady sender whose every send is printed.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ktrace_traffic::{Datagram, Dir, Ready, Total, Truth};

use crate::sys;

/// Flags of `udp-echo`.
#[derive(Debug, clap::Args)]
pub struct EchoArgs {
    /// Address to bind; port 0 lets the kernel choose.
    #[arg(long)]
    listen: SocketAddr,
    /// Print no line per datagram.
    #[arg(long)]
    quiet: bool,
    /// Milliseconds before each answer; what comes meanwhile waits.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

/// Flags of `udp-flood`.
#[derive(Debug, clap::Args)]
pub struct FloodArgs {
    /// Address to send to.
    #[arg(long)]
    to: SocketAddr,
    /// Payload bytes of each.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// Milliseconds to go on.
    #[arg(long, default_value_t = 1000)]
    duration_ms: u64,
    /// Pause in µs after each burst of 64; 0 sends without pause.
    #[arg(long, default_value_t = 0)]
    pause_us: u64,
}

/// Flags of `udp-paced`.
#[derive(Debug, clap::Args)]
pub struct PacedArgs {
    /// Address to send to.
    #[arg(long)]
    to: SocketAddr,
    /// Datagrams; the first has `--bytes`, each further one byte more, up to 1000 more.
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Payload bytes of the first.
    #[arg(long, default_value_t = 32)]
    bytes: u64,
    /// Pause after each, in µs.
    #[arg(long, default_value_t = 1000)]
    interval_us: u64,
    /// Connect the socket first.
    #[arg(long)]
    connected: bool,
    /// Text that the payload repeats.
    #[arg(long, default_value = ".")]
    text: String,
}

/// A socket bound to the wildcard of the same family as `to`.
pub fn wildcard_socket(to: SocketAddr) -> io::Result<UdpSocket> {
    match to {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// A finished operation of this thread that began at `begin_ns`.
pub fn datagram(
    dir: Dir,
    call: &str,
    socket: &UdpSocket,
    remote: Option<SocketAddr>,
    result: &io::Result<usize>,
    begin_ns: u64,
) -> io::Result<Truth> {
    Ok(Truth::Datagram(Datagram {
        dir,
        call: call.into(),
        pid: sys::pid(),
        tid: sys::tid(),
        local: socket.local_addr()?,
        remote,
        bytes: result.as_ref().ok().map(|n| *n as u64),
        errno: result.as_ref().err().and_then(io::Error::raw_os_error),
        begin_ns,
        end_ns: sys::boot_ns()?,
    }))
}

/// Answers until it is killed.
pub fn echo(args: &EchoArgs) -> io::Result<()> {
    let socket = UdpSocket::bind(args.listen)?;
    sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local: socket.local_addr()? }))?;
    let mut buffer = vec![0; 65536];
    loop {
        let begin_ns = sys::boot_ns()?;
        let (n, from) = socket.recv_from(&mut buffer)?;
        let received = datagram(Dir::Recv, "recvfrom", &socket, Some(from), &Ok(n), begin_ns)?;
        std::thread::sleep(Duration::from_millis(args.delay_ms));
        let begin_ns = sys::boot_ns()?;
        let sent = socket.send_to(buffer.get(..n).unwrap_or_default(), from);
        let sent = datagram(Dir::Send, "sendto", &socket, Some(from), &sent, begin_ns)?;
        if !args.quiet {
            sys::tell(&received)?;
            sys::tell(&sent)?;
        }
    }
}

/// Sends for `duration_ms`, then prints how much.
pub fn flood(args: &FloodArgs) -> io::Result<()> {
    let socket = wildcard_socket(args.to)?;
    sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local: socket.local_addr()? }))?;
    let payload = vec![b'.'; args.bytes];
    let end = Instant::now() + Duration::from_millis(args.duration_ms);
    let mut total = Total { pid: sys::pid(), ..Total::default() };
    while Instant::now() < end {
        for _ in 0..64 {
            if let Ok(n) = socket.send_to(&payload, args.to) {
                total.send_count += 1;
                total.tx_bytes += n as u64;
            }
        }
        if args.pause_us > 0 {
            std::thread::sleep(Duration::from_micros(args.pause_us));
        }
    }
    sys::tell(&Truth::Total(total))
}

/// Sends `count` datagrams and prints each.
pub fn paced(args: &PacedArgs) -> io::Result<()> {
    let socket = wildcard_socket(args.to)?;
    if args.connected {
        socket.connect(args.to)?;
    }
    sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local: socket.local_addr()? }))?;
    let longest = usize::try_from(args.bytes + 1000).map_err(io::Error::other)?;
    let payload: Vec<u8> = args.text.bytes().cycle().take(longest).collect();
    for i in 0..args.count {
        let length = usize::try_from(args.bytes + i % 1001).map_err(io::Error::other)?;
        let bytes = payload.get(..length).unwrap_or_default();
        let begin_ns = sys::boot_ns()?;
        let (call, sent) = match args.connected {
            true => ("send", socket.send(bytes)),
            false => ("sendto", socket.send_to(bytes, args.to)),
        };
        sys::tell(&datagram(Dir::Send, call, &socket, Some(args.to), &sent, begin_ns)?)?;
        std::thread::sleep(Duration::from_micros(args.interval_us));
    }
    Ok(())
}
