//! A thing at both looks, and what its counters gained in between.

use ktrace_bundle::event::When;
use ktrace_bundle::node::{Cgroup, CounterGroup, Counters, Link, Nic, Qdisc};

/// Something as it was when the window opened and when it closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looks<T> {
    /// When the window opened; `None`: it was not there, or not seen.
    pub start: Option<T>,
    /// When it closed.
    pub end: Option<T>,
}

impl<T> Default for Looks<T> {
    fn default() -> Self {
        Self { start: None, end: None }
    }
}

impl<T> Looks<T> {
    /// Takes what one of both looks saw.
    pub(super) fn set(&mut self, when: When, value: T) {
        match when {
            When::Start => self.start = Some(value),
            When::End => self.end = Some(value),
        }
    }

    /// As it was last seen.
    pub const fn latest(&self) -> Option<&T> {
        match &self.end {
            Some(end) => Some(end),
            None => self.start.as_ref(),
        }
    }

    /// At the end, if it was seen at the start, too: only then is a difference about the window.
    pub const fn over_window(&self) -> Option<&T> {
        match (&self.start, &self.end) {
            (Some(_), Some(end)) => Some(end),
            _ => None,
        }
    }
}

/// Something whose lines tell what its counters gained.
pub trait Rising {
    /// What they gained.
    fn rose(&self) -> &Counters;
}

impl<T: Rising> Looks<T> {
    /// What this counter gained; `None` if the thing was not seen at both looks.
    pub fn rose(&self, counter: &str) -> Option<u64> {
        self.over_window().map(|end| end.rose().get(counter).copied().unwrap_or(0))
    }

    /// All that rose, by name.
    pub fn risen(&self) -> impl Iterator<Item = (&str, u64)> {
        let rose = self.over_window().into_iter().flat_map(|end| end.rose());
        rose.map(|(name, n)| (name.as_str(), *n)).filter(|(_, n)| *n > 0)
    }
}

impl Rising for Link {
    fn rose(&self) -> &Counters {
        &self.rose
    }
}

impl Rising for Qdisc {
    fn rose(&self) -> &Counters {
        &self.rose
    }
}

impl Rising for CounterGroup {
    fn rose(&self) -> &Counters {
        &self.rose
    }
}

impl Rising for Nic {
    fn rose(&self) -> &Counters {
        &self.rose
    }
}

impl Rising for Cgroup {
    fn rose(&self) -> &Counters {
        &self.rose
    }
}
