//! What pods and containers are called, by their ids: what each source of names fills and what events are looked up in.
//!
//! Ids are given once and never again (a UUID, 256 random bits), so what was true of one stays true: a container that is
//! removed keeps its name here, for the events of it that are still on their way.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::derived::Derived;
use super::place::{is_container_id, is_pod_uid};

/// Pods, and containers, that are remembered; a node has some hundreds. 16,384 of each are some 8 MiB.
pub const MOST: usize = 1 << 14;
/// RFC 1123, and so Kubernetes: names of pods are at most this long, the others shorter.
const LONGEST: usize = 253;

/// What a pod is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its own.
    pub pod: String,
}

impl PodName {
    /// `None`: Kubernetes would allow no such names.
    pub fn new(namespace: &str, pod: &str) -> Option<Self> {
        (is_name(namespace) && is_name(pod)).then(|| Self { namespace: namespace.into(), pod: pod.into() })
    }
}

/// What has the id of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called<'a> {
    /// A container of this name.
    Container(&'a str),
    /// What holds the pod's namespaces; nobody has named it.
    Sandbox,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    name: PodName,
    workload: Option<Derived>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Container {
    of: PodName,
    /// `None`: the sandbox.
    name: Option<String>,
    created_at: Option<DateTime<Utc>>,
}

/// When a container was made and when it ended, as far as that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// By the clock of who told it, as the other.
    pub created_at: Option<DateTime<Utc>>,
    /// `None` also where nobody told it.
    pub ended_at: Option<DateTime<Utc>>,
}

/// A time of a runtime: seconds since 1970 and nanoseconds. `None`: it cannot be written in RFC 3339, or nobody has set it.
pub fn instant(seconds: i64, nanos: i64) -> Option<DateTime<Utc>> {
    const YEAR_10000: i64 = 253_402_300_800;
    let at = (1..YEAR_10000).contains(&seconds).then(|| DateTime::from_timestamp(seconds, nanos.try_into().ok()?));
    at.flatten()
}

/// Names by ids.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pods: HashMap<String, Pod>,
    containers: HashMap<String, Container>,
    /// When containers ended, also such whose names come later.
    ended: HashMap<String, DateTime<Utc>>,
    forgotten: u64,
}

impl Names {
    /// Adds a pod, if its uid is one.
    pub fn add_pod(&mut self, uid: &str, name: PodName) {
        if is_pod_uid(uid) && self.pods.len() < MOST {
            self.pods.insert(uid.into(), Pod { name, workload: None });
        }
    }

