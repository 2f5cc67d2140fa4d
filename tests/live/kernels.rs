//! What each kernel of `tests/vm/kernels` makes of ktrace: the variant of every hook, and what the verifier went through
//! for every program, held against `fixtures/kernels/NAME.json`. A hook that a kernel had and has no more is a failure.
//!
//! Variants and programs must be the same. So must the numbers, if clang and the kernel's release are those of the
//! fixture; of others they may differ by a factor of [`TOLERANCE`]. `KTRACE_BLESS=1 scripts/vmtest.sh` writes the
//! fixtures anew; look at the difference. A machine that is not one of them (`KTRACE_LIVE_KERNEL` is its name) must have every
//! hook that the newest kernel has that is not newer than its own.

use std::collections::BTreeMap;

use ktrace_bundle::manifest::{HookOutcome, HookReport};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::capture::Capture;
use crate::kernel::{release, verified_insns_held_by, version};
use crate::variants::FORCED;
use crate::{Test, tests};

const FIXTURES: &[(&str, &str)] = &[
    ("5.10", include_str!("../../fixtures/kernels/5.10.json")),
    ("6.1", include_str!("../../fixtures/kernels/6.1.json")),
    ("6.12", include_str!("../../fixtures/kernels/6.12.json")),
    ("6.18", include_str!("../../fixtures/kernels/6.18.json")),
    ("7.2", include_str!("../../fixtures/kernels/7.2.json")),
];

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
    tests![each_kernel_of_the_matrix_has_its_fixture, this_kernel_has_the_variants_and_programs_of_its_fixture,]
}

fn each_kernel_of_the_matrix_has_its_fixture() {
    let matrix = include_str!("../vm/kernels").lines().filter(|line| !line.starts_with('#'));
    let names: Vec<_> = matrix.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, FIXTURES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

fn this_kernel_has_the_variants_and_programs_of_its_fixture() {
    let plain = hooks_with::<&str>(&[], SHARE);
    let mut captures = BTreeMap::from([("chosen", plain), ("all_filters", hooks_with(FILTERS, SHARE_FILTERED))]);
    for forced in FORCED.iter().filter(|forced| forced.obstacle().is_none()) {
        let flags: Vec<_> = forced.variants.iter().map(|variant| format!("--hook-variant={variant}")).collect();
        captures.entry(forced.name).or_insert_with(|| hooks_with(&flags, SHARE));
    }
    let here = json!({ "kernel": release(), "clang": CLANG, "captures": captures });
    match std::env::var("KTRACE_LIVE_KERNEL") {
        Ok(name) if std::env::var_os("KTRACE_BLESS").is_some() => {
            eprintln!("KTRACE-FIXTURE-BEGIN {name}\n{here:#}\nKTRACE-FIXTURE-END");
        }
        Ok(name) => {
            let (_, text) = FIXTURES.iter().find(|(n, _)| *n == name).expect("a fixture of this name");
            assert_same(&serde_json::from_str(text).unwrap(), &here);
        }
        Err(_) => assert_has_the_hooks_of_older_kernels(&here),
    }
}

/// Captures for a moment; hook → variant, and program → instructions that the verifier went through.
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
    let of_hook = |hook: &HookReport| {
        let programs: BTreeMap<_, _> = hook.programs.iter().map(|p| (p.name.clone(), p.verified_insns)).collect();
        let outcome = (hook.outcome != HookOutcome::Attached).then_some(hook.outcome);
        let variant = hook.variant.clone().unwrap_or_else(|| format!("{outcome:?}"));
        (hook.name.clone(), json!({ "variant": variant, "programs": programs }))
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
    let older = FIXTURES.iter().rev().find(|(name, _)| number(name) <= version()).expect("a kernel as old as 5.10");
    let older: Value = serde_json::from_str(older.1).unwrap();
    for hook in older["captures"]["chosen"].as_object().unwrap().keys() {
        let found = &here["captures"]["chosen"][hook];
        assert!(found["programs"].as_object().is_some_and(|p| !p.is_empty()), "{hook} is missing here: {found}");
    }
}
