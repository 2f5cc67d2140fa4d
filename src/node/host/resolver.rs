//! `resolv.conf`: whom programs ask for names, and how. Of search domains it is told how many there are, not what they are called.

use std::path::Path;

use ktrace_bundle::node::{Item, Resolver};

use crate::node::out::Out;
use crate::node::rooted;
use crate::node::seen::{Seen, busiest};

/// Mount namespaces that are looked at.
pub const MOST: usize = 64;
/// Bytes of the file.
const MOST_BYTES: u64 = 16 << 10;
const FILE: &str = "etc/resolv.conf";
const MOST_SERVERS: usize = 8;
const MOST_OPTIONS: usize = 16;
/// Characters of a word.
const MOST_CHARS: usize = 64;
/// What a resolver takes for more (`RES_MAXNDOTS`).
const MAX_NDOTS: u64 = 15;

/// What the file says, as glibc reads it: the last of `search` and `domain` counts.
pub fn read(text: &str) -> Resolver {
    let mut resolver = Resolver { ndots: 1, ..Resolver::default() };
    let short = |word: &str| word.chars().take(MOST_CHARS).collect::<String>();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") if resolver.nameservers.len() < MOST_SERVERS => {
                resolver.nameservers.extend(words.next().map(short));
            }
            Some("search") => resolver.search_count = words.count() as u64,
            Some("domain") => resolver.search_count = words.take(1).count() as u64,
            Some("options") => {
                for word in words {
                    let ndots = word.strip_prefix("ndots:").and_then(|it| it.parse::<u64>().ok());
                    resolver.ndots = ndots.map_or(resolver.ndots, |it| it.min(MAX_NDOTS));
                    if resolver.options.len() < MOST_OPTIONS {
                        resolver.options.push(short(word));
                    }
                }
            }
            _ => {}
        }
    }
    resolver
}

fn mount_namespace(pid: &str) -> Option<u32> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
    link.to_str()?.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()
}

/// Looks at the node's own file, below the host's root directory, and at those of mount namespaces with sockets that were seen.
pub fn look(root: &Path, seen: &Seen, out: &mut Out) {
    let node = mount_namespace("1").or_else(|| mount_namespace("self")).unwrap_or(0);
    match rooted::read(root, FILE, MOST_BYTES) {
        Ok(bytes) => {
            let read = read(&String::from_utf8_lossy(&bytes));
            out.put(Item::Resolver(Resolver { mnt_ns: node, is_node: true, ..read }));
        }
        Err(e) => out.absent(&root.join(FILE).display().to_string(), e),
    }
    let (mounts, more) = busiest(&seen.mounts, |way| way.count, MOST);
    let mut left = mounts.len() as u64;
    for mnt in mounts {
        if out.is_late() {
            out.no_time("resolvers", Some(left));
            break;
        }
        left -= 1;
        let pids = seen.mounts.get(&mnt).map_or(&[][..], |way| &way.pids);
        if mnt == node || pids.is_empty() {
            continue;
        }
        match of_process(mnt, pids) {
            Ok(resolver) => out.put(Item::Resolver(resolver)),
            Err(why) => out.absent(&format!("{FILE} of mnt:[{mnt}]"), why),
        }
    }
    out.no_room("resolvers", more);
}

fn of_process(mnt: u32, pids: &[u32]) -> Result<Resolver, String> {
    let mut why = "no process leads there any more".to_owned();
    for pid in pids.iter().rev() {
        let name = pid.to_string();
        if mount_namespace(&name) != Some(mnt) {
            continue;
        }
        match rooted::read(Path::new(&format!("/proc/{pid}/root")), FILE, MOST_BYTES) {
            // the number may be another's by now
            Ok(bytes) if mount_namespace(&name) == Some(mnt) => {
                let resolver = read(&String::from_utf8_lossy(&bytes));
                return Ok(Resolver { mnt_ns: mnt, pid: Some(*pid), ..resolver });
            }
            Ok(_) => {}
            Err(e) => why = e.to_string(),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_domains_are_counted_and_not_named() {
        let text = "# comment\nnameserver 10.96.0.10\nsearch old\nsearch shop.svc.cluster.local svc.cluster.local corp\n\
                    options ndots:5 timeout:1\noptions ndots:99\n";
        let resolver = read(text);
        let expected = Resolver {
            nameservers: vec!["10.96.0.10".into()],
            search_count: 3,
            ndots: 15,
            options: ["ndots:5", "timeout:1", "ndots:99"].map(str::to_owned).to_vec(),
            ..Resolver::default()
        };
        assert_eq!(resolver, expected);
        assert!(!serde_json::to_string(&resolver).unwrap().contains("cluster.local"));
    }

    #[test]
    fn without_options_one_dot_is_enough_and_long_files_are_cut() {
        assert_eq!(read(""), Resolver { ndots: 1, ..Resolver::default() });
        let text = "nameserver 1\noptions a b\ndomain x y\n".repeat(100) + "options " + &"z".repeat(1000);
        let resolver = read(&text);
        assert_eq!((resolver.nameservers.len(), resolver.options.len(), resolver.search_count), (8, 16, 1));
    }
}
