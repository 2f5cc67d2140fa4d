//! The variants that this kernel would not choose: the same tests as for the best ones, each run with other variants
//! forced. What this kernel does not offer is reported as ignored, with the reason. The socket store of classic tracepoints, a hash, is proven by them, too.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ktrace_bundle::event::Payload;
use ktrace_bundle::tcp::TcpState;
use nix::sys::signal::Signal;

use crate::capture::{Capture, forcing, ktrace};
use crate::net::{Lab, SERVER4};
use crate::observer::Observer;
use crate::program::Program;
use crate::tcp::MANY;
use crate::truth::conns;
use crate::{Test, connect, dns, evidence, faults, identity, processes, socketlb, sockets, tcp, tests, udp};

/// Variants that are forced together, and the tests that they must pass.
pub struct Forced {
    /// What they have in common.
    pub name: &'static str,
    /// Each `hook=variant`.
    pub variants: &'static [&'static str],
    tests: &'static [&'static str],
}

/// Every variant that may not be the one that a kernel chooses.
pub const FORCED: &[Forced] = &[
    Forced { name: "classic_tracepoints", variants: CLASSIC, tests: CONNECTIONS },
    Forced { name: "probed_tracepoint", variants: &["tcp_state=tp_btf_probed"], tests: CONNECTIONS },
    Forced { name: "sockets_by_probes", variants: &["sockets=iter_probed"], tests: SOCKETS },
    Forced { name: "retransmits_without_their_error", variants: &["tcp_retransmit=tp_btf_2"], tests: RETRANSMITS },
    Forced { name: "lifetimes_by_tracepoints", variants: &["lifetimes=tracepoint"], tests: LIFETIMES },
    Forced { name: "drops_by_reason", variants: &["drop=tp_btf"], tests: DROPS },
    Forced { name: "drops_without_reason", variants: &["drop=tp_btf_2"], tests: DROPS },
    Forced { name: "drops_by_tracepoint", variants: &["drop=tracepoint"], tests: DROPS },
    Forced { name: "resets_without_reason", variants: &["tcp_reset=tp_btf_2"], tests: RESETS },
    Forced { name: "resets_by_tracepoint", variants: &["tcp_reset=tracepoint"], tests: RESETS },
    Forced { name: "waits_by_probes", variants: &["tcp_wait=iter_probed"], tests: WAITS },
    Forced { name: "tracepoints", variants: TRACEPOINTS, tests: OWNERS },
    Forced { name: "tracepoints", variants: TRACEPOINTS_OF_TCP, tests: CONNECTIONS },
    Forced { name: "fentry", variants: FENTRY, tests: OWNERS },
    Forced { name: "fentry", variants: FENTRY, tests: CONNECTIONS },
    Forced { name: "kprobe", variants: KPROBE, tests: OWNERS },
    Forced { name: "kprobe", variants: KPROBE, tests: CONNECTIONS },
];

const CLASSIC: &[&str] = &["tcp_state=tracepoint", "tcp_retransmit=tracepoint"];
const TRACEPOINTS: &[&str] = &["tcp_state=tp_btf", "owner=tracepoint", "udp=tp_btf", "connect=tracepoint"];
/// The same without `udp`, which before Linux 6.3 has no tracepoint: what is about connections does not need it.
const TRACEPOINTS_OF_TCP: &[&str] = &["tcp_state=tp_btf", "owner=tracepoint", "connect=tracepoint"];
const FENTRY: &[&str] = &["tcp_state=fentry", "owner=fentry", "udp=fexit", "connect=fexit"];
const KPROBE: &[&str] = &["tcp_state=kprobe", "owner=kprobe", "udp=kprobe", "connect=kprobe"];

/// Every datagram with its bytes, peer and process.
const OWNERS: &[&str] = &[
    "every_v4_datagram_is_there_with_its_bytes_and_process_on_both_ends",
    "every_v6_datagram_is_there_with_its_bytes_and_process_on_both_ends",
    "an_unconnected_recv_says_that_it_has_no_remote",
    "a_v4_mapped_remote_is_shown_as_v4",
    "a_failed_send_carries_its_errno",
    "a_peek_or_an_empty_read_is_no_event",
    "an_rtt_lies_within_what_the_client_measured",
    "a_lost_reply_never_becomes_a_slow_answer",
    "dropped_dns_replies_are_the_top_finding",
    "a_v6_address_that_is_balanced_at_the_socket_is_told_with_its_backend",
    "a_v4_mapped_address_that_is_balanced_at_the_socket_is_told_with_its_backend",
    "what_is_not_balanced_went_where_it_was_asked_for",
];

