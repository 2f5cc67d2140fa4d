//! `PodSandboxStatus`: the addresses of a pod. Its messages (`k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`), as far as
//! their fields are read.

use std::net::IpAddr;

use prost::Message;

/// `PodSandboxStatusRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatusRequest {
    /// Of the sandbox.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
}

/// `PodSandboxStatusResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatusResponse {
    /// What it is about.
    #[prost(message, optional, tag = "1")]
    pub status: Option<SandboxStatus>,
}

/// `PodSandboxStatus`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SandboxStatus {
    /// `SANDBOX_READY` is 0.
    #[prost(int32, tag = "3")]
    pub state: i32,
    /// Its addresses.
    #[prost(message, optional, tag = "5")]
    pub network: Option<NetworkStatus>,
    /// Its namespaces.
    #[prost(message, optional, tag = "6")]
    pub linux: Option<LinuxStatus>,
}

/// `PodSandboxNetworkStatus`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NetworkStatus {
    /// The first address.
    #[prost(string, tag = "1")]
    pub ip: String,
    /// Those of other families.
    #[prost(message, repeated, tag = "2")]
    pub additional_ips: Vec<PodIp>,
}

/// `PodIP`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodIp {
    /// Address.
    #[prost(string, tag = "1")]
    pub ip: String,
}

/// `LinuxPodSandboxStatus`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LinuxStatus {
    /// Whose its namespaces are.
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<Namespaces>,
}

/// `Namespace`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Namespaces {
    /// By kind.
    #[prost(message, optional, tag = "2")]
    pub options: Option<NamespaceOption>,
}

/// `NamespaceOption`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NamespaceOption {
    /// `NamespaceMode`: `POD` is 0, `NODE` 2.
    #[prost(int32, tag = "1")]
    pub network: i32,
}

/// `NODE`.
const NODE: i32 = 2;
/// Addresses of one pod.
const MOST: usize = 16;

impl SandboxStatus {
    /// The pod's own addresses; none of one that has ended, and on the host's network, whose addresses are the node's.
    /// `None`: it has none yet.
    pub fn addresses(&self) -> Option<Vec<IpAddr>> {
        let options = self.linux.as_ref().and_then(|it| it.namespaces.as_ref()?.options.as_ref());
        if self.state != 0 || options.is_some_and(|it| it.network == NODE) {
            return Some(Vec::new());
        }
        let network = self.network.as_ref()?;
        let all = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|it| &it.ip));
        let addresses: Vec<_> = all.filter_map(|ip| ip.parse().ok()).take(MOST).collect();
        (!addresses.is_empty()).then_some(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: i32, network: i32, ips: &[&str]) -> SandboxStatus {
        let additional_ips = ips.iter().skip(1).map(|ip| PodIp { ip: (*ip).into() }).collect();
        let options = Some(NamespaceOption { network });
        SandboxStatus {
            state,
            network: Some(NetworkStatus { ip: ips.first().copied().unwrap_or_default().into(), additional_ips }),
            linux: Some(LinuxStatus { namespaces: Some(Namespaces { options }) }),
        }
    }

    #[test]
    fn a_pod_has_the_addresses_that_are_its_own() {
        let both = ["10.244.1.5", "fd00::5"];
        let parsed: Vec<IpAddr> = both.iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(status(0, 0, &both).addresses(), Some(parsed));
        assert_eq!(status(1, 0, &both).addresses(), Some(vec![]), "it has ended");
        assert_eq!(status(0, NODE, &both).addresses(), Some(vec![]), "they are the node's");
        let one = status(0, 0, &["", "not one", "10.244.1.6"]).addresses();
        assert_eq!(one, Some(vec!["10.244.1.6".parse().unwrap()]));
        assert_eq!(status(0, 0, &[""]).addresses(), None, "it may still get one");
        assert_eq!(SandboxStatus::default().addresses(), None);
    }
}
