//! Network namespaces by inode number or by a file that stands for one: `/proc/PID/ns/net`, `/run/netns/NAME`.

use std::fmt;
use std::os::unix::fs::MetadataExt;

use nix::sys::statfs::{FsType, statfs};

use crate::error::Hint;

const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Netns {
    /// `ns.net` of its sockets.
    pub inode: u32,
    /// The file that it was given as.
    path: Option<String>,
}

/// Why a text is no network namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetnsError {
    /// Neither a number nor a file that can be opened.
    #[error("`{item}` is not a network namespace: {why}")]
    NotThere {
        /// The item.
        item: String,
        /// The system's reason.
        why: String,
    },
    /// A file of another kind.
    #[error("`{item}` is a file, but not a network namespace")]
    NotANamespace {
        /// The item.
        item: String,
    },
}

impl Hint for NetnsError {
    fn hint(&self) -> Option<String> {
        Some("pass `/proc/PID/ns/net`, `/run/netns/NAME`, or the number that `lsns -t net` prints".into())
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{} ({path})", self.inode),
            None => write!(f, "{}", self.inode),
        }
    }
}

/// Reads a number or looks up a file.
///
/// # Errors
/// See [`NetnsError`].
pub fn resolve(item: &str) -> Result<Netns, NetnsError> {
    if item.bytes().all(|b| b.is_ascii_digit()) {
        let inode = item.parse().ok().filter(|inode| *inode > 0);
        let inode = inode.ok_or_else(|| not_there(item, "no inode has this number"))?;
        return Ok(Netns { inode, path: None });
    }
    let look_up = || -> std::io::Result<_> { Ok((statfs(item)?.filesystem_type(), std::fs::metadata(item)?.ino())) };
    let (kind, inode) = look_up().map_err(|e| not_there(item, &e.to_string()))?;
    let is_netns = kind == NSFS_MAGIC && is_of_network(item);
    match u32::try_from(inode) {
        Ok(inode) if is_netns => Ok(Netns { inode, path: Some(item.into()) }),
        _ => Err(NetnsError::NotANamespace { item: item.into() }),
    }
}

fn not_there(item: &str, why: &str) -> NetnsError {
    NetnsError::NotThere { item: item.into(), why: why.into() }
}

/// Links of `/proc` name the kind of their namespace; files of `/run/netns` do not, and are of the network only.
fn is_of_network(item: &str) -> bool {
    std::fs::read_link(item).map_or(true, |target| target.to_string_lossy().starts_with("net:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_as_it_is() {
        assert_eq!(resolve("4026531840").unwrap().to_string(), "4026531840");
        for item in ["0", "99999999999"] {
            assert!(matches!(resolve(item), Err(NetnsError::NotThere { .. })), "{item}");
        }
    }

    #[test]
    fn a_file_stands_for_the_namespace_whose_inode_it_has() {
        let inode = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        let netns = resolve("/proc/self/ns/net").unwrap();
        assert_eq!(u64::from(netns.inode), inode);
        assert_eq!(netns.to_string(), format!("{inode} (/proc/self/ns/net)"));
    }

    #[test]
    fn other_files_and_files_that_are_not_there_are_refused() {
        for item in ["/proc/self/ns/mnt", "/proc/self/status"] {
            assert_eq!(resolve(item), Err(NetnsError::NotANamespace { item: item.into() }));
        }
        let refused = resolve("/run/netns/no-such-namespace").unwrap_err();
        assert!(refused.to_string().ends_with("No such file or directory (os error 2)"), "{refused}");
        assert!(matches!(resolve("blue"), Err(NetnsError::NotThere { .. })));
    }
}
