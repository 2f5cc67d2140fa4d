//! The answer of containerd's list of containers (`containerd/api/services/containers/v1/containers.proto`), as far as it
//! is read: the crate's own message would keep all of it, and a container's specification may be large. What else is in
//! it is skipped, labels included that are not the kubelet's.

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, message, skip_field, string};
use prost::{DecodeError, Message};

use super::super::derived::Labels;

const ID: u32 = 1;
const LABEL: u32 = 2;
const CREATED_AT: u32 = 8;

/// `ListContainerMessage`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListContainerMessage {
    /// One of the list.
    #[prost(message, optional, tag = "1")]
    pub container: Option<Container>,
}

/// `Container`, with what its labels say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// `io.kubernetes.pod.namespace`; empty without, as the others.
    pub pod_namespace: String,
    /// `io.kubernetes.pod.name`.
    pub pod: String,
    /// `io.kubernetes.pod.uid`.
    pub pod_uid: String,
    /// `io.kubernetes.container.name`.
    pub name: String,
    /// `io.cri-containerd.kind`.
    pub kind: Option<Kind>,
    /// Others, as far as they are known ones.
    pub labels: Labels,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What holds its namespaces.
    Sandbox,
    /// One of its own.
    Container,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Of the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// An entry of `map<string, string>`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

impl Container {
    fn take(&mut self, label: Label) {
        let place = match &*label.key {
            "io.kubernetes.pod.namespace" => &mut self.pod_namespace,
            "io.kubernetes.pod.name" => &mut self.pod,
            "io.kubernetes.pod.uid" => &mut self.pod_uid,
            "io.kubernetes.container.name" => &mut self.name,
            "io.cri-containerd.kind" => {
                self.kind = match &*label.value {
                    "sandbox" => Some(Kind::Sandbox),
                    "container" => Some(Kind::Container),
                    _ => None,
                };
                return;
            }
            key => return self.labels.add(key.as_bytes(), label.value.as_bytes()),
        };
        *place = label.value;
    }
}

/// Only read, never sent: what it would be sent as is its id.
impl Message for Container {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        string::encode(ID, &self.id, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            ID => string::merge(wire_type, &mut self.id, buf, context),
            LABEL => {
                let mut label = Label::default();
                message::merge(wire_type, &mut label, buf, context)?;
                self.take(label);
                Ok(())
            }
            CREATED_AT => message::merge(wire_type, self.created_at.get_or_insert_default(), buf, context),
            _ => skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        string::encoded_len(ID, &self.id)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use containerd_client::services::v1 as api;

    use super::*;

    #[test]
    fn a_container_is_read_as_far_as_it_matters() {
        let labels = [
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.name", "api-1"),
            ("io.kubernetes.pod.uid", "a uid"),
            ("io.kubernetes.container.name", "api"),
            ("io.cri-containerd.kind", "container"),
            ("", "of no key"),
            ("large", "of another key"),
        ];
        let mut sent = api::Container {
            id: "1".into(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            image: "an image".into(),
            snapshotter: "overlayfs".into(),
            ..api::Container::default()
        };
        sent.created_at.get_or_insert_default().seconds = 5;
        sent.spec.get_or_insert_default().value = vec![7; 1 << 16];
        let bytes = api::ListContainerMessage { container: Some(sent) }.encode_to_vec();
        let expected = Container {
            id: "1".into(),
            pod_namespace: "shop".into(),
            pod: "api-1".into(),
            pod_uid: "a uid".into(),
            name: "api".into(),
            kind: Some(Kind::Container),
            labels: Labels::default(),
            created_at: Some(Timestamp { seconds: 5, nanos: 0 }),
        };
        assert_eq!(ListContainerMessage::decode(&*bytes).unwrap().container, Some(expected));
        for cut in [1, bytes.len() / 2, bytes.len() - 1] {
            assert!(ListContainerMessage::decode(bytes.get(..cut).unwrap()).is_err(), "{cut}");
        }
    }
}
