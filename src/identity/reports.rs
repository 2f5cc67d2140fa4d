//! What the sources of names answered: for the manifest, and for `ktrace check`.

use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::workload::Via;

use super::source::{Source, is_runtime};
use super::watch::Watch;
use super::{Homes, LOOKED};

/// The container runtimes at these sockets, with their versions.
///
/// # Errors
/// Why there is none that answers.
pub fn runtimes(sockets: &[String]) -> Result<String, String> {
    let watch = Watch::start(sockets, Vec::new());
    watch.wait_for_first(LOOKED);
    let reports: Vec<_> = watch.sources(Source::report).filter(is_runtime).collect();
    let found: Vec<_> = reports
        .iter()
        .filter(|it| it.outcome == "answered")
        .filter_map(|it| Some(format!("{} (`{}`)", it.version.as_deref()?, it.address.as_deref()?)))
        .collect();
    if !found.is_empty() {
        return Ok(found.join(", "));
    }
    Err(silent(&reports))
}

/// Why none of these answers.
fn silent(runtimes: &[SourceReport]) -> String {
    let why = |it: &SourceReport| Some(format!("`{}`: {}", it.address.as_deref()?, it.error.as_deref()?));
    let why: Vec<_> = runtimes.iter().filter_map(why).collect();
    match runtimes {
        _ if !why.is_empty() => why.join("; "),
        [SourceReport { address: Some(address), .. }] => format!("`{address}` is not there"),
        _ => "no container runtime is there".into(),
    }
}

impl Homes {
    /// What the sources answered.
    pub fn reports(&self) -> Vec<SourceReport> {
        let cgroups = SourceReport {
            name: "cgroup".into(),
            outcome: if self.paths.are_there() { "answered" } else { "absent" }.into(),
            entries: Some(self.known.len() as u64),
            evicted: Some(self.evicted),
            ..SourceReport::default()
        };
        let (runtimes, directories): (Vec<_>, Vec<_>) = self.watch.sources(Source::report).partition(is_runtime);
        let mut reports = vec![cgroups];
        // of the places where a runtime might be, those where none is say nothing one by one
        let is_worth = |it: &SourceReport| it.outcome != "absent" || runtimes.len() == 1;
        if runtimes.iter().any(is_worth) {
            reports.extend(runtimes.iter().filter(|it| is_worth(it)).cloned());
        } else {
            let outcome = if runtimes.is_empty() { "not_requested" } else { "absent" };
            reports.push(SourceReport {
                name: Via::Cri.as_str().into(),
                outcome: outcome.into(),
                ..SourceReport::default()
            });
        }
        reports.extend(directories);
        reports
    }

    /// Why a runtime that was asked for did not do.
    pub fn runtime_missing(&self) -> Option<String> {
        let runtimes: Vec<_> = self.watch.sources(Source::report).filter(is_runtime).collect();
        let is_missing = self.naming.is_runtime_required && runtimes.iter().all(|it| it.latency_us.is_none());
        is_missing
            .then(|| format!("`--with-cri=true` asks for a container runtime, and none answers: {}", silent(&runtimes)))
    }
}
