//! The audit: the kernel's own counters against what the hooks saw. That it comes to 0 or is explained is asserted for
//! every bundle of every test; here it has to notice a hook that is gone, and to keep namespaces apart that come
//! and go.

use ktrace_bundle::audit::AuditEntry;

#[cfg(target_arch = "x86_64")]
use crate::analyze::analyze;
use crate::capture::{Bundle, Capture};
use crate::net::{Lab, Netns, SERVER4};
use crate::program::Program;
use crate::truth::datagrams;
use crate::variants::used;
use crate::wait::{DEADLINE, until};
use crate::{Test, tests};

const SENT: &str = "Udp.OutDatagrams";

pub fn tests() -> Vec<Test> {
    #[allow(unused_mut, reason = "one test is for x86-64 only")]
    let mut tests = tests![
        what_filters_and_caps_leave_out_is_audited,
        a_namespace_that_appears_counts_from_zero,
        a_namespace_that_ends_is_audited_and_let_go,
    ];
    #[cfg(target_arch = "x86_64")]
    tests.extend(
        tests![a_hook_that_is_taken_away_makes_the_audit_differ]
            .into_iter()
            .map(|test| test.unless(|| sending_programs().err().map(str::to_owned))),
    );
    tests
}

/// Sends so many datagrams and returns how many the program says that the kernel took.
fn send(netns: &Netns, count: u32) -> u64 {
    let command = netns.traffic(&format!("udp-paced --to {SERVER4}:7007 --count {count} --interval-us 100"));
    let told = datagrams(Program::run(command).truths());
    told.iter().filter(|d| d.errno.is_none()).count() as u64
}

fn entry<'a>(bundle: &'a Bundle, counter: &str, netns: u32) -> Option<&'a AuditEntry> {
    bundle.manifest.audit.iter().find(|e| e.netns == netns && e.counter == counter)
}

/// Kernel, ktrace, unexplained.
fn sent(bundle: &Bundle, netns: u32) -> Option<(u64, Option<u64>, u64)> {
    entry(bundle, SENT, netns).map(|e| (e.kernel_delta, e.ktrace_seen, e.unexplained()))
}

/// The programs that see an IPv4 datagram leave, of the variant that this kernel chooses; one may stand in for another.
#[cfg(target_arch = "x86_64")]
fn sending_programs() -> Result<&'static [&'static str], &'static str> {
    match used("udp") {
        "fexit" => Ok(&["udp__send_fexit", "udp__send_fexit_more1", "udp__send_fexit_more2"]),
        "tp_btf" => Ok(&["udp__send_tp_btf"]),
        _ => Err("the hook `udp` is a kprobe here, which has no link that can be taken away"),
    }
}

#[cfg(target_arch = "x86_64")]
fn a_hook_that_is_taken_away_makes_the_audit_differ() {
    let lab = Lab::new();
    let capture = Capture::start();
    let before = send(&lab.client, 20);
    assert_ne!(crate::inject::take_away(capture.pid(), sending_programs().unwrap()), 0);
    let after = send(&lab.client, 30);
    // it is complete and lossless by its own account: nothing but the audit shows it
    let bundle = capture.stop_unaudited();

    assert_eq!((before, after), (20, 30));
    let netns = lab.client.inode();
    assert_eq!(sent(&bundle, netns), Some((50, Some(20), 30)), "{:#?}", bundle.manifest.audit);
    assert_eq!(bundle.manifest.ledger.missed, 0);

    let report = analyze(&bundle.path);
    let findings = report.findings(&[netns]);
    let told = findings.iter().find(|f| f.rule() == "evidence.incomplete");
    let told = told.unwrap_or_else(|| panic!("not told: {}", report.text()));
    assert_eq!(told.severity(), "warning");
    let sentence = format!("in network namespace {netns}: 30 of 50 `{SENT}` were not seen");
    assert!(told.title().contains(&sentence), "{}", told.title());
}

fn what_filters_and_caps_leave_out_is_audited() {
    let lab = Lab::new();
    let capture = Capture::with(&["--duration", "60s", "--ports", "9"]);
    let told = send(&lab.client, 40);
    let bundle = capture.stop();
    assert_eq!((bundle.events.len(), told), (0, 40));
    assert_eq!(sent(&bundle, lab.client.inode()), Some((told, Some(told), 0)));

    let capture = Capture::with(&["--duration", "60s", "--max-events", "10"]);
    let told = send(&lab.client, 40);
    let bundle = capture.stop_under_load();
    assert!(bundle.events.len() <= 10);
    assert_eq!(sent(&bundle, lab.client.inode()), Some((told, Some(told), 0)));
}

fn a_namespace_that_appears_counts_from_zero() {
    let capture = Capture::start();
    let lab = Lab::new();
    let told = send(&lab.client, 25);
    let bundle = capture.stop();
    assert_eq!(told, 25);
    assert_eq!(sent(&bundle, lab.client.inode()), Some((told, Some(told), 0)), "{:?}", bundle.manifest.audited);
}

/// Files of counters that ktrace holds open.
fn counters_held(pid: u32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    entries.filter(|e| std::fs::read_link(e.path()).is_ok_and(|to| to.ends_with("net/snmp"))).count()
}

fn a_namespace_that_ends_is_audited_and_let_go() {
    let lab = Lab::new();
    let netns = lab.client.inode();
    let capture = Capture::start();
    let held = counters_held(capture.pid());
    let told = send(&lab.client, 35);
    drop(lab);
    until("the three namespaces to be let go", DEADLINE, || (counters_held(capture.pid()) + 3 == held).then_some(()));
    let bundle = capture.stop();
    assert_eq!(told, 35);
    assert_eq!(sent(&bundle, netns), Some((told, Some(told), 0)), "{:?}", bundle.manifest.audited);
}
