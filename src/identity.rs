//! Whose a process is, beyond its pid: the pod and container, or the service of the host. The cgroup that it is in
//! tells which pod and container, by their ids; the container runtime, or what the kubelet keeps on disk, tells what
//! these are called.

mod containerd;
mod cri;
mod derived;
mod kubelet_dir;
mod names;
mod peers;
mod place;
mod pod_logs;
mod reports;
mod source;
mod watch;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ktrace_bundle::attribution::{Attribution, Owner};
use ktrace_bundle::event::{Identity, LINE_VERSION};
use ktrace_bundle::why::Reason;
use ktrace_bundle::workload::{Home, Via, Workload, WorkloadRecord};

use crate::cgroup::{Hierarchy, Paths};
use crate::plan::filters::home::{Answer, HomeFilters};
use crate::plan::naming::Naming;
use peers::Peers;
use place::Place;
use source::Source;
use watch::{Directory, Watch};

pub use cri::WELL_KNOWN;
pub use reports::runtimes;

/// Cgroups that are remembered; a node has some hundreds. 16,384 of them are some 8 MiB.
const MOST: usize = 1 << 14;
/// So late after a container was seen first its names may come for its first events to wait for them.
pub const LATEST: Duration = Duration::from_millis(500);
/// So long after that names are asked for that the sources do not have: a runtime lists what it starts a moment later.
/// After that only those are asked that did not answer.
const RETRIED: Duration = Duration::from_secs(10);
/// So often the sources are asked who is there, whether a name is missing or not: addresses change hands.
const OFTEN: Duration = Duration::from_secs(5);
/// Longer than a look at a source may take.
const LOOKED: Duration = cri::LONGEST.saturating_add(Duration::from_millis(500));

/// What each cgroup is home to.
pub struct Homes {
    paths: Paths,
    watch: Watch,
    naming: Naming,
    filters: HomeFilters,
    /// What the filters say of cgroups, since [`Homes::decided`].
    decided: Vec<(Cgroup, Answer)>,
    /// Of the names as [`Homes::refresh`] found them.
    generation: u64,
    known: HashMap<Cgroup, Known>,
    /// Paths of cgroups that were made meanwhile, for those that are gone when they are looked up.
    made: HashMap<Cgroup, String>,
    /// When cgroups were removed, boot time, ns.
    removed: HashMap<Cgroup, u64>,
    peers: Peers,
    evicted: u64,
    /// Why names are missing, and whether they were asked for again, since [`Homes::refresh`].
    why_nameless: Option<Reason>,
    has_asked_again: bool,
    /// When everybody was asked who is there now.
    asked_at: Instant,
    /// When names were asked for at the end.
    asked_at_end: Option<Instant>,
}

/// An id, and where it is one.
pub type Cgroup = (Hierarchy, u64);

struct Known {
    home: Attribution<Home>,
    /// The key that a name is missing for.
    missing: Option<&'static str>,
    /// What the filters by pod say.
    answer: Answer,
    first_seen: Instant,
    generation: u64,
}

impl Homes {
    /// Nothing known yet; begins to ask.
    pub fn new(naming: &Naming, filters: &HomeFilters, node: &str) -> Self {
        Self {
            paths: Paths::open(),
            watch: Watch::start(&naming.sockets, directories(naming)),
            naming: naming.clone(),
            filters: filters.clone(),
            decided: Vec::new(),
            generation: 0,
            known: HashMap::new(),
            made: HashMap::new(),
            removed: HashMap::new(),
            peers: Peers::new(node),
            evicted: 0,
            why_nameless: None,
            has_asked_again: false,
            asked_at_end: None,
            asked_at: Instant::now(),
        }
    }

    /// Waits for the first answers, so that what exists already has its names from the first line on; not for long.
    pub fn wait_for_first_names(&self) {
        self.watch.wait_for_first(LATEST);
    }

