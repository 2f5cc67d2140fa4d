//! `--pid 1,!2` and its like: lists of wanted and of unwanted (`!`) values, parsed and resolved.
//!
//! What an unwanted value matches is refused; else what a wanted one matches passes; else it passes if nothing in
//! particular is wanted. An event has to pass every filter. `bpf/filter.bpf.h` carries that out.

pub mod cgroup;
pub mod cidr;
pub mod comm;
pub mod home;
pub mod netns;
pub mod pid;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Display;

use serde_json::{Value, json};

use super::ports::{self, PortsError};
use crate::error::Hint;
use cgroup::{Cgroup, CgroupError};
use cidr::{Cidr, CidrError};
use comm::Comm;
use home::{HomeFilters, Pattern, PatternError};
use netns::{Netns, NetnsError};
use pid::PidError;

/// Values that one filter can hold.
pub const MAX: usize = 64;

/// The values of one filter; none is in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// Given plainly.
    pub wanted: BTreeSet<T>,
    /// Given with `!`.
    pub unwanted: BTreeSet<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { wanted: BTreeSet::new(), unwanted: BTreeSet::new() }
    }
}

impl<T: Ord> Listed<T> {
    /// Whether it has no values, so that everything passes.
    pub fn is_off(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    /// Every value with whether it is wanted.
    pub fn iter(&self) -> impl Iterator<Item = (&T, bool)> {
        self.wanted.iter().map(|v| (v, true)).chain(self.unwanted.iter().map(|v| (v, false)))
    }

    /// Whether something passes of which some values say that it is wanted, or unwanted.
    pub fn passes(&self, wanted: bool, unwanted: bool) -> bool {
        !unwanted && (wanted || self.wanted.is_empty())
    }

    /// Every value, converted.
    pub fn map<U: Ord>(self, convert: impl Fn(T) -> U) -> Listed<U> {
        let Self { wanted, unwanted } = self;
        Listed {
            wanted: wanted.into_iter().map(&convert).collect(),
            unwanted: unwanted.into_iter().map(convert).collect(),
        }
    }
}

impl<T: Display> Listed<T> {
    /// As the plan shows it: `["10.0.0.0/8", "!10.1.0.0/16"]`.
    pub fn show(&self) -> Value {
        let wanted = self.wanted.iter().map(ToString::to_string);
        json!(wanted.chain(self.unwanted.iter().map(|v| format!("!{v}"))).collect::<Vec<_>>())
    }
}

impl Listed<u16> {
    /// As the plan shows ports: numbers, and text for those that are unwanted.
    pub fn show_ports(&self) -> Value {
        let wanted = self.wanted.iter().map(|port| json!(port));
        Value::Array(wanted.chain(self.unwanted.iter().map(|port| json!(format!("!{port}")))).collect())
    }
}

/// The filters other than those by port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// `--cidr`: the address at either end.
    pub cidr: Listed<Cidr>,
    /// `--netns`: inode number of the socket's network namespace.
    pub netns: Listed<u32>,
    /// `--pid`: the owner's process id.
    pub pid: Listed<u32>,
    /// `--comm`: the name of the owner's process or thread.
    pub comm: Listed<Comm>,
    /// `--cgroup`: the owner's cgroup or one above it.
    pub cgroup: Listed<Cgroup>,
    /// `--namespace`, `--pod`, `--container`: what the owner belongs to.
    pub homes: HomeFilters,
}

/// Why a list of values is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Nothing between two commas, or behind a `!`.
    #[error("an item of the list is empty")]
    Hole,
    /// Wanted and unwanted.
    #[error("`{item}` is both wanted and excluded")]
    Both {
        /// The value.
        item: String,
    },
    /// More than [`MAX`] values.
    #[error("{count} values are more than the {MAX} that a filter holds")]
    TooMany {
        /// Different values.
        count: usize,
    },
    /// `--ports`.
    #[error(transparent)]
    Port(#[from] PortsError),
    /// `--cidr`.
    #[error(transparent)]
    Cidr(#[from] CidrError),
    /// `--netns`.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// `--pid`.
    #[error(transparent)]
    Pid(#[from] PidError),
    /// `--cgroup`.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// `--namespace`, `--pod`, `--container`.
    #[error(transparent)]
    Name(#[from] PatternError),
}

impl From<Infallible> for FilterError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Hint for FilterError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Hole => {
                Some("separate values by single commas; `!` stands right before the value it excludes".into())
            }
            Self::Both { .. } => Some("give it once, with or without `!`".into()),
            Self::TooMany { .. } => {
                Some(format!("pass {MAX} values at most, or capture more and filter with `analyze events --where`"))
            }
            Self::Port(e) => e.hint(),
            Self::Cidr(e) => e.hint(),
            Self::Netns(e) => e.hint(),
            Self::Pid(e) => e.hint(),
            Self::Cgroup(e) => e.hint(),
            Self::Name(e) => e.hint(),
        }
    }
}

