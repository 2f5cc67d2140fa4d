//! Whether ctnetlink can be asked without the kernel loading a module for it: a socket of its kind loads `nfnetlink`, a
//! request `nf_conntrack_netlink`, and that the tracking itself. Nothing is loaded by looking.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use nix::sys::utsname::uname;

/// Most bytes of a list that are read: the symbols of a large kernel are some 15 MiB.
const MOST_BYTES: u64 = 64 << 20;

/// Whether a part of the kernel is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Its module is loaded (`/proc/modules`).
    Loaded,
    /// It was built in (`modules.builtin`, or a function of it in `/proc/kallsyms`).
    BuiltIn,
    /// It is neither.
    Absent,
    /// None of the kernel's lists can be read.
    Unknown,
}

impl Presence {
    /// Whether it can be used without being loaded.
    pub const fn is_there(self) -> bool {
        matches!(self, Self::Loaded | Self::BuiltIn)
    }
}

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modules {
    /// Connection tracking (`nf_conntrack`).
    pub conntrack: Presence,
    /// What answers over netlink (`nf_conntrack_netlink`); it needs, and keeps, the other one and `nfnetlink`.
    pub ctnetlink: Presence,
}

/// The modules, and a function that each always has.
const PARTS: [(&str, &str); 2] =
    [("nf_conntrack", "nf_conntrack_in"), ("nf_conntrack_netlink", "ctnetlink_get_conntrack")];

/// Looks. Takes some 35 ms if neither is a loaded module and `modules.builtin` is not at hand: all symbols are read then.
pub fn look() -> Modules {
    let mut found = [Presence::Unknown; 2];
    search(&mut found, "/proc/modules", Presence::Loaded, is_loaded);
    let release = uname().map(|it| it.release().to_string_lossy().into_owned()).unwrap_or_default();
    let builtin = format!("/lib/modules/{release}/modules.builtin");
    // either has all that is built in
    if search(&mut found, &builtin, Presence::BuiltIn, is_listed)
        || search(&mut found, "/proc/kallsyms", Presence::BuiltIn, is_symbol)
    {
        found.iter_mut().filter(|it| !it.is_there()).for_each(|it| *it = Presence::Absent);
    }
    let [conntrack, ctnetlink] = found;
    Modules { conntrack, ctnetlink }
}

/// Looks for those that are not found yet; returns whether none is left, or the whole list was read.
fn search(found: &mut [Presence; 2], path: &str, presence: Presence, is: fn(usize, &str) -> bool) -> bool {
    if found.iter().all(|it| it.is_there()) {
        return true;
    }
    let Ok(list) = File::open(path) else { return false };
    scan(BufReader::with_capacity(64 << 10, list.take(MOST_BYTES)), |line| {
        for (part, found) in found.iter_mut().enumerate().filter(|(_, it)| !it.is_there()) {
            if is(part, line) {
                *found = presence;
            }
        }
        found.iter().all(|it| it.is_there())
    })
}

/// Gives each line until that is enough; returns whether there were any, and all were read.
fn scan(mut list: impl BufRead, mut is_enough: impl FnMut(&str) -> bool) -> bool {
    let (mut line, mut count) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        match list.read_until(b'\n', &mut line) {
            Ok(0) => return count > 0,
            Ok(_) => count += 1,
            Err(_) => return false,
        }
        if std::str::from_utf8(&line).is_ok_and(&mut is_enough) {
            return true;
        }
    }
}

/// `nf_conntrack 172032 4 xt_conntrack,nf_nat, Live 0x0000000000000000`: one that is loading or going does not count.
fn is_loaded(part: usize, line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    PARTS.get(part).is_some_and(|(module, _)| words.next() == Some(*module) && words.nth(3) == Some("Live"))
}

/// `kernel/net/netfilter/nf_conntrack.ko`.
fn is_listed(part: usize, line: &str) -> bool {
    let name = line.trim_ascii_end().rsplit('/').next().and_then(|file| file.strip_suffix(".ko"));
    PARTS.get(part).is_some_and(|(module, _)| name == Some(*module))
}

/// `0000000000000000 t ctnetlink_get_conntrack`; a module's function has its module behind it.
fn is_symbol(part: usize, line: &str) -> bool {
    let name = line.trim_ascii_end().splitn(3, ' ').nth(2);
    PARTS.get(part).is_some_and(|(_, function)| name == Some(*function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_module_is_live() {
        assert!(is_loaded(0, "nf_conntrack 172032 4 xt_conntrack,nf_nat,xt_nat, Live 0xffffffffc09d1000\n"));
        assert!(is_loaded(1, "nf_conntrack_netlink 57344 0 - Live 0x0000000000000000\n"));
        for other in ["nf_conntrack_netlink 57344 0 - Loading 0x0", "nf_conntrack_netlink", "x nf_conntrack_netlink"] {
            assert!(!is_loaded(1, other) && !is_loaded(0, other), "{other}");
        }
    }

    #[test]
    fn a_built_in_one_is_listed_or_has_symbols_of_no_module() {
        assert!(is_listed(1, "kernel/net/netfilter/nf_conntrack_netlink.ko\n"));
        assert!(!is_listed(0, "kernel/net/netfilter/nf_conntrack_netlink.ko\n"));
        assert!(is_symbol(1, "0000000000000000 t ctnetlink_get_conntrack\n"));
        assert!(!is_symbol(1, "0000000000000000 t ctnetlink_get_conntrack\t[nf_conntrack_netlink]\n"));
        assert!(!is_symbol(1, "0000000000000000 t __pfx_ctnetlink_get_conntrack\n"));
    }

    #[test]
    fn an_empty_list_answers_nothing() {
        assert!(!scan(&b""[..], |_| true));
        assert!(scan(&b"\xff\nx"[..], |_| false));
    }
}