/// Every connection with its states, bytes, process and end.
const CONNECTIONS: &[&str] = &[
    "v6_connections_are_accounted_for",
    "a_reset_connection_is_accounted_for",
    "a_socket_in_the_place_of_a_reset_one_is_not_taken_for_it",
    "a_lost_first_syn_makes_a_handshake_of_a_second",
    "giving_up_after_one_and_a_half_seconds_is_named",
    "a_refused_connect_has_its_errno_on_the_socket",
    "loss_on_a_bulk_transfer_is_the_top_finding",
    "loss_between_requests_and_answers_is_the_top_finding",
    "a_server_that_never_closes_is_the_top_finding",
    "events_on_sockets_older_than_the_window_have_the_right_owner",
];

/// Sockets that exist when the window opens and closes.
const SOCKETS: &[&str] = &[
    "sockets_older_than_the_window_are_listed_with_their_owners",
    "events_on_sockets_older_than_the_window_have_the_right_owner",
    "a_connection_that_never_closes_counts_its_bytes_at_the_end",
    "a_server_that_never_closes_is_the_top_finding",
    "v6_connections_are_accounted_for",
];

const RETRANSMITS: &[&str] = &[
    "a_lost_first_syn_makes_a_handshake_of_a_second",
    "giving_up_after_one_and_a_half_seconds_is_named",
    "loss_on_a_bulk_transfer_is_the_top_finding",
];

/// What the kernel throws away.
const DROPS: &[&str] = &[
    "every_packet_that_a_rule_drops_is_counted_with_its_flow_and_reason",
    "a_flood_from_many_ports_is_counted_to_the_packet",
    "a_packet_to_a_closed_port_is_of_the_namespace_that_it_came_to",
    "drops_are_filtered_like_other_events",
];

const RESETS: &[&str] =
    &["a_refused_connect_is_a_reset_at_both_ends", "a_connection_that_is_aborted_is_a_reset_at_both_ends"];

/// What waits, and what is turned away.
const WAITS: &[&str] = &[
    "a_listener_without_room_is_told_with_what_it_turned_away",
    "what_was_turned_away_before_the_window_is_not_told",
    "a_peer_that_does_not_read_is_told_at_both_ends",
];

/// What began and ended meanwhile.
const LIFETIMES: &[&str] = &[
    "owners_are_listed_with_what_they_run_and_those_above_them",
    "a_process_that_is_gone_before_anybody_looks_is_known_by_how_it_was_called",
    "a_cgroup_that_is_gone_when_it_is_asked_for_is_known_if_it_was_seen_made",
];

pub fn tests() -> Vec<Test> {
    // a machine of `tests/vm` runs these and not all others
    let is_of_the_matrix = std::env::var_os("KTRACE_LIVE_KERNEL").is_some();
    let is_told_apart = |forced: &&Forced| is_of_the_matrix || !forced.is_the_choice();
    let mut tests: Vec<_> = FORCED.iter().filter(is_told_apart).flat_map(Forced::tests).collect();
    let many = || forcing(CLASSIC, classic_tracepoints_miss_no_more_than_the_ledger_says);
    tests.push(Test::new("classic_tracepoints_miss_no_more_than_the_ledger_says", many));
    tests.extend(tests![a_capture_attaches_what_check_says]);
    tests
}

impl Forced {
    fn tests(&'static self) -> Vec<Test> {
        let all = [udp::tests, dns::tests, tcp::tests, connect::tests, faults::tests, sockets::tests];
        let all = all.into_iter().chain([processes::tests, identity::tests, socketlb::tests, evidence::tests]);
        let all = all.map(|tests| tests());
        let mut by_name: BTreeMap<_, _> = all.flatten().map(|t| (t.name.clone(), t)).collect();
        let take = |name: &&str| {
            let test = by_name.remove(*name).unwrap_or_else(|| panic!("no test `{name}`"));
            let name = format!("{}::{name}", self.name);
            Test::new(name, move || forcing(self.variants, test.run)).unless(|| self.obstacle())
        };
        self.tests.iter().map(take).collect()
    }

    /// Why this kernel cannot do it, in the words of `ktrace check`.
    pub fn obstacle(&self) -> Option<String> {
        obstacle(self.variants)
    }

    /// Whether all other tests run this way anyway.
    fn is_the_choice(&self) -> bool {
        let mut pairs = self.variants.iter().map(|forced| forced.split_once('=').unwrap());
        pairs.all(|(hook, variant)| usable(hook).first() == Some(&variant))
    }
}

/// Why this kernel cannot do these, each `hook=variant`, in the words of `ktrace check`.
pub fn obstacle(variants: &[&str]) -> Option<String> {
    let mut pairs = variants.iter().map(|forced| forced.split_once('=').unwrap());
    pairs.find_map(|(hook, variant)| is_offered(hook, variant).err())
}

/// Whether this kernel can do it, or else why not, in the words of `ktrace check`.
pub fn is_offered(hook: &str, variant: &str) -> Result<(), String> {
    let of = |row: &&[String; 3]| row[0] == hook && row[1] == variant;
    match offered().iter().find(of).unwrap_or_else(|| panic!("`ktrace check` does not name {variant} of {hook}")) {
        [.., line] if line.starts_with("no ") => Err(format!("{hook} {variant}: {line}")),
        _ => Ok(()),
    }
}

