//! `traffic`: makes exact traffic and prints what it did, one JSON line per operation or connection.
//!
//! Each subcommand is a small program of its own. All of them die with their parent and after `--limit-s`.
//! A failure of the program itself goes to stderr with exit code 1; a failed operation is data.

mod chat;
mod connect;
mod crowd;
mod dns;
mod sys;
mod tcp_client;
mod tcp_server;
mod udp;
mod udp_batch;
mod udp_pump;
mod udp_race;
mod udp_spray;
mod uring;
mod uring_tcp;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Makes exact, self-counted network traffic for tests.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Seconds after which the program dies in any case.
    #[arg(long, default_value_t = 60, global = true, overrides_with = "limit_s")]
    limit_s: u32,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Accept TCP connections.
    TcpServer(tcp_server::Args),
    /// Make many TCP connections.
    TcpClient(tcp_client::Args),
    /// Keep one TCP connection busy with small requests to an `echo` server.
    TcpChat(chat::Args),
    /// Hold ten sockets open in each of many processes.
    Crowd(crowd::Args),
    /// Connect without blocking, and give up after a while.
    Connect(connect::Args),
    /// Connect to two addresses, the second a little later; the first to stand wins.
    Race(connect::RaceArgs),
    /// Answer every datagram with itself.
    UdpEcho(udp::EchoArgs),
    /// Send datagrams as fast as possible.
    UdpFlood(udp::FloodArgs),
    /// Send datagrams at a steady pace and print each.
    UdpPaced(udp::PacedArgs),
    /// Send DNS queries with `sendmmsg`, read the answers with `recvmmsg`.
    UdpBatch(udp_batch::Args),
    /// Send datagrams to itself in batches, as fast as possible.
    UdpPump(udp_pump::Args),
    /// Send DNS queries from two addresses with the same port at the same moment, so that their translations collide.
    UdpRace(udp_race::Args),
    /// Send datagrams, each from a socket and a port of its own.
    UdpSpray(udp_spray::Args),
    /// Make or serve one TCP connection through io_uring.
    TcpUring(uring_tcp::Args),
    /// Send and receive datagrams through io_uring.
    UdpUring(uring::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = sys::guard(cli.limit_s).and_then(|()| match cli.command {
        Command::TcpServer(args) => tcp_server::run(&args, cli.limit_s),
        Command::TcpClient(args) => tcp_client::run(&args, cli.limit_s),
        Command::TcpChat(args) => chat::run(&args),
        Command::Crowd(args) => crowd::run(&args, cli.limit_s),
        Command::Connect(args) => connect::run(&args),
        Command::Race(args) => connect::race(&args),
        Command::UdpEcho(args) => udp::echo(&args),
        Command::UdpFlood(args) => udp::flood(&args),
        Command::UdpPaced(args) => udp::paced(&args),
        Command::UdpBatch(args) => udp_batch::run(&args),
        Command::UdpPump(args) => udp_pump::run(&args),
        Command::UdpRace(args) => udp_race::run(&args),
        Command::UdpSpray(args) => udp_spray::run(&args),
        Command::TcpUring(args) => uring_tcp::run(&args, cli.limit_s),
        Command::UdpUring(args) => uring::run(&args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
