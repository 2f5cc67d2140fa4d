//! The kernel's types: those that it publishes itself, and those of a file that `--btf` names.
//!
//! Programs are relocated against the file where there is one. What the kernel itself looks up when it loads a program
//! (typed tracepoints, fentry, iterators) is always looked up in its own, so a file cannot stand in for these.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use libbpf_rs::ObjectBuilder;
use libbpf_rs::btf::{Btf, types};

/// Where the kernel publishes its types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// A function of every kernel with TCP: types that do not list it list no functions.
const ALWAYS: &str = "tcp_sendmsg";

/// What is known of the kernel's types.
pub struct Types {
    own: Option<Btf<'static>>,
    file: Option<(PathBuf, Option<Btf<'static>>)>,
}

impl Types {
    /// Reads the kernel's own types and those of the file.
    pub fn read(file: Option<&Path>) -> Self {
        let file = file.map(|path| (path.to_owned(), Btf::from_path(path).ok()));
        Self { own: Btf::from_path(BTF_PATH).ok(), file }
    }

    /// As if a kernel with the types of this file were running.
    #[cfg(test)]
    pub fn of_kernel(file: &Path) -> Self {
        Self { own: Btf::from_path(file).ok(), file: None }
    }

    /// The kernel's own, as far as it publishes them.
    pub const fn own(&self) -> Option<&Btf<'static>> {
        self.own.as_ref()
    }

    /// What the kernel's own types would be needed for is not to be had, and why.
    pub fn no_own(&self) -> String {
        match self.file {
            Some(_) => format!("it needs the kernel's own `{BTF_PATH}`, for which `--btf` cannot stand in"),
            None => format!("`{BTF_PATH}` cannot be read"),
        }
    }

    /// The file that programs are relocated against; `None`: the kernel's own types.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    /// Whether this is a function of the kernel; `None` where no types tell.
    pub fn has_function(&self, name: &str) -> Option<bool> {
        let other = self.file.as_ref().and_then(|(_, btf)| btf.as_ref());
        let btf = self.own.as_ref().or(other).filter(|btf| is_function(btf, ALWAYS))?;
        Some(is_function(btf, name))
    }

    /// Has an object relocated against the file, if there is one.
    ///
    /// # Errors
    /// The path has a zero byte in it.
    pub fn apply(&self, builder: &mut ObjectBuilder) -> libbpf_rs::Result<()> {
        match self.file() {
            Some(path) => builder.btf_custom_path(path).map(drop),
            None => Ok(()),
        }
    }
}

fn is_function(btf: &Btf<'_>, name: &str) -> bool {
    btf.type_by_name::<types::Func<'_>>(name).is_some()
}

/// A socket of this process of which everything is known without reading kernel memory.
pub struct Known {
    socket: TcpListener,
    /// Its port.
    pub port: u16,
    /// Inode of its network namespace.
    pub netns: u32,
}

impl Known {
    /// A listening socket that nobody outside can reach; `None` where the machine has no loopback.
    pub fn new() -> Option<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").ok()?;
        let port = socket.local_addr().ok()?.port();
        let netns = u32::try_from(std::fs::metadata("/proc/self/ns/net").ok()?.ino()).ok()?;
        Some(Self { socket, port, netns })
    }

    /// Its descriptor.
    pub fn fd(&self) -> u32 {
        u32::try_from(self.socket.as_raw_fd()).unwrap_or(u32::MAX)
    }
}

/// What was read through the types and is not what it should be; the number is `enum trial_types_result`.
pub fn wrong(result: u32) -> Option<&'static str> {
    match result {
        0 => None,
        1 => Some("`struct task_struct`"),
        2 => Some("`struct file`"),
        3 => Some("`struct sock`"),
        _ => Some("`struct tcp_sock`"),
    }
}