    /// Adds of a pod that was added what its labels tell.
    pub fn add_workload(&mut self, uid: &str, workload: Derived) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.workload = Some(workload);
        }
    }

    /// Adds a container of a pod, if its id and its name are such.
    pub fn add_container(&mut self, id: &str, of: PodName, name: &str) {
        if is_name(name) {
            self.add(id, Container { of, name: Some(name.into()), created_at: None });
        }
    }

    /// Adds the sandbox of a pod, if its id is one.
    pub fn add_sandbox(&mut self, id: &str, of: PodName) {
        self.add(id, Container { of, name: None, created_at: None });
    }

    fn add(&mut self, id: &str, container: Container) {
        if is_container_id(id) && self.containers.len() < MOST {
            self.containers.insert(id.into(), container);
        }
    }

    /// Says when a container was made that has been added.
    pub fn set_created(&mut self, id: &str, at: Option<DateTime<Utc>>) {
        if let Some(container) = self.containers.get_mut(id) {
            container.created_at = at;
        }
    }

    /// Says when a container ended, if its id is one. Without room those are forgotten first that have no name.
    pub fn set_ended(&mut self, id: &str, at: DateTime<Utc>) {
        if !is_container_id(id) {
            return;
        }
        if self.ended.len() >= MOST && !self.ended.contains_key(id) {
            self.forgotten += forget(&mut self.ended, &self.containers);
        }
        if self.ended.len() >= MOST {
            self.forgotten += self.ended.len() as u64;
            self.ended.clear();
        }
        self.ended.insert(id.into(), at);
    }

    /// Says that a container runs: whatever ended of it before has begun again.
    pub fn set_begun(&mut self, id: &str) {
        self.ended.remove(id);
    }

    /// When a container was made and ended.
    pub fn span(&self, id: &str) -> Span {
        let created_at = self.containers.get(id).and_then(|container| container.created_at);
        Span { created_at, ended_at: self.ended.get(id).copied() }
    }

    /// Whether this container has its name.
    pub fn has_container(&self, id: &str) -> bool {
        self.containers.contains_key(id)
    }

    /// What a pod is called.
    pub fn pod(&self, uid: &str) -> Option<&PodName> {
        self.pods.get(uid).map(|pod| &pod.name)
    }

    /// The name of what keeps a pod running, and the label that it is derived from.
    pub fn workload(&self, uid: &str) -> Option<(&str, &'static str)> {
        let pod = self.pods.get(uid)?;
        pod.workload?.name(&pod.name.pod)
    }

    /// What a container of this pod is called.
    pub fn container(&self, of: &PodName, id: &str) -> Option<Called<'_>> {
        let container = self.containers.get(id).filter(|container| container.of == *of)?;
        Some(container.name.as_deref().map_or(Called::Sandbox, Called::Container))
    }

    /// Takes over what was learnt later, and returns whether any of it is new. When there is no room, what the later
    /// ones do not have is forgotten.
    pub fn learn(&mut self, later: Self) -> bool {
        let room = |known: usize, new: usize| known + new <= MOST;
        let new_pods = later.pods.iter().filter(|(uid, pod)| self.pods.get(*uid) != Some(pod)).count();
        let new_containers = later.containers.iter().filter(|(id, it)| self.containers.get(*id) != Some(it)).count();
        if !room(self.pods.len(), new_pods) {
            self.forgotten += forget(&mut self.pods, &later.pods);
        }
        if !room(self.containers.len(), new_containers) {
            self.forgotten += forget(&mut self.containers, &later.containers);
        }
        self.pods.extend(later.pods);
        self.containers.extend(later.containers);
        new_pods + new_containers > 0
    }

    /// How many pods and containers are known.
    pub fn len(&self) -> usize {
        self.pods.len() + self.containers.len()
    }

    /// How many that were known had to make room for later ones. What one answer has beyond [`MOST`] was never known.
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// Removes what is only in `known`, and returns how much that was.
fn forget<V, W>(known: &mut HashMap<String, V>, later: &HashMap<String, W>) -> u64 {
    let before = known.len();
    known.retain(|id, _| later.contains_key(id));
    (before - known.len()) as u64
}