    /// Asks once more if names are missing that were not missing the last time, and waits for the answers; not for long.
    pub fn wait_for_last_names(&mut self) {
        let before = self.asked_at_end.replace(Instant::now());
        let is_new = |known: &Known| before.is_none_or(|before| known.first_seen > before);
        if self.known.values().any(|known| known.missing.is_some() && is_new(known)) {
            self.watch.ask_and_wait(LATEST);
        }
        self.refresh(false);
        let cgroups: Vec<_> = self.known.keys().copied().collect();
        cgroups.into_iter().for_each(|cgroup| self.look_up(cgroup));
    }

    /// A cgroup was made at this path.
    pub fn made(&mut self, cgroup: Cgroup, path: String) {
        if self.made.len() >= MOST {
            self.evicted += self.made.len() as u64;
            self.made.clear();
        }
        self.made.insert(cgroup, path);
        // an event that came before this notice has asked in vain
        if self.known.get(&cgroup).is_some_and(|known| known.home.value().is_none()) {
            self.known.remove(&cgroup);
        }
    }

    /// A cgroup was removed, at this boot time, ns.
    pub fn removed(&mut self, cgroup: Cgroup, boot_ns: u64) {
        if self.removed.len() < MOST {
            self.removed.insert(cgroup, boot_ns);
        } else {
            self.evicted += 1;
        }
        // a pod that ends gives its address back
        if matches!(self.known.get(&cgroup).map(|it| &it.home), Some(Attribution::Resolved(Home::Pod(_)))) {
            self.watch.ask();
        }
    }

    /// What became of each cgroup of a pod, by its id.
    /// `utc_of`: the time that a boot time stands for.
    pub fn workloads(&mut self, utc_of: impl Fn(u64) -> DateTime<Utc>) -> Vec<WorkloadRecord> {
        let why = self.why_nameless();
        let record = |(cgroup, known): (&Cgroup, &Known)| {
            let Attribution::Resolved(Home::Pod(workload)) = &known.home else { return None };
            let missing = known.missing.map(|key| (key.to_owned(), why.text().into_owned()));
            let hierarchy = cgroup.0.why().map(|reason| ("cgroup_id".to_owned(), reason.text().into_owned()));
            let why = missing.into_iter().chain(hierarchy).collect();
            let told = workload.container_id.as_deref().map(|id| self.watch.span(id)).unwrap_or_default();
            let removed_at = || self.removed.get(cgroup).map(|boot_ns| utc_of(*boot_ns));
            let (created_at, ended_at) = (told.created_at, told.ended_at.or_else(removed_at));
            let (v, k8s) = (LINE_VERSION, Workload::clone(workload));
            Some(WorkloadRecord { v, cgroup_id: cgroup.1, k8s, created_at, ended_at, why })
        };
        let mut records: Vec<_> = self.known.iter().filter_map(record).collect();
        records.sort_by(|a, b| (a.cgroup_id, &a.why).cmp(&(b.cgroup_id, &b.why)));
        records
    }

    /// Takes over what was learnt meanwhile, once for each turn of the event path; returns whether there is anything new.
    /// `is_waited_for`: what is still missing is asked for again.
    pub fn refresh(&mut self, is_waited_for: bool) -> bool {
        self.why_nameless = None;
        self.has_asked_again = is_waited_for;
        if is_waited_for || self.asked_at.elapsed() >= OFTEN {
            self.ask();
        }
        let generation = self.watch.generation();
        let is_new = generation != self.generation;
        self.generation = generation;
        if is_new || self.peers.are_old() {
            self.peers.learn(self.watch.sources(Source::addresses));
        }
        is_new
    }

    /// Asks all that were there the last time.
    fn ask(&mut self) {
        self.asked_at = Instant::now();
        if self.watch.has_anybody() {
            self.watch.ask();
        }
    }

    /// Says in a record what its owner belongs to, and who is at the other end. Returns the owner's cgroup where names are
    /// missing that may come in a moment.
    pub fn settle(&mut self, id: &mut Identity) -> Option<Cgroup> {
        let cgroup = self.settle_owner(id);
        id.peer = self.peers.of(id);
        cgroup
    }

