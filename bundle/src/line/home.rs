//! What the owner belongs to ↔ `k8s`, `unit`, or `why.k8s`.

use std::sync::Arc;

use super::clip;
use super::keys::{K8s, Line};
use super::reading::Text;
use crate::attribution::Attribution;
use crate::why::{Reason, Why};
use crate::workload::{Home, Via, Workload};

impl<'a> Line<'a> {
    /// To be called when the owner is set.
    pub fn set_home(&mut self, home: &'a Attribution<Home>) {
        match home {
            Attribution::Resolved(Home::Pod(workload)) => {
                self.k8s = Some(K8s {
                    pod_uid: Some(clip(&workload.pod_uid)),
                    namespace: workload.namespace.as_deref().map(clip),
                    pod: workload.pod.as_deref().map(clip),
                    container: workload.container.as_deref().map(clip),
                    container_id: workload.container_id.as_deref().map(clip),
                    workload: workload.workload.as_deref().map(clip),
                    workload_from: workload.workload_from.as_deref().map(clip),
                    via: Some(workload.via),
                });
            }
            Attribution::Resolved(Home::Host(unit)) => self.unit = Some(clip(unit)),
            // nobody's home: `why.pid` says it
            Attribution::Unresolved(_) if self.pid.is_none() => {}
            Attribution::Unresolved(Reason::NotRequested) => {}
            Attribution::Unresolved(reason) => self.why.set("k8s", reason.clone()),
        }
    }

    /// Takes the reason out of `why`.
    pub fn home(&self, why: &mut Why) -> Attribution<Home> {
        if let Some(k8s @ K8s { pod_uid: Some(pod_uid), .. }) = &self.k8s {
            let owned = |text: &Option<Text<'_>>| text.as_deref().map(str::to_owned);
            return Attribution::Resolved(Home::Pod(Arc::new(Workload {
                pod_uid: (**pod_uid).to_owned(),
                namespace: owned(&k8s.namespace),
                pod: owned(&k8s.pod),
                container: owned(&k8s.container),
                container_id: owned(&k8s.container_id),
                workload: owned(&k8s.workload),
                workload_from: owned(&k8s.workload_from),
                via: k8s.via.unwrap_or(Via::Cgroup),
            })));
        }
        match &self.unit {
            Some(unit) => Attribution::Resolved(Home::Host(Arc::from(&**unit))),
            None if self.pid.is_none() => Attribution::Unresolved(Reason::NoOwner),
            None => Attribution::Unresolved(why.take("k8s").unwrap_or(Reason::NotRequested)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_event;
    use super::super::tests::{an_event, text};
    use super::*;

    #[test]
    fn a_pod_a_host_process_and_the_reason_for_neither_come_back_as_they_were() {
        let pod = Workload::of_cgroup("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10".into());
        let container = Workload { container_id: Some("4f".repeat(32)), ..pod.clone() };
        let named = Workload {
            namespace: Some("shop".into()),
            pod: Some("api-1".into()),
            container: Some("api".into()),
            via: Via::PodLogs,
            ..container.clone()
        };
        let by_runtime = Workload { via: Via::Cri, ..named.clone() };
        let by_kubelet = Workload { via: Via::KubeletDir, container: None, ..named.clone() };
        let derived = Workload {
            workload: Some("api".into()),
            workload_from: Some("pod-template-hash".into()),
            ..by_runtime.clone()
        };
        for (home, part) in [
            (
                Attribution::Resolved(Home::Pod(pod.into())),
                r#""k8s":{"pod_uid":"0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10","via":"cgroup"}"#,
            ),
            (Attribution::Resolved(Home::Pod(container.into())), r#""container_id":"4f4f"#),
            (
                Attribution::Resolved(Home::Pod(named.into())),
                r#"9b10","namespace":"shop","pod":"api-1","container":"api","container_id":"4f4f"#,
            ),
            (Attribution::Resolved(Home::Pod(by_runtime.into())), r#","via":"cri"}"#),
            (Attribution::Resolved(Home::Pod(by_kubelet.into())), r#","via":"kubelet_dir"}"#),
            (
                Attribution::Resolved(Home::Pod(derived.into())),
                r#"4f","workload":"api","workload_from":"pod-template-hash","via":"cri"}"#,
            ),
            (Attribution::Resolved(Home::Host("/a \u{9b}31m\"".into())), r#""unit":"/a \u009b31m\"""#),
            (Attribution::Unresolved(Reason::Gone), r#""why":{"k8s":"gone"}"#),
            (Attribution::Unresolved(Reason::NotRequested), r#""cgroup_id":3251}"#),
        ] {
            let mut event = an_event();
            event.id.home = home;
            let line = text(&event);
            assert!(line.contains(part), "{line}");
            assert_eq!(parse_event(line.as_bytes(), 1).unwrap().record, event);
        }
    }
}
