//! Kernels that do not publish their types: hidden here in a mount namespace, and given by `--btf` or not.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ktrace_bundle::manifest::HookOutcome;
use ktrace_bundle::tcp::TcpState;
use nix::sys::signal::Signal;

use crate::capture::{Capture, DEGRADED, ktrace};
use crate::limits::with_mounts;
use crate::net::{Lab, SERVER4, SERVER6};
use crate::program::{Ended, Program};
use crate::truth::{assert_same_connections, assert_same_operations, conns, datagrams};
use crate::workdir::Workdir;
use crate::{Test, tests};

const BTF: &str = "/sys/kernel/btf/vmlinux";
const HIDE: &str = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" \"$@\"";

pub fn tests() -> Vec<Test> {
    tests![
        without_btf_the_remedy_is_named,
        without_btf_a_file_of_it_serves_what_needs_none_of_the_kernel_s_own,
        without_btf_check_says_what_a_file_cannot_serve,
        a_btf_of_another_layout_is_refused,
        a_btf_that_lacks_a_type_is_refused,
    ]
}

/// ktrace where the kernel publishes no types.
fn hidden() -> std::process::Command {
    let mut command = ktrace("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", HIDE, env!("CARGO_BIN_EXE_ktrace")]);
    command
}

/// This kernel's types as a file.
fn copy(dir: &Workdir) -> PathBuf {
    let path = dir.join("kernel.btf");
    std::fs::copy(BTF, &path).unwrap();
    path
}

fn without_btf_the_remedy_is_named() {
    let dir = Workdir::new();
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$1\" --duration 1s --out-dir \"$0\"";
    let ended = Program::run(with_mounts(script, &dir.join("out")));
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(ended.stderr[0].contains(BTF), "{ended:?}");
    let hint = ended.stderr.last().unwrap();
    for remedy in ["mount `/sys/kernel/btf`", "CONFIG_DEBUG_INFO_BTF=y", "`--btf PATH`", "BTFHub"] {
        assert!(hint.contains(remedy), "{hint}");
    }
}

fn without_btf_a_file_of_it_serves_what_needs_none_of_the_kernel_s_own() {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let server = lab.server.start(&format!("tcp-server --listen [{SERVER6}]:0"));
    let to = server.ready().local;
    let path = copy(&dir);
    let capture = Capture::launch(hidden(), &["--duration", "120s", "--btf", path.to_str().unwrap()]);
    let client = conns(Program::run(lab.client.traffic(&format!("tcp-client --to {to} --count 20"))).truths());
    let served = conns(server.truths(20));
    let paced = lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 3"));
    let told = datagrams(Program::run(paced).truths());
    lab.client.wait_until_quiet();
    lab.server.wait_until_quiet();
    capture.signal(Signal::SIGTERM);
    let bundle = capture.end_unaudited();

    // sockets older than the window are listed by an iterator, which needs the kernel's own types
    assert_eq!(bundle.exit_code, DEGRADED);
    let last = bundle.manifest.degraded.last().unwrap();
    assert!(last.contains("hook `sockets`") && last.contains("`--btf` cannot stand in"), "{last}");
    assert_eq!(bundle.manifest.head.host.btf.as_deref(), path.to_str());
    let variant = bundle.variant("tcp_state");
    assert_eq!(variant, "tracepoint");
    use TcpState::{Close, CloseWait, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent};
    let states: [&[TcpState]; 2] = [
        &[Close, SynSent, Established, FinWait1, FinWait2, Close],
        &[Listen, SynRecv, Established, CloseWait, LastAck, Close],
    ];
    assert_same_connections(&bundle.events, lab.client.inode(), &client, states[0], &BTreeSet::new());
    assert_same_connections(&bundle.events, lab.server.inode(), &served, states[1], &BTreeSet::new());
    let udp = bundle.manifest.head.hooks.iter().find(|h| h.name == "udp").unwrap();
    if udp.outcome == HookOutcome::Attached {
        assert_eq!(udp.variant.as_deref(), Some("kprobe"));
        assert_same_operations(&bundle.events, lab.client.inode(), &told);
    }
}

