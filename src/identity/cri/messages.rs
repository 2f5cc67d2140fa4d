//! The messages of CRI v1 (`k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`), as far as their fields are read. What else is in
//! them, labels and annotations above all, is skipped without being kept: it may be large. So is what a list has beyond
//! [`MOST`] entries: an empty one takes two bytes of an answer and fifty times as many here.

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, message, skip_field};
use prost::{DecodeError, Message};

use super::super::names::MOST;

/// `VersionRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VersionRequest {
    /// Version of the interface.
    #[prost(string, tag = "1")]
    pub version: String,
}

/// `VersionResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VersionResponse {
    /// Such as `containerd`.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

/// `ListPodSandboxRequest` and `ListContainersRequest` without a filter.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Everything {}

/// `ListPodSandboxResponse` and `ListContainersResponse`: nothing but `repeated T = 1`. The first are the pods, one sandbox for
/// each; the second all containers but the sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

const ITEM: u32 = 1;

impl<T: Message + Default> Message for List<T> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.0.iter().for_each(|item| message::encode(ITEM, item, buf));
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != ITEM || self.0.len() >= MOST {
            return skip_field(wire_type, tag, buf, context);
        }
        let mut item = T::default();
        message::merge(wire_type, &mut item, buf, context)?;
        self.0.push(item);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.iter().map(|item| message::encoded_len(ITEM, item)).sum()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// `PodSandbox`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodSandbox {
    /// Of the sandbox.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Of the pod.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
}

/// `PodSandboxMetadata`: as the kubelet has it from the pod.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodSandboxMetadata {
    /// `metadata.name`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `metadata.uid`.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// `metadata.namespace`.
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// `Container`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Container {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Of the sandbox of its pod.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Its name.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
}

/// `ContainerMetadata`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerMetadata {
    /// `name` in the pod's specification.
    #[prost(string, tag = "1")]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_far_as_there_is_room() {
        let two = List(vec![Container { id: "a".into(), ..Container::default() }, Container::default()]);
        let bytes = two.encode_to_vec();
        assert_eq!(List::<Container>::decode(&*bytes).unwrap(), two);
        // of other fields nothing is kept
        assert_eq!(List::<Container>::decode(&[&[0x12, 1, b'x'], &*bytes].concat()[..]).unwrap(), two);
        let many = [10, 0].repeat(2 * MOST);
        assert_eq!(List::<Container>::decode(&*many).unwrap().0.len(), MOST);
        assert!(List::<Container>::decode(&[10, 200][..]).is_err(), "cut");
    }
}
