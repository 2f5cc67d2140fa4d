//! What rows are about: a process, or a flow.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::attribution::{Owner, OwnerSource};
use crate::event::{Endpoint, Identity, Proto, Role};
use crate::summary::RowKey;

/// Key of the row for everything beyond a table's bound.
pub(super) const OTHER: &str = "other";

/// Key of the sum of all rows.
pub(super) const TOTAL: &str = "total";

/// The kernel's limit for `comm`, bytes.
const MAX_COMM: usize = 15;

/// A process; equal if it is the same process, whatever its name was meanwhile.
#[derive(Debug, Clone, Default)]
pub(super) struct Who(Option<Arc<Named>>);

#[derive(Debug)]
struct Named {
    pid: u32,
    proc_start_ns: Option<u64>,
    comm: Box<str>,
}

/// Processes that are named once and shared by what they own; more are named each time.
const MAX_SHARED: usize = 8192;

/// One [`Who`] for the many connections of one process: 50,000 names of their own take more memory than the counts.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<(u32, Option<u64>), Arc<Named>>);

impl Names {
    pub(super) fn owner(&mut self, owner: &Owner) -> Who {
        let key = (owner.pid, owner.proc_start_ns);
        match self.0.get(&key) {
            Some(named) if *named.comm == *clipped(&owner.comm) => Who(Some(Arc::clone(named))),
            known => {
                let is_room = known.is_some() || self.0.len() < MAX_SHARED;
                let who = Who::owner(owner);
                if let Some(named) = who.0.as_ref().filter(|_| is_room) {
                    self.0.insert(key, Arc::clone(named));
                }
                who
            }
        }
    }
}

impl Who {
    pub(super) fn owner(owner: &Owner) -> Self {
        let comm = Box::from(clipped(&owner.comm));
        Self(Some(Arc::new(Named { pid: owner.pid, proc_start_ns: owner.proc_start_ns, comm })))
    }

    /// A process by pid, start and name; `None`: nobody is known to own it.
    pub(super) fn process_of(owner: Option<&(u32, u64, String)>) -> Self {
        Self(owner.map(|(pid, start_ns, comm)| {
            let proc_start_ns = (*start_ns != 0).then_some(*start_ns);
            Arc::new(Named { pid: *pid, proc_start_ns, comm: Box::from(clipped(comm)) })
        }))
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.0.as_ref().map(|n| n.pid)
    }

    pub(super) fn comm(&self) -> Option<String> {
        self.0.as_ref().map(|n| n.comm.to_string())
    }

    pub(super) fn process(&self) -> Option<(u32, Option<u64>)> {
        self.0.as_ref().map(|n| (n.pid, n.proc_start_ns))
    }
}

impl PartialEq for Who {
    fn eq(&self, other: &Self) -> bool {
        self.process() == other.process()
    }
}

impl Eq for Who {}

impl Hash for Who {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.process().hash(state);
    }
}

/// How far an owner can be trusted: a child that was not accepted yet only carries its listener's.
pub(super) const fn rank(source: OwnerSource) -> u8 {
    match source {
        OwnerSource::Current
        | OwnerSource::Connect
        | OwnerSource::Accept
        | OwnerSource::Listen
        | OwnerSource::FirstIo
        | OwnerSource::Close
        | OwnerSource::FdTable => 2,
        OwnerSource::Inherited | OwnerSource::Kernel | OwnerSource::Unstated => 1,
    }
}

/// Both ends of a socket, less the port that the client's kernel chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) netns: u32,
    proto: Proto,
    local: Endpoint,
    remote: Endpoint,
}

impl Flow {
    pub(super) const fn of(id: &Identity) -> Self {
        Ends::of(id).flow()
    }

    /// A flow that is known by its ends alone.
    pub(super) const fn between(netns: u32, proto: Proto, local: Endpoint, remote: Endpoint) -> Self {
        Self { netns, proto, local, remote }
    }

    /// `local -> remote`.
    pub(super) fn ends(&self) -> String {
        format!("{} -> {}", self.local, self.remote)
    }
}

/// The ends of a socket as far as they are known; they are not on every event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    netns: u32,
    proto: Proto,
    local: Endpoint,
    remote: Endpoint,
    role: Option<Role>,
}

impl Ends {
    pub(super) const fn of(id: &Identity) -> Self {
        Self { netns: id.netns, proto: id.proto, local: id.local, remote: id.remote, role: id.role }
    }

    /// Takes over what is newly known.
    pub(super) fn learn(&mut self, id: &Identity) {
        let newer =
            |new: Endpoint, old: Endpoint| Endpoint { addr: new.addr.or(old.addr), port: new.port.or(old.port) };
        self.local = newer(id.local, self.local);
        self.remote = newer(id.remote, self.remote);
        self.role = id.role.or(self.role);
    }

    pub(super) const fn flow(self) -> Flow {
        let Self { netns, proto, mut local, mut remote, role } = self;
        match role {
            Some(Role::Client) => local.port = None,
            Some(Role::Server) => remote.port = None,
            Some(Role::Listener) | None => {}
        }
        Flow { netns, proto, local, remote }
    }
}

/// A key that can name its row.
pub(super) trait Label {
    fn row_key(&self) -> RowKey;
}

impl Label for Who {
    fn row_key(&self) -> RowKey {
        match &self.0 {
            Some(n) => RowKey {
                key: format!("{}[{}]", n.comm, n.pid),
                comm: Some(n.comm.to_string()),
                pid: Some(n.pid),
                ..RowKey::default()
            },
            None => RowKey { key: "unattributed".to_owned(), ..RowKey::default() },
        }
    }
}

impl Label for Flow {
    fn row_key(&self) -> RowKey {
        RowKey {
            key: format!("{} {}", self.proto.as_str(), self.ends()),
            proto: Some(self.proto),
            netns: Some(self.netns),
            ..RowKey::default()
        }
    }
}

pub(super) fn clip_comm(comm: &str) -> String {
    clipped(comm).to_owned()
}

fn clipped(comm: &str) -> &str {
    comm.get(..comm.floor_char_boundary(MAX_COMM)).unwrap_or(comm)
}

/// The text, cut to this many bytes at a character boundary.
pub(super) fn clip(text: &str, bytes: usize) -> String {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text).to_owned()
}
