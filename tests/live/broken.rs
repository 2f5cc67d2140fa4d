//! One program that the kernel refuses takes nothing else down: for each hook, at load and at attach. What is left sees
//! all that the traffic told; the bundle says hook, variant, program and reason, and the exit code says that something
//! is missing. Where the hook has another variant, that one takes its place, and nothing is missing.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ktrace_bundle::event::{EventKind, Payload, RetransmitKind, When};
use ktrace_bundle::manifest::{HookOutcome, HookReport, TriedVariant};
use ktrace_traffic::{Conn, Datagram};

use crate::Test;
use crate::capture::{Bundle, COMPLETE, Capture, DEGRADED, ktrace};
use crate::net::{Lab, SERVER4};
use crate::observer::Observer;
use crate::program::Program;
use crate::refusal::{Refusal, Step};
use crate::tcp::CLIENT_CLOSES_FIRST;
use crate::truth::{assert_same_connections, assert_same_operations, conns, datagrams, udp_events};
use crate::variants::{is_offered, usable, used};

const HOOKS: [&str; 7] = ["tcp_state", "owner", "udp", "connect", "tcp_retransmit", "sockets", "lifetimes"];

/// A program without which the variant is none; the last one, where there are several.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("tcp_state", "tp_btf", "tcp_state__tp_btf_second"),
    ("tcp_state", "fentry", "tcp_state__fentry"),
    ("tcp_state", "tp_btf_probed", "tcp_state__tp_btf_probed"),
    ("tcp_state", "tracepoint", "tcp_state__tracepoint"),
    ("tcp_state", "kprobe", "tcp_state__kprobe"),
    ("owner", "fentry", "owner__fentry"),
    ("owner", "tracepoint", "owner__accept4"),
    ("owner", "kprobe", "owner__kprobe"),
    ("udp", "fexit", "udp__recv_fentry"),
    ("udp", "tp_btf", "udp__recv_tp_btf"),
    ("udp", "kprobe", "udp__recv_kprobe"),
    ("connect", "fexit", "connect__fexit"),
    ("connect", "tracepoint", "connect__exit"),
    ("connect", "kprobe", "connect__kretprobe"),
    ("tcp_retransmit", "tp_btf", "tcp_retransmit__tp_btf_err"),
    ("tcp_retransmit", "tp_btf_2", "tcp_retransmit__tp_btf"),
    ("tcp_retransmit", "tracepoint", "tcp_retransmit__tracepoint"),
    ("sockets", "iter", "sockets__iter"),
    ("sockets", "iter_probed", "sockets__iter_probed"),
    ("lifetimes", "tp_btf", "lifetimes__exit"),
    ("lifetimes", "tracepoint", "lifetimes__exit_tracepoint"),
];

/// Programs that may be missing, with the variant that has them. All are there only where `udp` has `tp_btf`: they serve it,
/// or need the same tracepoints.
const OPTIONAL: &[(&str, &str, &str)] =
    &[("udp", "tp_btf", "udp__sendmsg4"), ("owner", "tracepoint", "owner__send"), ("owner", "fentry", "owner__recv")];

const FIRST_SYN: &str = "tcp dport 8080 tcp flags & (syn | ack) == syn numgen inc mod 1000 == 0 counter drop";

/// What a refusal answers, and how ktrace must tell it.
const EACCES: (i32, &str) = (libc::EACCES, "cannot be loaded: EACCES");
const EBUSY: (i32, &str) = (libc::EBUSY, "cannot be attached: Device or resource busy");

pub fn tests() -> Vec<Test> {
    let steps = [(Step::Load, "load", EACCES), (Step::Attach, "attach", EBUSY)];
    let mut tests = Vec::new();
    for (step, at, errno) in steps {
        for hook in HOOKS {
            let name = format!("{hook}_refused_at_{at}_leaves_the_rest_whole");
            tests.push(Test::new(name, move || hook_is_missing(hook, step, errno)));
            let name = format!("the_next_variant_of_{hook}_takes_the_place_of_one_refused_at_{at}");
            let next = Test::new(name, move || next_variant_takes_over(hook, step, errno));
            tests.push(next.unless(move || usable(hook).get(1).is_none().then(|| "it has no other here".into())));
        }
        for (hook, variant, program) in OPTIONAL {
            let name = format!("{program}_of_{variant}_refused_at_{at}_leaves_the_rest_of_{hook}");
            let test = Test::new(name, move || optional_program_is_missing((hook, variant, program), step, errno));
            tests.push(test.unless(|| is_offered(hook, variant).and(is_offered("udp", "tp_btf")).err()));
        }
    }
    tests
}

