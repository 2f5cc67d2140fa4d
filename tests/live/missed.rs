//! What the kernel skips a probe for is in the ledger. A return probe has ten places for calls that are under way (two for
//! each CPU, where those are more; before 6.2 and without preemption one for each CPU): of connects that block at the same
//! time the others are not seen, and counted.

use ktrace_bundle::event::EventKind;
use ktrace_traffic::{Outcome, Truth};
use nix::sys::signal::Signal;

use crate::capture::{COMPLETE, Capture, DEGRADED};
use crate::hook_limits::UNCOUNTED;
use crate::kernel::version;
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::wait::{DEADLINE, until};
use crate::{Test, variants};

/// Since this version the kernel counts what it skips a probe for.
const COUNTED_SINCE: (u32, u32) = (6, 7);

/// Since this version kernels without preemption have as many places as others ("kprobes: kretprobe events missing on
/// 2-core KVM guest").
const TEN_PLACES_SINCE: (u32, u32) = (6, 2);

pub fn tests() -> Vec<Test> {
    let name = "connects_beyond_the_places_of_a_return_probe_are_counted_as_missed";
    let test = Test::new(name, connects_beyond_the_places_of_a_return_probe_are_counted_as_missed);
    vec![test.unless(|| variants::is_offered("connect", "kprobe").err())]
}

fn connects_beyond_the_places_of_a_return_probe_are_counted_as_missed() {
    let cpus = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let cpus = cpus.trim().rsplit(['-', ',']).next().unwrap().parse::<usize>().unwrap() + 1;
    let places = (2 * cpus).max(10);
    let many = places + 15;
    let lab = Lab::new();
    lab.fault("tcp dport 8080 tcp flags & (syn | ack) == syn counter drop");
    // the kernel gives up after 15 s, so that all of them wait at the same time
    lab.client_sysctl("net.ipv4.tcp_syn_retries", "3");
    let capture = Capture::with(&["--duration", "120s", "--hook-variant=connect=kprobe"]);
    let connect = format!("connect --to {SERVER4}:8080 --blocking");
    let clients: Vec<Program> = (0..many).map(|_| lab.client.start(&connect)).collect();
    until("all connects under way", DEADLINE, || {
        (lab.client.run("ss -Htn state syn-sent").lines().count() == many).then_some(())
    });
    let told: Vec<Truth> = clients.into_iter().flat_map(|client| client.wait().truths()).collect();
    let timed_out = |t: &Truth| matches!(t, Truth::Connect(c) if (c.outcome, c.errno) == (Outcome::Failed, Some(110)));
    assert_eq!(told.iter().filter(|t| timed_out(t)).count(), many, "{told:?}");
    capture.signal(Signal::SIGTERM);
    let bundle = capture.end_unaudited();

    let seen = bundle.events.iter().filter(|e| e.payload.kind() == EventKind::Connect).count();
    assert!(seen == places || version() < TEN_PLACES_SINCE && seen == cpus, "{seen} of {many} seen, {cpus} CPUs");
    let hook = bundle.manifest.head.hooks.iter().find(|h| h.name == "connect").unwrap();
    let missed = |name: &str| hook.programs.iter().find(|p| p.name == name).unwrap().missed;
    if version() < COUNTED_SINCE {
        assert_eq!((missed("connect__kprobe"), missed("connect__kretprobe")), (None, None));
        assert!(hook.limits.iter().any(|l| l == UNCOUNTED.text), "{hook:?}");
        assert_eq!(bundle.exit_code, COMPLETE);
        return;
    }
    let lost = (many - seen) as u64;
    assert_eq!((missed("connect__kprobe"), missed("connect__kretprobe")), (Some(0), Some(lost)));
    let dated = bundle.losses.iter().filter(|loss| loss.hook == "connect").map(|loss| loss.missed).sum::<u64>();
    assert_eq!((bundle.manifest.ledger.missed, dated), (lost, lost));
    assert_eq!(bundle.exit_code, DEGRADED);
    let sentence = format!("{lost} events were missed at most");
    assert!(bundle.manifest.degraded.iter().any(|s| s.starts_with(&sentence)), "{:?}", bundle.manifest.degraded);
}
