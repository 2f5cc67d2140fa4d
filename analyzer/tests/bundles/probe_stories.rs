//! Probes of the kubelet, and pods that do not take them well.

use std::sync::Arc;

use ktrace_bundle::attribution::Attribution;
use ktrace_bundle::event::{Event, Payload, Role, TcpClose};
use ktrace_bundle::peer::{Peer, PeerVia};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::workload::{Home, Via, Workload};

use crate::node_stories::cgroup;
use crate::scene::Scene;

pub const POD: &str = "10.42.1.30:8080";
/// The namespace that the pod is in.
const POD_NETNS: u32 = 4_026_532_110;

/// The kubelet, in a cgroup of its own, knows whose address it is.
fn as_kubelet(mut event: Event) -> Event {
    let peer = Peer::Pod { namespace: "shop".into(), pod: "api-1".into(), via: PeerVia::Cri };
    event.id.peer = Some(Arc::new(peer));
    if let Attribution::Resolved(owner) = &mut event.id.owner {
        owner.cgroup_id = Some(11);
    }
    event
}

fn kubelet(mut scene: Scene) -> Scene {
    scene.for_each_event(|event| if event.id.role == Some(Role::Client) { as_kubelet(event) } else { event });
    scene
}

pub fn probes_refused() -> Scene {
    let mut s = Scene::of("kubelet", 900, POD);
    for n in 0..6 {
        let socket = s.socket();
        s.syn(10_000 * n + 100, socket).fails_with(10_000 * n + 101, socket, "ECONNREFUSED");
    }
    kubelet(s)
}

/// They take 300 ms to connect, and one comes while the pod starts.
pub fn probes_answered() -> Scene {
    let mut s = Scene::of("kubelet", 900, POD);
    for n in 0..6 {
        let socket = s.socket();
        let ms = 10_000 * n + 100;
        s.syn(ms, socket).established(ms + 300, socket, 300).closes(ms + 330, socket, 5, 0, 900);
    }
    kubelet(s)
}

pub fn pod_starting() -> Scene {
    let mut s = Scene::of("kubelet", 900, POD);
    for n in 0..2 {
        let socket = s.socket();
        s.syn(1000 * n + 100, socket).fails_with(1000 * n + 101, socket, "ECONNREFUSED");
    }
    (3..20).for_each(|n| {
        s.healthy_connection(1000 * n + 100);
    });
    kubelet(s)
}

/// The pod takes each probe, and answers none of them within a second: it may not run.
pub fn throttled_pod() -> Scene {
    let mut s = Scene::of("kubelet", 900, POD);
    for n in 0..6 {
        let (socket, ms) = (s.socket(), 10_000 * n + 100);
        s.syn(ms, socket).established(ms + 1, socket, 1);
        let account = TcpClose { tx_bytes: Some(120), rx_bytes: Some(0), ..TcpClose::default() };
        let end = s.event((ms + 1001) * 1000, socket).closed(TcpState::FinWait2, account).build();
        s.push(end);
        let (near, far) = (s.local(socket), socket + 100_000);
        let server = |s: &Scene, us: u64| {
            let event = s.event(us, far).by("api", 1847).netns(POD_NETNS).from(POD).to(&near).role(Role::Server);
            event.home(Home::Pod(Arc::new(api())))
        };
        let begin = server(&s, ms * 1000 + 900).tcp_state(TcpState::SynRecv, TcpState::Established).build();
        let close = server(&s, (ms + 1300) * 1000).closed(TcpState::LastAck, TcpClose::default()).build();
        s.push(begin).push(close);
    }
    s.node(cgroup([600, 412, 25_000_000], &[]));
    kubelet(s)
}

fn api() -> Workload {
    Workload {
        namespace: Some("shop".into()),
        pod: Some("api-1".into()),
        container: Some("api".into()),
        via: Via::Cri,
        ..Workload::of_cgroup("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10".into())
    }
}

pub fn is_refused(event: &Event) -> bool {
    matches!(&event.payload, Payload::TcpState(c) if c.new == TcpState::Close)
}
