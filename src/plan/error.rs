//! Why a request is not a plan: which value, as the user wrote it, and what to do.

use std::io;
use std::path::PathBuf;

use ktrace_bundle::manifest::PlanSource;

use super::{
    btf::BtfError, bytes::BytesError, duration::DurationError, filters::FilterError, names::NameError,
    naming::NamingError, ports::PortsError, scalar::ScalarError, share::ShareError, variants::VariantError,
};
use crate::command::NotRunnable;
use crate::error::Hint;

/// A request that cannot be carried out. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A value cannot be read.
    #[error("{} cannot be used", spelling(.flag, .raw, *.from))]
    Value {
        /// Flag, without dashes.
        flag: &'static str,
        /// What was given.
        raw: String,
        /// Where it was given.
        from: PlanSource,
        /// What is wrong with it.
        source: ValueError,
    },
    /// Both filters were asked for.
    #[error("`--dns-only` and `--ports` exclude each other")]
    DnsOnlyWithPorts,
    /// The runtime is not to be asked, and is to be asked there.
    #[error("`--with-cri=false` and `--cri-socket` exclude each other")]
    SocketWithoutCri,
    /// The command behind `--` is not there.
    #[error(transparent)]
    Command(#[from] NotRunnable),
    /// The machine does not say its name.
    #[error("the host name cannot be read")]
    HostName(#[source] io::Error),
    /// The output directory cannot be made or written.
    #[error("cannot write into the output directory `{}`", .path.display())]
    OutDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The ready file could not be created when the time comes.
    #[error("cannot create the ready file `{}`", .path.display())]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Hint for PlanError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Value { flag: "node", from: PlanSource::Default, .. } | Self::HostName(_) => {
                Some("name the node with `--node NAME`".into())
            }
            Self::Value { source, .. } => source.hint(),
            Self::Command(error) => error.hint(),
            Self::DnsOnlyWithPorts => {
                Some("pass the ports that speak DNS with `--dns-ports`, or drop one of both".into())
            }
            Self::SocketWithoutCri => Some("drop one of both".into()),
            Self::OutDir { source, .. } => Some(match source.kind() {
                io::ErrorKind::ReadOnlyFilesystem => {
                    "mount a writable volume and pass its path with `--out-dir`".into()
                }
                io::ErrorKind::StorageFull => "free some space, or pass another directory with `--out-dir`".into(),
                _ => "pass a directory that you may write to with `--out-dir`".into(),
            }),
            Self::ReadyFile { .. } => Some("pass a file in a directory that you may write to".into()),
        }
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Nothing, as from a variable that is set and empty.
    #[error("the value is empty")]
    Empty,
    /// Duration.
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// Size.
    #[error(transparent)]
    Bytes(#[from] BytesError),
    /// Share.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// Port list.
    #[error(transparent)]
    Ports(#[from] PortsError),
    /// List of a filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Node, cluster or label.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Source of names.
    #[error(transparent)]
    Naming(#[from] NamingError),
    /// Boolean or count.
    #[error(transparent)]
    Scalar(#[from] ScalarError),
    /// Types of a kernel.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// Hook and variant.
    #[error(transparent)]
    Variant(#[from] VariantError),
}

impl Hint for ValueError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Empty => Some("give it a value, or leave it out".into()),
            Self::Duration(error) => error.hint(),
            Self::Bytes(error) => error.hint(),
            Self::Share(error) => error.hint(),
            Self::Ports(error) => error.hint(),
            Self::Filter(error) => error.hint(),
            Self::Name(error) => error.hint(),
            Self::Naming(error) => error.hint(),
            Self::Scalar(error) => error.hint(),
            Self::Btf(error) => error.hint(),
            Self::Variant(error) => error.hint(),
        }
    }
}

/// The value as the user wrote it.
fn spelling(flag: &str, raw: &str, from: PlanSource) -> String {
    match from {
        PlanSource::Flag => format!("`--{flag}={raw}`"),
        PlanSource::Env => format!("`KTRACE_{}={raw}`", flag.replace('-', "_").to_uppercase()),
        PlanSource::File => format!("`{flag}` = `{raw}` in the configuration"),
        PlanSource::Profile => format!("`{flag}` = `{raw}` of the profile"),
        PlanSource::Nat => format!("`{flag}` = `{raw}` by NAT rules"),
        PlanSource::Default => format!("the default `{raw}` of `--{flag}`"),
    }
}
