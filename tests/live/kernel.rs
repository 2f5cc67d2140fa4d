//! What a process holds in the kernel's BPF tables, read from its file descriptors, and whether it is gone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::program::{Program, mortal};
use crate::wait::{DEADLINE, until};

/// Kinds of object: the key in `fdinfo`, and the word of `bpftool`.
const KINDS: [(&str, &str); 3] = [("prog_id:", "prog"), ("map_id:", "map"), ("link_id:", "link")];

/// Kind and id.
pub type Held = BTreeSet<(&'static str, u64)>;

/// Programs, maps and links that this process holds.
pub fn held_by(pid: u32) -> Held {
    let mut held = Held::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        // a descriptor may be closed while the directory is read
        let Ok(info) = std::fs::read_to_string(entry.path()) else { continue };
        for (key, kind) in KINDS {
            let id = info.lines().find_map(|l| l.strip_prefix(key)?.trim().parse().ok());
            held.extend(id.map(|id| (kind, id)));
        }
    }
    held
}

/// `uname -r`.
pub fn release() -> String {
    nix::sys::utsname::uname().unwrap().release().to_str().unwrap().to_owned()
}

/// The first two numbers of the release.
pub fn version() -> (u32, u32) {
    let release = release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// What the verifier went through for each program that this process holds; nothing before Linux 5.16.
pub fn verified_insns_held_by(pid: u32) -> Vec<u32> {
    let mut by_program = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |key: &str| info.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().parse().unwrap());
        if let (Some(id), Some(insns)) = (field("prog_id:"), field("verified_insns:")) {
            by_program.insert(id, insns);
        }
    }
    by_program.into_values().collect()
}

/// Waits until none of them is in the kernel any more; it frees them after a grace period.
pub fn wait_until_gone(held: &Held) {
    until("the end of what ktrace held in the kernel", DEADLINE, || {
        KINDS.iter().all(|(_, kind)| listed(kind).is_disjoint(&of(held, kind))).then_some(())
    });
}

/// Whether this is the program's name, or, of a long one, the 15 letters that the kernel keeps.
pub fn is_name_of(program: &str, name: &str) -> bool {
    name == program || program.get(..15) == Some(name)
}

/// Name of the program with this id, whole if its types are known; `None` if it is gone.
pub fn name_of_program(id: &str) -> Option<String> {
    let mut command = mortal("bpftool");
    command.args(["-j", "prog", "show", "id", id]);
    let shown: Value = serde_json::from_str(&Program::run(command).stdout.join("")).ok()?;
    Some(shown["name"].as_str()?.to_owned())
}

fn of(held: &Held, kind: &str) -> BTreeSet<u64> {
    held.iter().filter(|(k, _)| *k == kind).map(|(_, id)| *id).collect()
}

fn listed(kind: &str) -> BTreeSet<u64> {
    let mut command = mortal("bpftool");
    command.args(["-j", kind, "show"]);
    let ended = Program::run(command);
    assert!(ended.status.success(), "{ended:?}");
    let objects: Value = serde_json::from_str(&ended.stdout.join("")).unwrap();
    objects.as_array().unwrap().iter().filter_map(|o| o["id"].as_u64()).collect()
}
