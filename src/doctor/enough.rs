//! When `ktrace doctor` may stop watching: findings of one look after the other → whether they suffice.
//!
//! A short window must not make a symptom look like the cause, nor the first fault hide the second. So nothing ends before
//! what was sent in the first second has been judged, nor while there is something new, and what went to the address of a
//! service is given time to show which backend got it.

use std::time::Duration;

use ktrace_analyzer::capture::PENDING_NS;
use ktrace_analyzer::finding::{Finding, Key, Severity};
use ktrace_analyzer::kb::{Kb, Layer};

/// From one look to the next.
pub const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// A query of the window's first second is a second longer without an answer than it may be; a resolver that asks again
/// after 5 s has done so, and a client that connects has sent its third SYN.
pub const EARLIEST: Duration = Duration::from_nanos(PENDING_NS).saturating_add(Duration::from_millis(1_500));
/// Failures at the address of a service that are not known to be one backend's may become so.
const EARLIEST_OF_SERVICES: Duration = Duration::from_secs(10);
/// A rule that is less sure is given the whole window.
const SURE: f64 = 0.85;

/// A critical finding that a rule is sure of, as far as two looks can find it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    rule: &'static str,
    about: Key,
    /// A backend may stand behind it.
    is_of_service: bool,
}

/// What these findings, in their order, claim; nothing if one that nobody is sure of stands first. What is about the capture
/// itself is no claim.
pub fn claims(findings: &[Finding], kb: &Kb) -> Vec<Claim> {
    let is_of_capture = |f: &Finding| kb.entry(f.rule).is_some_and(|entry| entry.layer == Layer::Capture);
    let mut grave = findings.iter().filter(|f| f.severity == Severity::Critical && !is_of_capture(f)).peekable();
    match grave.peek() {
        Some(first) if first.confidence >= SURE => grave.filter(|f| f.confidence >= SURE).map(claim).collect(),
        _ => Vec::new(),
    }
}

fn claim(finding: &Finding) -> Claim {
    let is_of_service = finding.subject.vip.is_some() && finding.subject.backend.is_none();
    Claim { rule: finding.rule, about: finding.subject.key(), is_of_service }
}

/// The looks so far.
#[derive(Debug, Default)]
pub struct Enough {
    last: Vec<Claim>,
}

impl Enough {
    /// Takes what was claimed so long after the window was opened, and says whether that suffices: it stood at the last
    /// look, too, and nothing came since.
    pub fn is_it(&mut self, elapsed: Duration, claims: Vec<Claim>) -> bool {
        let stands = !claims.is_empty() && claims.iter().all(|claim| self.last.contains(claim));
        let earliest = if claims.iter().any(|claim| claim.is_of_service) { EARLIEST_OF_SERVICES } else { EARLIEST };
        self.last = claims;
        stands && elapsed >= earliest
    }
}

#[cfg(test)]
mod tests {
    use ktrace_analyzer::capture::Evidence;
    use ktrace_analyzer::finding::{Signal, Subject};
    use ktrace_bundle::event::Endpoint;

    use super::*;

    fn finding(rule: &'static str, comm: &str) -> Finding {
        Finding {
            rule,
            severity: Severity::Critical,
            title: String::new(),
            signal: Signal { name: "share", value: 100.0, unit: "percent", threshold: 90.0 },
            subject: Subject { comm: Some(comm.into()), netns: Some(1), ..Subject::default() },
            cause: String::new(),
            impact: String::new(),
            next_steps: Vec::new(),
            share: 1.0,
            confidence: 0.95,
            evidence: Evidence::default(),
            symptoms: Vec::new(),
            covers: None,
        }
    }

    fn refused() -> Finding {
        finding("tcp.refused", "api")
    }

    /// The second of the looks, one a second from the first on, that suffices.
    fn ends_at(looks: impl Fn(u64) -> Vec<Finding>) -> Option<u64> {
        let (mut enough, kb) = (Enough::default(), Kb::new().unwrap());
        (1..=15).find(|s| enough.is_it(Duration::from_secs(*s), claims(&looks(*s), &kb)))
    }

    #[test]
    fn the_help_says_when_it_ends_at_the_earliest() {
        let told = format!("after {} s at the\nearliest", EARLIEST.as_secs_f64());
        assert!(crate::cli::doctor::AFTER.contains(&told), "{told}");
    }

    #[test]
    fn a_fault_that_is_clear_from_the_start_ends_it_when_queries_can_be_judged() {
        assert_eq!(ends_at(|_| vec![refused()]), Some(7));
    }

    #[test]
    fn a_fault_is_looked_at_twice() {
        assert_eq!(ends_at(|s| if s < 9 { Vec::new() } else { vec![refused()] }), Some(10));
        assert_eq!(ends_at(|s| if s % 2 == 0 { Vec::new() } else { vec![refused()] }), None);
    }

    #[test]
    fn nothing_ends_while_there_is_something_new() {
        let dead = || finding("dns.no_reply", "api");
        // the second fault shows at 7 s, in the middle of the two looks that would have been enough
        assert_eq!(ends_at(|s| if s < 7 { vec![refused()] } else { vec![refused(), dead()] }), Some(8));
        // and where it comes first another look is taken, too
        assert_eq!(ends_at(|s| if s < 7 { vec![refused()] } else { vec![dead(), refused()] }), Some(8));
        // one that goes away is no reason to go on
        assert_eq!(ends_at(|s| if s < 7 { vec![refused(), dead()] } else { vec![refused()] }), Some(7));
    }

    #[test]
    fn the_same_fault_of_another_process_is_another_one() {
        let names = ["a", "b", "c"];
        assert_eq!(ends_at(|s| vec![finding("tcp.refused", names[s as usize % 3])]), None);
    }

    #[test]
    fn only_what_is_grave_and_certain_ends_it() {
        let warning = || Finding { severity: Severity::Warning, ..refused() };
        let unsure = || Finding { confidence: 0.75, ..refused() };
        assert_eq!(ends_at(|_| vec![warning()]), None);
        assert_eq!(ends_at(|_| vec![unsure()]), None);
        // what stands above it may be the cause
        assert_eq!(ends_at(|_| vec![unsure(), finding("tcp.refused", "b")]), None);
        assert_eq!(ends_at(|_| vec![refused(), unsure()]), Some(7));
    }

    #[test]
    fn what_the_capture_itself_lacks_is_no_fault_of_the_machine() {
        assert_eq!(ends_at(|_| vec![finding("evidence.lossy", "")]), None);
        assert_eq!(ends_at(|_| vec![finding("evidence.lossy", ""), refused()]), Some(7));
    }

    #[test]
    fn failures_at_a_service_wait_for_the_backend_behind_them() {
        let vip = Some(Endpoint::new([10, 96, 0, 1].into(), 80));
        let at_vip = |backend| {
            let subject = Subject { vip, backend, ..refused().subject };
            Finding { subject, ..refused() }
        };
        assert_eq!(ends_at(|_| vec![at_vip(None)]), Some(10));
        let backend = Endpoint::new([10, 244, 1, 2].into(), 8080);
        assert_eq!(ends_at(|_| vec![at_vip(Some(backend))]), Some(7));
    }
}
