//! `ktrace check`: raw flags → what it looks at. Parsed as for a capture, by the same code.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;

use super::{Draft, PlanError, btf, naming};
use crate::cli::{CheckArgs, Origins};

/// What `ktrace check` looks at beyond this kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looking {
    /// Types of this kernel from elsewhere.
    pub btf: Option<PathBuf>,
    /// Where container runtimes may listen.
    pub sockets: Vec<String>,
}

impl Looking {
    /// What these flags ask for.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn from_args(args: &CheckArgs, origins: &Origins) -> Result<Self, PlanError> {
        let mut draft = Draft { origins, entries: BTreeMap::new() };
        let btf = draft.optional("btf", args.btf.as_deref(), btf::parse, |it| json!(it.to_string_lossy()))?;
        let (socket, root) = draft.runtime(args.cri_socket.as_deref(), &args.host_root)?;
        Ok(Self { btf, sockets: socket.map_or_else(|| naming::well_known(&root), |socket| vec![socket]) })
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::{Request, parse};

    use super::*;

    fn looking(args: &[&str]) -> Result<Looking, PlanError> {
        match parse(["ktrace", "check"].iter().chain(args)) {
            Ok(Request::Check(args, origins)) => Looking::from_args(&args, &origins),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn runtimes_are_looked_for_where_a_capture_would() {
        let sockets = |args: &[&str]| looking(args).unwrap().sockets;
        assert_eq!(sockets(&[]), naming::well_known("/".as_ref()));
        assert_eq!(sockets(&["--host-root=/host"]), naming::well_known("/host".as_ref()));
        assert_eq!(sockets(&["--cri-socket", "unix:///run/crio/crio.sock"]), ["/run/crio/crio.sock"]);
        assert!(looking(&["--cri-socket=crio.sock"]).is_err());
        assert!(looking(&["--host-root=host"]).is_err());
    }
}
