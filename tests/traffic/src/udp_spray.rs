//! Many short UDP flows at a steady rate: each datagram from a socket of its own, with a port of its own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ktrace_traffic::{Ready, Total, Truth};

use crate::sys;

/// Between two looks at the clock: what is late by then is made up for at once.
const STEP: Duration = Duration::from_millis(1);

/// Flags of `udp-spray`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to send: each port sends one datagram to each of these.
    #[arg(long, required = true)]
    to: Vec<SocketAddr>,
    /// Flows.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// Flows a second; 0: as many as possible.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Port of the first; each further one has the next, once all addresses were sent to.
    #[arg(long, default_value_t = 10_000)]
    from_port: u16,
}

/// Sends all, then prints how many, and how long it took.
pub fn run(args: &Args) -> io::Result<()> {
    let begin = Instant::now();
    let mut total = Total { pid: sys::pid(), ..Total::default() };
    for index in 0..args.count {
        while args.rate > 0 && begin.elapsed() < Duration::from_secs(index as u64) / args.rate {
            std::thread::sleep(STEP);
        }
        let to = args.to.get(index % args.to.len()).ok_or_else(|| io::Error::other("no address"))?;
        let port = u16::try_from(usize::from(args.from_port) + index / args.to.len()).map_err(io::Error::other)?;
        let socket = match to {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?,
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?,
        };
        if index == 0 {
            sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local: socket.local_addr()? }))?;
        }
        socket.connect(to)?;
        total.send_count += 1;
        total.tx_bytes += socket.send(&index.to_be_bytes())? as u64;
    }
    total.elapsed_ns = u64::try_from(begin.elapsed().as_nanos()).map_err(io::Error::other)?;
    sys::tell(&Truth::Total(total))
}
