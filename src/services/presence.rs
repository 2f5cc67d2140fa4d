//! What of the kernel's packet filters is there already. To ask one that is not would make the kernel load its module.

use std::fs;
use std::io::{self, BufRead};
use std::path::Path;

use super::tool;

/// A part of the kernel: a module, or built in.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Of the module.
    pub name: &'static str,
    /// A function that it has on every kernel, wherever it is.
    symbol: &'static str,
}

/// nftables.
pub const NF_TABLES: Part = Part { name: "nf_tables", symbol: "nft_register_expr" };
/// iptables on top of it.
pub const NFT_COMPAT: Part = Part { name: "nft_compat", symbol: "nft_match_select_ops" };
/// `-p tcp` and `-p udp` of iptables, for which every one of its tools asks.
pub const XT_TCPUDP: Part = Part { name: "xt_tcpudp", symbol: "tcp_mt" };
/// `sock_diag` of TCP and UDP.
pub const INET_DIAG: Part = Part { name: "inet_diag", symbol: "inet_diag_msg_attrs_fill" };
/// The same of TCP.
pub const TCP_DIAG: Part = Part { name: "tcp_diag", symbol: "tcp_diag_dump" };
/// The same of UDP.
pub const UDP_DIAG: Part = Part { name: "udp_diag", symbol: "udp_diag_dump" };

/// Why parts must not be asked for; `None` if they are there, or if no module can be loaded anyway.
pub fn lacking(parts: &[Part]) -> Option<String> {
    lacking_in(Path::new("/proc"), parts)
}

fn lacking_in(proc: &Path, parts: &[Part]) -> Option<String> {
    let modules = match fs::read_to_string(proc.join("modules")) {
        Ok(text) => text,
        // a kernel without modules; a procfs that is not there tells nothing
        Err(e) if e.kind() == io::ErrorKind::NotFound && proc.join("sys/kernel").exists() => return None,
        Err(e) => return Some(format!("nobody can tell which modules are loaded: {e}")),
    };
    if fs::read_to_string(proc.join("sys/kernel/modules_disabled")).is_ok_and(|text| text.trim() == "1") {
        return None;
    }
    let is_loaded = |part: &Part| modules.lines().any(|line| line.split(' ').next() == Some(part.name));
    let mut missing: Vec<Part> = parts.iter().filter(|part| !is_loaded(part)).copied().collect();
    if !missing.is_empty() {
        // they may be built in
        let mut text = match tool::open(proc.join("kallsyms")) {
            Ok(text) => text,
            Err(e) => return Some(format!("nobody can tell what is built into the kernel: {e}")),
        };
        strike_off(&mut text, &mut missing);
    }
    missing.first().map(|part| format!("{NOT_LOADED} `{}`, and asking would make it do so", part.name))
}

/// How [`lacking`] begins where it is known that a part is not there.
const NOT_LOADED: &str = "the kernel has not loaded";

/// Whether what [`lacking`] says means that nobody uses the part; otherwise it could not be told.
pub fn is_unused(why: &str) -> bool {
    why.starts_with(NOT_LOADED)
}

/// Takes out those that have their symbol in `kallsyms`.
fn strike_off(text: &mut dyn BufRead, missing: &mut Vec<Part>) {
    let found = tool::lines(text, |line| {
        if let Some(name) = line.split_ascii_whitespace().nth(2) {
            missing.retain(|part| part.symbol != name);
        }
    });
    // a file that ends early has told enough: what it has not named is missing
    drop(found);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sys/kernel")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    const MODULES: &str = "nft_compat 20480 2 - Live 0x0000000000000000\nnf_tables 372736 9 nft_compat, Live 0x0\n";
    const SYMBOLS: &str = "0000000000000000 T nft_register_expr\n0000000000000000 t tcp_mt\n0000000000000000 T x\n";

    #[test]
    fn a_part_is_there_as_a_module_or_built_in() {
        let both = [NF_TABLES, NFT_COMPAT];
        let lacking = |files: &[_], parts: &[Part]| lacking_in(proc(files).path(), parts);
        assert_eq!(lacking(&[("modules", MODULES)], &both), None);
        assert_eq!(lacking(&[("modules", ""), ("kallsyms", SYMBOLS)], &[NF_TABLES, XT_TCPUDP]), None);
        let refused = "the kernel has not loaded `nft_compat`, and asking would make it do so";
        assert_eq!(lacking(&[("modules", ""), ("kallsyms", SYMBOLS)], &both).as_deref(), Some(refused));
        assert!(lacking(&[("modules", "nf_tables_more 1\n")], &both).unwrap().contains("built into the kernel"));
    }

    #[test]
    fn a_kernel_that_loads_no_modules_can_be_asked_for_anything() {
        assert_eq!(lacking_in(proc(&[]).path(), &[NF_TABLES]), None);
        let disabled = [("modules", ""), ("kallsyms", ""), ("sys/kernel/modules_disabled", "1\n")];
        assert_eq!(lacking_in(proc(&disabled).path(), &[NF_TABLES]), None);
        // not even a procfs
        assert!(lacking_in(Path::new("/nonexistent"), &[NF_TABLES]).is_some());
    }

    #[test]
    fn this_kernel_has_what_its_symbols_name() {
        // the live tests need nftables, so it is there wherever they run
        assert_eq!(lacking(&[]), None);
        let none = Part { name: "no_such_module", symbol: "no_such_symbol" };
        assert_eq!(lacking(&[none]).is_some(), Path::new("/proc/modules").exists());
    }
}
