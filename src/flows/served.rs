//! Who stands behind which address, and how it went: `services.json`.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use ktrace_bundle::event::{Endpoint, Proto, Role};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::tracking::{
    Backend, MAX_ALL_BACKENDS, MAX_BACKENDS, MAX_SERVICES, RuleSource, Service, ServicesReport,
};

use crate::conntrack::seen::Backends;
use crate::services::{Outcome, RuleReport, Rules};

/// So long an attempt may go unanswered before that says anything: as long as a resolver waits.
const PENDING: TimeDelta = TimeDelta::seconds(5);

/// What this node's own sockets got of each backend.
#[derive(Debug, Default)]
pub struct Served {
    services: BTreeMap<(Proto, Endpoint), BTreeMap<Endpoint, Backend>>,
    /// Of all services.
    backends: usize,
    omitted: u64,
}

impl Served {
    /// A flow as of `now`: counts if it is a client's, and went elsewhere than it was sent to.
    pub fn add(&mut self, flow: &FlowRecord, now: DateTime<Utc>) {
        if flow.role != Some(Role::Client) {
            return;
        }
        let translated = flow.conntrack.as_deref().and_then(|nat| nat.original_dst.zip(nat.backend));
        let rewritten = flow.asked.map(|asked| (asked, flow.tuple.to)).filter(|(asked, to)| asked != to);
        let (from, (vip, end)) = match (rewritten, translated) {
            (Some(ends), None) => ("socket", ends),
            (None, Some(ends)) => ("conntrack", ends),
            // rewritten first, and then translated
            (Some((vip, _)), Some((_, end))) => ("socket", (vip, end)),
            (None, None) => return,
        };
        if let Some(has_failed) = has_failed(flow, now)
            && let Some(backend) = self.backend(flow.proto, vip, end, from)
        {
            backend.attempt_count += 1;
            backend.failed_count += u64::from(has_failed);
        }
    }

    /// Adds the services and backends of rules; returns what they are called.
    fn declare<'a>(&mut self, rules: &'a [Rules]) -> BTreeMap<(Proto, Endpoint), &'a str> {
        let mut names = BTreeMap::new();
        for declared in rules.iter().flat_map(|rules| &rules.declared) {
            let vip = Endpoint { addr: declared.vip.addr, port: declared.vip.port };
            names.extend(declared.name.as_deref().map(|name| ((declared.proto, vip), name)));
            for backend in &declared.backends {
                // a rule that rewrites one part leaves the other as it is
                let end = Endpoint { addr: backend.addr.or(vip.addr), port: backend.port.or(vip.port) };
                self.backend(declared.proto, vip, end, declared.source.as_str());
            }
        }
        names
    }

    fn backend(&mut self, proto: Proto, vip: Endpoint, end: Endpoint, from: &str) -> Option<&mut Backend> {
        let is_new = !self.services.contains_key(&(proto, vip));
        if is_new && self.services.len() >= MAX_SERVICES {
            self.omitted += 1;
            return None;
        }
        let backends = self.services.entry((proto, vip)).or_default();
        let is_new = !backends.contains_key(&end);
        if is_new && (backends.len() >= MAX_BACKENDS || self.backends >= MAX_ALL_BACKENDS) {
            self.omitted += 1;
            return None;
        }
        self.backends += usize::from(is_new);
        let backend = backends.entry(end).or_insert_with(|| Backend::new(end));
        if !backend.from.iter().any(|known| known == from) {
            backend.from.push(from.to_owned());
        }
        Some(backend)
    }

    /// With what connection tracking saw of everybody's flows, and what the node's rules declare.
    pub fn report(mut self, tracked: Backends, omitted: u64, rules: &[Rules]) -> ServicesReport {
        for ((proto, vip), backends) in tracked {
            for (end, sent) in backends {
                let [vip, end] = [vip, end].map(|end| Endpoint::new(end.ip(), end.port()));
                if let Some(backend) = self.backend(proto, vip, end, "conntrack") {
                    backend.tracked_count += sent.tracked;
                    backend.unreplied_count += sent.unreplied;
                }
            }
        }
        let names = self.declare(rules);
        let service = |((proto, vip), backends): (_, BTreeMap<_, Backend>)| Service {
            proto,
            vip,
            name: names.get(&(proto, vip)).map(|name| (*name).to_owned()),
            backends: backends.into_values().collect(),
        };
        let sources = sources(rules);
        let omitted_count = self.omitted + omitted;
        ServicesReport {
            services: self.services.into_iter().map(service).collect(),
            sources,
            omitted_count,
            ..ServicesReport::default()
        }
    }
}

/// Where rules were looked for. The host's and ktrace's own namespace are one node.
fn sources(rules: &[Rules]) -> Vec<RuleSource> {
    let told = |report: &RuleReport| {
        let (outcome, why) = match &report.outcome {
            Outcome::Answered => ("answered", None),
            Outcome::Absent { why } => ("absent", Some(why.clone())),
            Outcome::Failed { why } => ("failed", Some(why.clone())),
        };
        let (name, outcome) = (report.source.as_str().to_owned(), outcome.to_owned());
        RuleSource { name, outcome, why, entries: report.entries, omitted_count: report.omitted }
    };
    rules.iter().flat_map(|rules| &rules.reports).map(told).collect()
}

