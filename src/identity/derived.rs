//! Labels of a pod → the name of what keeps it running: its Deployment, StatefulSet, DaemonSet or Job. Controllers
//! name their pods after themselves, and mark them with labels that tell how.
//!
//! A label is whatever the pod's owner wrote. So nothing but a beginning of the pod's own name comes of it, and nothing
//! where that name was not made as the label says.

/// Of a Deployment, `<name>-<value>-<5 letters>`.
const TEMPLATE: &str = "pod-template-hash";
/// Of a StatefulSet and of a DaemonSet; what else is there tells which.
const REVISION: &str = "controller-revision-hash";
/// Of a StatefulSet, `<name>-<ordinal>`: all of it, and since Kubernetes 1.28 the ordinal.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// Of a DaemonSet, `<name>-<5 letters>`.
const GENERATION: &str = "pod-template-generation";
/// Of a Job, `<value>-…`; the latter before Kubernetes 1.27, and still.
const JOBS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// The labels that are kept.
const KNOWN: [&str; 7] = [TEMPLATE, REVISION, POD_NAME, POD_INDEX, GENERATION, JOBS[0], JOBS[1]];
/// The longest value that is kept, bytes. The API allows 63.
const LONGEST: usize = 253;
/// What the API server makes names unique with: `k8s.io/apimachinery/pkg/util/rand`. No vowels, so no words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const LETTERS_LEN: usize = 5;

/// Labels of a pod, as far as something is derived from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Vec<(&'static str, String)>);

impl Labels {
    /// Keeps a label if it is a known one with a value that it can have; of two with the same key the later one.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let known = KNOWN.iter().find(|known| known.as_bytes() == key);
        let value = std::str::from_utf8(value).ok().filter(|value| value.len() <= LONGEST);
        if let (Some(key), Some(value)) = (known, value) {
            self.0.retain(|(known, _)| known != key);
            self.0.push((key, value.to_owned()));
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, value)| &**value)
    }
}

/// A name that was derived: so many bytes of the pod's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    len: usize,
    from: &'static str,
}

impl Derived {
    /// What these labels tell of the pod of this name.
    pub fn of(pod: &str, labels: &Labels) -> Option<Self> {
        RULES.iter().find_map(|rule| rule(pod, labels)).filter(|it| it.len > 0)
    }

    /// The name, and the label that it is derived from, of the same pod.
    pub fn name(self, pod: &str) -> Option<(&str, &'static str)> {
        Some((pod.get(..self.len)?, self.from))
    }
}

/// How each kind of workload names its pods.
static RULES: &[fn(&str, &Labels) -> Option<Derived>] = &[of_deployment, of_stateful_set, of_daemon_set, of_job];

fn of_deployment(pod: &str, labels: &Labels) -> Option<Derived> {
    let hash = labels.get(TEMPLATE).filter(|hash| is_hash(hash))?;
    let name = before_letters(pod)?.strip_suffix(hash)?.strip_suffix('-')?;
    Some(Derived { len: name.len(), from: TEMPLATE })
}

fn of_stateful_set(pod: &str, labels: &Labels) -> Option<Derived> {
    labels.get(REVISION)?;
    let (name, ordinal) = pod.rsplit_once('-')?;
    let marks = [labels.get(POD_NAME).map(|text| text == pod), labels.get(POD_INDEX).map(|text| text == ordinal)];
    let is_its = marks.contains(&Some(true)) && !marks.contains(&Some(false));
    (is_its && ordinal.bytes().all(|b| b.is_ascii_digit())).then_some(Derived { len: name.len(), from: REVISION })
}

fn of_daemon_set(pod: &str, labels: &Labels) -> Option<Derived> {
    labels.get(REVISION).and(labels.get(GENERATION))?;
    Some(Derived { len: before_letters(pod)?.len(), from: REVISION })
}

fn of_job(pod: &str, labels: &Labels) -> Option<Derived> {
    let named = |key: &&'static str| {
        let name = labels.get(key)?;
        pod.strip_prefix(name)?.starts_with('-').then_some(Derived { len: name.len(), from: key })
    };
    JOBS.iter().find_map(named)
}

/// What stands before `-` and the letters that a name was made unique with. Of a name that would be longer than 63
/// bytes the API server cuts what stands before the letters: nothing is derived from most of those.
fn before_letters(pod: &str) -> Option<&str> {
    let (name, letters) = pod.rsplit_once('-')?;
    (letters.len() == LETTERS_LEN && letters.bytes().all(|b| LETTERS.contains(&b))).then_some(name)
}

