//! DNS queries of growing length in one `sendmmsg(2)`, and the answers by `recvmmsg(2)`: several datagrams per call.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use ktrace_traffic::{Datagram, Dir, Truth};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use crate::udp::wildcard_socket;
use crate::{dns, sys};

/// Flags of `udp-batch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// DNS server.
    #[arg(long)]
    to: SocketAddr,
    /// Domain that the server answers for.
    #[arg(long, default_value = "ok.test")]
    domain: String,
    /// Queries in the batch, at most 32.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    count: u16,
}

/// Sends one batch, then reads until as many answers are in.
pub fn run(args: &Args) -> io::Result<()> {
    let socket = wildcard_socket(args.to)?;
    let local = socket.local_addr()?;
    let line = |dir, call: &str, remote, bytes: usize, begin_ns, end_ns| {
        let (pid, tid, call) = (sys::pid(), sys::tid(), call.to_owned());
        let bytes = Some(bytes as u64);
        sys::tell(&Truth::Datagram(Datagram {
            dir,
            call,
            pid,
            tid,
            local,
            remote,
            bytes,
            errno: None,
            begin_ns,
            end_ns,
        }))
    };

    let queries: Vec<_> = (0..args.count)
        .map(|i| dns::query(i, &format!("{}.{}", "q".repeat(usize::from(i) + 1), args.domain)))
        .collect();
    let slices: Vec<_> = queries.iter().map(|q| [IoSlice::new(q)]).collect();
    let to = vec![Some(SockaddrStorage::from(args.to)); queries.len()];
    let mut headers = MultiHeaders::preallocate(queries.len(), None);
    let begin_ns = sys::boot_ns()?;
    let sent: Vec<_> =
        sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, [], MsgFlags::empty())?.map(|r| r.bytes).collect();
    let end_ns = sys::boot_ns()?;
    for bytes in &sent {
        line(Dir::Send, "sendmmsg", Some(args.to), *bytes, begin_ns, end_ns)?;
    }

    let mut missing = sent.len();
    while missing > 0 {
        let mut buffers = vec![[0; 1500]; missing];
        let mut slices: Vec<_> = buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(missing, None);
        let begin_ns = sys::boot_ns()?;
        let flags = MsgFlags::MSG_WAITFORONE;
        let got: Vec<_> =
            recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)?.map(|r| r.bytes).collect();
        let end_ns = sys::boot_ns()?;
        for bytes in &got {
            line(Dir::Recv, "recvmmsg", Some(args.to), *bytes, begin_ns, end_ns)?;
        }
        missing -= got.len();
    }
    Ok(())
}
