//! Who can tell what pods and containers are called, what he has told so far, and how that went.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::why::Reason;
use ktrace_bundle::workload::{Via, Workload};

use super::names::{Called, Names, Span};
use super::peers::Addresses;

/// Longest text of others that goes into a report, bytes.
const LONGEST: usize = 256;
/// So long a look may take before what the source does not know is put down to that.
const SLOW: Duration = Duration::from_millis(200);

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For `why`.
    pub reason: Reason,
    text: String,
}

impl Failure {
    /// What the system says.
    pub fn io(error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => Reason::SourceAbsent,
            io::ErrorKind::PermissionDenied => Reason::NoPermission,
            _ => Reason::SourceError,
        };
        Self { reason, text: error.to_string() }
    }

    /// It took too long.
    pub fn timeout(longest: Duration) -> Self {
        Self { reason: Reason::SourceTimeout, text: format!("no answer within {} s", longest.as_secs_f32()) }
    }

    /// Anything else, in words.
    pub fn error(text: &str) -> Self {
        Self { reason: Reason::SourceError, text: clip(text) }
    }
}

/// One source of names.
#[derive(Debug)]
pub struct Source {
    via: Via,
    address: String,
    version: Option<String>,
    names: Names,
    slowest: Option<Duration>,
    /// Why the last look failed; `None` also before the first one.
    failure: Option<Failure>,
    /// Why one failed, if any ever did.
    last_failure: Option<Failure>,
    errors: u64,
    /// Looks that were begun, and that are over.
    begun: u64,
    over: u64,
    /// When the one began that is not over.
    since: Option<Instant>,
    /// Who has which address, as it says.
    addresses: Arc<Addresses>,
    /// What it told unasked; `None`: it tells nothing by itself.
    notices: Option<u64>,
}

impl Source {
    /// Not asked yet.
    pub fn new(via: Via, address: String) -> Self {
        Self {
            via,
            address,
            version: None,
            names: Names::default(),
            slowest: None,
            failure: None,
            last_failure: None,
            errors: 0,
            begun: 0,
            over: 0,
            since: None,
            addresses: Arc::default(),
            notices: None,
        }
    }

    /// Where it is asked.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it was found to speak.
    pub const fn speaks(&mut self, via: Via) {
        self.via = via;
    }

    /// It has so many things more to tell by itself, or none yet.
    pub fn hear(&mut self, notices: u64) {
        self.notices = Some(self.notices.unwrap_or(0) + notices);
    }

    /// It told that a container begins. Returns whether it has not told its name.
    pub fn take_begin(&mut self, id: &str) -> bool {
        self.names.set_begun(id);
        !self.names.has_container(id)
    }

    /// It told that a container has ended.
    pub fn take_end(&mut self, id: &str, at: DateTime<Utc>) {
        self.names.set_ended(id, at);
    }

    /// When this container was made and ended, as far as it has told.
    pub fn span(&self, id: &str) -> Span {
        self.names.span(id)
    }

    /// Takes over who has which address, and returns whether anything is new.
    pub fn locate(&mut self, addresses: Addresses) -> bool {
        let is_new = *self.addresses != addresses;
        self.addresses = addresses.into();
        is_new
    }

    /// Who has which address.
    pub fn addresses(&self) -> Arc<Addresses> {
        Arc::clone(&self.addresses)
    }

    /// It is being asked.
    pub fn begin(&mut self) {
        self.begun += 1;
        self.since = Some(Instant::now());
    }

    /// Takes what came of it, and returns whether any name is new.
    pub fn take(&mut self, answer: Result<(Names, Option<String>), Failure>, took: Duration) -> bool {
        self.over = self.begun;
        self.since = None;
        match answer {
            Ok((names, version)) => {
                self.version = version.map(|text| clip(&text)).or(self.version.take());
                self.slowest = self.slowest.max(Some(took));
                self.failure = None;
                self.names.learn(names)
            }
            Err(failure) => {
                // who has which address by now nobody knows
                let had_addresses = self.locate(Addresses::default());
                // one that was never there has not failed
                if failure.reason != Reason::SourceAbsent || self.slowest.is_some() {
                    self.errors += 1;
                    self.last_failure = Some(failure.clone());
                }
                self.failure = Some(failure);
                had_addresses
            }
        }
    }

    /// The number of the first look that begins after now.
    pub const fn next_look(&self) -> u64 {
        self.begun + 1
    }

    /// Whether that look is over, or none will tell more: nobody is there.
    pub fn has_looked(&self, number: u64) -> bool {
        self.over >= number || (self.over > 0 && self.is_absent())
    }

