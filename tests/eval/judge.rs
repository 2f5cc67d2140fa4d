//! From what a scenario expects and what `analyze` says to what that is worth.

use crate::scenarios::{Expect, Scenario};
use crate::subject::{Finding, Report, Subject};

/// Rules about the machine as a whole, on which other programs run, too, such as builds: what they say is printed, and judged
/// neither right nor wrong.
pub const MACHINES: [&str; 3] = ["host.pressure", "host.memory_pressure", "net.softnet_drops"];

/// What the twin with the low cap came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// There is none.
    None,
    /// The rule says that it cannot know.
    Inconclusive,
    /// It still found the fault, or another of its kind.
    Found,
    /// It says that there is nothing, or nothing at all: wrong.
    Clear,
}

/// See the module.
#[derive(Debug)]
pub struct Verdict {
    /// Place of the first right one among the alarms, from 1.
    pub rank: Option<usize>,
    /// Faults of which an alarm tells.
    pub found_count: usize,
    /// Faults there are.
    pub fault_count: usize,
    /// Alarms about one of the faults.
    pub right_count: usize,
    /// Alarms about nothing: rule and sentence.
    pub wrong: Vec<String>,
    /// Alarms that are true, but about something that the fault makes.
    pub beside: Vec<String>,
    /// Rules that said something and must not.
    pub forbidden: Vec<String>,
    /// What the machine's own rules said.
    pub machine: Vec<String>,
    /// The twin.
    pub twin: Twin,
}

impl Verdict {
    /// Holds the reports of a scenario against what it expects of them.
    pub fn of(
        scenario: &Scenario,
        subjects: &[Subject],
        netns: &[u64],
        report: &Report,
        twin: Option<&Report>,
    ) -> Self {
        let faults = scenario.expect.faults();
        assert_eq!(faults.len(), subjects.len(), "a subject for each fault");
        let is_machine = |f: &Finding<'_>| MACHINES.contains(&f.rule());
        let (machine, findings): (Vec<_>, Vec<_>) = report.findings(netns).into_iter().partition(is_machine);
        let alarms: Vec<_> = findings.iter().copied().filter(|f| f.is_alarm()).collect();
        let tells =
            |f: &Finding<'_>, (rules, subject): (&&[&str], &Subject)| rules.contains(&f.rule()) && subject.is_of(*f);
        let is_right = |f: &Finding<'_>| faults.iter().zip(subjects).any(|fault| tells(f, fault));
        let is_beside = |f: &Finding<'_>| !is_right(f) && scenario.also.contains(&f.rule());
        let text = |f: &Finding<'_>| format!("{}: {}", f.rule(), f.title());
        let found = faults.iter().zip(subjects).filter(|fault| alarms.iter().any(|f| tells(f, *fault)));
        Self {
            rank: alarms.iter().position(is_right).map(|place| place + 1),
            found_count: found.count(),
            fault_count: faults.len(),
            right_count: alarms.iter().filter(|f| is_right(f)).count(),
            wrong: alarms.iter().filter(|f| !is_right(f) && !is_beside(f)).map(text).collect(),
            beside: alarms.iter().filter(|f| is_beside(f)).map(text).collect(),
            forbidden: findings.iter().filter(|f| scenario.never.contains(&f.rule())).map(text).collect(),
            machine: machine.iter().filter(|f| f.is_alarm()).map(text).collect(),
            twin: twin.map_or(Twin::None, |twin| {
                let told = |fault: (&&'static [&'static str], &Subject)| {
                    alarms.iter().find(|f| tells(f, (fault.0, fault.1))).map_or(fault.0.to_vec(), |f| vec![f.rule()])
                };
                Twin::of(&faults.iter().zip(subjects).map(told).collect::<Vec<_>>(), twin)
            }),
        }
    }

    /// Whether the first alarm tells of a fault.
    pub fn is_first(&self) -> bool {
        self.rank == Some(1)
    }

    /// Whether all is as expected.
    pub fn is_met(&self) -> bool {
        let is_told = self.fault_count == 0 || (self.is_first() && self.found_count == self.fault_count);
        is_told && self.wrong.is_empty() && self.forbidden.is_empty() && self.twin != Twin::Clear
    }
}

impl Twin {
    /// The worst that it says of one of the faults, each with the rule that told of it in the whole capture, or if none did with
    /// those that should have.
    fn of(faults: &[Vec<&str>], report: &Report) -> Self {
        let of_fault = |rules: &Vec<&str>| {
            if rules.iter().any(|rule| report.has_found(rule)) {
                Self::Found
            } else if rules.iter().any(|rule| report.is_inconclusive(rule)) {
                Self::Inconclusive
            } else {
                Self::Clear
            }
        };
        let all: Vec<_> = faults.iter().map(of_fault).collect();
        let is_any = |twin: &Self| all.contains(twin);
        [Self::Clear, Self::Inconclusive, Self::Found].into_iter().find(is_any).unwrap_or(Self::None)
    }
}

impl Expect {
    /// The rules of which one must tell of each fault.
    pub const fn faults(&self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Faults(faults) => faults,
            Self::Healthy => &[],
        }
    }
}
