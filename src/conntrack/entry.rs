//! One tracked connection, whichever source told of it.

use std::net::SocketAddr;

use ktrace_bundle::event::Proto;

/// The status bit of a connection that was answered (`IPS_SEEN_REPLY`).
const SEEN_REPLY: u32 = 1 << 1;
/// The status bit of one that is not given up when the table is full (`IPS_ASSURED`).
const ASSURED: u32 = 1 << 2;

/// The addresses of a connection's packets in one direction, as they are on the wire: an IPv4 address is never written as
/// an IPv6 one, and there is neither a scope nor a flow label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// TCP or UDP; no other protocol is read.
    pub proto: Proto,
    /// Where these packets come from.
    pub src: SocketAddr,
    /// Where they go to.
    pub dst: SocketAddr,
}

impl Tuple {
    /// The packets of the other direction, were no address translated.
    #[cfg(test)]
    pub const fn reversed(self) -> Self {
        Self { proto: self.proto, src: self.dst, dst: self.src }
    }
}

/// One of a connection's two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// That of the end which began it.
    Original,
    /// That of the answers.
    Reply,
}

/// How far a TCP connection got, as connection tracking sees it from its packets (`enum tcp_conntrack`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcpState {
    /// Nothing was seen yet.
    None,
    /// A SYN was.
    SynSent,
    /// A SYN and its SYN-ACK were.
    SynRecv,
    /// It is open.
    Established,
    /// One end has sent its FIN.
    FinWait,
    /// The other end has acknowledged it.
    CloseWait,
    /// Both ends have sent a FIN.
    LastAck,
    /// Both were acknowledged.
    TimeWait,
    /// A reset was seen, or the wait is over.
    Close,
    /// Both ends have sent a SYN at once.
    SynSent2,
}

impl TcpState {
    /// All, in the kernel's order: its number is the index.
    const ALL: [Self; 10] = [
        Self::None,
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::SynSent2,
    ];

    /// Of the kernel's number; `None`: there is no such state.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Of the kernel's name (`tcp_conntrack_names`).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// The kernel's name of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
        }
    }
}

/// What connection tracking holds of one connection (`struct nf_conn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The packets of the end that began it, before any address is translated.
    pub original: Tuple,
    /// The packets that answer, before they are translated back: from the real backend to the address it sees.
    pub reply: Tuple,
    /// `IPS_*` bits (`nf_conn.status`); procfs does not have them.
    pub status: Option<u32>,
    /// Of TCP only; absent where the source does not repeat it, as in most updates, and of offloaded flows in procfs.
    pub tcp_state: Option<TcpState>,
    /// The zone that it is tracked in, for both directions or for one; 0 is the usual one.
    pub zone: u16,
    /// The mark that rules gave it; an event repeats it only when it changed or is not 0.
    pub mark: Option<u32>,
    /// A packet of the reply direction was seen.
    pub is_replied: bool,
    /// It has carried enough both ways that a full table does not give it up.
    pub is_assured: bool,
}

impl Entry {
    /// An entry with the facts that follow from its status bits.
    pub const fn with_status(original: Tuple, reply: Tuple, status: u32) -> Self {
        let (is_replied, is_assured) = (status & SEEN_REPLY != 0, status & ASSURED != 0);
        Self { original, reply, status: Some(status), tcp_state: None, zone: 0, mark: None, is_replied, is_assured }
    }

    /// The packets of this direction.
    pub const fn tuple(&self, direction: Direction) -> Tuple {
        match direction {
            Direction::Original => self.original,
            Direction::Reply => self.reply,
        }
    }

    /// Whether the destination is translated: another end answers than was asked, or another port.
    pub fn is_dnat(&self) -> bool {
        self.reply.src != self.original.dst
    }

    /// Whether the source is translated: the answer goes to another address than asked, or to another port.
    pub fn is_snat(&self) -> bool {
        self.reply.dst != self.original.src
    }

    /// The kernel's name of the TCP state; of UDP `UNREPLIED`, `REPLIED` or `ASSURED`. `None`: a TCP state was not told.
    pub fn state(&self) -> Option<&'static str> {
        match (self.original.proto, self.is_assured, self.is_replied) {
            (Proto::Tcp, _, _) => self.tcp_state.map(TcpState::as_str),
            (Proto::Udp, true, _) => Some("ASSURED"),
            (Proto::Udp, false, true) => Some("REPLIED"),
            (Proto::Udp, false, false) => Some("UNREPLIED"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(proto: Proto, src: &str, dst: &str) -> Tuple {
        Tuple { proto, src: src.parse().unwrap(), dst: dst.parse().unwrap() }
    }

    #[test]
    fn the_names_of_tcp_states_lead_back_to_them() {
        for (number, state) in (0..).zip(TcpState::ALL) {
            assert_eq!(TcpState::from_number(number), Some(state));
            assert_eq!(TcpState::from_name(state.as_str()), Some(state));
        }
        assert_eq!(TcpState::from_number(10), None);
    }

    #[test]
    fn an_entry_is_translated_where_the_answer_differs_from_the_question() {
        let asked = tuple(Proto::Udp, "10.0.0.1:999", "10.96.0.10:53");
        let plain = Entry::with_status(asked, asked.reversed(), 0);
        assert_eq!((plain.is_dnat(), plain.is_snat()), (false, false));
        let dnat = Entry { reply: tuple(Proto::Udp, "10.1.0.7:53", "10.0.0.1:999"), ..plain };
        assert_eq!((dnat.is_dnat(), dnat.is_snat()), (true, false));
        let both = Entry { reply: tuple(Proto::Udp, "10.1.0.7:53", "10.1.0.1:999"), ..plain };
        assert_eq!((both.is_dnat(), both.is_snat()), (true, true));
    }

    #[test]
    fn the_state_of_udp_is_how_much_was_answered() {
        let asked = tuple(Proto::Udp, "[fd00::1]:999", "[fd00::2]:53");
        let state = |status| Entry::with_status(asked, asked.reversed(), status).state();
        assert_eq!([0, SEEN_REPLY, SEEN_REPLY | ASSURED].map(state), ["UNREPLIED", "REPLIED", "ASSURED"].map(Some));
    }

    #[test]
    fn the_state_of_tcp_is_what_was_told() {
        let asked = tuple(Proto::Tcp, "10.0.0.1:999", "10.0.0.2:80");
        let mut entry = Entry::with_status(asked, asked.reversed(), SEEN_REPLY | ASSURED);
        assert_eq!(entry.state(), None);
        entry.tcp_state = Some(TcpState::Established);
        assert_eq!(entry.state(), Some("ESTABLISHED"));
    }

    #[test]
    fn thousands_of_entries_are_few_bytes() {
        assert!(size_of::<Entry>() <= 160, "{}", size_of::<Entry>());
    }
}
