//! Backends and VIPs in sentences.

use ktrace_bundle::event::{Endpoint, Proto};

use super::Kind;
use crate::capture::Capture;
use crate::escape;
use crate::finding::{Step, Subject};
use crate::units::count;

/// Most other backends, and most VIPs, that a sentence lists.
const MAX_LISTED: usize = 4;

impl Kind {
    /// `3 attempts`.
    pub(in crate::detectors) fn count(self, n: u64) -> String {
        match self {
            Self::Tcp => count(n, "attempt", "attempts"),
            Self::Dns => count(n, "query", "queries"),
            Self::Udp => count(n, "flow", "flows"),
        }
    }

    pub(in crate::detectors) const fn proto(self) -> Proto {
        match self {
            Self::Tcp => Proto::Tcp,
            Self::Dns | Self::Udp => Proto::Udp,
        }
    }
}

/// `VIP 10.96.0.80:80 (shop/api:http)`, with what the rules call it.
pub(in crate::detectors) fn vip(capture: &Capture, proto: Proto, vip: Endpoint) -> String {
    let services = capture.services.as_ref().map_or(&[][..], |s| &s.services);
    let place = services.binary_search_by_key(&(proto, vip), |s| (s.proto, s.vip)).ok();
    let name = place.and_then(|place| services.get(place)?.name.as_deref());
    name.map_or_else(|| format!("VIP {vip}"), |name| format!("VIP {vip} ({})", escape::shown(name)))
}

/// The same of several: `VIP a and VIP b`.
pub(in crate::detectors) fn vips(capture: &Capture, proto: Proto, vips: &[Endpoint]) -> String {
    listed(vips.iter().map(|v| vip(capture, proto, *v)), " and ")
}

/// Parts in one sentence, the rest of a long list counted.
pub(in crate::detectors) fn listed(parts: impl ExactSizeIterator<Item = String>, separator: &str) -> String {
    let more = parts.len().saturating_sub(MAX_LISTED);
    let mut parts: Vec<String> = parts.take(MAX_LISTED).collect();
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    parts.join(separator)
}

/// `` `curl` (pid 9) in shop/api-1 and 2 more clients ``.
pub(in crate::detectors) fn clients(subject: &Subject, more: usize) -> String {
    match more {
        0 => subject.who(),
        n => format!("{} and {}", subject.who(), count(n as u64, "more client", "more clients")),
    }
}

/// The entries of the flows to this address, in the node's table.
pub(in crate::detectors) fn entries(proto: Proto, vip: Endpoint) -> Option<Step> {
    let addr = vip.addr?;
    let command = format!("conntrack -L -p {} --orig-dst {addr}", proto.as_str());
    Some(Step::run("on the node: see the entries of these flows, and who gets them", command))
}
