//! What each kernel of `tests/vm/kernels` makes of ktrace: the variant of every hook, and what the verifier went through
//! for every program, held against `fixtures/kernels/NAME.json`. A hook that a kernel had and has no more is a failure, and
//! so is a variant that seemed to be offered and whose program the kernel refused: what a fixture lacks, it lacks for a
//! reason that was known before, and it says which. A kernel without a fixture is reported as ignored.
//!
//! Variants and programs must be the same. So must the numbers, if clang and the kernel's release are those of the
//! fixture; of others they may differ by a factor of [`TOLERANCE`]. `KTRACE_BLESS=1 scripts/vmtest.sh` writes the
//! fixtures anew; look at the difference. A machine that is not one of them (`KTRACE_LIVE_KERNEL` is its name) must have every
//! hook that the newest kernel has that is not newer than its own.

use std::collections::{BTreeMap, BTreeSet};

use ktrace_bundle::manifest::{HookOutcome, HookReport};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::capture::Capture;
use crate::kernel::{release, verified_insns_held_by, version};
use crate::variants::{self, FORCED};
use crate::{Test, tests};

const FIXTURES: &[(&str, &str)] = &[
    ("5.10", include_str!("../../fixtures/kernels/5.10.json")),
    ("6.1", include_str!("../../fixtures/kernels/6.1.json")),
    ("6.12", include_str!("../../fixtures/kernels/6.12.json")),
    ("7.2", include_str!("../../fixtures/kernels/7.2.json")),
];

/// Kernels of the matrix that nobody could take a fixture of, and why.
const WITHOUT: &[(&str, &str)] = &[("6.18", "Debian's archive has its package no more")];

/// What the verifier goes through before it gives up.
const LIMIT: u64 = 1_000_000;

/// No program takes more than this share of it, 1 in so many: by default, and with all filters.
const SHARE: u64 = 10;
const SHARE_FILTERED: u64 = 4;

/// How much more, or fewer, instructions another compiler or another patch level may make of it.
const TOLERANCE: u64 = 2;

/// All that makes programs longer.
const FILTERS: &[&str] = &[
    "--ports=53,8080,!22",
    "--cidr=10.0.0.0/8,!10.1.0.0/16,fd00::/8",
    "--netns=!/proc/self/ns/net",
    "--pid=!1",
    "--comm=!none",
    "--cgroup=!1",
    "--sample=2",
];

const CLANG: &str = env!("KTRACE_CLANG");

pub fn tests() -> Vec<Test> {
    let name = "this_kernel_has_the_variants_and_programs_of_its_fixture";
    let of_fixture = Test::new(name, this_kernel_has_the_variants_and_programs_of_its_fixture);
    let mut tests = tests![each_kernel_of_the_matrix_has_its_fixture];
    tests.push(of_fixture.unless(no_fixture));
    tests
}

/// `uname -r` does not tell which of the matrix this is.
fn name() -> Option<String> {
    std::env::var("KTRACE_LIVE_KERNEL").ok()
}

fn is_blessed() -> bool {
    std::env::var_os("KTRACE_BLESS").is_some()
}

fn fixture(name: &str) -> Option<Value> {
    let (_, text) = FIXTURES.iter().find(|(n, _)| *n == name)?;
    Some(serde_json::from_str(text).expect("a fixture is JSON"))
}

fn no_fixture() -> Option<String> {
    let name = name().filter(|name| !is_blessed() && fixture(name).is_none())?;
    let why = WITHOUT.iter().find(|(n, _)| *n == name).map_or("nobody has taken it", |(_, why)| why);
    Some(format!("there is no fixtures/kernels/{name}.json: {why}"))
}

/// Of x86-64: the others are for what differs by architecture.
fn each_kernel_of_the_matrix_has_its_fixture() {
    let matrix = include_str!("../vm/kernels").lines().map(|line| line.split('#').next().unwrap_or_default());
    let rows = matrix.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let names: BTreeSet<_> = rows.filter(|row| row.len() == 3).map(|row| row[0]).collect();
    let fixtures = FIXTURES.iter().map(|(name, _)| *name);
    assert_eq!(names, fixtures.chain(WITHOUT.iter().map(|(name, _)| *name)).collect());
    let hooks: BTreeSet<_> = variants::all().map(|(hook, _)| hook).collect();
    for (name, _) in FIXTURES {
        let fixture = fixture(name).expect("it was found just now");
        let captures =
            fixture["captures"].as_object().unwrap_or_else(|| panic!("fixtures/kernels/{name}.json is empty"));
        for (capture, of) in captures {
            let told: BTreeSet<_> = of.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(told, hooks, "{name}, {capture}");
        }
    }
}