fn without_btf_check_says_what_a_file_cannot_serve() {
    let dir = Workdir::new();
    let mut command = hidden();
    command.args(["check", "--btf"]).arg(copy(&dir));
    let Ended { status, stdout, stderr } = Program::run(command);
    assert!(status.success(), "{stderr:?}");
    let of = |variant: &str| {
        let lines: Vec<_> = stdout.iter().filter(|l| l.trim_start().starts_with(&format!("{variant} "))).collect();
        assert!(!lines.is_empty(), "no {variant} in {stdout:?}");
        lines
    };
    for variant in ["tp_btf", "fentry", "fexit", "iter"] {
        for line in of(variant) {
            assert!(line.contains(" no ") && line.contains("needs the kernel's own") && line.contains(BTF), "{line}");
        }
    }
    assert!(of("tracepoint").iter().all(|line| line.trim_end().ends_with("used")), "{stdout:?}");
}

/// Runs a capture with a changed copy of this kernel's types.
fn with_changed(dir: &Workdir, change: impl FnOnce(&Path)) -> Ended {
    let path = copy(dir);
    change(&path);
    let mut command = ktrace(env!("CARGO_BIN_EXE_ktrace"));
    command.args(["--duration", "1s", "--btf"]).arg(path).arg("--out-dir").arg(dir.join("out"));
    Program::run(command)
}

/// Raw BTF: a header of 24 bytes with the places of types and strings.
struct Raw {
    bytes: Vec<u8>,
}

impl Raw {
    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    /// Where the types begin and end, and where the strings begin.
    fn parts(&self) -> (usize, usize, usize) {
        let header = self.word(4) as usize;
        let (types, length, strings) = (self.word(8) as usize, self.word(12) as usize, self.word(16) as usize);
        (header + types, header + types + length, header + strings)
    }

    /// Where a whole string stands in the file.
    fn string(&self, text: &str) -> usize {
        let (.., strings) = self.parts();
        let whole = [b"\0", text.as_bytes(), b"\0"].concat();
        strings + 1 + self.bytes[strings..].windows(whole.len()).position(|w| w == whole).unwrap()
    }
}

/// In `struct task_struct` the thread's number stands right before the process's; here it is 8 bytes further on.
fn a_btf_of_another_layout_is_refused() {
    let dir = Workdir::new();
    let ended = with_changed(&dir, |path| {
        let raw = Raw { bytes: std::fs::read(path).unwrap() };
        let (begin, end, strings) = raw.parts();
        let (pid, tgid) = ((raw.string("pid") - strings) as u32, (raw.string("tgid") - strings) as u32);
        // two members, each a name, a type and an offset in bits
        let members = |at: &usize| {
            let [a, b] = [*at, *at + 12].map(|at| [raw.word(at), raw.word(at + 4), raw.word(at + 8)]);
            a[0] == pid && b[0] == tgid && a[1] == b[1] && b[2] == a[2] + 32
        };
        let found: Vec<_> = (begin..end - 24).step_by(4).filter(members).collect();
        assert!(!found.is_empty(), "no `pid` before `tgid`");
        let file = std::fs::File::options().write(true).open(path).unwrap();
        for at in found {
            file.write_all_at(&(raw.word(at + 20) + 64).to_ne_bytes(), (at + 20) as u64).unwrap();
        }
    });
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(ended.stderr[0].contains("does not describe this kernel"), "{ended:?}");
    assert!(ended.stderr[0].contains("`struct task_struct` is laid out otherwise"), "{ended:?}");
    assert!(ended.stderr.last().unwrap().starts_with("hint: pass the BTF of exactly `"), "{ended:?}");
}

fn a_btf_that_lacks_a_type_is_refused() {
    let dir = Workdir::new();
    let ended = with_changed(&dir, |path| {
        let raw = Raw { bytes: std::fs::read(path).unwrap() };
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(b"kcos", raw.string("sock") as u64).unwrap();
    });
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(ended.stderr[0].contains("lacks types that ktrace needs"), "{ended:?}");
    assert!(ended.stderr.last().unwrap().starts_with("hint: pass the BTF of exactly `"), "{ended:?}");
}