/// A DNS name, as names in Kubernetes are: small letters, digits, `-` and `.`.
fn is_name(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: usize) -> String {
        format!("0b1c6c2e-4a77-4d8a-9d2b-{n:012x}")
    }

    fn id(n: usize) -> String {
        format!("{n:064x}")
    }

    fn name(pod: &str) -> PodName {
        PodName::new("shop", pod).unwrap()
    }

    #[test]
    fn a_container_is_looked_up_within_its_pod() {
        let mut names = Names::default();
        names.add_pod(&uid(1), name("api-1"));
        names.add_sandbox(&id(1), name("api-1"));
        names.add_container(&id(2), name("api-1"), "api");
        assert_eq!(names.pod(&uid(1)), Some(&name("api-1")));
        assert_eq!(names.container(&name("api-1"), &id(1)), Some(Called::Sandbox));
        assert_eq!(names.container(&name("api-1"), &id(2)), Some(Called::Container("api")));
        assert_eq!(names.container(&name("api-2"), &id(2)), None, "it lends its name to nobody");
        assert_eq!(names.container(&name("api-1"), &id(3)), None);
    }

    #[test]
    fn what_kubernetes_would_not_allow_is_not_known() {
        for text in ["", "Shop", "a_b", "a/b", "a b", "\u{1b}[31m", "caf\u{e9}", &"x".repeat(254), &"x".repeat(1 << 20)]
        {
            assert_eq!(PodName::new(text, "api"), None, "{text:?}");
            assert_eq!(PodName::new("shop", text), None, "{text:?}");
            let mut names = Names::default();
            names.add_container(&id(1), name("api"), text);
            names.add_pod(text, name("api"));
            names.add_sandbox(text, name("api"));
            assert_eq!(names.len(), 0, "{text:?}");
        }
    }

    #[test]
    fn what_is_gone_keeps_its_name() {
        let mut names = Names::default();
        let mut first = Names::default();
        first.add_pod(&uid(1), name("api-1"));
        assert!(names.learn(first.clone()));
        assert!(!names.learn(first), "nothing new");
        assert!(!names.learn(Names::default()), "nothing new");
        let mut second = Names::default();
        second.add_pod(&uid(2), name("api-2"));
        assert!(names.learn(second));
        assert_eq!((names.pod(&uid(1)), names.pod(&uid(2))), (Some(&name("api-1")), Some(&name("api-2"))));
        assert_eq!(names.forgotten(), 0);
    }

    #[test]
    fn a_workload_is_part_of_what_is_learnt() {
        use super::super::derived::Labels;
        let of = |label: &str| {
            let mut labels = Labels::default();
            labels.add(b"job-name", label.as_bytes());
            let (mut names, workload) = (Names::default(), Derived::of("api-1", &labels));
            names.add_pod(&uid(1), name("api-1"));
            workload.into_iter().for_each(|it| [1, 2].iter().for_each(|n| names.add_workload(&uid(*n), it)));
            names
        };
        let mut names = of("other");
        assert_eq!((names.workload(&uid(1)), names.len()), (None, 1));
        assert!(names.learn(of("api")));
        assert_eq!((names.workload(&uid(1)), names.workload(&uid(2))), (Some(("api", "job-name")), None));
        assert!(!names.learn(of("api")), "nothing new");
    }

    #[test]
    fn a_containers_end_is_known_whenever_its_name_comes() {
        let (begin, end) = (instant(5, 0), instant(7, 1_000).unwrap());
        let mut names = Names::default();
        names.set_ended(&id(1), end);
        names.set_ended("not an id", end);
        let mut later = Names::default();
        later.add_container(&id(1), name("api"), "api");
        later.set_created(&id(1), begin);
        later.set_created(&id(2), begin);
        names.learn(later);
        assert_eq!(names.span(&id(1)), Span { created_at: begin, ended_at: Some(end) });
        assert_eq!(names.span(&id(2)), Span::default());
        names.set_begun(&id(1));
        assert_eq!(names.span(&id(1)), Span { created_at: begin, ended_at: None }, "it was started again");
        names.set_ended(&id(1), end);
        // of so many that ended, those stay that have a name
        (2..MOST + 2).for_each(|n| names.set_ended(&id(n), end));
        assert_eq!((names.span(&id(1)).ended_at, names.span(&id(2)).ended_at), (Some(end), None));
        assert_eq!((names.ended.len(), names.forgotten()), (2, MOST as u64 - 1));
    }

    #[test]
    fn a_time_that_no_runtime_has_is_none() {
        assert_eq!(instant(5, 7).map(|at| at.to_rfc3339()).as_deref(), Some("1970-01-01T00:00:05.000000007+00:00"));
        for (seconds, nanos) in [(0, 0), (-1, 0), (i64::MAX, 0), (253_402_300_800, 0), (5, -1), (5, i64::MAX)] {
            assert_eq!(instant(seconds, nanos), None, "{seconds} {nanos}");
        }
    }

    #[test]
    fn without_room_the_later_ones_stay_and_the_others_are_counted() {
        let of = |range: std::ops::Range<usize>| {
            let mut names = Names::default();
            range.for_each(|n| names.add_container(&id(n), name("api"), "api"));
            names
        };
        let mut names = of(0..2 * MOST);
        assert_eq!(names.len(), MOST, "no source fills more");
        assert!(names.learn(of(MOST - 10..MOST + 10)));
        assert_eq!((names.len(), names.forgotten()), (20, MOST as u64 - 10));
        assert!(names.container(&name("api"), &id(MOST + 9)).is_some());
    }
}
