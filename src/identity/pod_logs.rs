//! Names of pods and containers by the directory of their logs, which the kubelet keeps whatever the runtime is. Only names
//! of files are read, never what is in them:
//!
//!     pods/<namespace>_<pod>_<pod uid>/                             before the pod starts
//!     containers/<pod>_<namespace>_<container>-<container id>.log   when the container has started

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::place::{is_container_id, is_pod_uid};

/// Names that are read of each directory.
const MOST: usize = 1 << 14;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// RFC 1123, and so Kubernetes: names of pods are at most this long, the others shorter.
const LONGEST_NAME: usize = 253;

/// What a pod is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its own.
    pub pod: String,
}

/// The directory, as it was read last.
pub struct PodLogs {
    root: PathBuf,
    pods: HashMap<String, PodName>,
    containers: HashMap<String, (PodName, String)>,
    read_at: Option<Instant>,
    outcome: &'static str,
}

impl PodLogs {
    /// Not read yet.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            pods: HashMap::new(),
            containers: HashMap::new(),
            read_at: None,
            outcome: "not_asked",
        }
    }

    /// Reads again what is there, unless that was done just before; returns whether it did.
    pub fn refresh(&mut self) -> bool {
        if self.read_at.is_some_and(|at| at.elapsed() < PAUSE) {
            return false;
        }
        let pods = names(&self.root.join("pods"));
        let containers = names(&self.root.join("containers"));
        self.outcome = match (&pods, &containers) {
            (Ok(_), Ok(_)) => "answered",
            (Err(ErrorKind::NotFound), _) | (Ok(_), Err(ErrorKind::NotFound)) => "absent",
            _ => "failed",
        };
        self.pods = pods.unwrap_or_default().iter().filter_map(|name| pod(name)).collect();
        self.containers = containers.unwrap_or_default().iter().filter_map(|name| container(name)).collect();
        self.read_at = Some(Instant::now());
        true
    }

    /// What a pod is called, by its uid.
    pub fn pod(&self, uid: &str) -> Option<&PodName> {
        self.pods.get(uid)
    }

    /// What a container is called within this pod, by its id.
    pub fn container(&self, of: &PodName, id: &str) -> Option<&str> {
        self.containers.get(id).filter(|(pod, _)| pod == of).map(|(_, name)| &**name)
    }

    /// How many pods and containers are known.
    pub fn entries(&self) -> usize {
        self.pods.len() + self.containers.len()
    }

    /// `answered`, `absent`, `failed`, or `not_asked`: no process of a pod was seen.
    pub const fn outcome(&self) -> &'static str {
        self.outcome
    }
}

fn names(directory: &Path) -> Result<Vec<String>, ErrorKind> {
    let entries = std::fs::read_dir(directory).map_err(|e| e.kind())?;
    Ok(entries.take(MOST).flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn pod(name: &str) -> Option<(String, PodName)> {
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && is_name(namespace) && is_name(pod) && is_pod_uid(uid);
    whole.then(|| (uid.into(), PodName { namespace: namespace.into(), pod: pod.into() }))
}

fn container(name: &str) -> Option<(String, (PodName, String))> {
    let mut parts = name.strip_suffix(".log")?.split('_');
    let (pod, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (container, id) = rest.rsplit_once('-')?;
    let whole = parts.next().is_none() && [pod, namespace, container].into_iter().all(is_name) && is_container_id(id);
    whole.then(|| (id.into(), (PodName { namespace: namespace.into(), pod: pod.into() }, container.into())))
}

/// A DNS name, as names in Kubernetes are: small letters, digits, `-` and `.`.
fn is_name(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
    const ID: &str = "4f2a9c1b0d3e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";

    fn logs(pods: &[&str], containers: &[&str]) -> (tempfile::TempDir, PodLogs) {
        let dir = tempfile::tempdir().unwrap();
        for (kind, names) in [("pods", pods), ("containers", containers)] {
            std::fs::create_dir(dir.path().join(kind)).unwrap();
            names.iter().for_each(|name| std::fs::write(dir.path().join(kind).join(name), "").unwrap());
        }
        let mut logs = PodLogs::new(dir.path());
        assert!(logs.refresh());
        (dir, logs)
    }

    #[test]
    fn a_pod_and_its_container_are_named_by_what_the_kubelet_calls_their_logs() {
        let (_dir, logs) = logs(&[&format!("shop_api-7d9f-x2x_{UID}")], &[&format!("api-7d9f-x2x_shop_api-{ID}.log")]);
        let pod = logs.pod(UID).unwrap();
        assert_eq!((&*pod.namespace, &*pod.pod), ("shop", "api-7d9f-x2x"));
        assert_eq!(logs.container(pod, ID), Some("api"));
        assert_eq!((logs.outcome(), logs.entries()), ("answered", 2));
    }

    #[test]
    fn a_container_of_another_pod_lends_its_name_to_nobody() {
        let (_dir, logs) = logs(&[&format!("shop_api_{UID}")], &[&format!("other_shop_api-{ID}.log")]);
        assert_eq!(logs.container(logs.pod(UID).unwrap(), ID), None);
    }

    #[test]
    fn what_the_kubelet_would_not_write_is_not_read() {
        let long = "x".repeat(200);
        let pods = [
            format!("shop_api_{UID}_more"),
            format!("Shop_api_{UID}"),
            format!("sh\u{1b}[31mop_api_{UID}"),
            format!("_api_{UID}"),
            format!("{long}_api_0b1c6c2e"),
            "shop_api".into(),
        ];
        let containers = [format!("api_shop_api-{ID}"), "api_shop_api.log".into(), format!("api_shop_-{ID}.log")];
        let (_dir, logs) = logs(&pods.each_ref().map(|it| &**it), &containers.each_ref().map(|it| &**it));
        assert_eq!(logs.entries(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_absent_and_not_looked_for_all_the_time() {
        let mut logs = PodLogs::new(Path::new("/nonexistent"));
        assert!(logs.refresh());
        assert!(!logs.refresh());
        assert_eq!(logs.outcome(), "absent");
    }
}
