//! What `client.py` and its servers do, as the lines that a capture without any limit has: from what the programs did,
//! the rules of TCP, and what bundle-format.md says of each key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::line::{CASE, Line};
use crate::hook_limits::UNNAMED;
use crate::net::SERVER4;

const CLIENT4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 2));
const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 2));

/// Bytes of each request and of its answer.
const BYTES: &str = "100";

type Pairs<'a> = &'a [(&'a str, &'a str)];
/// A state change and how its owner is known.
type Change = (&'static str, &'static str, &'static str);

const OPENED: [Change; 2] = [("CLOSE", "SYN_SENT", "connect"), ("SYN_SENT", "ESTABLISHED", "connect")];
const ACCEPTED: [Change; 2] = [("LISTEN", "SYN_RECV", "inherited"), ("SYN_RECV", "ESTABLISHED", "inherited")];

/// Ends first; so does a server that closes first, whose child nobody has used.
const ENDS: [Change; 3] =
    [("ESTABLISHED", "FIN_WAIT1", "close"), ("FIN_WAIT1", "FIN_WAIT2", "close"), ("FIN_WAIT2", "CLOSE", "close")];

/// Is ended by its peer, while its owner is known by `known`.
const fn ended(known: &'static str) -> [Change; 3] {
    [("ESTABLISHED", "CLOSE_WAIT", known), ("CLOSE_WAIT", "LAST_ACK", "close"), ("LAST_ACK", "CLOSE", "close")]
}

/// Name of the process that serves a port.
pub fn server(proto: &str, addr: IpAddr, port: u16) -> String {
    format!("{proto} {addr} {port}")
}

/// Every line of the workload: of `events.jsonl`, then of `sockets.jsonl`.
pub struct Expected {
    /// Keys that tell of a process, by its name.
    pub owners: std::collections::BTreeMap<String, Line>,
    /// Lines so far.
    pub lines: Vec<Line>,
}

/// One socket.
#[derive(Clone)]
struct End {
    socket: Vec<(&'static str, String)>,
    owner: String,
}

impl End {
    fn new(proto: &'static str, netns: &'static str, role: &'static str, owner: &str) -> Self {
        let socket = vec![("proto", proto), ("ns.net", netns), ("role", role), ("socket", "some")];
        Self { socket: socket.into_iter().map(|(k, v)| (k, v.into())).collect(), owner: owner.into() }
    }

    fn client(proto: &'static str, server: IpAddr, port: u16) -> Self {
        let end = Self::new(proto, "client", "client", "client");
        end.with("lport", "any").with("raddr", server).with("rport", port)
    }

    fn server(proto: &'static str, addr: IpAddr, port: u16) -> Self {
        let end = Self::new(proto, "server", "server", &server(proto, addr, port));
        end.with("lport", port).with("laddr", addr).with("raddr", client_of(addr)).with("rport", "any")
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self = self.without(key);
        self.socket.push((key, value.to_string()));
        self
    }

    fn without(mut self, key: &'static str) -> Self {
        self.socket.retain(|(k, _)| *k != key);
        self
    }

    /// A TCP client's own address is known from its connect on.
    fn tcp_client(server: IpAddr, port: u16) -> Self {
        Self::client("tcp", server, port).with("laddr", client_of(server))
    }

    /// A UDP socket that is not bound to an address.
    fn wildcard(self) -> Self {
        self.without("laddr").with("why.laddr", "wildcard_bind")
    }
}

fn client_of(server: IpAddr) -> IpAddr {
    if server.is_ipv4() { CLIENT4 } else { CLIENT6 }
}

/// Of a connection in which a request was answered.
const TALKED: Pairs<'static> = &[("tx_bytes", BYTES), ("rx_bytes", BYTES), ("retrans_count", "0")];
const SILENT: Pairs<'static> = &[("tx_bytes", "0"), ("rx_bytes", "0"), ("retrans_count", "0")];
const RTT: Pairs<'static> = &[("srtt_us", "some"), ("min_rtt_us", "some")];
const REFUSED: Pairs<'static> = &[("error", "ECONNREFUSED"), ("errno", "111")];

impl Expected {
    fn line(&mut self, kind: &str, end: &End, known: &str, more: &[Pairs<'_>]) {
        let mut line: Line = end.socket.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        line.extend(self.owners[&end.owner].clone());
        line.insert("owner".into(), known.into());
        for key in ["ts", "boot_ns", "cpu"] {
            line.insert(key.into(), "some".into());
        }
        line.insert("type".into(), kind.into());
        for (key, value) in more.iter().copied().flatten() {
            line.insert((*key).into(), (*value).into());
        }
        self.lines.push(line);
    }

    fn changes(&mut self, end: &End, changes: &[Change], handshake: Pairs<'_>, close: &[Pairs<'_>]) {
        for (old, new, known) in changes.iter().copied() {
            let states: Pairs<'_> = &[("old_state", old), ("new_state", new)];
            match new {
                // the kernel chooses the port later
                "SYN_SENT" => self.line("tcp_state", &end.clone().without("lport"), known, &[states]),
                "ESTABLISHED" => self.line("tcp_state", end, known, &[states, handshake]),
                "CLOSE" => {
                    let mut more = close.to_vec();
                    more.push(&[("tx_segs_count", "some"), ("rx_segs_count", "some"), ("duration_ns", "some")]);
                    more.push(states);
                    self.line("tcp_state", end, known, &more);
                }
                _ => self.line("tcp_state", end, known, &[states]),
            }
        }
    }

    /// A client's connection that stood, with `retrans` SYNs sent again.
    fn opened(&mut self, end: &End, retrans: &str, call: Pairs<'_>, ending: &[Change], close: &[Pairs<'_>]) {
        let handshake: Pairs<'_> = &[("handshake_ns", "some"), ("syn_retrans_count", retrans)];
        self.changes(end, &[&OPENED, ending].concat(), handshake, close);
        self.line("connect", end, "current", &[&[("syscall_ns", "some")], call]);
    }

    fn accepted(&mut self, end: &End, ending: &[Change], close: &[Pairs<'_>]) {
        self.changes(end, &[&ACCEPTED, ending].concat(), &[], close);
    }

    /// Request, answer, the client closes.
    fn talk(&mut self, server: IpAddr, port: u16, call: Pairs<'_>) {
        let time_wait: Pairs<'_> = &[("time_wait", "true")];
        self.opened(&End::tcp_client(server, port), "0", call, &ENDS, &[TALKED, RTT, time_wait]);
        self.accepted(&End::server("tcp", server, port), &ended("first_io"), &[TALKED, RTT]);
    }

    /// The same with something lost: SYNs sent again, and segments that either end sent again.
    fn lossy(&mut self, port: u16, syns: &str, by_client: &str, by_server: &str) {
        let client: Pairs<'_> = &[("time_wait", "true"), ("retrans_count", by_client)];
        self.opened(&End::tcp_client(SERVER4, port), syns, &[], &ENDS, &[TALKED, RTT, client]);
        let server: Pairs<'_> = &[("retrans_count", by_server)];
        self.accepted(&End::server("tcp", SERVER4, port), &ended("first_io"), &[TALKED, RTT, server]);
    }

    /// A request that waits for its connection has no segments and no round trips to tell of; a connection in `SYN_SENT`
    /// no round trips.
    fn sent_again(&mut self, end: &End, known: &str, kind: &str, state: &str) {
        let what: Pairs<'_> = &[("kind", kind), ("state", state), ("retrans_count", "1")];
        let so_far: Pairs<'_> = match state {
            "SYN_RECV" => &[],
            "SYN_SENT" => &[("tx_segs_count", "some")],
            _ => &[("tx_segs_count", "some"), ("srtt_us", "some")],
        };
        self.line("tcp_retransmit", end, known, &[what, so_far]);
    }

    /// All that `client.py` does with TCP at one address.
    pub fn tcp(&mut self, server: IpAddr) {
        self.talk(server, 8001, &[]);
        let time_wait: Pairs<'_> = &[("time_wait", "true")];
        self.opened(&End::tcp_client(server, 8002), "0", &[], &ended("connect"), &[SILENT, RTT]);
        self.accepted(&End::server("tcp", server, 8002), &ENDS, &[SILENT, RTT, time_wait]);

        let reset = |known| [("ESTABLISHED", "CLOSE", known)];
        self.opened(&End::tcp_client(server, 8003), "0", &[], &reset("connect"), &[TALKED, RTT]);
        let error: Pairs<'_> = &[("error", "ECONNRESET"), ("errno", "104")];
        self.accepted(&End::server("tcp", server, 8003), &reset("first_io"), &[TALKED, RTT, error]);

        let refused = End::tcp_client(server, 9001);
        let changes = [("CLOSE", "SYN_SENT", "connect"), ("SYN_SENT", "CLOSE", "connect")];
        self.changes(&refused, &changes, &[], &[SILENT, REFUSED]);
        // the kernel clears both ends; the remote one is what the call asked for
        let cleared = refused.without("lport").without("laddr").with("why.laddr", "gone");
        self.line("connect", &cleared, "current", &[&[("syscall_ns", "some")], REFUSED]);

        self.talk(server, 8004, IN_PROGRESS);
    }

    /// All that `client.py` does with UDP at one address.
    pub fn udp(&mut self, addr: IpAddr) {
        let (unbound, echo) = (End::client("udp", addr, 7001).wildcard(), End::server("udp", addr, 7001));
        let bound = End::client("udp", addr, 7001).with("laddr", client_of(addr));
        self.exchange(&unbound, &echo, "51", &[]);
        self.exchange(&bound, &echo, "52", &[]);
        self.exchange(&unbound, &echo, "53", &[(CASE, UNNAMED)]);
        let dns = End::client("udp", addr, 53).wildcard();
        let paired: Pairs<'_> = &[("dns_rtt_ns", "some"), ("query_seq", "some")];
        self.exchange(&dns, &End::server("udp", addr, 53), "54", paired);
        let nobody = End::client("udp", addr, 9003).with("laddr", client_of(addr));
        for bytes in ["55", "57"] {
            self.line("udp_send", &nobody, "current", &[&[("bytes", bytes)]]);
        }
        self.line("udp_send", &nobody, "current", &[REFUSED]);
        self.line("udp_send", &nobody, "current", &[&[("error", "EMSGSIZE"), ("errno", "90")]]);
        self.line("udp_recv", &nobody, "current", &[REFUSED]);
    }

    /// A v6 socket and v4: both ends are shown as v4.
    pub fn mapped(&mut self) {
        let unbound = |port| End::client("udp", SERVER4, port).wildcard();
        self.exchange(&unbound(7001), &End::server("udp", SERVER4, 7001).without("role"), "58", &[]);
        let any =
            End { owner: server("udp", IpAddr::V6(Ipv6Addr::UNSPECIFIED), 7002), ..End::server("udp", SERVER4, 7002) };
        self.exchange(&unbound(7002), &any.wildcard(), "58", &[]);
    }

    /// A connection that is older than the window: whose it is says the file table, until somebody closes it.
    pub fn old(&mut self) {
        let twice: Pairs<'_> = &[("tx_bytes", "200"), ("rx_bytes", "200")];
        let time_wait: Pairs<'_> = &[("time_wait", "true")];
        let (client, server) = (End::tcp_client(SERVER4, 8009), End::server("tcp", SERVER4, 8009));
        let from = self.lines.len();
        self.changes(&client.without("role"), &ENDS, &[], &[TALKED, RTT, twice, time_wait]);
        self.changes(&server.without("role"), &ended("fd_table"), &[], &[TALKED, RTT, twice]);
        for line in &mut self.lines[from..] {
            line.remove("duration_ns");
        }
    }

    /// A listener that comes and goes.
    pub fn listener(&mut self) {
        let end = End::new("tcp", "client", "listener", "client").with("laddr", "127.0.0.1").with("lport", 8010);
        self.line("tcp_state", &end, "listen", &[&[("old_state", "CLOSE"), ("new_state", "LISTEN")]]);
        let close: Pairs<'_> = &[("old_state", "LISTEN"), ("new_state", "CLOSE"), ("duration_ns", "some")];
        self.line("tcp_state", &end, "close", &[close]);
    }

    /// A connect that its program gives up, and one that is answered, with a reset, when it asks again.
    pub fn in_vain(&mut self) {
        let changes = [("CLOSE", "SYN_SENT", "connect"), ("SYN_SENT", "CLOSE", "connect")];
        let end = End::tcp_client(SERVER4, 9004);
        self.changes(&end, &changes, &[], &[SILENT, &[("gave_up_after_ns", "some")]]);
        self.line("connect", &end, "current", &[&[("syscall_ns", "some")], IN_PROGRESS]);
        let end = End::tcp_client(SERVER4, 8008);
        self.changes(&end, &changes, &[], &[SILENT, REFUSED, &[("retrans_count", "1")]]);
        self.line("connect", &end, "current", &[&[("syscall_ns", "some")], IN_PROGRESS]);
        self.sent_again(&end, "connect", "syn", "SYN_SENT");
        let listener = End::server("tcp", SERVER4, 8008).without("socket");
        self.sent_again(&listener, "fd_table", "synack", "SYN_RECV");
    }

    /// What is still open when the window closes: a connection, and a UDP socket with an answer that nobody reads.
    pub fn held(&mut self) {
        let (client, server) = (End::tcp_client(SERVER4, 8011), End::server("tcp", SERVER4, 8011));
        self.opened(&client, "0", &[], &[], &[]);
        self.accepted(&server, &[], &[]);
        let echo = End::server("udp", SERVER4, 7001).without("role");
        let bytes: Pairs<'_> = &[("bytes", "59")];
        self.line("udp_send", &End::client("udp", SERVER4, 7001).wildcard(), "current", &[bytes]);
        self.line("udp_recv", &echo, "current", &[bytes]);
        self.line("udp_send", &echo, "current", &[bytes]);
    }

    /// The sockets that are open when the window opens and when it closes.
    pub fn sockets(&mut self, somaxconn: &str) {
        let (from, servers) = (self.lines.len(), self.owners.clone());
        let moved: Pairs<'_> = &[("state", "ESTABLISHED"), ("tx_segs_count", "some"), ("srtt_us", "some")];
        let empty: Pairs<'_> = &[("rx_queue_bytes", "0"), ("tx_queue_bytes", "some")];
        for (when, known) in [("start", "fd_table"), ("end", "current")] {
            for name in servers.keys().filter(|name| *name != "client") {
                let [proto, addr, port] = name.split(' ').collect::<Vec<_>>()[..] else { panic!("{name}") };
                let end = End::new("tcp", "server", "listener", name).with("lport", port).with("proto", proto);
                let end = if addr == "::" { end.wildcard() } else { end.with("laddr", addr) };
                let listens: Pairs<'_> = &[("state", "LISTEN"), ("backlog", somaxconn.trim()), ("accept_queue", "0")];
                match proto {
                    "tcp" => self.line(when, &end, "fd_table", &[listens]),
                    _ => self.line(when, &end.without("role"), known, &[empty]),
                }
            }
        }
        for end in [End::tcp_client(SERVER4, 8009), End::server("tcp", SERVER4, 8009)] {
            self.line("start", &end.without("role"), "fd_table", &[TALKED, moved, empty]);
        }
        let young: Pairs<'_> = &[("age_ns", "some")];
        self.line("end", &End::tcp_client(SERVER4, 8011), "connect", &[TALKED, moved, empty, young]);
        self.line("end", &End::server("tcp", SERVER4, 8011), "first_io", &[TALKED, moved, empty, young]);
        let waiting = End::client("udp", SERVER4, 7001).without("raddr").without("rport").wildcard();
        self.line("end", &waiting, "current", &[empty, young, &[("rx_queue_bytes", "some")]]);
        for line in &mut self.lines[from..] {
            let when = line.remove("type").unwrap();
            line.insert("when".into(), when);
            line.remove("cpu");
        }
    }

    /// A datagram and the same back. The server's socket is older than the window: nobody saw what it began with.
    fn exchange(&mut self, client: &End, echo: &End, bytes: &str, answer: Pairs<'_>) {
        let (bytes, echo): (Pairs<'_>, _) = (&[("bytes", bytes)], echo.clone().without("role"));
        self.line("udp_send", client, "current", &[bytes]);
        self.line("udp_recv", &echo, "current", &[bytes]);
        self.line("udp_send", &echo, "current", &[bytes]);
        self.line("udp_recv", client, "current", &[bytes, answer]);
    }

    /// What is lost once.
    pub fn losses(&mut self) {
        self.lossy(8005, "1", "1", "0");
        self.sent_again(&End::tcp_client(SERVER4, 8005), "connect", "syn", "SYN_SENT");
        self.lossy(8006, "0", "1", "0");
        self.sent_again(&End::tcp_client(SERVER4, 8006), "connect", "data", "ESTABLISHED");
        self.lossy(8007, "0", "0", "1");
        self.sent_again(&End::server("tcp", SERVER4, 8007), "first_io", "probe", "ESTABLISHED");
    }
}

const IN_PROGRESS: Pairs<'static> = &[("error", "EINPROGRESS"), ("errno", "115"), ("nonblocking", "true")];
