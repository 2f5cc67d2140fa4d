//! Where a socket's packets really go: what connection tracking says of its flow, and what its owner asked for where a
//! program in the kernel sent the socket elsewhere.
//!
//! A client's socket names whom it was told to talk to: with DNAT that is the VIP, and the backend stands in the entry of
//! the flow. With socket-level load balancing the socket names the backend, and the VIP is what was asked.

use std::sync::Arc;

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::nat::{Nat, NatKind};

/// `IPS_SEEN_REPLY` of `enum ip_conntrack_status`: a packet came back.
const SEEN_REPLY: u32 = 1 << 1;
/// States of an entry whose first packet nothing has answered.
const UNREPLIED: [&str; 4] = ["UNREPLIED", "SYN_SENT", "SYN_SENT2", "NONE"];

/// What is known of where a socket's packets go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Way {
    /// The entry of the flow; its own record, which is later than its events, has the last word.
    pub nat: Option<Arc<Nat>>,
    /// What the owner asked for.
    pub asked: Option<Endpoint>,
    /// The flow went to one backend first and to another one later, so nobody can say which of its packets went where.
    pub is_moved: bool,
    is_told_by_flow: bool,
}

impl Way {
    /// Adds what an event says.
    pub(crate) fn learn(&mut self, nat: Option<&Arc<Nat>>, asked: Option<Endpoint>) {
        self.asked = asked.or(self.asked);
        if let Some(nat) = nat.filter(|_| !self.is_told_by_flow) {
            self.replace(nat);
        }
    }

    /// Adds what the record of the flow says.
    pub(crate) fn conclude(&mut self, flow: &FlowRecord) {
        self.asked = flow.asked.or(self.asked);
        if let Some(nat) = &flow.conntrack {
            self.replace(nat);
            self.is_told_by_flow = true;
        }
    }

    fn replace(&mut self, nat: &Arc<Nat>) {
        self.is_moved |= self.nat.as_ref().is_some_and(|known| known.reply.from != nat.reply.from);
        self.nat = Some(Arc::clone(nat));
    }

    /// The entry, if it is that of a flow which a socket with this remote end began.
    fn begun_towards(&self, remote: Endpoint) -> Option<&Nat> {
        self.nat.as_deref().filter(|nat| nat.original.is_none_or(|original| original.to == remote))
    }

    /// The address that a client with this remote end asked, if somebody else got it.
    pub fn vip(&self, remote: Endpoint) -> Option<Endpoint> {
        let by_dnat = self.begun_towards(remote).filter(|nat| nat.backend.is_some());
        let by_dnat = by_dnat.map(|nat| nat.original_dst.unwrap_or(remote));
        by_dnat.or_else(|| self.asked.filter(|asked| *asked != remote))
    }

    /// Who gets what a client with this remote end sends.
    pub fn backend(&self, remote: Endpoint) -> Endpoint {
        self.begun_towards(remote).and_then(|nat| nat.backend).unwrap_or(remote)
    }

    /// The ends of the flow as the server sees them: the client, and itself.
    pub fn at_the_server(&self, local: Endpoint, remote: Endpoint) -> (Endpoint, Endpoint) {
        self.begun_towards(remote).map_or((local, remote), |nat| (nat.reply.to, nat.reply.from))
    }

    /// Whether it is known that no packet came back: `None` without an entry.
    pub fn is_unreplied(&self) -> Option<bool> {
        let nat = self.nat.as_deref()?;
        let by_state = UNREPLIED.contains(&nat.state.as_ref());
        Some(nat.status.map_or(by_state, |status| status & SEEN_REPLY == 0))
    }

    /// Whether the destination is rewritten.
    pub fn is_dnat(&self) -> bool {
        self.nat.as_deref().is_some_and(|nat| matches!(nat.nat, NatKind::Dnat | NatKind::Both))
    }