fn program_of(hook: &str, variant: &str) -> &'static str {
    PROGRAMS.iter().find(|(h, v, _)| (*h, *v) == (hook, variant)).expect("a row of the table").2
}

/// Every hook has something to see: a connection whose first SYN is lost, and datagrams.
struct Scene {
    lab: Lab,
    server: Program,
    echo: Program,
}

/// What the traffic told.
struct Told {
    client: Vec<Conn>,
    served: Vec<Conn>,
    sent: Vec<Datagram>,
    echoed: Vec<Datagram>,
    /// What happened to the connection while process 1 was the running task: no program can have seen it.
    unseen: BTreeSet<u16>,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        lab.fault(FIRST_SYN);
        let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then reply"));
        server.ready();
        let echo = lab.server.start(&format!("udp-echo --listen {SERVER4}:7007"));
        echo.ready();
        Self { lab, server, echo }
    }

    fn traffic(&self) -> Told {
        let lab = &self.lab;
        let to = SocketAddr::new(SERVER4, 8080);
        let observer = Observer::start(to.port());
        let client = conns(Program::run(lab.client.traffic(&format!("tcp-client --to {to} --mode request"))).truths());
        let paced = format!("udp-paced --to {SERVER4}:7007 --count 3");
        let sent = datagrams(Program::run(lab.client.traffic(&paced)).truths());
        let echoed = datagrams(self.echo.truths(2 * sent.len()));
        let served = conns(self.server.truths(1));
        lab.client.wait_until_quiet();
        lab.server.wait_until_quiet();
        assert_eq!((lab.faulted_packets(), client.len(), served.len(), sent.len()), (1, 1, 1, 3));
        let unseen = observer.finish().ports_over_init();
        Told { client, served, sent, echoed, unseen }
    }

    /// Each hook but one saw all of it, and that one nothing.
    fn assert_whole_but(&self, missing: &str, bundle: &Bundle, told: &Told) {
        let (client, server) = (self.lab.client.inode(), self.lab.server.inode());
        let kinds = |kind| bundle.events.iter().filter(move |e| e.payload.kind() == kind);
        let there = |hook: &str, is_there: bool| {
            assert_eq!(
                is_there,
                hook != missing,
                "events of {hook} without {missing}: {:?}",
                bundle.manifest.head.hooks
            );
            is_there
        };
        if there("tcp_state", kinds(EventKind::TcpState).next().is_some()) {
            for (netns, told_conns, states) in
                [(client, &told.client, CLIENT_CLOSES_FIRST[0]), (server, &told.served, CLIENT_CLOSES_FIRST[1])]
            {
                assert_same_connections(&bundle.events, netns, told_conns, bundle.visible(states), &told.unseen);
            }
        }
        if there("udp", !udp_events(&bundle.events, client).is_empty()) {
            assert_same_operations(&bundle.events, client, &told.sent);
            assert_same_operations(&bundle.events, server, &told.echoed);
        }
        let calls = kinds(EventKind::Connect).filter(|e| e.id.netns == client).count();
        if there("connect", calls > 0) {
            assert_eq!(calls, 1);
        }
        let syn = |p: &Payload| matches!(p, Payload::TcpRetransmit(r) if r.kind == RetransmitKind::Syn);
        let syns = bundle.events.iter().filter(|e| e.id.netns == client && syn(&e.payload)).count();
        if told.unseen.is_empty() && there("tcp_retransmit", syns > 0) {
            assert_eq!(syns, 1);
        }
        let at_end = bundle.sockets.iter().filter(|s| s.when == When::End && s.id.netns == server);
        let pids: Vec<_> = at_end.filter_map(|s| Some(s.id.owner.value()?.pid)).collect();
        if there("sockets", !pids.is_empty()) {
            assert!([&self.server, &self.echo].iter().all(|program| pids.contains(&program.pid())), "{pids:?}");
        }
    }
}

fn capture(refusal: Refusal, flags: &[&str]) -> (Bundle, Scene, Told) {
    let scene = Scene::new();
    let mut command = ktrace(env!("CARGO_BIN_EXE_ktrace"));
    let refused = refusal.impose(&mut command);
    let capture = Capture::launch(command, &[&["--duration", "120s"], flags].concat());
    let told = scene.traffic();
    capture.signal(nix::sys::signal::Signal::SIGTERM);
    let bundle = capture.end_unaudited();
    assert!(refused.count() > 0, "nothing was refused");
    (bundle, scene, told)
}

