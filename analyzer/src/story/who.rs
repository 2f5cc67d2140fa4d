//! Who owns a socket, in a sentence and in JSON; or why that is not known.

use ktrace_bundle::attribution::{Attribution, OwnerSource};
use ktrace_bundle::event::Identity;
use ktrace_bundle::workload::Home;

use crate::capture::{Capture, ProcId};
use crate::escape::shown;

/// A process, and where it runs. All texts are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Who {
    /// Its name.
    pub comm: Option<String>,
    /// Its process id.
    pub pid: Option<u32>,
    /// Its pod: `namespace/pod/container`, as far as it has names, or else `pod UID`.
    pub pod: Option<String>,
    /// The systemd unit or cgroup of a process of the host.
    pub unit: Option<String>,
    /// Why it is not known.
    pub why: Option<String>,
}

impl Who {
    /// The owner, or the reason that the first record gives for there being none.
    pub(super) fn new(owner: Option<ProcId>, id: Option<&Identity>, capture: &Capture) -> Self {
        let Some((proc, process)) = owner.and_then(|proc| Some((proc, capture.processes.get(proc)?))) else {
            let why = id.and_then(|id| match &id.owner {
                Attribution::Unresolved(reason) => Some(shown(&reason.text())),
                Attribution::Resolved(owner) => {
                    (owner.source == OwnerSource::Kernel).then(|| "the kernel itself".to_owned())
                }
            });
            return Self { why: Some(why.unwrap_or_else(|| "no line names its owner".to_owned())), ..Self::default() };
        };
        let (pod, unit) = match capture.processes.home(proc) {
            Some(Home::Pod(workload)) => {
                let names = [&workload.namespace, &workload.pod, &workload.container];
                let names: Vec<_> = names.into_iter().flatten().map(|name| shown(name)).collect();
                let uid = || format!("pod {}", shown(&workload.pod_uid));
                (Some(if names.is_empty() { uid() } else { names.join("/") }), None)
            }
            Some(Home::Host(unit)) => (None, Some(shown(unit))),
            None => (None, None),
        };
        Self { comm: Some(shown(&process.comm)), pid: Some(process.pid), pod, unit, why: None }
    }

    /// `` `curl` (pid 4711) in shop/web-1 ``.
    pub fn in_words(&self) -> String {
        let comm = match self.comm.as_deref() {
            Some(comm) if !comm.is_empty() => format!("`{comm}`"),
            _ => "a process that is not known".to_owned(),
        };
        let pid = self.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        let pod = self.pod.as_ref().map_or_else(String::new, |pod| format!(" in {pod}"));
        format!("{comm}{pid}{pod}")
    }
}