    fn settle_owner(&mut self, id: &mut Identity) -> Option<Cgroup> {
        let Attribution::Resolved(Owner { cgroup_id, .. }) = &id.owner else {
            id.home = Attribution::Unresolved(Reason::NoOwner);
            return None;
        };
        let Some(cgroup_id) = *cgroup_id else {
            id.home = Attribution::Unresolved(Reason::NotFound);
            return None;
        };
        let cgroup = (Hierarchy::of(id.why.get("cgroup_id")), cgroup_id);
        self.look_up(cgroup);
        let known = self.known.get(&cgroup)?;
        id.home = known.home.clone();
        let (missing, first_seen) = (known.missing?, known.first_seen);
        id.why.set(missing, self.why_nameless());
        (first_seen.elapsed() < LATEST && self.watch.has_anybody()).then_some(cgroup)
    }

    /// What the filters by pod say about processes in this cgroup, and whether that may be known in a moment if it is not.
    pub fn answer(&mut self, cgroup: Option<Cgroup>) -> (Answer, bool) {
        if self.filters.is_off() {
            return (Answer::Passes, false);
        }
        let Some(cgroup) = cgroup else { return (Answer::Unknown, false) };
        self.look_up(cgroup);
        let Some(known) = self.known.get(&cgroup) else { return (Answer::Unknown, false) };
        let may_come = known.missing.is_some() && known.first_seen.elapsed() < LATEST && self.watch.has_anybody();
        (known.answer, may_come)
    }

    /// Whether the filters by pod refuse what this owner belongs to.
    pub fn refuses(&mut self, id: &Identity) -> bool {
        let cgroup =
            id.owner.value().and_then(|owner| Some((Hierarchy::of(id.why.get("cgroup_id")), owner.cgroup_id?)));
        matches!(self.answer(cgroup).0, Answer::Refused(_))
    }

    /// What the filters by pod say of cgroups and had not said before: once for each.
    pub fn decided(&mut self) -> Vec<(Cgroup, Answer)> {
        std::mem::take(&mut self.decided)
    }

    /// Whether all of its names are there by now.
    pub fn is_named(&mut self, cgroup: Cgroup) -> bool {
        self.look_up(cgroup);
        self.known.get(&cgroup).is_none_or(|known| known.missing.is_none())
    }

    /// The first source that is there says it.
    fn why_nameless(&mut self) -> Reason {
        let ask = || {
            let mut reasons = self.watch.sources(Source::reason);
            reasons.find(|reason| *reason != Reason::SourceAbsent).unwrap_or(Reason::SourceAbsent)
        };
        self.why_nameless.get_or_insert_with(ask).clone()
    }

    /// A look-up takes some 6 us, once for each cgroup: its path does not change for as long as it lives. Names may come
    /// later.
    fn look_up(&mut self, cgroup: Cgroup) {
        if let Some(known) = self.known.get_mut(&cgroup) {
            if known.generation != self.generation
                && let Attribution::Resolved(Home::Pod(workload)) = &known.home
            {
                known.generation = self.generation;
                // from the ids anew: one that answers late may be believed before the others, and know more
                let (container_id, pod_uid) = (workload.container_id.clone(), workload.pod_uid.clone());
                let (later, missing) = named(&self.watch, Workload { container_id, ..Workload::of_cgroup(pod_uid) });
                if later.names() >= workload.names() {
                    known.missing = missing;
                    known.home = Attribution::Resolved(Home::Pod(Arc::new(later)));
                }
                let answer = answer(&self.filters, &self.watch, &known.home, known.missing);
                if answer != Answer::Unknown && answer != known.answer {
                    known.answer = answer;
                    self.decided.push((cgroup, answer));
                }
            }
            if known.missing.is_some() && !self.has_asked_again {
                self.has_asked_again = true;
                if known.first_seen.elapsed() < RETRIED {
                    self.watch.ask();
                } else {
                    self.watch.ask_those_that_failed();
                }
            }
            return;
        }
        let (hierarchy, id) = cgroup;
        let path = self.paths.path_of(hierarchy, id).or_else(|e| self.made.get(&cgroup).cloned().ok_or(e));
        let (home, missing) = match path {
            Ok(path) => self.home_of(&path),
            Err(reason) => (Attribution::Unresolved(reason), None),
        };
        if self.known.len() >= MOST {
            self.evicted += self.known.len() as u64;
            self.known.clear();
        }
        if missing.is_some() {
            self.watch.ask();
        }
        let answer = answer(&self.filters, &self.watch, &home, missing);
        if !self.filters.is_off() && answer != Answer::Unknown {
            self.decided.push((cgroup, answer));
        }
        let known = Known { home, missing, answer, first_seen: Instant::now(), generation: self.generation };
        self.known.insert(cgroup, known);
    }

