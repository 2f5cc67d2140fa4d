//! A second witness of TCP state changes and retransmits that shares nothing with ktrace: the kernel's own trace buffer, read through
//! a private mount of tracefs. Needed because some kernels run no BPF program while a protected process (process 1
//! of a sandbox) is the running task: softirq work that interrupts it is invisible to every BPF collector, and not
//! even counted as missed. (Seen without ktrace, too: while process 1 of such a sandbox was switched in 23 times,
//! `bpftrace` counted none of its system calls and 569 of the others'.) The witness tells which state changes those
//! were.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ktrace_bundle::tcp::TcpState;

use crate::program::{Program, mortal};
use crate::requirements::locked_down;
use crate::workdir::Workdir;

/// `KTRACE_LIVE_NOTHING_HIDDEN=1`: this kernel runs BPF programs whatever task is running, so nothing is put down to
/// process 1 and nothing may be missing.
static NOTHING_HIDDEN: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("KTRACE_LIVE_NOTHING_HIDDEN").is_some_and(|v| v == "1"));

/// Records into an instance of its own until the file `$3` is there, prints it, and removes the instance.
const SCRIPT: &str = r#"
mkdir "$0" && mount -t tracefs none "$0" || exit 1
instance="$0/instances/$1"
trap 'rmdir "$instance"' EXIT
mkdir "$instance" && echo 50000 > "$instance/buffer_size_kb" || exit 1
for name in sock/inet_sock_set_state tcp/tcp_retransmit_skb tcp/tcp_retransmit_synack; do
	event="$instance/events/$name"
	echo "$2" > "$event/filter" && echo 1 > "$event/enable" || exit 1
done
echo ready
until [ -e "$3" ]; do sleep 0.02; done
echo 0 > "$instance/events/enable"
grep -hE '(inet_sock_set_state|tcp_retransmit_skb|tcp_retransmit_synack): ' "$instance/trace"
grep -h 'overrun: [1-9]' "$instance"/per_cpu/cpu*/stats
true
"#;

/// A running witness.
#[derive(Debug)]
pub struct Observer {
    program: Program,
    stop: PathBuf,
    init: BTreeSet<u32>,
    _dir: Workdir,
}

/// A state change as the kernel's trace has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Own port, 0 before it is chosen.
    pub lport: u16,
    /// Port of the other end.
    pub rport: u16,
    /// State before.
    pub old: TcpState,
    /// State after.
    pub new: TcpState,
    /// A thread of process 1 was the running task, on a kernel that may hide it.
    pub over_init: bool,
}

/// A segment that was sent again, as the kernel's trace has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resent {
    /// Own port.
    pub lport: u16,
    /// Port of the other end.
    pub rport: u16,
    /// A thread of process 1 was the running task, on a kernel that may hide it.
    pub over_init: bool,
}

/// All that a witness saw.
#[derive(Debug)]
pub struct Observed {
    /// State changes.
    pub changes: Vec<Transition>,
    /// Segments that were sent again.
    pub resent: Vec<Resent>,
}

/// Threads of process 1.
fn init_threads() -> BTreeSet<u32> {
    let tasks = std::fs::read_dir("/proc/1/task").unwrap();
    tasks.filter_map(|t| t.unwrap().file_name().to_str()?.parse().ok()).collect()
}

impl Observer {
    /// Watches the sockets with this port at either end.
    pub fn start(port: u16) -> Self {
        Self::of_ports(port..=port)
    }

    /// Watches the sockets with one of these ports at either end.
    pub fn of_ports(ports: RangeInclusive<u16>) -> Self {
        let (from, to) = ports.into_inner();
        let filter = format!("(sport >= {from} && sport <= {to}) || (dport >= {from} && dport <= {to})");
        let dir = Workdir::new();
        let stop = dir.join("stop");
        let mut command = mortal("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT]).arg(dir.join("tracefs"));
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let instance = format!("ktlive-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        command.args([instance, filter]).arg(&stop);
        let program = Program::start(command);
        assert_eq!(program.wait_for_lines(1), ["ready"]);
        Self { program, stop, init: init_threads(), _dir: dir }
    }

    /// Stops watching and returns what was seen.
    pub fn finish(self) -> Observed {
        let Self { program, stop, mut init, _dir } = self;
        init.extend(init_threads());
        std::fs::write(stop, "").unwrap();
        let ended = program.wait();
        assert!(ended.status.success(), "{ended:?}");
        let lines = &ended.stdout[1..];
        let (changes, others): (Vec<_>, Vec<_>) = lines.iter().partition(|l| l.contains(" inet_sock_set_state: "));
        Observed {
            changes: changes.into_iter().map(|line| Transition::parse(line, &init)).collect(),
            resent: others.into_iter().filter(|l| was_sent(l)).map(|line| Resent::parse(line, &init)).collect(),
        }
    }
}

/// Thread that was running, of a line `COMM-TID [CPU] FLAGS TIME: …`.
fn running(line: &str) -> u32 {
    let (task, _) = line.split_once(" [").unwrap_or_else(|| panic!("{line}"));
    task.trim_end().rsplit('-').next().unwrap().parse().unwrap()
}

fn field<'a>(line: &'a str, key: &str) -> &'a str {
    line.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {line}"))
}