/// Whether an attempt of the window came to nothing; `None`: there was none, or it may still be answered.
fn has_failed(flow: &FlowRecord, now: DateTime<Utc>) -> Option<bool> {
    let is_young = now - flow.first_at < PENDING;
    match flow.proto {
        Proto::Tcp if flow.state == Some(TcpState::SynSent) && is_young => None,
        Proto::Tcp => flow.is_connected.map(|is_connected| !is_connected),
        Proto::Udp if flow.send_count.unwrap_or(0) == 0 => None,
        Proto::Udp if flow.recv_count.unwrap_or(0) > 0 || is_replied(flow) => Some(false),
        Proto::Udp => (!is_young).then_some(true),
    }
}

/// An answer came to this machine, whether or not it was read.
fn is_replied(flow: &FlowRecord) -> bool {
    flow.conntrack.as_deref().is_some_and(|nat| matches!(&*nat.state, "REPLIED" | "ASSURED"))
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::line::parse_endpoint;
    use ktrace_bundle::nat::{Direction, Nat};

    use super::*;

    const VIP: &str = "10.96.0.80:80";

    fn end(text: &str) -> Endpoint {
        parse_endpoint(text).unwrap()
    }

    fn direction(from: &str, to: &str) -> Direction {
        Direction { from: end(from), to: end(to) }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    /// A client's flow that began at second 100.
    fn flow(proto: Proto, to: &str, backend: Option<&str>) -> FlowRecord {
        let tuple = direction("10.0.0.1:4000", to);
        let nat = backend.map(|backend| Nat::new("x", tuple, direction(backend, "10.0.0.1:4000"), 1).into());
        FlowRecord { role: Some(Role::Client), conntrack: nat, ..FlowRecord::new(proto, tuple, 1, at(100)) }
    }

    fn counts(served: Served) -> Vec<(String, String, Vec<String>, u64, u64)> {
        let services = served.report(Backends::new(), 0, &[]).services;
        let all = services.into_iter().flat_map(|s| s.backends.into_iter().map(move |b| (s.vip, b)));
        all.map(|(vip, b)| (vip.to_string(), b.end.to_string(), b.from, b.attempt_count, b.failed_count)).collect()
    }

    #[test]
    fn attempts_are_counted_by_who_got_them_translated_or_rewritten() {
        let mut served = Served::default();
        let tcp = |backend, is_connected| FlowRecord { is_connected, ..flow(Proto::Tcp, VIP, Some(backend)) };
        for (backend, is_connected) in [("10.1.0.5:8080", false), ("10.1.0.6:8080", true), ("10.1.0.5:8080", false)] {
            served.add(&tcp(backend, Some(is_connected)), at(110));
        }
        // neither a server's, nor one without NAT, nor one older than the window
        served.add(&FlowRecord { role: Some(Role::Server), ..tcp("10.1.0.5:8080", Some(true)) }, at(110));
        served.add(&FlowRecord { is_connected: Some(true), ..flow(Proto::Tcp, VIP, None) }, at(110));
        served.add(&tcp("10.1.0.5:8080", None), at(110));
        let rewritten = FlowRecord { asked: Some(end(VIP)), ..flow(Proto::Tcp, "10.1.0.7:8080", None) };
        served.add(&FlowRecord { is_connected: Some(true), ..rewritten }, at(110));
        let row = |end: &str, from: &str, attempts, failed| {
            (VIP.to_owned(), end.to_owned(), vec![from.to_owned()], attempts, failed)
        };
        let expected = [
            row("10.1.0.5:8080", "conntrack", 2, 2),
            row("10.1.0.6:8080", "conntrack", 1, 0),
            row("10.1.0.7:8080", "socket", 1, 0),
        ];
        assert_eq!(counts(served), expected);
    }

    #[test]
    fn whatever_rules_declare_a_reader_accepts_what_is_said_of_it() {
        let mut served = Served::default();
        let name = Some("n".repeat(256));
        let end = |n: u32| Endpoint::new(std::net::Ipv6Addr::from_bits(u128::MAX - u128::from(n)).into(), 65_535);
        for n in 0..2 * MAX_ALL_BACKENDS as u32 {
            let backend = served.backend(Proto::Tcp, end(n / 4), end(n), "ip6tables");
            assert_eq!(backend.is_some(), n < MAX_ALL_BACKENDS as u32);
        }
        let mut report = served.report(Backends::new(), 0, &[]);
        report.services.iter_mut().for_each(|it| it.name.clone_from(&name));
        let bytes = serde_json::to_vec_pretty(&report).unwrap().len() as u64;
        assert!(bytes < ktrace_bundle::reader::Limits::default().max_document_bytes, "{bytes}");
    }

    #[test]
    fn what_may_still_be_answered_has_not_failed() {
        let tried = |now, state| {
            let tcp = FlowRecord { is_connected: Some(false), state: Some(state), ..flow(Proto::Tcp, VIP, None) };
            has_failed(&tcp, at(now))
        };
        assert_eq!([tried(102, TcpState::SynSent), tried(110, TcpState::SynSent)], [None, Some(true)]);
        assert_eq!(tried(102, TcpState::Close), Some(true));
        let sent = |now, sent, received| {
            let udp = FlowRecord { send_count: sent, recv_count: received, ..flow(Proto::Udp, VIP, None) };
            has_failed(&udp, at(now))
        };
        assert_eq!([sent(102, Some(1), None), sent(110, Some(1), None)], [None, Some(true)]);
        assert_eq!([sent(102, Some(1), Some(1)), sent(110, None, Some(1))], [Some(false), None]);
    }
}
