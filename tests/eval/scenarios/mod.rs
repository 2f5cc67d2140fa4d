//! The scenarios: a file for each family, a line in its table for each scenario.

mod connect;
mod dns;
mod healthy;
mod mixed;
mod nat;
mod node;
mod socket;
mod tcp;

use crate::stage::Stage;
use crate::subject::Subject;

/// What must be said.
#[derive(Debug)]
pub enum Expect {
    /// For each fault the rules of which one must tell of it, the best one first.
    Faults(&'static [&'static [&'static str]]),
    /// No alarm.
    Healthy,
}

/// A workload, what is wrong with it, and what `analyze` must say.
#[derive(Debug)]
pub struct Scenario {
    /// Family and name.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub what: &'static str,
    /// What must be said.
    pub expect: Expect,
    /// Rules that may speak, too, as the fault really makes what they tell of; none of them may be first.
    pub also: &'static [&'static str],
    /// Rules that must say nothing, not even as a note.
    pub never: &'static [&'static str],
    /// Prepares, opens the window, makes the traffic, and returns whom each fault is about.
    pub play: fn(&mut Stage) -> Vec<Subject>,
}

/// All of them, in the order in which they run.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    let families = [
        dns::SCENARIOS,
        connect::SCENARIOS,
        tcp::SCENARIOS,
        socket::SCENARIOS,
        nat::SCENARIOS,
        node::SCENARIOS,
        mixed::SCENARIOS,
    ];
    families.into_iter().flatten().chain(healthy::all())
}

/// A scenario with one fault.
const fn fault(
    name: &'static str,
    what: &'static str,
    rules: &'static [&'static [&'static str]],
    play: fn(&mut Stage) -> Vec<Subject>,
) -> Scenario {
    Scenario { name, what, expect: Expect::Faults(rules), also: &[], never: &[], play }
}

/// A scenario without one.
const fn healthy(name: &'static str, what: &'static str, play: fn(&mut Stage) -> Vec<Subject>) -> Scenario {
    Scenario { name, what, expect: Expect::Healthy, also: &[], never: &[], play }
}

impl Scenario {
    const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    const fn never(self, never: &'static [&'static str]) -> Self {
        Self { never, ..self }
    }
}
