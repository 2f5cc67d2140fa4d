//! What a detector says: findings with their evidence, and rules explained.

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::workload::Home;

use crate::capture::{Evidence, Target};
use crate::escape;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing to wake anybody for.
    Info,
    /// Something does not work as it should.
    Warning,
    /// Something does not work.
    Critical,
}

impl Severity {
    /// The name as it stands in a report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// The number that made the rule fire.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// What was measured.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// From where on it counts.
    pub threshold: f64,
}

/// Whom and what a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// Name of the process: hostile. `None` if the owner is not known.
    pub comm: Option<String>,
    /// The processes of that name, most concerned first.
    pub pids: Vec<u32>,
    /// What they belong to, if that is one thing.
    pub home: Option<Home>,
    /// Own end; the address is absent where the connections differ.
    pub local: Option<Endpoint>,
    /// Other end.
    pub remote: Option<Endpoint>,
    /// Network namespace.
    pub netns: Option<u32>,
    /// The address that was asked, where somebody else gets what is sent there.
    pub vip: Option<Endpoint>,
    /// Who gets it, if that is one.
    pub backend: Option<Endpoint>,
    /// The process at the other end, if that is one of this node.
    pub far: Option<Far>,
}

/// The process at the other end of a subject's sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Far {
    /// It is the one who asked, and the subject the one who was asked.
    pub is_client: bool,
    /// Its name: hostile.
    pub comm: String,
    /// Its process id.
    pub pid: u32,
    /// What it belongs to.
    pub home: Option<Home>,
    /// Its own address, as its socket has it.
    pub end: Endpoint,
}

impl Far {
    /// `` `nginx` in shop/web-2/nginx ``, or with its pid where no pod is known; escaped.
    pub fn who(&self) -> String {
        let comm = escape::shown(&self.comm);
        pod_of(self.home.as_ref())
            .map_or_else(|| format!("`{comm}` (pid {})", self.pid), |pod| format!("`{comm}` in {pod}"))
    }
}

/// What two findings must have in common for one to explain the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Key {
    /// Name of the process.
    pub comm: Option<String>,
    /// Network namespace.
    pub netns: Option<u32>,
    /// The other end.
    pub remote: Option<Endpoint>,
}

impl From<&Target> for Key {
    fn from(target: &Target) -> Self {
        let remote = (target.remote != Endpoint::default()).then_some(target.remote);
        Self { comm: target.comm.clone(), netns: Some(target.netns), remote }
    }
}

/// `namespace/pod/container`, as far as it has names, or else the pod's uid; escaped. `None` on the host.
fn pod_of(home: Option<&Home>) -> Option<String> {
    let Some(Home::Pod(workload)) = home else { return None };
    let names = [&workload.namespace, &workload.pod, &workload.container];
    let names: Vec<_> = names.into_iter().flatten().map(|name| escape::shown(name)).collect();
    Some(if names.is_empty() { format!("pod {}", escape::shown(&workload.pod_uid)) } else { names.join("/") })
}

/// The pod's own name: hostile. `None` on the host.
pub(crate) fn pod_name(home: &Home) -> Option<&str> {
    match home {
        Home::Pod(workload) => workload.pod.as_deref(),
        Home::Host(_) => None,
    }
}

impl Subject {
    /// What makes it the same as another one.
    pub fn key(&self) -> Key {
        Key { comm: self.comm.clone(), netns: self.netns, remote: self.remote }
    }

    /// Where what is sent to the other end is answered.
    pub fn answers_at(&self) -> Option<Endpoint> {
        self.backend.or(self.remote)
    }

    /// The process most concerned.
    pub fn pid(&self) -> Option<u32> {
        self.pids.first().copied()
    }

    /// The process in a sentence, escaped: `` `dig` (pid 4711 and 2 more) ``, `` `dig` (pid 4711) in shop/api-1/api ``.
    pub fn who(&self) -> String {
        let comm = match self.comm.as_deref() {
            Some(comm) if !comm.is_empty() => format!("`{}`", escape::shown(comm)),
            _ => "a process that is not known".to_owned(),
        };
        let process = match (self.pid(), self.pids.len()) {
            (None, _) => comm,
            (Some(pid), 1) => format!("{comm} (pid {pid})"),
            (Some(pid), n) => format!("{comm} (pid {pid} and {} more)", n - 1),
        };
        self.pod().map_or(process.clone(), |pod| format!("{process} in {pod}"))
    }

    /// What it belongs to in a sentence, escaped; `None` on the host.
    pub fn pod(&self) -> Option<String> {
        pod_of(self.home.as_ref())
    }

    /// The other end in a sentence.
    pub fn whom(&self) -> String {
        self.remote.map_or_else(|| "an end that is not known".to_owned(), |r| r.to_string())
    }
}

/// One thing to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it tells.
    pub text: String,
    /// What to type; made of the finding's own numbers and addresses, never of names.
    pub command: Option<String>,
}

impl Step {
    /// A step with a command.
    pub fn run(text: impl Into<String>, command: impl Into<String>) -> Self {
        Self { text: text.into(), command: Some(command.into()) }
    }

    /// A step without one.
    pub fn think(text: impl Into<String>) -> Self {
        Self { text: text.into(), command: None }
    }
}

/// Something that a rule found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Id of the rule.
    pub rule: &'static str,
    /// How bad.
    pub severity: Severity,
    /// One true sentence that names process and destination, escaped.
    pub title: String,
    /// What made the rule fire.
    pub signal: Signal,
    /// Who and what.
    pub subject: Subject,
    /// Why this happens, as far as the evidence carries.
    pub cause: String,
    /// What it does to the process.
    pub impact: String,
    /// What to do next, read-only first.
    pub next_steps: Vec<Step>,
    /// Part of the subject's traffic that is concerned, 0 to 1.
    pub share: f64,
    /// How sure the rule is, 0 to 1.
    pub confidence: f64,
    /// The events that prove it.
    pub evidence: Evidence,
    /// Rules whose finding about the same subject is explained by this one.
    pub symptoms: Vec<&'static str>,
    /// The subjects whose findings by other rules it explains; `None`: its own.
    pub covers: Option<Vec<Key>>,
}

/// What a rule came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It found something.
    Found(Vec<Finding>),
    /// It found nothing, and would have.
    Clear,
    /// It found nothing, and might have missed it.
    Inconclusive {
        /// What was missing.
        why: String,
        /// The user asked for less.
        by_plan: bool,
    },
}