    fn home_of(&self, path: &str) -> (Attribution<Home>, Option<&'static str>) {
        match place::of(path) {
            Place::Pod { uid, container_id } => {
                let container_id = container_id.map(str::to_owned);
                let (workload, missing) = named(&self.watch, Workload { container_id, ..Workload::of_cgroup(uid) });
                (Attribution::Resolved(Home::Pod(Arc::new(workload))), missing)
            }
            Place::Host { unit } => (Attribution::Resolved(Home::Host(Arc::from(unit))), None),
        }
    }
}

/// The same with its names, as far as they are known, and the key of the first that is not.
fn named(watch: &Watch, workload: Workload) -> (Workload, Option<&'static str>) {
    let workload = RefCell::new(workload);
    let is_whole = watch.sources(|source| source.name(&mut workload.borrow_mut())).any(|is_whole| is_whole);
    let workload = workload.into_inner();
    let missing = match &workload.pod {
        _ if is_whole => None,
        None => Some("k8s.pod"),
        Some(_) => Some("k8s.container"),
    };
    (workload, missing)
}

/// What the filters say. The kubelet's own directory is believed after all others: while one of these is still to answer,
/// what it says decides nothing.
fn answer(filters: &HomeFilters, watch: &Watch, home: &Attribution<Home>, missing: Option<&'static str>) -> Answer {
    let by_the_last = |it: &Workload| it.via == Via::KubeletDir;
    match home {
        Attribution::Resolved(Home::Pod(it)) if by_the_last(it) && watch.sources(Source::is_pending).any(|it| it) => {
            Answer::Unknown
        }
        _ => filters.answer(home, missing.is_none()),
    }
}

/// In this order they are believed, after the runtimes.
fn directories(naming: &Naming) -> Vec<Directory> {
    vec![
        Directory { via: Via::PodLogs, root: naming.pod_logs.clone(), read: pod_logs::read },
        Directory { via: Via::KubeletDir, root: naming.kubelet_dir.clone(), read: kubelet_dir::read },
    ]
}

#[cfg(test)]
impl Homes {
    /// Those of a machine with this `/var/log` and no runtime, on which the cgroup is of this pod.
    pub fn of_pod(cgroup: Cgroup, uid: &str, pod_logs: &std::path::Path, filters: &HomeFilters) -> Self {
        let mut homes = Self::new(&Naming { pod_logs: pod_logs.into(), ..Naming::default() }, filters, "");
        homes.wait_for_first_names();
        let (home, missing) = homes.home_of(&format!("/kubepods/pod{uid}"));
        let answer = homes.filters.answer(&home, missing.is_none());
        let known = Known { home, missing, answer, first_seen: Instant::now(), generation: homes.watch.generation() };
        homes.known.insert(cgroup, known);
        homes
    }
}

#[cfg(test)]
#[path = "identity/trust_tests.rs"]
mod trust_tests;

#[cfg(test)]
#[path = "identity/identity_tests.rs"]
mod tests;
