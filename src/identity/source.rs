//! Who can tell what pods and containers are called, what he has told so far, and how that went.

use std::io;
use std::time::Duration;

use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::why::Reason;
use ktrace_bundle::workload::{Via, Workload};

use super::names::{Called, Names};

/// Longest text of others that goes into a report, bytes.
const LONGEST: usize = 256;

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
        }
    }

    /// Where it is asked.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// It is being asked.
    pub const fn begin(&mut self) {
        self.begun += 1;
    }

    /// Takes what came of it, and returns whether any name is new.
    pub fn take(&mut self, answer: Result<(Names, Option<String>), Failure>, took: Duration) -> bool {
        self.over = self.begun;
        match answer {
            Ok((names, version)) => {
                self.version = version.map(|text| clip(&text)).or(self.version.take());
                self.slowest = self.slowest.max(Some(took));
                self.failure = None;
                self.names.learn(names)
            }
            Err(failure) => {
                // one that was never there has not failed
                if failure.reason != Reason::SourceAbsent || self.slowest.is_some() {
                    self.errors += 1;
                    self.last_failure = Some(failure.clone());
                }
                self.failure = Some(failure);
                false
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
            None if self.slowest.is_none() => Reason::SourceTimeout,
            None => Reason::NotFound,
        }
    }

    /// Adds to a workload of which only the ids are known what they are called; returns whether that is all there is.
    pub fn name(&self, workload: &mut Workload) -> bool {
        let Some(pod) = self.names.pod(&workload.pod_uid) else { return false };
        let called = workload.container_id.as_deref().map(|id| self.names.container(pod, id));
        // an earlier source may have known the pod, and this one the container, too
        if workload.pod.is_some() && !matches!(called, Some(Some(_))) {
            return false;
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
            None if self.over == 0 => "not_asked",
            None => "answered",
        };
        SourceReport {
            name: self.via.as_str().into(),
            outcome: outcome.into(),
            address: Some(self.address.clone()),
            version: self.version.clone(),
            latency_us: self.slowest.map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX)),
            entries: Some(self.names.len() as u64),
            errors: Some(self.errors),
            error: self.last_failure.as_ref().map(|failure| failure.text.clone()),
            evicted: Some(self.names.forgotten()),
        }
    }
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