fn report<'a>(bundle: &'a Bundle, hook: &str) -> &'a HookReport {
    bundle.manifest.head.hooks.iter().find(|h| h.name == hook).unwrap()
}

/// Asserts that the bundle says what was refused, and why.
fn assert_told(tried: &[TriedVariant], variant: &str, program: &str, why: &str) {
    let refused: Vec<_> = tried.iter().filter(|t| t.program.is_some()).collect();
    let [refused] = refused.as_slice() else { panic!("one variant was refused: {tried:?}") };
    assert_eq!(refused.variant, variant);
    let named = refused.program.as_deref().unwrap();
    assert_eq!(named.get(..15), program.get(..15), "{refused:?}");
    assert!(refused.why.contains(&format!("`{named}`")) && refused.why.contains(why), "{refused:?}");
}

/// The variant that is the best one here is the only one that may be used.
fn hook_is_missing(hook: &'static str, step: Step, (errno, why): (i32, &str)) {
    let variant = used(hook);
    let program = program_of(hook, variant);
    let refusal = Refusal { step, program, errno, times: usize::MAX };
    let (bundle, scene, told) = capture(refusal, &[&format!("--hook-variant={hook}={variant}")]);

    assert_eq!(bundle.exit_code, DEGRADED);
    let failed = report(&bundle, hook);
    assert_eq!((failed.outcome, &failed.variant), (HookOutcome::Failed, &None));
    assert_told(&failed.tried, variant, program, why);
    let sentence = |s: &String| [hook, variant, why].iter().all(|part| s.contains(part));
    assert!(matches!(bundle.manifest.degraded.as_slice(), [one] if sentence(one)), "{:?}", bundle.manifest.degraded);
    for other in HOOKS.iter().filter(|other| **other != hook) {
        assert_eq!(report(&bundle, other).variant.as_deref(), Some(used(other)), "without {hook}");
    }
    scene.assert_whole_but(hook, &bundle, &told);
}

/// Refused once: programs of one hook can share the letters that the kernel keeps.
fn next_variant_takes_over(hook: &'static str, step: Step, (errno, why): (i32, &str)) {
    let [variant, next, ..] = usable(hook)[..] else { panic!("{hook} has one variant") };
    let program = program_of(hook, variant);
    // libbpf asks a second time for the verifier's log
    let times = if step == Step::Load { 2 } else { 1 };
    let (bundle, scene, told) = capture(Refusal { step, program, errno, times }, &[]);

    assert_eq!((bundle.exit_code, &bundle.manifest.degraded), (COMPLETE, &Vec::new()));
    let healed = report(&bundle, hook);
    assert_eq!((healed.outcome, healed.variant.as_deref()), (HookOutcome::Attached, Some(next)));
    assert_told(&healed.tried, variant, program, why);
    let said = |note: &&String| [hook, variant, next, why].iter().all(|part| note.contains(part));
    assert_eq!(bundle.manifest.notes.iter().filter(said).count(), 1, "{:?}", bundle.manifest.notes);
    scene.assert_whole_but("", &bundle, &told);
}

fn optional_program_is_missing(
    (hook, variant, program): (&'static str, &str, &'static str),
    step: Step,
    (errno, why): (i32, &str),
) {
    let refusal = Refusal { step, program, errno, times: usize::MAX };
    let (bundle, scene, mut told) = capture(refusal, &[&format!("--hook-variant={hook}={variant}")]);

    assert_eq!(bundle.exit_code, DEGRADED);
    let lessened = report(&bundle, hook);
    assert_eq!((lessened.outcome, lessened.variant.as_deref()), (HookOutcome::Attached, Some(variant)));
    assert!(lessened.programs.iter().all(|p| p.name != program), "{lessened:?}");
    let sentence = |s: &String| [hook, program, why].iter().all(|part| s.contains(part));
    assert!(matches!(bundle.manifest.degraded.as_slice(), [one] if sentence(one)), "{:?}", bundle.manifest.degraded);
    if hook == "udp" {
        // neither socket is connected
        told.sent.iter_mut().chain(&mut told.echoed).for_each(|d| d.remote = None);
    }
    scene.assert_whole_but("", &bundle, &told);
}
