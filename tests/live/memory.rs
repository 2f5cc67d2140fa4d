//! What ktrace takes of a busy node: bounded memory with tens of thousands of sockets, under load, and two captures at
//! once that know nothing of each other.

use std::path::{Path, PathBuf};

use ktrace_bundle::event::{EventKind, When};

use crate::capture::{Capture, ktrace};
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::truth::{assert_same_operations, datagrams, is_of_a_program, udp_events};
use crate::{Test, tests};

const PROCESSES: usize = 5000;
/// What a process of the crowd holds: its UDP socket, its listener, and both ends of four connections.
const SOCKETS_OF_EACH: usize = 10;
/// Peak of the resident set.
const MAX_RESIDENT: u64 = 64 << 20;
/// All that is charged to the cgroup, the kernel's own memory for maps and sockets included.
const MAX_CHARGED: u64 = 96 << 20;

pub fn tests() -> Vec<Test> {
    tests![
        fifty_thousand_sockets_of_five_thousand_processes_fit_into_the_stated_memory,
        memory_of_the_program_that_starts_a_capture_is_not_counted,
        two_captures_at_once_do_not_disturb_each_other,
    ]
}

/// A memory cgroup with a limit; removed on drop.
struct Charged {
    dir: PathBuf,
    is_v1: bool,
}

impl Charged {
    fn new(limit: u64) -> Self {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let is_v1 = v1.join("memory.limit_in_bytes").exists();
        let root = if is_v1 { v1 } else { Path::new("/sys/fs/cgroup") };
        if !is_v1 {
            std::fs::write(root.join("cgroup.subtree_control"), "+memory").expect("a memory controller");
        }
        let dir = root.join(format!("ktlive-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let charged = Self { dir, is_v1 };
        let name = if is_v1 { "memory.limit_in_bytes" } else { "memory.max" };
        std::fs::write(charged.dir.join(name), limit.to_string()).unwrap();
        charged
    }

    /// ktrace within the cgroup.
    fn ktrace(&self) -> std::process::Command {
        let mut command = ktrace("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        command.arg(self.dir.join("cgroup.procs")).arg(env!("CARGO_BIN_EXE_ktrace"));
        command
    }

    /// Processes that the kernel killed because the limit was reached.
    fn killed(&self) -> u64 {
        let name = if self.is_v1 { "memory.oom_control" } else { "memory.events" };
        let text = std::fs::read_to_string(self.dir.join(name)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.expect("a count of kills").parse().unwrap()
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir(&self.dir) {
            eprintln!("cannot remove {}: {e}", self.dir.display());
        }
    }
}

fn fifty_thousand_sockets_of_five_thousand_processes_fit_into_the_stated_memory() {
    let lab = Lab::new();
    let crowd = lab.client.start(&format!("--limit-s 300 crowd --processes {PROCESSES}"));
    crowd.truths(PROCESSES);
    let charged = Charged::new(MAX_CHARGED);
    let capture = Capture::launch(charged.ktrace(), &["--duration", "120s", "--max-events", "200000"]);
    let pump = lab.server.traffic("udp-pump --port 7100 --duration-ms 1000");
    assert!(Program::run(pump).status.success());
    let bundle = capture.stop_under_load();

    let netns = lab.client.inode();
    for when in [When::Start, When::End] {
        let listed = bundle.sockets.iter().filter(|s| s.when == when && s.id.netns == netns).count();
        assert!(listed >= PROCESSES * SOCKETS_OF_EACH, "{listed} sockets at {when:?}");
    }
    let seen = bundle.manifest.ledger.seen;
    assert!(seen > 100_000, "only {seen} events: that was no load");
    let resident = bundle.manifest.cost.peak_rss_bytes;
    eprintln!("{} KiB resident at most, {} killed", resident >> 10, charged.killed());
    assert!(resident <= MAX_RESIDENT, "{resident} bytes");
    assert_eq!(charged.killed(), 0);
}

fn memory_of_the_program_that_starts_a_capture_is_not_counted() {
    let own = vec![1_u8; 4 * usize::try_from(MAX_RESIDENT).unwrap()];
    let resident = Capture::start().stop().manifest.cost.peak_rss_bytes;
    drop(std::hint::black_box(own));
    eprintln!("{} KiB resident at most", resident >> 10);
    assert!(resident > 0 && resident <= MAX_RESIDENT, "{resident} bytes");
}

fn two_captures_at_once_do_not_disturb_each_other() {
    let lab = Lab::new();
    let capped = Capture::with(&["--duration", "120s", "--max-events", "100", "--ports", "7007"]);
    let whole = Capture::with(&["--duration", "120s", "--ports", "7008", "--with-security=false"]);
    let paced = |port: u16| lab.client.start(&format!("udp-paced --to {SERVER4}:{port} --count 500 --interval-us 200"));
    let senders = [7007, 7008].map(paced);
    let [to_capped, to_whole] = senders.map(|sender| datagrams(sender.wait().truths()));
    let whole = whole.stop();
    // the first goes on after the second has gone
    let late =
        datagrams(Program::run(lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 50"))).truths());
    let capped = capped.stop_under_load();

    assert_same_operations(&whole.events, lab.client.inode(), &to_whole);
    let netns = lab.client.inode();
    // a receiver that has gone already makes the last datagrams drops
    let told = whole.events.iter().filter(|e| is_of_a_program(e)).count();
    assert_eq!(udp_events(&whole.events, netns).len(), told, "and nothing else");
    assert_eq!((capped.exit_code, capped.events.len()), (0, 100));
    let sent = &capped.summary.totals[&EventKind::UdpSend];
    let bytes: u64 = to_capped.iter().chain(&late).filter_map(|d| d.bytes).sum();
    // nobody listens: what the kernel throws away and tells takes a few of the lines
    let others = capped.events.iter().filter(|e| !is_of_a_program(e)).count() as u64;
    assert_eq!((sent.event_count, sent.written_count, sent.bytes), (550, 100 - others, Some(bytes)));
    // each has the other's traffic in its account of what its filter refused, and neither has seen the other itself
    for bundle in [&whole, &capped] {
        assert!(bundle.manifest.ledger.filtered["ports"] >= 500, "{:?}", bundle.manifest.ledger);
        assert_eq!(bundle.manifest.ledger.missed, 0);
    }
}
