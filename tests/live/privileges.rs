//! One table of what may be missing: a right, or a system call. For each either all works, or the capture is degraded and
//! says so last, or an error names the cause and the remedy. A new one is a new line.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ktrace_bundle::manifest::HookOutcome;
use nix::libc;

use crate::Test;
use crate::capture::{COMPLETE, DEGRADED, ktrace, only_entry, read};
use crate::limits::public_copy;
use crate::program::{Ended, Program};
use crate::requirements::locked_down;
use crate::variants;

const NOTHING_ATTACHED: i32 = 3;

/// Tracefs is mounted in a namespace of the test's own; then the words of the case, then ktrace, with `$1` and up.
pub const PREPARED: &str =
    "{ mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing; } && exec ";

struct Case {
    name: &'static str,
    /// What runs ktrace, in a shell.
    words: &'static str,
    /// Variants that are forced, so that the outcome is the same on every kernel that offers them.
    variants: &'static [&'static str],
    exit: i32,
    /// What the reader is told: in the last line where the capture is degraded, else anywhere.
    says: &'static [&'static str],
    /// Kernels that it is about.
    kernels: Kernels,
}

/// Before 5.11 maps are charged to a limit of the process, after it to its cgroup.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernels {
    All,
    Before5_11,
    From5_11,
}

const PERF: &[&str] = &["tcp_state=tp_btf", "owner=tracepoint", "connect=tracepoint"];
const CGROUP: &[&str] = &["udp=tp_btf"];
const MISSING: &str = "loading BPF programs needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN";
const GIVE: &str = "hint: run as root, or give the container CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";

/// Works in full.
const fn works(name: &'static str, words: &'static str) -> Case {
    Case { name, words, variants: &[], exit: COMPLETE, says: &[], kernels: Kernels::All }
}

/// Ends before anything is attached.
const fn fails(name: &'static str, words: &'static str, says: &'static [&'static str]) -> Case {
    Case { name, words, variants: &[], exit: NOTHING_ATTACHED, says, kernels: Kernels::All }
}