    /// Whether it is there and has never answered.
    pub fn is_pending(&self) -> bool {
        self.slowest.is_none() && self.begun > 0 && !self.is_absent()
    }

    /// Whether there is nobody to ask.
    pub fn is_absent(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.reason == Reason::SourceAbsent)
    }

    /// Whether the last look failed, at one that is there or was.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some() && (self.slowest.is_some() || !self.is_absent())
    }

    /// Why it does not know a name: it is not there, could not be asked, has not answered yet, or does not have it.
    pub fn reason(&self) -> Reason {
        match &self.failure {
            Some(failure) => failure.reason.clone(),
            None if self.slowest.is_none() || self.is_slow() => Reason::SourceTimeout,
            None => Reason::NotFound,
        }
    }

    fn is_slow(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() > SLOW)
    }

    /// Adds to a workload of which only the ids are known what they are called; returns whether that is all there is.
    pub fn name(&self, workload: &mut Workload) -> bool {
        let Some(pod) = self.names.pod(&workload.pod_uid) else { return false };
        let called = workload.container_id.as_deref().map(|id| self.names.container(pod, id));
        // an earlier source may have known the pod, and this one the container, too
        if workload.pod.is_some() && !matches!(called, Some(Some(_))) {
            return false;
        }
        let derived = self.names.workload(&workload.pod_uid);
        if derived.is_some() || workload.pod.as_ref() != Some(&pod.pod) {
            workload.workload = derived.map(|(name, _)| name.to_owned());
            workload.workload_from = derived.map(|(_, from)| from.to_owned());
        }
        workload.via = self.via;
        workload.namespace = Some(pod.namespace.clone());
        workload.pod = Some(pod.pod.clone());
        workload.container = match called {
            Some(Some(Called::Container(name))) => Some(name.to_owned()),
            _ => None,
        };
        !matches!(called, Some(None))
    }

    /// For the manifest.
    pub fn report(&self) -> SourceReport {
        let outcome = match &self.failure {
            Some(_) if self.is_absent() && self.errors == 0 => "absent",
            Some(_) => "failed",
            None if self.over > 0 => "answered",
            None if self.begun > 0 => "failed",
            None => "not_asked",
        };
        let unanswered = (self.begun > 0 && self.over == 0).then(|| "no answer yet".to_owned());
        SourceReport {
            name: self.via.as_str().into(),
            outcome: outcome.into(),
            address: Some(self.address.clone()),
            version: self.version.clone(),
            latency_us: self.slowest.map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX)),
            entries: Some(self.names.len() as u64),
            errors: Some(self.errors),
            error: self.last_failure.as_ref().map(|failure| failure.text.clone()).or(unanswered),
            evicted: Some(self.names.forgotten()),
            notices: self.notices,
        }
    }
}

/// Whether it is of a runtime, however that was asked.
pub fn is_runtime(report: &SourceReport) -> bool {
    [Via::Cri, Via::Containerd].iter().any(|via| via.as_str() == report.name)
}

/// At most so many bytes, without control characters.
fn clip(text: &str) -> String {
    let clean = text.chars().filter(|c| !c.is_control());
    clean
        .scan(0, |len, c| {
            *len += c.len_utf8();
            (*len <= LONGEST).then_some(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Source {
        let mut source = Source::new(Via::Cri, "/run/a.sock".into());
        source.begin();
        source
    }

    fn slow(mut source: Source) -> Source {
        source.since = source.since.and_then(|since| since.checked_sub(2 * SLOW));
        source
    }

    #[test]
    fn one_that_was_asked_and_has_not_answered_is_not_one_that_was_not_there() {
        let report = asked().report();
        assert_eq!((&*report.outcome, report.error.as_deref()), ("failed", Some("no answer yet")));
        let report = Source::new(Via::Cri, "/run/a.sock".into()).report();
        assert_eq!((&*report.outcome, report.error), ("not_asked", None));
    }

    #[test]
    fn what_a_source_does_not_have_is_not_found_only_while_it_answers() {
        let mut source = asked();
        assert_eq!(source.reason(), Reason::SourceTimeout);
        source.take(Ok((Names::default(), None)), Duration::ZERO);
        assert_eq!(source.reason(), Reason::NotFound);
        source.begin();
        assert_eq!(source.reason(), Reason::NotFound, "the look has just begun");
        let mut source = slow(source);
        assert_eq!(source.reason(), Reason::SourceTimeout);
        source.take(Err(Failure::timeout(Duration::from_secs(2))), Duration::from_secs(2));
        assert_eq!(source.reason(), Reason::SourceTimeout);
    }
}
