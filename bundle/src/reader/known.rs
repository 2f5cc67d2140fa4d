//! The members of a bundle by name.

/// Members that a bundle can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    Events,
    Sockets,
    Coverage,
    Workloads,
    Processes,
    Flows,
    Network,
    Host,
    Conntrack,
    Services,
    Manifest,
    Partial,
    Summary,
    Readme,
}

impl Known {
    /// Every member; of a directory they are read in this order.
    pub(super) const ALL: [Self; 14] = [
        Self::Manifest,
        Self::Partial,
        Self::Events,
        Self::Sockets,
        Self::Coverage,
        Self::Workloads,
        Self::Processes,
        Self::Flows,
        Self::Network,
        Self::Host,
        Self::Conntrack,
        Self::Services,
        Self::Summary,
        Self::Readme,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Events => "events.jsonl",
            Self::Sockets => "sockets.jsonl",
            Self::Coverage => "coverage.jsonl",
            Self::Workloads => "workloads.jsonl",
            Self::Processes => "processes.jsonl",
            Self::Flows => "flows.jsonl",
            Self::Network => "node/network.jsonl",
            Self::Host => "node/host.jsonl",
            Self::Conntrack => "conntrack.json",
            Self::Services => "services.json",
            Self::Manifest => "manifest.json",
            Self::Partial => "manifest.partial.json",
            Self::Summary => "summary.json",
            Self::Readme => "README.md",
        }
    }

    pub(super) fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name().as_bytes() == name)
    }
}
