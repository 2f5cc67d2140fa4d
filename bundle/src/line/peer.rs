//! The remote end's name ↔ `peer`.

use std::sync::Arc;

use super::clip;
use super::keys::{Line, PeerKeys};
use super::reading::Text;
use crate::peer::{Peer, PeerVia};

impl<'a> Line<'a> {
    /// Says who it is.
    pub fn set_peer(&mut self, peer: &'a Peer) {
        self.peer = Some(match peer {
            Peer::Pod { namespace, pod, via } => {
                PeerKeys { namespace: Some(clip(namespace)), pod: Some(clip(pod)), node: None, via: Some(*via) }
            }
            Peer::Node { node, via } => {
                PeerKeys { namespace: None, pod: None, node: Some(clip(node)), via: Some(*via) }
            }
        });
    }

    /// What it says, if that is whole.
    pub fn peer(&self) -> Option<Arc<Peer>> {
        let PeerKeys { namespace, pod, node, via } = self.peer.as_ref()?;
        let via = via.unwrap_or(PeerVia::Unstated);
        let owned = |text: &Text<'_>| (**text).to_owned();
        let peer = match (namespace, pod, node) {
            (Some(namespace), Some(pod), _) => Peer::Pod { namespace: owned(namespace), pod: owned(pod), via },
            (_, _, Some(node)) => Peer::Node { node: owned(node), via },
            _ => return None,
        };
        Some(peer.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{parse_event, write_event};
    use crate::testing::an_event;

    #[test]
    fn a_peer_is_a_pod_or_the_node() {
        let pod = Peer::Pod { namespace: "shop".into(), pod: "api-1".into(), via: PeerVia::Cri };
        let node = Peer::Node { node: "etcd-1".into(), via: PeerVia::Interfaces };
        for (peer, text) in [
            (pod, r#""peer":{"namespace":"shop","pod":"api-1","via":"cri"}"#),
            (node, r#""peer":{"node":"etcd-1","via":"interfaces"}"#),
        ] {
            let mut event = an_event().build();
            event.id.peer = Some(peer.into());
            let mut line = Vec::new();
            write_event(&mut line, &event);
            assert!(std::str::from_utf8(&line).unwrap().contains(text), "{}", String::from_utf8_lossy(&line));
            assert_eq!(parse_event(&line, event.seq).unwrap().record, event);
        }
    }

    #[test]
    fn one_that_is_neither_is_none_and_an_unknown_source_is_no_fault() {
        let mut line = Vec::new();
        write_event(&mut line, &an_event().build());
        let with = |peer: &str| {
            let text = String::from_utf8(line.clone()).unwrap().replacen('{', &format!(r#"{{"peer":{peer},"#), 1);
            parse_event(text.as_bytes(), 1).unwrap().record.id.peer
        };
        assert_eq!([with("{}"), with(r#"{"pod":"api"}"#)], [None, None]);
        let node = Peer::Node { node: "a".into(), via: PeerVia::Unstated };
        assert_eq!(with(r#"{"node":"a","via":"stars"}"#).as_deref(), Some(&node));
    }
}
