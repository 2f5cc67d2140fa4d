//! The processes behind the sockets, and those above them: what each runs, and when it ended, also of those that are gone
//! before anybody can look.

use ktrace_bundle::process::ProcessRecord;
use nix::sys::signal::Signal;

use crate::capture::{Bundle, Capture};
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::requirements::built;
use crate::wait::boot_ns;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        owners_are_listed_with_what_they_run_and_those_above_them,
        a_process_that_is_gone_before_anybody_looks_is_known_by_how_it_was_called,
        arguments_are_recorded_only_if_they_are_asked_for,
    ]
}

/// The process with this pid; a pid is not used twice in these tests.
fn process(bundle: &Bundle, pid: u32) -> &ProcessRecord {
    bundle.processes.iter().find(|it| it.pid == pid).unwrap_or_else(|| panic!("no {pid} in {:#?}", bundle.processes))
}

/// The time of an event of this process.
fn owner_of(bundle: &Bundle, netns: u32) -> (u32, u64) {
    let event = bundle.events.iter().find(|it| it.id.netns == netns && it.id.owner.value().is_some()).unwrap();
    let owner = event.id.owner.value().unwrap();
    (owner.pid, owner.proc_start_ns.unwrap())
}

/// A shell that stays while one below it sends; `; true` keeps it from becoming that one itself.
fn datagrams(lab: &Lab, shell: &str) -> Program {
    let echo = lab.server.start(&format!("udp-echo --listen {SERVER4}:7007"));
    let to = echo.ready().local;
    let mut command = lab.client.command("sh");
    let script = format!("{shell}{} udp-paced --to {to} --count 1; true", built("traffic").display());
    command.args(["-c", &script]);
    let program = Program::start(command);
    assert!(!program.wait_for_lines(2).is_empty());
    program
}

fn owners_are_listed_with_what_they_run_and_those_above_them() {
    let lab = Lab::new();
    let capture = Capture::start();
    let begin = boot_ns();
    let shell = datagrams(&lab, "");
    let shell_pid = shell.pid();
    assert!(shell.wait().status.success());
    let bundle = capture.stop();

    let (pid, start_ns) = owner_of(&bundle, lab.client.inode());
    let client = process(&bundle, pid);
    assert_eq!((client.proc_start_ns, client.ppid, &*client.comm), (start_ns, shell_pid, "traffic"), "{client:?}");
    assert_eq!(client.exe.as_deref(), built("traffic").to_str(), "{client:?}");
    assert_eq!((client.uid, client.cmdline.as_deref()), (Some(0), None));
    let window = bundle.manifest.head.start_at..=bundle.manifest.end_at;
    assert!(client.exit_at.is_some_and(|at| window.contains(&at)), "{client:?}");
    assert!(start_ns >= begin && client.why.keys().all(|key| key == "cgroup_id"), "{client:?}");

    let shell = process(&bundle, shell_pid);
    assert_eq!(&*shell.comm, "sh");
    assert!(shell.exit_at > client.exit_at, "{shell:?} ends after {client:?}");
    // the test that started it, and who started that, are still there
    let mut above = shell;
    while above.ppid != 0 {
        above = process(&bundle, above.ppid);
        assert!(above.exit_at.is_none() && !above.why.contains_key("exit_at"), "{above:?}");
    }
    let own = process(&bundle, std::process::id());
    assert_eq!(own.exe.as_deref(), std::env::current_exe().unwrap().to_str());
}

fn a_process_that_is_gone_before_anybody_looks_is_known_by_how_it_was_called() {
    let lab = Lab::new();
    let capture = Capture::start();
    capture.signal(Signal::SIGSTOP);
    let shell = datagrams(&lab, "");
    let shell_pid = shell.pid();
    assert!(shell.wait().status.success());
    capture.signal(Signal::SIGCONT);
    let bundle = capture.stop();

    let (pid, _) = owner_of(&bundle, lab.client.inode());
    let client = process(&bundle, pid);
    assert_eq!((client.exe.as_deref(), client.is_as_called), (built("traffic").to_str(), true), "{client:?}");
    assert_eq!((client.ppid, client.exit_at.is_some()), (shell_pid, true), "{client:?}");
    let shell = process(&bundle, shell_pid);
    assert_eq!((&*shell.comm, shell.is_as_called, shell.exit_at.is_some()), ("sh", true, true), "{shell:?}");
}

fn arguments_are_recorded_only_if_they_are_asked_for() {
    let lab = Lab::new();
    let line = format!("udp-echo --quiet --listen {SERVER4}:7007");
    let echo = lab.server.start(&line);
    echo.ready();
    let asked = Capture::with(&["--with-cmdline", "--duration", "120s"]).stop();
    let plain = Capture::start().stop();
    let told = process(&asked, echo.pid());
    let cmdline = told.cmdline.as_deref().unwrap();
    assert!(cmdline.starts_with(built("traffic").to_str().unwrap()) && cmdline.ends_with(&line), "{told:?}");
    assert!(plain.processes.iter().all(|it| it.cmdline.is_none() && !it.why.contains_key("cmdline")));
    assert_eq!(process(&plain, echo.pid()).exe.as_deref(), built("traffic").to_str());
}
