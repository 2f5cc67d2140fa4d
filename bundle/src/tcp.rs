//! TCP states by their kernel names.

macro_rules! states {
    ($($(#[$doc:meta])* $variant:ident = $num:literal $text:literal,)*) => {
        /// State of a TCP socket (`include/net/tcp_states.h`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
        pub enum TcpState {
            $($(#[$doc])* #[serde(rename = $text)] $variant = $num,)*
        }

        impl TcpState {
            /// The state with this kernel number.
            pub const fn from_kernel(number: u8) -> Option<Self> {
                match number { $($num => Some(Self::$variant),)* _ => None }
            }

            /// The kernel's name, without `TCP_`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

states! {
    /// Data flows both ways.
    Established = 1 "ESTABLISHED",
    /// A SYN was sent, nothing came back yet.
    SynSent = 2 "SYN_SENT",
    /// The child of a listener, before its handshake is complete.
    SynRecv = 3 "SYN_RECV",
    /// Closed here first; the FIN is not acknowledged yet.
    FinWait1 = 4 "FIN_WAIT1",
    /// Closed here first; waiting for the peer's FIN.
    FinWait2 = 5 "FIN_WAIT2",
    /// Both have closed; waiting for stray segments to die.
    TimeWait = 6 "TIME_WAIT",
    /// No connection.
    #[default]
    Close = 7 "CLOSE",
    /// The peer has closed, the owner here has not.
    CloseWait = 8 "CLOSE_WAIT",
    /// The peer closed first, then we did; the last ACK is outstanding.
    LastAck = 9 "LAST_ACK",
    /// Waiting for connections.
    Listen = 10 "LISTEN",
    /// Both closed at the same time.
    Closing = 11 "CLOSING",
    /// A request socket in the listener's queue.
    NewSynRecv = 12 "NEW_SYN_RECV",
}