    /// Whether the backend is the client itself, and sees its own address as the sender's: an answer to that never leaves it.
    pub fn is_hairpin(&self, local: Endpoint, remote: Endpoint) -> bool {
        let (client, server) = self.at_the_server(local, remote);
        let own = self.nat.as_deref().and_then(|nat| nat.original).map_or(local, |original| original.from);
        let is_own = |end: Endpoint| end.addr.is_some() && end.addr == own.addr;
        self.is_dnat() && is_own(server) && is_own(client) && !server.addr.is_some_and(|a| a.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::nat::Direction;

    use super::*;

    fn end(text: &str) -> Endpoint {
        ktrace_bundle::line::parse_endpoint(text).unwrap()
    }

    fn nat(state: &'static str, original: [&str; 2], reply: [&str; 2]) -> Way {
        let direction = |[from, to]: [&str; 2]| Direction { from: end(from), to: end(to) };
        let mut way = Way::default();
        way.learn(Some(&Arc::new(Nat::new(state, direction(original), direction(reply), 1))), None);
        way
    }

    #[test]
    fn a_client_asks_a_vip_and_gets_a_backend() {
        let (vip, local) = (end("10.96.0.80:80"), end("10.244.1.2:40000"));
        let both = nat("SYN_SENT", ["10.244.1.2:40000", "10.96.0.80:80"], ["10.244.1.5:8080", "10.0.0.1:1024"]);
        assert_eq!((both.vip(vip), both.backend(vip)), (Some(vip), end("10.244.1.5:8080")));
        assert_eq!(both.at_the_server(local, vip), (end("10.0.0.1:1024"), end("10.244.1.5:8080")));
        assert_eq!((both.is_unreplied(), both.is_dnat()), (Some(true), true));
        let plain = nat("ESTABLISHED", ["10.244.1.2:40000", "10.0.0.9:80"], ["10.0.0.9:80", "10.244.1.2:40000"]);
        assert_eq!((plain.vip(end("10.0.0.9:80")), plain.backend(end("10.0.0.9:80"))), (None, end("10.0.0.9:80")));
        assert_eq!((plain.is_unreplied(), plain.is_dnat()), (Some(false), false));
    }

    #[test]
    fn a_program_in_the_kernel_leaves_the_backend_in_the_socket() {
        let way = Way { asked: Some(end("10.96.0.80:80")), ..Way::default() };
        let backend = end("10.244.1.5:8080");
        assert_eq!((way.vip(backend), way.backend(backend)), (Some(end("10.96.0.80:80")), backend));
        assert_eq!((way.vip(end("10.96.0.80:80")), way.is_unreplied()), (None, None));
    }

    #[test]
    fn the_entry_of_a_server_s_flow_makes_it_no_client() {
        let way = nat("ESTABLISHED", ["10.244.1.2:40000", "10.96.0.80:80"], ["10.244.1.5:8080", "10.244.1.2:40000"]);
        let client = end("10.244.1.2:40000");
        assert_eq!((way.vip(client), way.backend(client)), (None, client));
    }

    #[test]
    fn the_flow_s_record_has_the_last_word() {
        let mut way = nat("UNREPLIED", ["10.0.0.1:1", "10.96.0.10:53"], ["10.244.0.7:53", "10.0.0.1:1"]);
        let direction = Direction { from: end("10.0.0.1:1"), to: end("10.96.0.10:53") };
        let at = ktrace_bundle::testing::start_at();
        let mut flow = FlowRecord::new(ktrace_bundle::event::Proto::Udp, direction, 1, at);
        way.conclude(&flow);
        assert_eq!((way.is_unreplied(), way.is_moved), (Some(true), false), "one that knows nothing changes nothing");
        flow.conntrack = nat("REPLIED", ["10.0.0.1:1", "10.96.0.10:53"], ["10.244.0.7:53", "10.0.0.1:1"]).nat;
        way.conclude(&flow);
        let late = nat("UNREPLIED", ["10.0.0.1:1", "10.96.0.10:53"], ["10.244.0.8:53", "10.0.0.1:1"]).nat;
        way.learn(late.as_ref(), None);
        assert_eq!((way.is_unreplied(), way.is_moved), (Some(false), false));
    }

    #[test]
    fn a_backend_that_is_the_client_itself_is_a_hairpin_unless_it_is_masqueraded() {
        let (local, vip) = (end("10.244.1.5:40000"), end("10.96.0.80:80"));
        let to_itself = nat("SYN_SENT", ["10.244.1.5:40000", "10.96.0.80:80"], ["10.244.1.5:8080", "10.244.1.5:40000"]);
        let masqueraded =
            nat("SYN_SENT", ["10.244.1.5:40000", "10.96.0.80:80"], ["10.244.1.5:8080", "10.244.1.1:1024"]);
        let elsewhere = nat("SYN_SENT", ["10.244.1.5:40000", "10.96.0.80:80"], ["10.244.1.6:8080", "10.244.1.5:40000"]);
        let is = |way: &Way| way.is_hairpin(local, vip);
        assert_eq!((is(&to_itself), is(&masqueraded), is(&elsewhere)), (true, false, false));
    }
}
