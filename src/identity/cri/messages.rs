//! The messages of CRI v1 (`k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`), as far as their fields are read. What else is in
//! them, annotations and labels above all, is skipped without being kept: it may be large. So is what a list has beyond
//! [`MOST`] entries: an empty one takes two bytes of an answer and fifty times as many here. Of labels those of pods are
//! looked at, and [`Labels`] keeps the few that tell something.

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, int32, int64, message, skip_field, string};
use prost::{DecodeError, Message};

use super::super::derived::Labels;
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSandbox {
    /// Of the sandbox, field 1.
    pub id: String,
    /// Of the pod, field 2.
    pub metadata: Option<PodSandboxMetadata>,
    /// Whether it runs, field 3: `SANDBOX_READY` is 0.
    pub state: i32,
    /// When it was made, field 4, ns since 1970.
    pub created_at: i64,
    /// Of the pod, field 5, as far as they are known ones; never written.
    pub labels: Labels,
}

/// An entry of `map<string, string>`. Its bytes are those of the answer: what of them is kept is copied.
#[derive(Clone, PartialEq, Eq, Message)]
struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

impl Message for PodSandbox {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        string::encode(1, &self.id, buf);
        self.metadata.iter().for_each(|metadata| message::encode(2, metadata, buf));
        int32::encode(3, &self.state, buf);
        int64::encode(4, &self.created_at, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => string::merge(wire_type, &mut self.id, buf, context),
            2 => message::merge(wire_type, self.metadata.get_or_insert_default(), buf, context),
            3 => int32::merge(wire_type, &mut self.state, buf, context),
            4 => int64::merge(wire_type, &mut self.created_at, buf, context),
            5 => {
                let mut entry = Entry::default();
                message::merge(wire_type, &mut entry, buf, context)?;
                self.labels.add(&entry.key, &entry.value);
                Ok(())
            }
            _ => skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let metadata = self.metadata.iter().map(|metadata| message::encoded_len(2, metadata));
        let numbers = int32::encoded_len(3, &self.state) + int64::encoded_len(4, &self.created_at);
        string::encoded_len(1, &self.id) + metadata.sum::<usize>() + numbers
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
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
    /// When it was made, ns since 1970.
    #[prost(int64, tag = "7")]
    pub created_at: i64,
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

    /// As a runtime writes it: <https://protobuf.dev/programming-guides/encoding/#maps>.
    #[derive(Clone, PartialEq, Message)]
    struct Whole {
        #[prost(string, tag = "1")]
        id: String,
        #[prost(map = "string, string", tag = "5")]
        labels: std::collections::HashMap<String, String>,
        #[prost(map = "string, string", tag = "6")]
        annotations: std::collections::HashMap<String, String>,
    }

    #[test]
    fn of_a_pods_labels_the_known_ones_are_kept_and_of_its_annotations_none() {
        let map = |of: &[(&str, &str)]| of.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let large = "x".repeat(1 << 20);
        let whole = Whole {
            id: "a".into(),
            labels: map(&[("job-name", "api"), ("app", &large), ("pod-template-hash", &large), ("", "")]),
            annotations: map(&[("batch.kubernetes.io/job-name", "etcd")]),
        };
        let mut labels = Labels::default();
        labels.add(b"job-name", b"api");
        let expected = PodSandbox { id: "a".into(), labels, ..PodSandbox::default() };
        assert_eq!(PodSandbox::decode(&*whole.encode_to_vec()).unwrap(), expected);
        // value before key; no value; a number
        let odd = [&[0x2a, 15, 0x12, 3][..], b"api", &[0x0a, 8], b"job-name", &[0x2a, 0, 0x0a, 1], b"a"].concat();
        assert_eq!(PodSandbox::decode(&*odd).unwrap(), expected);
        assert!(PodSandbox::decode(&[0x28, 1][..]).is_err(), "not a map");
        assert!(PodSandbox::decode(&[0x2a, 3, 0x0a, 9, b'j'][..]).is_err(), "cut");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_list_or_none(bytes: Vec<u8>) {
            let _ = List::<PodSandbox>::decode(&*bytes);
            let _ = PodSandbox::decode(&*bytes);
        }
    }
}
