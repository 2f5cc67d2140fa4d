//! The variants that this kernel offers and would not choose: the same tests as for the best ones, each run with
//! other variants forced. The socket store of classic tracepoints, a hash, is proven by them, too.

use std::collections::BTreeMap;

use ktrace_bundle::event::Payload;
use ktrace_bundle::tcp::TcpState;

use crate::capture::{Capture, forcing};
use crate::net::{Lab, SERVER4};
use crate::observer::Observer;
use crate::program::Program;
use crate::truth::conns;
use crate::{Test, connect, faults, sockets, tcp};

/// Variants that are forced together, and the tests that they must pass.
struct Forced {
    name: &'static str,
    variants: &'static [&'static str],
    tests: &'static [&'static str],
}

const FORCED: &[Forced] = &[
    Forced {
        name: "classic_tracepoints",
        variants: CLASSIC,
        tests: &[
            "v6_connections_are_accounted_for",
            "a_reset_connection_is_accounted_for",
            "a_lost_first_syn_makes_a_handshake_of_a_second",
            "giving_up_after_one_and_a_half_seconds_is_named",
            "a_refused_connect_has_its_errno_on_the_socket",
            "loss_on_a_bulk_transfer_is_the_top_finding",
            "loss_between_requests_and_answers_is_the_top_finding",
            "a_server_that_never_closes_is_the_top_finding",
            "events_on_sockets_older_than_the_window_have_the_right_owner",
        ],
    },
    Forced {
        name: "retransmits_without_their_error",
        variants: &["tcp_retransmit=tp_btf_2"],
        tests: &[
            "a_lost_first_syn_makes_a_handshake_of_a_second",
            "giving_up_after_one_and_a_half_seconds_is_named",
            "loss_on_a_bulk_transfer_is_the_top_finding",
        ],
    },
];

const CLASSIC: &[&str] = &["tcp_state=tracepoint", "tcp_retransmit=tracepoint"];

/// Connections of the large test.
const MANY: usize = 2000;

pub fn tests() -> Vec<Test> {
    let mut tests: Vec<_> = FORCED.iter().flat_map(Forced::tests).collect();
    let many = || forcing(CLASSIC, classic_tracepoints_miss_no_more_than_the_ledger_says);
    tests.push(Test::new("classic_tracepoints_miss_no_more_than_the_ledger_says", many));
    tests
}

impl Forced {
    fn tests(&'static self) -> Vec<Test> {
        let all = [tcp::tests(), connect::tests(), faults::tests(), sockets::tests()];
        let mut by_name: BTreeMap<_, _> = all.into_iter().flatten().map(|t| (t.name.clone(), t)).collect();
        let take = |name: &&str| {
            let test = by_name.remove(*name).unwrap_or_else(|| panic!("no test `{name}`"));
            Test::new(format!("{}::{name}", self.name), move || forcing(self.variants, test.run))
        };
        self.tests.iter().map(take).collect()
    }
}

/// A classic tracepoint's program does not run on top of another BPF program on the same CPU. What is lost this way
/// must be in the ledger.
fn classic_tracepoints_miss_no_more_than_the_ledger_says() {
    let lab = Lab::new();
    lab.delay();
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:0 --model threaded --then reply"));
    let to = server.ready().local;
    let observer = Observer::start(to.port());
    let capture = Capture::start();
    let client = format!("tcp-client --to {to} --mode request --count {MANY} --processes 4 --threads 8");
    let client = conns(Program::run(lab.client.traffic(&client)).truths());
    lab.client.wait_until_quiet();
    lab.server.wait_until_quiet();
    let bundle = capture.stop_under_load();
    assert_eq!(client.len(), MANY);

    // a connecting socket has no port yet when it enters SYN_SENT, a child's first change is told with its second
    let told = |lport: u16, new| lport != 0 && new != TcpState::SynRecv;
    let observed: Vec<_> = observer.finish().into_iter().filter(|t| told(t.lport, t.new)).collect();
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
    assert!(observed.len() > 8 * MANY, "{} changes were observed", observed.len());
    assert!(lost <= missed + over_init, "{lost} changes are lost, the ledger says {missed}");
    assert_eq!(bundle.manifest.complete, missed == 0, "{:?}", bundle.manifest.degraded);
}
