//! What the live tests need from the machine. Without root or BTF there is nothing to test, and the tests say so;
//! a missing program is a broken set-up, and an error.

use std::fs::File;
use std::path::{Path, PathBuf};

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Whoever puts network load on a machine under test takes this first (`flock`).
const LOCK: &str = "/run/ktrace-live.lock";

/// Capabilities without which neither namespaces nor programs can be made: number and name.
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

const PROGRAMS: &[&str] = &[
    "bpftool", "dig", "dnsmasq", "getent", "gzip", "ip", "nft", "nsenter", "python3", "setpriv", "ss", "strace", "tar",
    "tc", "unshare",
];

/// Why this machine cannot run the tests.
pub fn reason_to_skip() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let uid = field("Uid:");
    if uid.split_whitespace().nth(1) != Some("0") {
        return Some("needs root: these tests load programs into the kernel and make network namespaces".into());
    }
    let effective = u64::from_str_radix(&field("CapEff:"), 16).unwrap_or_default();
    if let Some((_, name)) = CAPABILITIES.iter().find(|(bit, _)| effective >> bit & 1 == 0) {
        return Some(format!("needs {name}, which this root does not have"));
    }
    (!Path::new(BTF).exists()).then(|| format!("this kernel has no `{BTF}`"))
}

/// Whether the kernel keeps its memory from root, and so from every BPF program.
pub fn locked_down() -> bool {
    std::fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|modes| modes.contains("[confidentiality]"))
}

/// Whether every program that the tests start is there.
///
/// # Errors
/// The sentence that says what is missing and what to do.
pub fn check() -> Result<(), String> {
    let missing: Vec<_> = PROGRAMS.iter().filter(|p| which(p).is_none()).copied().collect();
    if !missing.is_empty() {
        return Err(format!("the live tests need {}: run `scripts/deps.sh test`", missing.join(", ")));
    }
    for name in ["analyze", "traffic"] {
        if !built(name).exists() {
            let path = built(name);
            return Err(format!("`{}` is missing: run `cargo build --workspace` first", path.display()));
        }
    }
    Ok(())
}

/// The machine for this run alone, until the file is dropped: a capture sees the whole machine, and the load of one
/// run is what another one would lose events to.
pub fn have_the_machine() -> std::io::Result<File> {
    let file = File::create(LOCK)?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another run that holds `{LOCK}`");
        file.lock()?;
    }
    Ok(file)
}

/// Path of a binary of this workspace: cargo puts it beside `ktrace`.
pub fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_ktrace")).with_file_name(name)
}

/// Path of a program that is installed.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.map(|dir| dir.join(program)).find(|file| file.is_file())
}
