//! What the pods of a node talk to: servers on the node.

use super::node::{NODE_ADDRESS, Node};
use crate::program::Program;

/// For queries and connections, of which each process prints what it did.
#[derive(Debug)]
pub struct Servers {
    _programs: [Program; 2],
    /// Arguments of `traffic` for five queries.
    pub dns: String,
    /// The same for three connections.
    pub tcp: String,
}

/// Lines that one round prints.
pub const ROUND: usize = 1 + 5 + 3;

impl Servers {
    /// Starts them.
    pub fn start(node: &Node) -> Self {
        let dns = node.netns.start(&format!("udp-echo --quiet --listen {NODE_ADDRESS}:53"));
        let tcp = node.netns.start(&format!("tcp-server --listen {NODE_ADDRESS}:0 --then echo"));
        let dns_args = format!("udp-paced --to {} --count 5 --connected", dns.ready().local);
        let tcp_args = format!("tcp-client --to {} --count 3 --mode reset", tcp.ready().local);
        Self { _programs: [dns, tcp], dns: dns_args, tcp: tcp_args }
    }

    /// What a container runs for both, and then does nothing.
    pub fn script(&self) -> String {
        let traffic = "/traffic/traffic";
        format!("{traffic} {} && {traffic} {} && exec sleep 1000", self.dns, self.tcp)
    }
}