static CASES: &[Case] = &[
    fails(
        "without_cap_bpf",
        "setpriv --bounding-set=-sys_admin,-bpf --inh-caps=-all",
        &["missing CAP_BPF:", MISSING, GIVE],
    ),
    fails(
        "without_cap_perfmon",
        "setpriv --bounding-set=-sys_admin,-perfmon --inh-caps=-all",
        &["missing CAP_PERFMON:", MISSING, GIVE],
    ),
    fails("without_any_capability", "setpriv --bounding-set=-all --inh-caps=-all", &["CAP_BPF, CAP_PERFMON:", GIVE]),
    fails(
        "as_an_ordinary_user",
        "setpriv --reuid 65534 --regid 65534 --clear-groups",
        &["CAP_BPF, CAP_PERFMON:", MISSING, GIVE],
    ),
    fails(
        "as_root_of_a_user_namespace",
        "unshare --user --map-root-user",
        &["in a user namespace capabilities do not count", "hint: run as root of the host", "`hostUsers: true`"],
    ),
    fails(
        "where_a_security_module_forbids_bpf",
        "strace -f -qq -o /dev/null -e inject=bpf:error=EPERM",
        &["refuses bpf(2), although the capabilities", "hint: a security module may forbid it", "audit log"],
    ),
    fails(
        "where_the_kernel_has_no_bpf",
        "strace -f -qq -o /dev/null -e inject=bpf:error=ENOSYS",
        &["refuses bpf(2)", "hint: the kernel must be built with CONFIG_BPF_SYSCALL=y"],
    ),
    Case {
        name: "without_cap_net_admin",
        words: "setpriv --bounding-set=-sys_admin,-net_admin --inh-caps=-all",
        variants: CGROUP,
        exit: DEGRADED,
        says: &["`udp` does not see the remote end of unconnected sockets", "give CAP_NET_ADMIN"],
        kernels: Kernels::All,
    },
    Case {
        name: "as_a_user_who_may_not_read_tracefs",
        words: "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all,+bpf,+perfmon,+net_admin \
                --ambient-caps=-all,+bpf,+perfmon,+net_admin --bounding-set=-all,+bpf,+perfmon,+net_admin",
        variants: PERF,
        exit: DEGRADED,
        says: &["hook `connect` has no variant", "`/sys/kernel/tracing` may not be read", "give CAP_DAC_READ_SEARCH"],
        kernels: Kernels::All,
    },
    Case {
        name: "where_a_security_module_forbids_perf_event_open",
        words: "strace -f -qq -o /dev/null -e inject=perf_event_open:error=EACCES",
        variants: PERF,
        exit: DEGRADED,
        says: &["hook `connect` has no variant", "perf_event"],
        kernels: Kernels::All,
    },
    Case {
        kernels: Kernels::From5_11,
        ..works(
            "as_a_user_with_four_capabilities",
            "setpriv --reuid 65534 --regid 65534 --clear-groups \
         --inh-caps=-all,+bpf,+perfmon,+net_admin,+dac_read_search \
         --ambient-caps=-all,+bpf,+perfmon,+net_admin,+dac_read_search \
         --bounding-set=-all,+bpf,+perfmon,+net_admin,+dac_read_search",
        )
    },
    Case {
        kernels: Kernels::From5_11,
        ..works("without_cap_sys_admin", "setpriv --bounding-set=-sys_admin --inh-caps=-all")
    },
    // Debian's 5.10 has a level that CAP_PERFMON does not pass
    Case {
        kernels: Kernels::Before5_11,
        exit: DEGRADED,
        says: &["has no variant", "`kernel.perf_event_paranoid` is 3: set it to 2, or give CAP_SYS_ADMIN"],
        ..works(
            "without_cap_sys_admin_perf_event_paranoid_is_named",
            "setpriv --bounding-set=-sys_admin --inh-caps=-all",
        )
    },
    works("without_cap_sys_ptrace", "setpriv --bounding-set=-sys_ptrace --inh-caps=-all"),
    works("without_cap_dac_read_search", "setpriv --bounding-set=-dac_read_search,-dac_override --inh-caps=-all"),
    works("with_cap_sys_admin_for_bpf_and_perfmon", "setpriv --bounding-set=-bpf,-perfmon --inh-caps=-all"),
    Case {
        kernels: Kernels::From5_11,
        ..works(
            "without_cap_sys_resource_and_with_little_locked_memory",
            "prlimit --memlock=65536:65536 setpriv --bounding-set=-sys_resource --inh-caps=-all",
        )
    },
    Case {
        kernels: Kernels::Before5_11,
        ..fails(
            "without_cap_sys_resource_locked_memory_is_named",
            "prlimit --memlock=65536:65536 setpriv --bounding-set=-sys_resource --inh-caps=-all",
            &["cannot be loaded", "hint: the limit of locked memory is 64 KiB: run `ulimit -l unlimited` before"],
        )
    },
];

pub fn tests() -> Vec<Test> {
    let mut tests: Vec<_> = CASES
        .iter()
        .map(|case| Test::new(format!("privileges::{}", case.name), || case.run()).unless(|| case.obstacle()))
        .collect();
    let seccomp = [
        (
            "privileges::a_seccomp_filter_on_bpf_is_named",
            (|| {
                denied(
                    libc::SYS_bpf,
                    &[],
                    NOTHING_ATTACHED,
                    &["refuses bpf(2)", "hint: a seccomp filter is in force", "`bpf`"],
                )
            }) as fn(),
            &[] as &[&str],
        ),
        (
            "privileges::a_seccomp_filter_on_perf_event_open_is_named",
            || {
                denied(
                    libc::SYS_perf_event_open,
                    PERF,
                    DEGRADED,
                    &["hook `connect`", "let the seccomp filter", "`perf_event_open`"],
                )
            },
            PERF,
        ),
    ];
    tests.extend(seccomp.map(|(name, run, forced)| Test::new(name, run).unless(|| variants::obstacle(forced))));
    tests.push(Test::new("privileges::lockdown_is_named", lockdown_is_named).unless(not_locked_down));
    tests
}

