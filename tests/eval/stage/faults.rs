//! What becomes of packets on their way: dropped by a rule of this machine, or lost or late in another network.

use super::programs::PYTHON;
use super::{Actor, At, Stage};
use crate::program::Program;

const FAR: &str = include_str!("../far.py");
/// The device behind which the other network is.
const FAR_DEVICE: &str = "far0";

impl Stage {
    /// Adds a rule to a chain of this hook (`input`, `output`) in a namespace of its own.
    pub fn filter(&self, at: At, hook: &str, rule: &str) {
        let netns = self.at(at);
        netns.run("nft add table inet own");
        netns.run(&format!("nft add chain inet own {hook} {{ type filter hook {hook} priority 0 ; }}"));
        netns.run(&format!("nft add rule inet own {hook} {rule}"));
    }

    /// Packets that match are sent to a network from which they never come back: nothing here drops them.
    pub fn vanish(&mut self, matching: &str) {
        self.far("never", matching);
    }

    /// Packets that match come `ms` later, by way of another network.
    pub fn slow_down(&mut self, ms: u64, matching: &str) {
        self.far(&ms.to_string(), matching);
    }

    /// The same for packets of flows that the router translates: what comes back is not translated again.
    pub fn slow_down_untracked(&mut self, ms: u64, matching: &str) {
        self.far(&ms.to_string(), matching);
        self.lab.nft(&format!(
            "add chain inet far raw {{ type filter hook prerouting priority raw; }}\n\
             add rule inet far raw iifname \"{FAR_DEVICE}\" notrack\n"
        ));
    }

    fn far(&mut self, delay: &str, matching: &str) {
        if !self.is_far_set_up {
            self.is_far_set_up = true;
            let mut command = self.at(At::Node).command(&*PYTHON);
            command.args(["-I", "-S", "-c", FAR, FAR_DEVICE, delay]);
            let program = Program::start(command);
            program.wait_for_lines(1);
            self.kept.push(Actor { name: "far".into(), program });
            self.lab.node.sysctl(&format!("net.ipv4.conf.{FAR_DEVICE}.rp_filter"), "0");
            for family in ["-4", "-6"] {
                self.lab.node.run(&format!("ip {family} route add default dev {FAR_DEVICE} table 100"));
                self.lab.node.run(&format!("ip {family} rule add fwmark 1 lookup 100"));
            }
            self.lab.nft("add table inet far\nadd chain inet far pre { type filter hook prerouting priority -50; }\n");
        }
        self.lab.nft(&format!("add rule inet far pre iifname != \"{FAR_DEVICE}\" {matching} meta mark set 1\n"));
    }
}
