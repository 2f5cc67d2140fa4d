//! Two clients that look up a name at the same server from the same port at the same moment, each on its own processor.
//! Where a router hides both behind one address, it chooses the same port for both, and the first packet of only one is let
//! through: the other asks again after 5 s, as glibc does.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use ktrace_traffic::{Ready, Total, Truth};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::{dns, sys};

/// Flags of `udp-race`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A server that answers DNS queries.
    #[arg(long)]
    to: SocketAddr,
    /// An address of each client: two, or one that races with nobody.
    #[arg(long, num_args = 1..=2, required = true)]
    from: Vec<IpAddr>,
    /// Lookups of each client, each an A and an AAAA query from one socket.
    #[arg(long, default_value_t = 100)]
    count: u16,
    /// Port of the first; each further one has the next.
    #[arg(long, default_value_t = 20_000)]
    from_port: u16,
    /// Name that is asked for.
    #[arg(long, default_value = "ok.test")]
    name: String,
    /// Without both answers for so long a client asks again, once, in ms.
    #[arg(long, default_value_t = 5000)]
    retry_ms: u64,
}

/// A socket, and the answers that it has got.
type Lookup<'s> = (&'s UdpSocket, u32);

/// Makes all lookups, waits for the answers, asks again where one is missing, and prints the counts: more than four sends
/// for each pair of lookups are repetitions.
pub fn run(args: &Args) -> io::Result<()> {
    let (arrived, begin) = (&AtomicU64::new(0), Instant::now());
    let clients: Vec<Vec<UdpSocket>> = args.from.iter().map(|from| sockets(args, *from)).collect::<io::Result<_>>()?;
    let mut lookups: Vec<Lookup<'_>> = clients.iter().flatten().map(|socket| (socket, 0)).collect();
    if let Some((first, _)) = lookups.first() {
        sys::tell(&Truth::Ready(Ready { pid: sys::pid(), local: first.local_addr()? }))?;
    }
    let sent_bytes = thread::scope(|scope| {
        let each = clients.iter().enumerate();
        let threads: Vec<_> = each.map(|(cpu, own)| scope.spawn(move || send_all(args, own, cpu, arrived))).collect();
        let join = |it: ScopedJoinHandle<'_, _>| it.join().map_err(|_| io::Error::other("a thread panicked"))?;
        threads.into_iter().map(join).sum::<io::Result<u64>>()
    })?;
    let (pid, send_count) = (sys::pid(), 2 * lookups.len() as u64);
    let mut total = Total { pid, send_count, tx_bytes: sent_bytes, ..Total::default() };
    receive(&mut lookups, args, &mut total)?;
    for (socket, _) in &lookups {
        total.tx_bytes += ask(socket, &args.name)?;
        total.send_count += 2;
    }
    lookups.iter_mut().for_each(|(_, answers)| *answers = 0);
    receive(&mut lookups, args, &mut total)?;
    total.elapsed_ns = u64::try_from(begin.elapsed().as_nanos()).map_err(io::Error::other)?;
    sys::tell(&Truth::Total(total))
}

/// Sends both queries of a lookup; returns their bytes.
fn ask(socket: &UdpSocket, name: &str) -> io::Result<u64> {
    Ok((socket.send(&dns::query(1, name))? + socket.send(&dns::query_v6(2, name))?) as u64)
}

/// The sockets of one client.
fn sockets(args: &Args, from: IpAddr) -> io::Result<Vec<UdpSocket>> {
    let ports = args.from_port..args.from_port.saturating_add(args.count);
    ports
        .map(|port| {
            let socket = UdpSocket::bind((from, port))?;
            socket.connect(args.to)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect()
}

/// One client: for each lookup it waits, without sleeping, until the other one is there, too. Returns the bytes sent.
fn send_all(args: &Args, own: &[UdpSocket], cpu: usize, arrived: &AtomicU64) -> io::Result<u64> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    let mut bytes = 0;
    for (socket, turn) in own.iter().zip(1_u64..) {
        arrived.fetch_add(1, Ordering::SeqCst);
        while arrived.load(Ordering::SeqCst) < args.from.len() as u64 * turn {
            std::hint::spin_loop();
        }
        bytes += ask(socket, &args.name)?;
    }
    Ok(bytes)
}

/// Reads until none is missing or the time is over; what is left has not got both answers.
fn receive(lookups: &mut Vec<Lookup<'_>>, args: &Args, total: &mut Total) -> io::Result<()> {
    let begin = Instant::now();
    let mut buffer = [0; 1500];
    while !lookups.is_empty() && begin.elapsed() < Duration::from_millis(args.retry_ms) {
        for (socket, answers) in lookups.iter_mut() {
            match socket.recv(&mut buffer) {
                Ok(bytes) => {
                    *answers += 1;
                    total.recv_count += 1;
                    total.rx_bytes += bytes as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        lookups.retain(|(_, answers)| *answers < 2);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
