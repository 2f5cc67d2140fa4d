//! What a variant cannot give, each a sentence for users and, as data, what it does to lines: between the table of hooks
//! and whoever tells of it (`ktrace check`, the manifest, `docs/variants.md`). `tests/live/equivalence.rs` includes this
//! file and holds every variant to it: a difference that is not here fails, and so does an entry that makes none.
//! Knows nothing of the rest of the crate.

use std::fmt;

/// Something that a variant cannot give.
#[derive(Debug)]
pub struct Limit {
    /// What is not seen, as it stands in manifests.
    pub text: &'static str,
    /// What that does to lines, where each variant's lines can be compared; empty where it takes more load, or other
    /// programs, than a comparison has.
    pub effects: &'static [Effect],
}

/// What a limit does to the lines that all of `on` is true of.
#[derive(Debug)]
pub enum Effect {
    /// They are not there.
    NoLine {
        /// Which.
        on: &'static [Is],
    },
    /// They lack keys.
    NoKeys {
        /// Which.
        on: &'static [Is],
        /// Keys that are absent.
        keys: &'static [&'static str],
        /// The key of `why` that says so, and what it says; none where nobody would ask.
        why: Option<(&'static str, &'static str)>,
    },
    /// A key has another value.
    Reads {
        /// Which.
        on: &'static [Is],
        /// The key.
        key: &'static str,
        /// Its value here.
        value: &'static str,
    },
}

