//! A record of a ring before it is decoded: its kind, its socket, and what filters have yet to say about it.

use ktrace_bundle::event::EventKind;

use super::{DecodeError, Wire, cgroup, kind_of, read};
use crate::cgroup::Hierarchy;
use crate::kernel::skel::types;

/// A record of a known kind, not yet believed beyond that.
#[derive(Debug, Clone, Copy)]
pub struct RawEvent<'a> {
    kind: EventKind,
    bytes: &'a [u8],
}

impl<'a> RawEvent<'a> {
    /// Looks at the kind.
    ///
    /// # Errors
    /// Too short for a header, or of no known kind.
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let expected = size_of::<types::kt_header>();
        let header = bytes.get(..expected).ok_or(DecodeError::Length { got: bytes.len(), expected })?;
        let types::kt_header { kind, .. } = read(header)?;
        Ok(Self { kind: kind_of(kind)?, bytes })
    }

    /// What it claims to be.
    pub const fn kind(&self) -> EventKind {
        self.kind
    }

    /// What the kernel says about filters that it could not ask when the event happened.
    pub fn mark(&self) -> Mark {
        let Some(types::kt_header { flow, .. }) = self.header() else { return Mark::default() };
        let has = |flag: types::kt_flow_flags| u32::from(flow.flags) & flag.0 != 0;
        let doubt = if has(types::kt_flow_flags::KT_FLOW_REFUSED) {
            Doubt::Refused
        } else if has(types::kt_flow_flags::KT_FLOW_UNNAMED) {
            Doubt::Unnamed
        } else if has(types::kt_flow_flags::KT_FLOW_UNDECIDED) && flow.cookie != 0 {
            Doubt::Undecided // without a cookie nothing later can be told to be of the same socket
        } else {
            Doubt::None
        };
        Mark { cookie: flow.cookie, doubt }
    }

    /// The cgroup of the owner, where its id is one.
    pub fn cgroup(&self) -> Option<(Hierarchy, u64)> {
        cgroup(&self.header()?.owner)
    }

    /// `new` has looked at it.
    fn header(&self) -> Option<types::kt_header> {
        read(self.bytes.get(..size_of::<types::kt_header>())?).ok()
    }

    /// The record as its struct.
    ///
    /// # Errors
    /// [`DecodeError::Length`].
    pub fn read<T: Wire>(&self) -> Result<T, DecodeError> {
        read(self.bytes)
    }
}

/// Whether filters by owner let an event pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Doubt {
    /// They do.
    #[default]
    None,
    /// Nobody knows yet; a later event of the same socket will.
    Undecided,
    /// Its owner's cgroup tells, also about those of the same socket that were undecided.
    Unnamed,
    /// They do not, nor those of the same socket that were undecided.
    Refused,
}

/// A socket, and what filters by owner say about an event of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Socket cookie; 0 where there is none.
    pub cookie: u64,
    /// What they say.
    pub doubt: Doubt,
}