fn is_hash(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> Labels {
        let mut labels = Labels::default();
        of.iter().for_each(|(key, value)| labels.add(key.as_bytes(), value.as_bytes()));
        labels
    }

    fn derived(pod: &str, of: &[(&str, &str)]) -> Option<(String, &'static str)> {
        let (name, from) = Derived::of(pod, &labels(of))?.name(pod)?;
        Some((name.to_owned(), from))
    }

    #[test]
    fn each_kind_of_workload_is_told_by_the_labels_of_its_pods() {
        for (pod, labels, name, from) in [
            ("api-7d9f8c6b5-x2x4z", &[(TEMPLATE, "7d9f8c6b5")][..], "api", TEMPLATE),
            ("a.b-c-1234567890-x2x4z", &[(TEMPLATE, "1234567890")], "a.b-c", TEMPLATE),
            ("web-0", &[(REVISION, "web-7d9f"), (POD_NAME, "web-0")], "web", REVISION),
            ("my-db-12", &[(REVISION, "x"), (POD_NAME, "my-db-12"), (POD_INDEX, "12")], "my-db", REVISION),
            ("web-3", &[(REVISION, "x"), (POD_INDEX, "3")], "web", REVISION),
            ("kube-proxy-k4k2z", &[(REVISION, "x"), (GENERATION, "1")], "kube-proxy", REVISION),
            ("backup-28493-x2x4z", &[(JOBS[0], "backup-28493"), (JOBS[1], "backup-28493")], "backup-28493", JOBS[0]),
            ("backup-0-x2x4z", &[(JOBS[1], "backup")], "backup", JOBS[1]),
            // one that does not fit does not hide one that does
            ("backup-x2x4z", &[(TEMPLATE, "7d9f8c6b5"), (JOBS[1], "backup")], "backup", JOBS[1]),
        ] {
            assert_eq!(derived(pod, labels), Some((name.to_owned(), from)), "{pod} {labels:?}");
        }
    }

    #[test]
    fn where_name_and_label_do_not_fit_there_is_no_workload() {
        let long = format!("{}-x2x4z", "x".repeat(300));
        for (pod, labels) in [
            ("api-7d9f8c6b5-x2x4z", &[][..]),
            ("api-7d9f8c6b5-x2x4z", &[(TEMPLATE, "7d9f8c6b4")]),
            ("api-7d9f8c6b5-x2x4z", &[(TEMPLATE, "")]),
            ("api--x2x4z", &[(TEMPLATE, "")]),
            ("kube-system-api-x2x4z", &[(TEMPLATE, "system-api")]),
            ("api7d9f-x2x4z", &[(TEMPLATE, "7d9f")]),
            ("7d9f-x2x4z", &[(TEMPLATE, "7d9f")]),
            ("-7d9f-x2x4z", &[(TEMPLATE, "7d9f")]),
            ("api-7d9f-x2x", &[(TEMPLATE, "7d9f")]),
            ("api-7d9f-admin", &[(TEMPLATE, "7d9f")]),
            ("api-7d9f", &[(TEMPLATE, "7d9f")]),
            ("web-0", &[(POD_NAME, "web-0")]),
            ("web-0", &[(REVISION, "x")]),
            ("web-0", &[(REVISION, "x"), (POD_NAME, "other-0")]),
            ("web-0", &[(REVISION, "x"), (POD_NAME, "web-0"), (POD_INDEX, "1")]),
            ("web-0", &[(REVISION, "x"), (POD_NAME, "other-0"), (POD_INDEX, "0")]),
            ("web-", &[(REVISION, "x"), (POD_INDEX, "1")]),
            ("web-one", &[(REVISION, "x"), (POD_NAME, "web-one")]),
            ("-0", &[(REVISION, "x"), (POD_NAME, "-0")]),
            ("kube-proxy-k4k2z", &[(GENERATION, "1")]),
            ("kube-proxy-k4k2z", &[(REVISION, "x")]),
            ("kube-proxy-k4k2", &[(REVISION, "x"), (GENERATION, "1")]),
            ("k4k2z", &[(REVISION, "x"), (GENERATION, "1")]),
            ("backup-x2x4z", &[(JOBS[0], "etcd")]),
            ("backup-x2x4z", &[(JOBS[0], "backup-x2x4z")]),
            ("backup-x2x4z", &[(JOBS[0], "back")]),
            ("-x2x4z", &[(JOBS[0], "")]),
            (&long, &[(JOBS[0], &long[..300])]),
        ] {
            assert_eq!(derived(pod, labels), None, "{pod} {labels:?}");
        }
    }

    #[test]
    fn of_labels_only_the_known_ones_are_kept_and_of_one_key_the_last() {
        let mut kept = labels(&[("app", "api"), ("", ""), (JOBS[0], "a"), (JOBS[0], "b"), ("Job-name", "c")]);
        kept.add(JOBS[1].as_bytes(), b"\xff");
        kept.add(TEMPLATE.as_bytes(), &vec![b'x'; LONGEST + 1]);
        assert_eq!(kept, Labels(vec![(JOBS[0], "b".into())]));
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_labels_are_only_a_beginning_of_the_pods_name_comes_of_them(
            pod in "[a-c0-2.-]{0,12}(-[bcd245]{5})?",
            of in proptest::collection::vec((0..KNOWN.len(), "[a-c0-2.-]{0,12}|\\PC{0,4}"), 0..6),
        ) {
            let of: Vec<_> = of.iter().map(|(key, value)| (KNOWN[*key], &**value)).collect();
            if let Some((name, from)) = derived(&pod, &of) {
                let rest = pod.strip_prefix(&name);
                proptest::prop_assert!(!name.is_empty() && rest.is_some_and(|rest| rest.starts_with('-')), "{name}");
                proptest::prop_assert!(of.iter().any(|(key, _)| *key == from));
            }
        }
    }
}