/// Parses lists of values, separated by commas.
///
/// # Errors
/// See [`FilterError`].
pub fn parse<T, E>(text: &str, one: impl Fn(&str) -> Result<T, E>) -> Result<Listed<T>, FilterError>
where
    T: Ord + Display,
    FilterError: From<E>,
{
    let mut listed = Listed::default();
    for item in text.split(',').map(str::trim) {
        let (item, list) = match item.strip_prefix('!') {
            Some(rest) => (rest.trim(), &mut listed.unwanted),
            None => (item, &mut listed.wanted),
        };
        if item.is_empty() {
            return Err(FilterError::Hole);
        }
        list.insert(one(item)?);
    }
    if let Some(item) = listed.wanted.intersection(&listed.unwanted).next() {
        return Err(FilterError::Both { item: item.to_string() });
    }
    match listed.wanted.len() + listed.unwanted.len() {
        count if count > MAX => Err(FilterError::TooMany { count }),
        _ => Ok(listed),
    }
}

/// `--ports`.
///
/// # Errors
/// See [`FilterError`].
pub fn ports(text: &str) -> Result<Listed<u16>, FilterError> {
    parse(text, ports::port)
}

/// `--cidr`.
///
/// # Errors
/// See [`FilterError`].
pub fn cidr(text: &str) -> Result<Listed<Cidr>, FilterError> {
    parse(text, cidr::parse)
}

/// `--netns`.
///
/// # Errors
/// See [`FilterError`].
pub fn netns(text: &str) -> Result<Listed<Netns>, FilterError> {
    parse(text, netns::resolve)
}

/// `--pid`.
///
/// # Errors
/// See [`FilterError`].
pub fn pid(text: &str) -> Result<Listed<u32>, FilterError> {
    let listed = parse(text, pid::parse)?;
    listed.wanted.iter().try_for_each(|pid| pid::check(*pid))?;
    Ok(listed)
}

/// `--comm`.
///
/// # Errors
/// See [`FilterError`].
pub fn comm(text: &str) -> Result<Listed<Comm>, FilterError> {
    parse(text, comm::parse)
}

/// `--cgroup`.
///
/// # Errors
/// See [`FilterError`].
pub fn cgroup(text: &str) -> Result<Listed<Cgroup>, FilterError> {
    parse(text, cgroup::resolve)
}

/// `--namespace`, `--pod`, `--container`.
///
/// # Errors
/// See [`FilterError`].
pub fn name(text: &str) -> Result<Listed<Pattern>, FilterError> {
    parse(text, home::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclamation_mark_excludes() {
        let listed = ports("80, !22 ,! 23,80").unwrap();
        assert_eq!(listed, Listed { wanted: [80].into(), unwanted: [22, 23].into() });
        assert_eq!(listed.show_ports(), json!([80, "!22", "!23"]));
    }

    #[test]
    fn holes_contradictions_and_too_many_values_are_refused() {
        for text in ["", "80,", "80,,443", "!", "80,!"] {
            assert_eq!(ports(text), Err(FilterError::Hole), "{text}");
        }
        assert_eq!(ports("80,!80"), Err(FilterError::Both { item: "80".into() }));
        let list = |n: u16| (1..=n).map(|p| format!("!{p}")).collect::<Vec<_>>().join(",");
        assert_eq!(ports(&list(64)).unwrap().unwanted.len(), MAX);
        assert_eq!(ports(&list(65)), Err(FilterError::TooMany { count: 65 }));
    }

    #[test]
    fn a_filter_is_shown_as_it_could_be_given() {
        assert_eq!(comm("nginx,!node_exporter_long").unwrap().show(), json!(["nginx", "!node_exporter_l"]));
        assert_eq!(cidr("10.1.2.3/8,!fd00::1").unwrap().show(), json!(["10.0.0.0/8", "!fd00::1/128"]));
    }
}