fn over_init(line: &str, init: &BTreeSet<u32>) -> bool {
    !*NOTHING_HIDDEN && init.contains(&running(line))
}

/// By 6.18 the kernel also tells of segments that could not be sent again, with their error; nobody counts these.
fn was_sent(line: &str) -> bool {
    line.split_whitespace().find_map(|word| word.strip_prefix("err=")).is_none_or(|err| err == "0")
}

fn port(line: &str, key: &str) -> u16 {
    field(line, key).parse().unwrap()
}

impl Resent {
    /// `COMM-TID [CPU] FLAGS TIME: tcp_retransmit_skb: … sport=1 dport=2 …`
    fn parse(line: &str, init: &BTreeSet<u32>) -> Self {
        Self { lport: port(line, "sport="), rport: port(line, "dport="), over_init: over_init(line, init) }
    }
}

impl Observed {
    /// Ports of the sockets that something happened to while process 1 was the running task.
    pub fn ports_over_init(&self) -> BTreeSet<u16> {
        let changes = self.changes.iter().filter(|t| t.over_init).map(|t| [t.lport, t.rport]);
        let resent = self.resent.iter().filter(|r| r.over_init).map(|r| [r.lport, r.rport]);
        changes.chain(resent).flatten().collect()
    }

    /// How often a counter of the kernel counted what no program can have seen, because process 1 was the running task.
    pub fn counted_over_init(&self, counter: &str) -> u64 {
        match counter {
            "Tcp.RetransSegs" => self.resent.iter().filter(|r| r.over_init).count() as u64,
            _ => counted_over_init(&self.changes, counter),
        }
    }
}

impl Transition {
    /// `COMM-TID [CPU] FLAGS TIME: inet_sock_set_state: … sport=1 dport=2 … oldstate=TCP_A newstate=TCP_B`
    fn parse(line: &str, init: &BTreeSet<u32>) -> Self {
        let state = |key: &str| {
            let name = field(line, key).trim_start_matches("TCP_").to_owned();
            serde_json::from_value(name.into()).unwrap()
        };
        Self {
            lport: port(line, "sport="),
            rport: port(line, "dport="),
            old: state("oldstate="),
            new: state("newstate="),
            over_init: over_init(line, init),
        }
    }
}

/// The same, of state changes alone.
fn counted_over_init(observed: &[Transition], counter: &str) -> u64 {
    use TcpState::{Close, CloseWait, Established, Listen, SynRecv, SynSent};
    let counts = |t: &&Transition| match counter {
        "Tcp.ActiveOpens" => t.new == SynSent,
        "Tcp.PassiveOpens" => (t.old, t.new) == (Listen, SynRecv),
        "Tcp.AttemptFails" => matches!(t.old, SynSent | SynRecv) && t.new == Close,
        "Tcp.EstabResets" => matches!(t.old, Established | CloseWait) && t.new == Close,
        _ => false,
    };
    observed.iter().filter(|t| t.over_init).filter(counts).count() as u64
}

/// Removes trace instances of runs whose process is gone. A leftover costs memory only.
pub fn sweep() {
    // there are none where nobody may trace; and 6.12 panics when a locked down tracefs is unmounted
    if locked_down() {
        return;
    }
    let script = "mount -t tracefs none \"$0\" && cd \"$0/instances\" && for i in ktlive-*; do \
                  [ -d \"$i\" ] && p=${i#ktlive-} && [ ! -d /proc/${p%%-*} ] && rmdir \"$i\"; done";
    let dir = tempfile::TempDir::new().unwrap();
    let mut command = mortal("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(dir.path() as &Path);
    Program::run(command);
}
