//! Who is at the remote end of a socket, as far as this node knows: `peer`.

use serde::{Deserialize, Serialize};

/// The remote end by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A pod on this node.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
        /// Who says so.
        via: PeerVia,
    },
    /// The node itself.
    Node {
        /// Its name, as in `node`.
        node: String,
        /// Who says so.
        via: PeerVia,
    },
}

/// Where a peer is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerVia {
    /// The container runtime says which address its pod has.
    Cri,
    /// The address is one of the host's interfaces.
    Interfaces,
    /// Of another writer, or not said.
    #[serde(other)]
    Unstated,
}

impl PeerVia {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cri => "cri",
            Self::Interfaces => "interfaces",
            Self::Unstated => "unstated",
        }
    }
}
