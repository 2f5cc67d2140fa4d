//! Sockets one by one → how many there are in which state, what waits in them, and which ephemeral ports are in use. Memory
//! does not grow with their number.

use std::collections::HashMap;

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::node::{Ports, Sockets};

use super::diag::{Socket, state_name};

/// Other ends that are counted at a time. The one with the most sockets is among them for certain, with at most one in so many
/// uncounted.
const MOST_ENDS: usize = 1 << 12;
const WORDS: usize = 1 << 10;

/// A set of ports.
struct PortSet(Box<[u64; WORDS]>);

impl PortSet {
    fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }

    fn insert(&mut self, port: u16) {
        if let Some(word) = self.0.get_mut(usize::from(port >> 6)) {
            *word |= 1 << (port & 63);
        }
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// The sums so far.
pub struct Tally {
    range: (u16, u16),
    by_state: [u64; 16],
    sockets: Sockets,
    tcp: PortSet,
    udp: PortSet,
    ends: HashMap<Endpoint, u64>,
}

impl Tally {
    /// `range`: the ephemeral ports, first and last.
    pub fn new(range: (u16, u16)) -> Self {
        let (tcp, udp) = (PortSet::new(), PortSet::new());
        Self { range, by_state: [0; 16], sockets: Sockets::default(), tcp, udp, ends: HashMap::new() }
    }

    fn in_range(&self, socket: &Socket) -> Option<u16> {
        let (low, high) = self.range;
        socket.local.port.filter(|port| (low..=high).contains(port))
    }

    /// Adds a TCP socket.
    pub fn tcp(&mut self, socket: &Socket) {
        if let Some(count) = self.by_state.get_mut(usize::from(socket.state)) {
            *count += 1;
        }
        let Some(port) = self.in_range(socket) else { return self.queues(socket) };
        self.tcp.insert(port);
        if socket.state != LISTEN && socket.remote.addr.is_some() {
            if self.ends.len() >= MOST_ENDS && !self.ends.contains_key(&socket.remote) {
                // those that are rare go (Misra and Gries)
                self.ends.retain(|_, count| {
                    *count -= 1;
                    *count > 0
                });
            }
            *self.ends.entry(socket.remote).or_default() += 1;
        }
        self.queues(socket);
    }

    /// Adds a UDP socket.
    pub fn udp(&mut self, socket: &Socket) {
        self.sockets.udp += 1;
        if let Some(port) = self.in_range(socket) {
            self.udp.insert(port);
        }
        self.queues(socket);
    }

    fn queues(&mut self, socket: &Socket) {
        // those of a listener count connections
        if socket.state != LISTEN {
            self.sockets.rx_queue_bytes += u64::from(socket.rx_queue);
            self.sockets.tx_queue_bytes += u64::from(socket.tx_queue);
        }
    }

    /// The sums. `reserved`: ports of the range that may not be chosen.
    pub fn finish(self, reserved: u64) -> (Sockets, Ports) {
        let Self { range: (low, high), by_state, mut sockets, tcp, udp, ends } = self;
        let states = by_state.iter().zip(0_u8..).filter(|(count, _)| **count > 0);
        sockets.tcp = states.map(|(count, state)| (state_name(state), *count)).collect();
        let busiest = ends.into_iter().max_by_key(|(end, count)| (*count, *end));
        let ports = Ports {
            low,
            high,
            reserved_count: reserved,
            tcp_used_count: tcp.count(),
            udp_used_count: udp.count(),
            busiest: busiest.map(|(end, _)| end),
            busiest_count: busiest.map_or(0, |(_, count)| count),
        };
        (sockets, ports)
    }
}

/// Kernel number of the state.
pub const LISTEN: u8 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(state: u8, port: u16, to: &str) -> Socket {
        let end =
            |text: &str| text.parse::<std::net::SocketAddr>().map(|it| Endpoint::new(it.ip(), it.port())).unwrap();
        let local = Endpoint::new([10, 0, 0, 1].into(), port);
        Socket { state, local, remote: end(to), cookie: 1, rx_queue: 2, tx_queue: 3, drops: None }
    }

    #[test]
    fn ports_count_once_and_the_busiest_end_is_known_among_very_many() {
        let mut tally = Tally::new((40_000, 40_099));
        for port in 40_000..40_100 {
            tally.tcp(&socket(1, port, "10.0.0.2:443"));
            // a server's port is one, whoever comes
            tally.tcp(&socket(6, 40_007, &format!("10.0.0.3:{port}")));
        }
        for n in 0..3 * MOST_ENDS as u32 {
            let [_, _, a, b] = n.to_be_bytes();
            tally.tcp(&socket(1, 40_000, &format!("10.1.{a}.{b}:80")));
        }
        tally.tcp(&socket(LISTEN, 80, "10.0.0.2:443"));
        tally.udp(&socket(7, 40_001, "10.0.0.2:53"));
        let (sockets, ports) = tally.finish(4);
        assert_eq!(ports.busiest, Some(Endpoint::new([10, 0, 0, 2].into(), 443)));
        assert!((97..=100).contains(&ports.busiest_count), "{ports:?}");
        assert_eq!((ports.tcp_used_count, ports.udp_used_count, ports.reserved_count), (100, 1, 4));
        let established = 100 + 3 * MOST_ENDS as u64;
        let states = [("ESTABLISHED", established), ("LISTEN", 1), ("TIME_WAIT", 100)];
        assert_eq!(sockets.tcp, states.map(|(name, count)| (name.to_owned(), count)).into());
        assert_eq!((sockets.udp, sockets.rx_queue_bytes), (1, 2 * (established + 100 + 1)));
    }
}
