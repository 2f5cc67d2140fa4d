//! `udp`: who sent and who read which datagram, to or from whom.

use ktrace_bundle::event::{Datagram, Event, EventKind, Payload};

use super::wire::{Context, DecodeError, RawEvent, asked, errno};
use super::{COOKIE, Hook, Optional, Store, Variant, limits};
use crate::kernel::features::Need;
use crate::kernel::skel::types::kt_udp;
use crate::plan::Plan;

/// See the module.
pub struct Udp;

/// They see what passes the cgroup that they are attached to, and no more.
pub const CGROUP_PROGRAMS: &[&str] = &["udp__sendmsg4", "udp__sendmsg6", "udp__recvmsg4", "udp__recvmsg6"];

/// The same, of what was asked for: before any other program can change it.
const ASKED_PROGRAMS: &[&str] = &["udp__asked4", "udp__asked6", "udp__connect4", "udp__connect6"];

/// Those of them that see what they should only if they run before all others, where a kernel can do that.
pub const FIRST_PROGRAMS: &[&str] =
    &["udp__recvmsg4", "udp__recvmsg6", "udp__asked4", "udp__asked6", "udp__connect4", "udp__connect6"];

static VARIANTS: &[Variant] = &[
    Variant {
        name: "fexit",
        programs: &["udp__send_fexit", "udp__send6_fexit", "udp__recv_fentry"],
        seconds: &[],
        more: &[
            "udp__send_fexit_more1",
            "udp__send6_fexit_more1",
            "udp__recv_fentry_more1",
            "udp__send_fexit_more2",
            "udp__send6_fexit_more2",
            "udp__recv_fentry_more2",
        ],
        optional: &[
            Optional {
                programs: &["udp__connect_fentry", "udp__connect_fexit"],
                needs: &[Need::Trampoline("inet_dgram_connect")],
                limit: &limits::ASKED_OF_CONNECT,
            },
            Optional {
                programs: &["udp__asked_fentry"],
                needs: &[Need::Trampoline("__cgroup_bpf_run_filter_sock_addr")],
                limit: &limits::ASKED_OF_SEND,
            },
        ],
        needs: &[
            Need::Trampoline("udp_sendmsg"),
            Need::Trampoline("udpv6_sendmsg"),
            Need::Trampoline("skb_consume_udp"),
            COOKIE,
        ],
        store: Store::Any,
        limits: &[&limits::FAILED_RECEIVES],
    },
    Variant {
        name: "tp_btf",
        programs: &["udp__send_tp_btf", "udp__recv_tp_btf"],
        seconds: &[],
        more: &["udp__send_tp_btf_more1", "udp__recv_tp_btf_more1", "udp__send_tp_btf_more2", "udp__recv_tp_btf_more2"],
        optional: &[
            Optional { programs: CGROUP_PROGRAMS, needs: &[], limit: &limits::UNCONNECTED_PEERS },
            Optional { programs: ASKED_PROGRAMS, needs: &[Need::FirstAtCgroup], limit: &limits::ASKED_FIRST },
        ],
        needs: &[Need::TpBtf("sock_send_length", 3), Need::TpBtf("sock_recv_length", 3)],
        store: Store::Any,
        limits: &[&limits::UNNAMED_PEERS],
    },
    Variant {
        name: "kprobe",
        programs: &[
            "udp__send_kprobe",
            "udp__send6_kprobe",
            "udp__sent_kprobe",
            "udp__sent6_kprobe",
            "udp__recv_kprobe",
            "udp__destroy_kprobe",
            "udp__destroy6_kprobe",
        ],
        seconds: &[],
        more: &[],
        optional: &[Optional {
            programs: &["udp__connect_kprobe", "udp__connect_kretprobe"],
            needs: &[Need::Kprobe("inet_dgram_connect")],
            limit: &limits::ASKED_OF_CONNECT,
        }],
        needs: &[
            Need::Kprobe("udp_sendmsg"),
            Need::Kprobe("udpv6_sendmsg"),
            Need::Kprobe("skb_consume_udp"),
            Need::Kprobe("udp_destroy_sock"),
            Need::Kprobe("udpv6_destroy_sock"),
        ],
        store: Store::Hash,
        limits: &[&limits::FAILED_RECEIVES, &limits::RETURN_PROBES, &limits::LISTENERS_OWNER, &limits::HASHED_OWNERS],
    },
];

impl Hook for Udp {
    fn name(&self) -> &'static str {
        "udp"
    }

    fn question(&self) -> &'static str {
        "who sent and who read which datagram?"
    }

    fn kinds(&self) -> &'static [EventKind] {
        &[EventKind::UdpSend, EventKind::UdpRecv]
    }

    fn wanted(&self, _plan: &Plan) -> bool {
        true
    }

    fn plan_limits(&self, plan: &Plan) -> &'static [&'static str] {
        super::translated(
            plan,
            &[
                "datagrams that NAT brought from a port of the filter to a socket on another port, unless rules of the node told of that port before",
            ],
        )
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn decode(&self, raw: RawEvent<'_>, context: &Context) -> Result<Event, DecodeError> {
        let kt_udp { hdr, asked_addr, bytes, err, asked_port, asked_family, reserved: _ } = raw.read()?;
        let errno = errno(u16::try_from(err).map_err(|_| DecodeError::Unknown { what: "errno", number: err })?);
        let bytes = errno.is_none().then_some(u64::from(bytes));
        let datagram = Datagram { bytes, error: errno, sample: context.sample, ..Datagram::default() };
        let payload = match raw.kind() {
            EventKind::UdpSend => Payload::UdpSend(datagram),
            _ => Payload::UdpRecv(datagram),
        };
        let mut event = context.event(hdr, payload)?;
        if let Payload::UdpSend(datagram) = &mut event.payload {
            datagram.asked = asked(asked_family, asked_addr, asked_port, event.id.remote)?;
        }
        Ok(event)
    }
}
