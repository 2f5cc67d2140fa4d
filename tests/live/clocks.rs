//! Clocks: events have the right time also where ktrace itself lives in another time.

use chrono::{DateTime, TimeDelta, Utc};
use ktrace_bundle::event::Payload;

use crate::capture::Capture;
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::truth::{datagrams, udp_events};
use crate::wait::boot_ns;
use crate::{Test, tests};

/// How far a time may be from the one that this process's clocks say.
const TOLERANCE_MS: i64 = 50;

pub fn tests() -> Vec<Test> {
    tests![times_are_right_inside_a_time_namespace]
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