/// Hook and variant, all that ktrace has.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let hooks = || offered().iter().filter(|[section, ..]| section == "hooks").map(|[_, name, _]| name);
    let of_hooks = offered().iter().filter(move |[section, name, _]| hooks().any(|h| h == section) && name != "does");
    of_hooks.map(|[hook, variant, _]| (hook.as_str(), variant.as_str()))
}

/// Variants that this kernel can do, best first.
pub fn usable(hook: &str) -> Vec<&'static str> {
    let of = |row: &&[String; 3]| row[0] == hook && ["used", "usable"].iter().any(|word| row[2].starts_with(word));
    offered().iter().filter(of).map(|row| row[1].as_str()).collect()
}

/// The variant that a capture uses here.
pub fn used(hook: &str) -> &'static str {
    let of = |row: &&[String; 3]| row[0] == hook && row[2].starts_with("used");
    offered().iter().find(of).unwrap_or_else(|| panic!("no variant of {hook} is used"))[1].as_str()
}

/// Hook, variant, and `used`, `usable` or `no REASON`: the table of `ktrace check`, in its order.
fn offered() -> &'static [[String; 3]] {
    static OFFERED: OnceLock<Vec<[String; 3]>> = OnceLock::new();
    OFFERED.get_or_init(|| {
        let mut command = ktrace(env!("CARGO_BIN_EXE_ktrace"));
        command.arg("check");
        let (mut hook, mut offered) = (String::new(), Vec::new());
        for line in Program::run(command).stdout {
            match line.strip_prefix("  ").map(|rest| rest.split_once(' ').unwrap_or((rest, ""))) {
                None => hook = line,
                Some((variant, rest)) => offered.push([hook.clone(), variant.into(), rest.trim().into()]),
            }
        }
        offered
    })
}

/// What a machine supports is tried by `ktrace check`, not believed: a kernel may load what it then does not attach.
fn a_capture_attaches_what_check_says() {
    let used = offered().iter().filter(|[.., line]| line.starts_with("used"));
    let said: BTreeMap<_, _> = used.map(|[hook, variant, _]| (hook.clone(), Some(variant.clone()))).collect();
    let bundle = Capture::start().stop();
    let attached: BTreeMap<_, _> =
        bundle.manifest.head.hooks.iter().map(|h| (h.name.clone(), h.variant.clone())).collect();
    assert_eq!(attached, said);
}

/// A classic tracepoint's program does not run on top of another BPF program on the same CPU. What is lost this way
/// must be in the ledger.
fn classic_tracepoints_miss_no_more_than_the_ledger_says() {
    let many = *MANY / 2;
    let lab = Lab::new();
    lab.delay();
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:0 --model threaded --then reply"));
    let to = server.ready().local;
    let observer = Observer::start(to.port());
    let capture = Capture::start();
    let client = format!("tcp-client --to {to} --mode request --count {many} --processes 4 --threads 8");
    let client = conns(Program::run(lab.client.traffic(&client)).truths());
    lab.client.wait_until_quiet();
    lab.server.wait_until_quiet();
    capture.signal(Signal::SIGTERM);
    let bundle = capture.end_unaudited();
    let observed = observer.finish();
    bundle.assert_audited_but(|entry| observed.counted_over_init(&entry.counter));
    assert_eq!(client.len(), many);

    // a connecting socket has no port yet when it enters SYN_SENT, a child's first change is told with its second
    let told = |lport: u16, new| lport != 0 && new != TcpState::SynRecv;
    let observed: Vec<_> = observed.changes.into_iter().filter(|t| told(t.lport, t.new)).collect();
    let mut left: BTreeMap<_, i64> = BTreeMap::new();
    for t in &observed {
        *left.entry((t.lport, t.rport, t.old, t.new)).or_default() += 1;
    }
    for event in &bundle.events {
        let (lport, rport) = (event.id.local.port.unwrap_or(0), event.id.remote.port.unwrap_or(0));
        let Payload::TcpState(change) = &event.payload else { continue };
        if told(lport, change.new) && change.old != TcpState::Close && [lport, rport].contains(&to.port()) {
            *left.entry((lport, rport, change.old, change.new)).or_default() -= 1;
        }
    }
    let invented: Vec<_> = left.iter().filter(|(_, n)| **n < 0).collect();
    assert!(invented.is_empty(), "recorded and never observed: {invented:?}");
    let lost = left.values().sum::<i64>().unsigned_abs();
    let over_init = observed.iter().filter(|t| t.over_init).count() as u64;
    let missed = bundle.manifest.ledger.missed;
    eprintln!("{lost} of {} changes lost, {missed} said, {over_init} on top of process 1", observed.len());
    assert!(observed.len() >= 8 * many, "{} changes were observed", observed.len());
    assert!(lost <= missed + over_init, "{lost} changes are lost, the ledger says {missed}");
    assert_eq!(bundle.manifest.complete, missed == 0, "{:?}", bundle.manifest.degraded);
}
