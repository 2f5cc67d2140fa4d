//! What ktrace does when it cannot or must not: no space, other people's traffic, other people's data.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ktrace_bundle::event::EventKind;
use ktrace_bundle::manifest::EndedBy;
use tempfile::TempDir;

use crate::analyze::analyze;
use crate::capture::{Capture, assert_sound, ktrace, only_entry, read};
use crate::dns::{Dnsmasq, NAMES, ask};
use crate::net::{Lab, SERVER4};
use crate::program::{Program, mortal};
use crate::workdir::Workdir;
use crate::{Test, tests};

const KTRACE: &str = env!("CARGO_BIN_EXE_ktrace");

pub fn tests() -> Vec<Test> {
    tests![
        a_full_disk_leaves_a_readable_bundle,
        no_payload_is_ever_recorded,
        dns_only_records_nothing_but_dns,
        ports_select_by_either_end,
        security_fields_can_be_left_out,
    ]
}

/// A directory that everybody may read and write, with a copy of this program that everybody may run.
pub fn public_copy(program: &Path) -> TempDir {
    let dir = TempDir::new().unwrap();
    let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    open(dir.path());
    let copy = dir.path().join(program.file_name().unwrap());
    std::fs::copy(program, &copy).unwrap();
    open(&copy);
    dir
}

/// Runs ktrace in a mount namespace of its own, after the shell commands `mounts`.
pub fn with_mounts(mounts: &str, dir: &Path) -> std::process::Command {
    let mut command = ktrace("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", mounts]).arg(dir).arg(KTRACE);
    command
}

fn a_full_disk_leaves_a_readable_bundle() {
    let (lab, dir) = (Lab::new(), Workdir::new());
    // somebody else's data leaves less than the share that ktrace may take; the file system of 1 MiB goes away with its
    // namespace: what ktrace left is copied out of it
    let script = "mkdir \"$0\" \"$0\"/disk && mount -t tmpfs -o size=1m none \"$0\"/disk && \
                  head -c 400000 /dev/zero > \"$0\"/disk/other && \
                  \"$1\" --duration 60s --max-disk-share 100% --out-dir \"$0\"/disk --ready-file \"$0\"/ready; \
                  code=$?; cp -r \"$0\"/disk \"$0\"/copy; exit $code";
    let root = dir.join("full");
    let capture = Program::start(with_mounts(script, &root));
    crate::wait::until("the window", crate::wait::DEADLINE, || root.join("ready").exists().then_some(()));
    let sender = lab.client.start(&format!("udp-flood --to {SERVER4}:7007 --duration-ms 20000 --pause-us 1000"));
    let ended = capture.wait();
    drop(sender);

    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.join("\n").contains("no space"), "{ended:?}");
    let loose = only_entry(&root.join("copy"), Path::is_dir);
    let contents = read(&loose);
    assert_sound(&contents.report, &contents.events);
    let manifest = contents.manifest.expect("a manifest");
    assert_eq!((manifest.ended_by, manifest.complete), (EndedBy::DiskFull, false));
    manifest.ledger.check().unwrap();
    assert_eq!(manifest.ledger.written, contents.events.len() as u64);
    assert!(contents.events.len() > 500, "{} events", contents.events.len());
    assert_eq!(analyze(&loose).exit_code, 0);
}

fn no_payload_is_ever_recorded() {
    let lab = Lab::new();
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then echo"));
    server.ready();
    let echo = lab.server.start(&format!("udp-echo --listen {SERVER4}:7007"));
    echo.ready();
    let capture = Capture::start();
    let marker = "s3cr3t-of-this-test";
    let chat = format!("tcp-chat --to {SERVER4}:8080 --rounds 3 --interval-ms 1 --text {marker}");
    assert!(Program::run(lab.client.traffic(&chat)).status.success());
    let paced = format!("udp-paced --to {SERVER4}:7007 --count 3 --text {marker}");
    assert!(Program::run(lab.client.traffic(&paced)).status.success());
    echo.truths(6);
    let bundle = capture.stop();

    let netns = lab.inodes();
    let seen = |kind| bundle.events.iter().any(|e| netns.contains(&e.id.netns) && e.payload.kind() == kind);
    assert!(seen(EventKind::UdpSend) && seen(EventKind::UdpRecv) && seen(EventKind::TcpState), "the traffic was seen");
    let loose = only_entry(&bundle.dir.join("out"), Path::is_dir);
    let mut files = 0;
    let below = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let in_node = below(&loose.join("node"));
    for file in below(&loose).into_iter().filter(|path| path.is_file()).chain(in_node) {
        let content = std::fs::read(file).unwrap();
        assert!(!content.windows(marker.len()).any(|w| w == marker.as_bytes()));
        files += 1;
    }
    assert!(files >= 7, "{files} files");
    let mut unpacked = mortal("tar");
    unpacked.arg("-xzOf").arg(&bundle.path);
    assert!(!Program::run(unpacked).stdout.iter().any(|line| line.contains(marker)));
}

/// Makes DNS over UDP, DNS over TCP, other UDP and other TCP.
fn mixed_traffic(lab: &Lab) {
    ask(&lab.client, "sendto", SERVER4, NAMES);
    let mut dig = lab.client.command("dig");
    dig.args([&format!("@{SERVER4}"), "+tcp", "+tries=1", "ok.test"]);
    assert!(Program::run(dig).status.success());
    assert!(Program::run(lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 10"))).status.success());
    assert!(Program::run(lab.client.traffic(&format!("tcp-client --to {SERVER4}:8080 --count 10"))).status.success());
    lab.client.wait_until_quiet();
    lab.server.wait_until_quiet();
}

/// Runs [`mixed_traffic`] under a capture with these flags; returns the other ends' ports as the client sees them,
/// each once, and asserts that what was left out is accounted for.
fn client_ports(flags: &[&str]) -> Vec<(&'static str, u16)> {
    let lab = Lab::new();
    let _dnsmasq = Dnsmasq::start(&lab.server);
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080"));
    server.ready();
    let capture = Capture::with(flags);
    mixed_traffic(&lab);
    let bundle = capture.stop();
    assert!(bundle.manifest.ledger.filtered_total() >= 10, "{:?}", bundle.manifest.ledger);
    let mine = bundle.events.iter().filter(|e| e.id.netns == lab.client.inode());
    let mut ports: Vec<_> = mine.map(|e| (e.id.proto.as_str(), e.id.remote.port.unwrap())).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn dns_only_records_nothing_but_dns() {
    assert_eq!(client_ports(&["--duration", "60s", "--dns-only"]), [("tcp", 53), ("udp", 53)]);
}

fn ports_select_by_either_end() {
    assert_eq!(client_ports(&["--duration", "60s", "--ports", "7007,8080"]), [("tcp", 8080), ("udp", 7007)]);
}

fn security_fields_can_be_left_out() {
    let lab = Lab::new();
    let capture = Capture::with(&["--duration", "60s", "--with-security=false"]);
    assert!(Program::run(lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 3"))).status.success());
    let bundle = capture.stop();
    let owners: Vec<_> = bundle.events.iter().filter_map(|e| e.id.owner.value()).collect();
    assert!(owners.len() >= 3 && owners.iter().all(|o| o.sec.is_none()), "{owners:?}");
}
