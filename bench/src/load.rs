//! The watched work: a client and a server on loopback that do one small thing as often as they can.
//!
//! One operation is a TCP connect/echo/close, or a UDP round trip. The server is a process of its own, so that
//! both ends have an owner; both ends run on one CPU, so that a slice of time measures their work and nothing else.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::BenchError;

/// Bytes sent each way in one operation.
const MESSAGE_BYTES: usize = 100;
/// CPU that client and server share.
const CPU: usize = 0;
/// Operations between two looks at the clock.
const BATCH: u64 = 32;
/// Longer than any operation on loopback takes; only a lost datagram or a dead server meets it.
const STUCK: Duration = Duration::from_secs(5);

/// What one operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A TCP connection: connect, echo 100 bytes, close.
    Tcp,
    /// A UDP round trip: two sends, two receives.
    Udp,
}

impl Kind {
    /// The name that the `serve` command takes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What one slice of time gave, in µs per operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// Time that passed.
    pub wall_us: f64,
    /// CPU time of client and server.
    pub cpu_us: f64,
    /// Operations done.
    pub ops: u64,
}

/// The server process; it ends with this value.
pub struct Server {
    child: Child,
    kind: Kind,
    port: u16,
    slices: u32,
}

impl Server {
    /// Starts this program again as the server of `kind`, and waits until it listens.
    ///
    /// # Errors
    /// [`BenchError::Io`] when it could not be started or did not name its port.
    pub fn start(kind: Kind) -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::io("own program"))?;
        let mut child = Command::new(program)
            .args(["serve", kind.as_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(BenchError::io("start the server"))?;
        let mut port = [0; 2];
        let named = match child.stdout.take() {
            Some(mut out) => out.read_exact(&mut port),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        named.map_err(BenchError::io("the server's port"))?;
        Ok(Self { child, kind, port: u16::from_be_bytes(port), slices: 0 })
    }

    /// Runs the client for `time` against a loopback address of its own, so that the ports which an earlier
    /// slice left in `TIME_WAIT` do not slow this one down.
    ///
    /// # Errors
    /// [`BenchError::Io`] when an operation failed.
    pub fn slice(&mut self, time: Duration) -> Result<Slice, BenchError> {
        self.slices += 1;
        let [_, b, c, d] = (self.slices + 1).to_be_bytes();
        let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, b, c, d)), self.port);
        let kind = self.kind;
        let before = self.cpu_time()?;
        // a thread, as the tools that the main thread starts would inherit its CPU
        let client = std::thread::spawn(move || client(kind, server, time));
        let run = client.join().map_err(|_| BenchError::Tool { name: "client", why: "it panicked".into() })?;
        let run = run.map_err(BenchError::io("the client"))?;
        let cpu = run.cpu + self.cpu_time()?.saturating_sub(before);
        let per_op = |time: Duration| time.as_secs_f64() * 1e6 / run.ops as f64;
        Ok(Slice { wall_us: per_op(run.wall), cpu_us: per_op(cpu), ops: run.ops })
    }

    fn cpu_time(&self) -> Result<Duration, BenchError> {
        cpu_time_of(&self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // it has nothing to save; a failure means that it is gone already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time that a child process has used so far.
///
/// # Errors
/// [`BenchError::Io`] when it is gone.
pub fn cpu_time_of(child: &Child) -> Result<Duration, BenchError> {
    let clock = clock_getcpuclockid(Pid::from_raw(child.id().cast_signed()));
    let time = clock.and_then(clock_gettime).map_err(|e| BenchError::io("CPU time of a process")(e.into()))?;
    Ok(time.into())
}

struct Run {
    wall: Duration,
    cpu: Duration,
    ops: u64,
}

fn client(kind: Kind, server: SocketAddr, time: Duration) -> std::io::Result<Run> {
    pin()?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(STUCK))?;
    let start = Instant::now();
    let mut ops = 0;
    while ops == 0 || start.elapsed() < time {
        for _ in 0..BATCH {
            match kind {
                Kind::Tcp => tcp_operation(server)?,
                Kind::Udp => udp_operation(&socket, server)?,
            }
        }
        ops += BATCH;
    }
    let wall = start.elapsed();
    let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into();
    Ok(Run { wall, cpu, ops })
}

fn tcp_operation(server: SocketAddr) -> std::io::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(&message)?;
    stream.read_exact(&mut message)
}

fn udp_operation(socket: &UdpSocket, server: SocketAddr) -> std::io::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    socket.send_to(&message, server)?;
    socket.recv_from(&mut message).map(|_| ())
}

/// The server's whole life: names its port on stdout in two bytes, then answers until it is killed.
///
/// # Errors
/// Whatever the socket said.
pub fn serve(kind: Kind) -> std::io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    pin()?;
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    match kind {
        Kind::Tcp => {
            let listener = TcpListener::bind(any)?;
            name_port(listener.local_addr()?)?;
            loop {
                echo(listener.accept()?.0);
            }
        }
        Kind::Udp => {
            let socket = UdpSocket::bind(any)?;
            name_port(socket.local_addr()?)?;
            let mut message = [0; MESSAGE_BYTES];
            loop {
                let (_, peer) = socket.recv_from(&mut message)?;
                socket.send_to(&message, peer)?;
            }
        }
    }
}

/// Answers until the client closes. A client that is gone early is the client's failure to report.
fn echo(mut stream: TcpStream) {
    let mut message = [0; MESSAGE_BYTES];
    while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
}

fn name_port(address: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(&address.port().to_be_bytes())?;
    out.flush()
}

fn pin() -> nix::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(CPU)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_counts_its_operations_and_their_cost() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                echo(stream);
            }
        });
        let run = client(Kind::Tcp, server, Duration::ZERO).unwrap();
        assert_eq!(run.ops, BATCH);
        assert!(run.cpu > Duration::ZERO && run.wall > Duration::ZERO);
    }
}