fn this_kernel_has_the_variants_and_programs_of_its_fixture() {
    let plain = hooks_with::<&str>(&[], SHARE);
    let mut captures = BTreeMap::from([("chosen", plain), ("all_filters", hooks_with(FILTERS, SHARE_FILTERED))]);
    for forced in FORCED.iter().filter(|forced| forced.obstacle().is_none()) {
        let flags: Vec<_> = forced.variants.iter().map(|variant| format!("--hook-variant={variant}")).collect();
        captures.entry(forced.name).or_insert_with(|| hooks_with(&flags, SHARE));
    }
    let here = json!({ "kernel": release(), "clang": CLANG, "captures": captures });
    match name() {
        Some(name) if is_blessed() => eprintln!("KTRACE-FIXTURE-BEGIN {name}\n{here:#}\nKTRACE-FIXTURE-END"),
        Some(name) => assert_same(&fixture(&name).expect("else this test is ignored"), &here),
        None => assert_has_the_hooks_of_older_kernels(&here),
    }
}

/// Captures for a moment; hook → variant, and program → instructions that the verifier went through; or else why it has
/// no variant.
fn hooks_with<T: AsRef<str>>(flags: &[T], share: u64) -> Value {
    let flags: Vec<_> = flags.iter().map(AsRef::as_ref).chain(["--duration=120s"]).collect();
    let capture = Capture::with(&flags);
    let mut held = verified_insns_held_by(capture.pid());
    capture.signal(Signal::SIGTERM);
    let hooks = capture.end_unaudited().manifest.head.hooks;
    let mut told: Vec<_> = hooks.iter().flat_map(|h| &h.programs).filter_map(|p| p.verified_insns).collect();
    held.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, held, "verified instructions as told by ktrace, and by the kernel");
    assert!(told.iter().all(|n| (1..=LIMIT / share).contains(&u64::from(*n))), "{flags:?}: {hooks:#?}");
    let refused = hooks.iter().find(|h| h.tried.iter().any(|t| t.program.is_some()));
    assert!(refused.is_none(), "{flags:?}: the kernel refused what it seemed to offer: {refused:#?}");
    let of_hook = |hook: &HookReport| {
        let programs: BTreeMap<_, _> = hook.programs.iter().map(|p| (p.name.clone(), p.verified_insns)).collect();
        let why: BTreeMap<_, _> = hook.tried.iter().map(|t| (t.variant.clone(), t.why.clone())).collect();
        let found = match hook.outcome {
            HookOutcome::Attached => json!({ "variant": hook.variant, "programs": programs }),
            outcome => json!({ "outcome": outcome, "why": why }),
        };
        (hook.name.clone(), found)
    };
    hooks.iter().map(of_hook).collect()
}

fn assert_same(fixture: &Value, here: &Value) {
    let is_exact = fixture["kernel"] == here["kernel"] && fixture["clang"] == here["clang"];
    let mut differences = Vec::new();
    compare("", &fixture["captures"], &here["captures"], if is_exact { 1 } else { TOLERANCE }, &mut differences);
    let of = |of: &Value| format!("{} with {}", of["kernel"], of["clang"]);
    let (fixture, here) = (of(fixture), of(here));
    assert!(differences.is_empty(), "fixture of {fixture}, here {here}: {differences:#?}");
}

fn compare(at: &str, fixture: &Value, here: &Value, factor: u64, differences: &mut Vec<String>) {
    match (fixture, here) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().for_each(|(key, value)| compare(&format!("{at}/{key}"), value, &b[key], factor, differences));
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_u64().unwrap(), b.as_u64().unwrap());
            if a > b * factor || b > a * factor {
                differences.push(format!("{at}: {a} in the fixture, {b} here"));
            }
        }
        _ if fixture == here => {}
        _ => differences.push(format!("{at}: {fixture} in the fixture, {here} here")),
    }
}

fn assert_has_the_hooks_of_older_kernels(here: &Value) {
    let number = |name: &str| name.split_once('.').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).unwrap();
    let (name, _) = FIXTURES.iter().rev().find(|(name, _)| number(name) <= version()).expect("a kernel as old as 5.10");
    let older = fixture(name).expect("it was found just now");
    let chosen = older["captures"]["chosen"].as_object().unwrap();
    for (hook, _) in chosen.iter().filter(|(_, found)| found["variant"].is_string()) {
        let found = &here["captures"]["chosen"][hook];
        assert!(found["variant"].is_string(), "{hook}, which {name} has, is missing here: {found}");
    }
}
