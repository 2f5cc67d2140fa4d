//! What a process holds in the kernel's BPF tables, read from its file descriptors, and whether it is gone.

use std::collections::BTreeSet;

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
