//! Where the names of pods and containers come from: `--with-cri`, `--cri-socket`, `--host-root`, `--pod-logs`,
//! `--kubelet-dir`.

use std::path::{Path, PathBuf};

use crate::error::Hint;
use crate::identity::WELL_KNOWN;

/// `sockaddr_un.sun_path` less its end (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// Sources of names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Naming {
    /// Sockets of container runtimes, to be asked one after the other.
    pub sockets: Vec<String>,
    /// A capture without an answer of a runtime is not what was asked for.
    pub is_runtime_required: bool,
    /// The kubelet's `/var/log`.
    pub pod_logs: PathBuf,
    /// The kubelet's `/var/lib/kubelet`.
    pub kubelet_dir: PathBuf,
    /// The host's root directory.
    pub host_root: PathBuf,
}

/// Whether a source is asked that not every node has: `--with-cri`, `--with-conntrack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// If there is one.
    Auto,
    /// There has to be one.
    True,
    /// Not even if there is one.
    False,
}

impl Choice {
    /// The value as the user writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::True => "true",
            Self::False => "false",
        }
    }
}

/// Why a value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamingError {
    /// Of `--with-cri` and `--with-conntrack`.
    #[error("it is neither `auto` nor a boolean")]
    NotAChoice,
    /// A path that depends on where ktrace was started.
    #[error("it is no absolute path")]
    Relative,
    /// A socket that nothing can connect to.
    #[error("its path has {len} bytes, and that of a socket at most {LONGEST_SOCKET}")]
    TooLong {
        /// Length, bytes.
        len: usize,
    },
    /// A socket elsewhere.
    #[error("only sockets of this machine can be asked")]
    Elsewhere,
}

impl Hint for NamingError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotAChoice => "pass `auto`, `true` or `false`".into(),
            Self::Relative => "pass a path that begins with `/`".into(),
            Self::TooLong { .. } => "make a shorter symbolic link to it".into(),
            Self::Elsewhere => format!("pass a path such as `{}`", WELL_KNOWN.first().copied().unwrap_or_default()),
        })
    }
}

/// Value of `--with-cri` and `--with-conntrack`.
///
/// # Errors
/// [`NamingError::NotAChoice`].
pub fn choice(text: &str) -> Result<Choice, NamingError> {
    if text == "auto" {
        return Ok(Choice::Auto);
    }
    let is_wanted = super::scalar::boolean(text).map_err(|_| NamingError::NotAChoice)?;
    Ok(if is_wanted { Choice::True } else { Choice::False })
}

/// Value of `--cri-socket`: a path, also as `unix:///run/…`, as the kubelet and crictl write it.
///
/// # Errors
/// See [`NamingError`].
pub fn socket(text: &str) -> Result<String, NamingError> {
    let path = match text.split_once("://") {
        Some(("unix", path)) => path,
        Some(_) => return Err(NamingError::Elsewhere),
        None => text,
    };
    match path.len() {
        _ if !path.starts_with('/') => Err(NamingError::Relative),
        len if len > LONGEST_SOCKET => Err(NamingError::TooLong { len }),
        _ => Ok(path.into()),
    }
}

/// Value of `--host-root`.
///
/// # Errors
/// [`NamingError::Relative`].
pub fn host_root(text: &str) -> Result<PathBuf, NamingError> {
    if text.starts_with('/') { Ok(text.into()) } else { Err(NamingError::Relative) }
}

/// The same path of the host.
pub fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Where runtimes usually listen.
pub fn well_known(root: &Path) -> Vec<String> {
    WELL_KNOWN.iter().map(|path| below(root, path).to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_auto_or_a_boolean() {
        assert_eq!(["auto", "true", "false"].map(choice), [Ok(Choice::Auto), Ok(Choice::True), Ok(Choice::False)]);
        for text in ["", "Auto", "maybe", "containerd"] {
            assert_eq!(choice(text), Err(NamingError::NotAChoice), "{text:?}");
        }
    }

    #[test]
    fn a_socket_is_a_path_or_its_url() {
        for text in ["/run/crio/crio.sock", "unix:///run/crio/crio.sock"] {
            assert_eq!(socket(text), Ok("/run/crio/crio.sock".into()));
        }
        assert_eq!(socket("tcp://10.0.0.1:2375"), Err(NamingError::Elsewhere));
        assert_eq!(socket("run/crio.sock"), Err(NamingError::Relative));
        assert_eq!(socket("unix://run/crio.sock"), Err(NamingError::Relative));
        assert_eq!(socket(&format!("/{}", "x".repeat(107))), Err(NamingError::TooLong { len: 108 }));
    }

    #[test]
    fn the_hosts_paths_lie_below_its_root() {
        assert_eq!(below(Path::new("/"), "/var/log"), Path::new("/var/log"));
        assert_eq!(below(Path::new("/host"), "/var/log"), Path::new("/host/var/log"));
        assert_eq!(host_root("host"), Err(NamingError::Relative));
        assert!(well_known(Path::new("/host")).contains(&"/host/run/containerd/containerd.sock".to_owned()));
    }
}