impl Case {
    fn obstacle(&self) -> Option<String> {
        let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
        let numbers: Vec<u32> =
            release.split(|c: char| !c.is_ascii_digit()).take(2).map(|n| n.parse().unwrap()).collect();
        match self.kernels {
            Kernels::Before5_11 if numbers >= vec![5, 11] => {
                Some(format!("about kernels before 5.11, this is {release}"))
            }
            Kernels::From5_11 if numbers < vec![5, 11] => {
                Some(format!("about kernels from 5.11 on, this is {release}"))
            }
            _ => variants::obstacle(self.variants),
        }
    }

    fn run(&self) {
        let script = format!("{PREPARED}{} \"$@\"", self.words);
        let mut command = ktrace("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        outcome(command, self.variants, self.exit, self.says);
    }
}

/// Runs ktrace by `command`, and asserts what it comes to.
fn outcome(mut command: Command, variants: &[&str], exit: i32, says: &[&str]) {
    let dir = public_copy(Path::new(env!("CARGO_BIN_EXE_ktrace")));
    let out = dir.path().join("out");
    command.arg(dir.path().join("ktrace")).args(["--duration", "1s", "--out-dir"]).arg(&out);
    command.args(variants.iter().map(|variant| format!("--hook-variant={variant}")));
    let ended = Program::run(command);
    assert_eq!(ended.status.code(), Some(exit), "{ended:?}");
    if exit == NOTHING_ATTACHED {
        let all = ended.stderr.join("\n");
        assert!(says.iter().all(|part| all.contains(part)), "{says:?} in {all}");
        assert!(ended.stderr.last().unwrap().starts_with("hint: "), "{all}");
        assert!(ended.stdout.is_empty() && !all.contains("panicked"), "{ended:?}");
        return;
    }
    recorded(&ended, &out, exit, says);
}

/// A bundle that says the same as the last line.
fn recorded(ended: &Ended, out: &Path, exit: i32, says: &[&str]) {
    let manifest = read(&only_entry(out, Path::is_dir)).manifest.expect("a manifest");
    assert_eq!(manifest.complete, exit == COMPLETE, "{:?}", manifest.degraded);
    if exit == COMPLETE {
        let attached = |h: &ktrace_bundle::manifest::HookReport| h.outcome == HookOutcome::Attached;
        assert!(manifest.head.hooks.iter().all(attached), "{:?}", manifest.head.hooks);
        return;
    }
    let last = ended.stderr.last().expect("a reason");
    assert!(says.iter().all(|part| last.contains(part)), "{says:?} in {last}");
    assert_eq!(last.strip_prefix("degraded: "), manifest.degraded.last().map(String::as_str));
}

/// ktrace below a seccomp filter that refuses one system call, as container runtimes do.
fn denied(syscall: libc::c_long, variants: &[&str], exit: i32, says: &[&str]) {
    let mut command = ktrace("env");
    let number = u32::try_from(syscall).unwrap();
    // SAFETY: between fork and exec only two system calls are made, from memory of this frame.
    unsafe { command.pre_exec(move || refuse(number)) };
    outcome(command, variants, exit, says);
}

/// From here on this process and what it becomes get EPERM for that system call.
fn refuse(syscall: u32) -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        // the number stands first in struct seccomp_data
        instruction(LOAD, 0, 0, 0),
        instruction(JUMP_IF_EQUAL, 0, 1, syscall),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: `program` and the filter that it points to live until the calls return.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// `scripts/vmtest.sh --only lockdown` boots one that is.
fn not_locked_down() -> Option<String> {
    (!locked_down()).then(|| "the kernel is not booted with `lockdown=confidentiality`".into())
}

fn lockdown_is_named() {
    let says = ["does not let BPF programs read its memory", "hint: ", "[confidentiality]", "`lockdown=integrity`"];
    outcome(ktrace("env"), &[], NOTHING_ATTACHED, &says);
}
