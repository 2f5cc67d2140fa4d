//! Clocks: events have the right time also where ktrace itself lives in another time.

use chrono::{DateTime, TimeDelta, Utc};
use ktrace_bundle::event::Payload;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

use crate::analyze::analyze;
use crate::capture::Capture;
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::truth::{datagrams, udp_events};
use crate::wait::{boot_ns, until_boot_ns};
use crate::{Test, tests};

/// How far a time may be from the one that this process's clocks say.
const TOLERANCE_MS: i64 = 50;

/// Set by who gives this run a machine of its own.
const MAY_SET: &str = "KTRACE_LIVE_MAY_SET_CLOCK";

const HOUR_S: i64 = 3600;

pub fn tests() -> Vec<Test> {
    let mut tests = tests![times_are_right_inside_a_time_namespace];
    let why = || Some("it sets the machine's clock: `make vmtest` runs it in a virtual one".to_owned());
    let name = "a_clock_that_is_stepped_by_an_hour_is_noticed_and_times_go_on_evenly";
    tests.push(Test::new(name, stepped).unless(move || why().filter(|_| std::env::var_os(MAY_SET).is_none())));
    tests
}

fn step_clock(by_s: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(now.tv_sec() + by_s, now.tv_nsec())).unwrap();
}

fn stepped() {
    let lab = Lab::new();
    let capture = Capture::start();
    let send = || {
        let sender = lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 3"));
        assert_eq!(datagrams(Program::run(sender).truths()).len(), 3);
    };
    send();
    step_clock(HOUR_S);
    // the clocks are read twice a second
    until_boot_ns(boot_ns() + 1_500_000_000);
    send();
    let bundle = capture.stop();
    step_clock(-HOUR_S);

    let events = udp_events(&bundle.events, lab.client.inode());
    assert_eq!(events.len(), 6);
    for pair in events.windows(2) {
        let (at, boot_ns) = (pair[1].at - pair[0].at, pair[1].boot_ns - pair[0].boot_ns);
        let off = at.num_nanoseconds().unwrap() - i64::try_from(boot_ns).unwrap();
        assert!(off.abs() <= 1000, "{off} ns off between {pair:?}");
    }
    let clocks = &bundle.manifest.head.clocks;
    assert_eq!(clocks.step_count, Some(1), "{clocks:?}");
    let step_s = clocks.max_step_ns as f64 / 1e9;
    assert!((step_s - HOUR_S as f64).abs() < 1.0, "{step_s} s");
    let report = analyze(&bundle.path);
    assert!(report.text().contains("clock"), "{}", report.text());
}

/// UTC at a boot time by this process's own clocks.
fn utc_at(boot: u64) -> DateTime<Utc> {
    let (now, now_boot) = (Utc::now(), boot_ns());
    now - TimeDelta::nanoseconds((now_boot - boot).try_into().unwrap())
}

/// Boot time is an hour ahead there, for every program but those in the kernel.
fn times_are_right_inside_a_time_namespace() {
    let lab = Lab::new();
    let opened_after = boot_ns();
    let flags = ["--duration", "2s"];
    let capture = Capture::under(&["unshare", "--time", "--boottime", "3600", "--fork", "--kill-child"], &flags);
    let told =
        datagrams(Program::run(lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 3"))).truths());
    let bundle = capture.deadline();
    let closed_before = boot_ns();

    let events = udp_events(&bundle.events, lab.client.inode());
    assert_eq!((events.len(), told.len()), (3, 3));
    for (event, told) in events.into_iter().zip(&told) {
        assert!(matches!(event.payload, Payload::UdpSend(_)));
        assert!((told.begin_ns..=told.end_ns).contains(&event.boot_ns), "{} of {told:?}", event.boot_ns);
        let off = (event.at - utc_at(told.begin_ns)).num_milliseconds().abs();
        assert!(off <= TOLERANCE_MS, "{off} ms off: {event:?}, {told:?}");
    }
    let clocks = &bundle.manifest.head.clocks;
    let window = (clocks.start_boot_ns, clocks.end_boot_ns.unwrap());
    assert!(opened_after < window.0 && window.0 < window.1 && window.1 < closed_before, "{window:?}");
    for (at, boot) in [(bundle.manifest.head.start_at, window.0), (bundle.manifest.end_at, window.1)] {
        assert!((at - utc_at(boot)).num_milliseconds().abs() <= TOLERANCE_MS, "{at} {boot}");
    }
    assert_eq!(clocks.step_count, Some(0), "{clocks:?}");
}
