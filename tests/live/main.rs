//! ktrace against this machine's kernel: real traffic in private network namespaces, a real capture, a real bundle.
//!
//! The truth always comes from the test: what `traffic`, Python or strace say that they did, what nft counted.
//! Needs root, BTF and the packages of `scripts/deps.sh test`; without root or BTF every test is reported as
//! ignored with the reason. The binaries `analyze` and `traffic` must have been built beside `ktrace`
//! (`cargo build --workspace`). `KTRACE_LIVE_KEEP=1` keeps the bundles of tests that pass, too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod analyze;
mod audit;
mod broken;
mod btf;
mod capture;
mod cgroups;
mod clocks;
mod command;
mod connect;
mod containerd;
mod crash;
mod dns;
mod doctor;
mod edges;
mod equivalence;
mod evidence;
mod faults;
mod filters;
mod healthy;
mod held;
#[path = "../../src/hooks/limits.rs"]
mod hook_limits;
mod identity;
#[cfg(target_arch = "x86_64")]
mod inject;
mod kernel;
mod kernels;
mod limits;
mod load;
mod memory;
mod missed;
mod nat;
mod nat_backends;
mod nat_full;
mod nat_limits;
mod nat_race;
mod nat_rights;
mod net;
mod node;
mod node_faults;
mod node_limits;
mod observer;
mod outputs;
mod owners;
mod ports_behind;
mod privileges;
mod processes;
mod program;
mod refusal;
mod requirements;
mod runtime;
mod sampling;
mod socketlb;
mod sockets;
mod strace;
mod stream;
mod tcp;
mod times;
mod totals;
mod truth;
mod udp;
mod variants;
mod wait;
mod workdir;
mod workloads;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};
use nix::sys::signal::{SigHandler, Signal, signal};

/// A test: the behaviour that it shows, and the function that shows it.
struct Test {
    name: String,
    run: Box<dyn FnOnce() + Send>,
    /// Why this machine cannot run it; asked just before.
    obstacle: Box<dyn FnOnce() -> Option<String> + Send>,
}

/// Tests named like the functions that they are.
macro_rules! tests {
    ($($run:ident),* $(,)?) => { vec![$($crate::Test::new(stringify!($run), $run)),*] };
}
use tests;

impl Test {
    fn new(name: impl Into<String>, run: impl FnOnce() + Send + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run), obstacle: Box::new(|| None) }
    }

    fn of(self, module: &str) -> Self {
        let name = if self.name.contains("::") { self.name } else { format!("{module}::{}", self.name) };
        Self { name, ..self }
    }

    /// The same, run only where nothing is in its way.
    fn unless(self, obstacle: impl FnOnce() -> Option<String> + Send + 'static) -> Self {
        Self { obstacle: Box::new(obstacle), ..self }
    }
}

/// The tests of these modules. Those named like functions get their module before their name.
macro_rules! modules {
    ($($module:ident),* $(,)?) => { [$($module::tests().into_iter().map(|t| t.of(stringify!($module))).collect::<Vec<_>>()),*] };
}

/// A shell that puts this into the background without job control has these ignored, and so would all that is started here.
fn heed_signals() {
    for it in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: no handler is set, and no other thread runs yet.
        unsafe { signal(it, SigHandler::SigDfl) }.unwrap();
    }
}

fn main() -> ExitCode {
    heed_signals();
    let mut args = Arguments::from_args();
    // a capture sees the whole machine: two tests at a time would see each other
    args.test_threads.get_or_insert(1);
    let skip = requirements::reason_to_skip();
    let mut alone = None;
    if skip.is_none() && !args.list {
        if let Err(missing) = requirements::check() {
            eprintln!("error: {missing}");
            return ExitCode::FAILURE;
        }
        alone = Some(requirements::have_the_machine().expect("a lock file"));
        net::sweep();
        observer::sweep();
        runtime::sweep();
        workdir::sweep();
    }
    let trials = modules![
        udp,
        dns,
        tcp,
        connect,
        socketlb,
        sockets,
        owners,
        processes,
        evidence,
        faults,
        node_faults,
        healthy,
        doctor,
        identity,
        workloads,
        containerd,
        nat,
        nat_backends,
        nat_full,
        nat_limits,
        nat_race,
        nat_rights,
        node,
        node_limits,
        load,
        totals,
        memory,
        limits,
        privileges,
        btf,
        edges,
        audit,
        clocks,
        filters,
        ports_behind,
        held,
        sampling,
        command,
        outputs,
        crash,
        stream,
        broken,
        missed,
        kernels,
        variants,
        equivalence,
    ]
    .into_iter()
    .flatten()
    .map(|test| {
        let skip = skip.clone();
        let name = test.name.clone();
        Trial::ignorable_test(test.name, move || match skip.or_else(test.obstacle) {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => {
                times::take(name, test.run);
                Ok(Completion::Completed)
            }
        })
    })
    .collect();
    let code = libtest_mimic::run(&args, trials).exit_code();
    times::tell();
    drop(alone);
    code
}