/// A condition on a line.
#[derive(Debug)]
pub enum Is {
    /// The key has this value.
    Key(&'static str, &'static str),
    /// The key is there.
    Has(&'static str),
    /// What the program did, where the line does not tell.
    Case(&'static str),
}

/// Keys that tell of the process.
const OWNER: &[&str] = &[
    "comm",
    "thread",
    "pid",
    "tid",
    "ppid",
    "uid",
    "gid",
    "owner",
    "proc_start_ns",
    "ns.mnt",
    "ns.pid",
    "ns.user",
    "sec.seccomp_mode",
    "sec.caps_eff",
    "cgroup_id",
    "unit",
];

/// A receive whose call tells no peer, on a socket that has none.
pub const UNNAMED: &str = "recv() on an unconnected socket";

/// Of variants that hook `tcp_set_state`.
pub static BIRTHS: Limit = Limit {
    text: "listeners and children entering SYN_RECV: they do not pass through `tcp_set_state`",
    effects: &[
        Effect::NoLine { on: &[Is::Key("type", "tcp_state"), Is::Key("new_state", "LISTEN")] },
        Effect::NoLine { on: &[Is::Key("type", "tcp_state"), Is::Key("new_state", "SYN_RECV")] },
        Effect::NoKeys {
            on: &[Is::Key("old_state", "LISTEN"), Is::Key("new_state", "CLOSE")],
            keys: &["duration_ns"],
            why: None,
        },
    ],
};

/// Of variants that use the hash of sockets.
pub static LISTENERS_OWNER: Limit = Limit {
    text: "the listener's owner on a connection that nobody has accepted yet",
    effects: &[Effect::NoKeys {
        on: &[Is::Key("owner", "inherited")],
        keys: OWNER,
        why: Some(("why.pid", "no_owner")),
    }],
};

/// Of variants that use the hash of sockets.
pub static HASHED_OWNERS: Limit =
    Limit { text: "owners of sockets beyond the 65,536 most recently used", effects: &[] };

/// Of classic tracepoints.
pub static NESTED: Limit = Limit {
    text: "state changes on top of another BPF program on the same CPU: at most as many as `ledger.missed` says",
    effects: &[],
};

/// What is missing of an owner where no program sees the first send or receive.
const FIRST_IO: &[Effect] = &[Effect::Reads { on: &[Is::Key("owner", "first_io")], key: "owner", value: "accept" }];

/// Of variants that see every accept.
pub static HANDED_OVER: Limit = Limit {
    text: "the owner of a connection that another process opened or accepted, until it closes it",
    effects: FIRST_IO,
};

/// Of variants that see accepts by system call.
pub static URING_ACCEPTS: Limit = Limit {
    text: "the owner of a connection that another process opened or accepted, or that was accepted through io_uring, until \
           it closes it",
    effects: FIRST_IO,
};

/// Of variants that hook how a datagram is taken from its queue.
pub static FAILED_RECEIVES: Limit = Limit {
    text: "receives that fail",
    effects: &[Effect::NoLine { on: &[Is::Key("type", "udp_recv"), Is::Has("error")] }],
};

/// Of variants that know what calls tell.
pub static UNNAMED_PEERS: Limit = Limit {
    text: "the remote end of a receive by `read()` or `recv()` on an unconnected socket",
    effects: &[Effect::NoKeys {
        on: &[Is::Key("type", "udp_recv"), Is::Case(UNNAMED)],
        keys: &["raddr", "rport"],
        why: Some(("why.raddr", "hook_missing")),
    }],
};

/// Of the same without programs at a cgroup.
pub static UNCONNECTED_PEERS: Limit = Limit { text: "the remote end of unconnected sockets", effects: &[] };

/// Of variants that see connects by a function of the kernel.
pub static ASKED_OF_CONNECT: Limit =
    Limit { text: "the address asked for, where a load balancer at sockets changes it in connect(2)", effects: &[] };

/// Of variants that see it change in sends by a function of the kernel.
pub static ASKED_OF_SEND: Limit =
    Limit { text: "the address asked for, where a load balancer at sockets changes it in sendto(2)", effects: &[] };

/// Of variants that know what calls tell, where other programs at cgroups run before ours.
pub static ASKED_FIRST: Limit = Limit {
    text: "the address asked for, where a load balancer at sockets changes it, and the backend that an answer comes from",
    effects: &[],
};

/// Of variants whose programs are probes or classic tracepoints and make events, on a kernel that does not count.
pub static UNCOUNTED: Limit = Limit {
    text: "events for which the kernel skips a probe or a classic tracepoint: it counts them since Linux 6.7",
    effects: &[],
};

/// Of tracepoints of system calls.
pub static URING_CONNECTS: Limit = Limit { text: "connects through io_uring", effects: &[] };

/// Of return probes.
pub static RETURN_PROBES: Limit = Limit {
    text: "calls beyond the number of return probes, when many block at once: at most as many as `ledger.missed` says",
    effects: &[],
};

/// Of every look at file tables.
pub static WITHOUT_FILE: Limit = Limit {
    text: "sockets without a file: TIME_WAIT, orphans in FIN_WAIT or LAST_ACK, connections not accepted yet, sockets in flight between processes",
    effects: &[],
};

/// Of every look at file tables for what waits.
pub static WAITS_WITHOUT_FILE: Limit = Limit {
    text: "waits of connections without a file: those not accepted yet, and those closed by their process within a second",
    effects: &[],
};

/// Of `kfree_skb`, on which one program is attached.
pub static DROPS_ON_TOP: Limit = Limit {
    text: "packets that are thrown away in an interrupt while another one is looked at on the same CPU",
    effects: &[],
};

/// Before Linux 5.17.
pub static DROPS_WITHOUT_REASON: Limit =
    Limit { text: "why packets are thrown away: this kernel does not tell, only where", effects: &[] };

/// Of resets, which one program tells.
pub static RESETS_ON_TOP: Limit = Limit {
    text: "resets while another one is told on the same CPU: at most as many as `missed` of its program says",
    effects: &[],
};

/// Of what uses the hash of sockets.
pub static RESETS_OF_CLOSED: Limit =
    Limit { text: "the owner of a reset that a socket sends as it is closed", effects: &[] };

/// Before Linux 6.10.
pub static RESETS_WITHOUT_SOCKET: Limit =
    Limit { text: "resets that answer a segment for which there is no socket, and why resets are sent", effects: &[] };

/// All of them.
#[cfg(test)]
pub static ALL: &[&Limit] = &[
    &BIRTHS,
    &LISTENERS_OWNER,
    &HASHED_OWNERS,
    &NESTED,
    &HANDED_OVER,
    &URING_ACCEPTS,
    &FAILED_RECEIVES,
    &UNNAMED_PEERS,
    &UNCONNECTED_PEERS,
    &ASKED_OF_CONNECT,
    &ASKED_OF_SEND,
    &ASKED_FIRST,
    &UNCOUNTED,
    &URING_CONNECTS,
    &RETURN_PROBES,
    &WITHOUT_FILE,
    &WAITS_WITHOUT_FILE,
    &DROPS_ON_TOP,
    &DROPS_WITHOUT_REASON,
    &RESETS_WITHOUT_SOCKET,
    &RESETS_OF_CLOSED,
    &RESETS_ON_TOP,
];

impl Effect {
    /// The lines that it is about.
    pub const fn on(&self) -> &'static [Is] {
        match self {
            Self::NoLine { on } | Self::NoKeys { on, .. } | Self::Reads { on, .. } => on,
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<_> = self.on().iter().map(ToString::to_string).collect();
        write!(f, "lines {}: ", on.join(" and "))?;
        match self {
            Self::NoLine { .. } => f.write_str("not there"),
            Self::NoKeys { keys, why, .. } => {
                match *keys {
                    OWNER => f.write_str("no owner")?,
                    keys => write!(f, "no `{}`", keys.join("`, `"))?,
                }
                why.map_or(Ok(()), |(key, reason)| write!(f, ", and `{key}` is `{reason}`"))
            }
            Self::Reads { key, value, .. } => write!(f, "`{key}` is `{value}`"),
        }
    }
}

impl fmt::Display for Is {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key, value) => write!(f, "where `{key}` is `{value}`"),
            Self::Has(key) => write!(f, "that have `{key}`"),
            Self::Case(case) => write!(f, "that tell of a {case}"),
        }
    }
}
