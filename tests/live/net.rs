//! Private network namespaces: a client and a server with a router between them, into which faults are injected.
//! The root namespace's network is never touched. All is removed on drop; [`sweep`] removes what a killed run left.
//!
//!     client 10.77.1.2, fd77:1::2 --veth-- node --veth-- server 10.77.2.2 and .3, fd77:2::2

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::{Program, mortal};
use crate::requirements::built;
use crate::wait::{DEADLINE, PATIENCE, until};

/// The server's addresses.
pub const SERVER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 2, 2));
/// A second v4 address of the server.
pub const SERVER4_OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 2, 3));
/// The server's v6 address.
pub const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 2, 0, 0, 0, 0, 0, 2));

const NETNS_DIR: &str = "/run/netns";
const PREFIX: &str = "ktlive";

/// A network namespace; deleted on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// One that is linked to no other.
    pub fn alone() -> Self {
        Self::new(next(), "alone")
    }

    fn new(lab: u32, role: &str) -> Self {
        let netns = Self { name: format!("{PREFIX}-{}-{lab}-{role}", std::process::id()) };
        succeed(Command::new("ip").args(["netns", "add", &netns.name]));
        netns.ip("link set lo up\n");
        netns
    }

    /// Inode number: `ns.net` of its sockets.
    pub fn inode(&self) -> u32 {
        std::fs::metadata(Path::new(NETNS_DIR).join(&self.name)).unwrap().ino().try_into().unwrap()
    }

    /// `program` in this namespace; it dies with the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = mortal("nsenter");
        command.arg(format!("--net={NETNS_DIR}/{}", self.name)).arg("--").arg(program);
        command
    }

    /// `traffic` with these arguments.
    pub fn traffic(&self, args: &str) -> Command {
        let mut command = self.command(built("traffic"));
        command.arg(format!("--limit-s={}", 60 * *PATIENCE)).args(args.split_whitespace());
        command
    }

    /// Starts `traffic` with these arguments.
    pub fn start(&self, args: &str) -> Program {
        Program::start(self.traffic(args))
    }

    /// Runs a command line to its end and returns its stdout.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap());
        succeed(command.args(words))
    }

    /// Runs `ip -batch` commands.
    pub fn ip(&self, batch: &str) {
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), batch);
    }

    /// Sets a sysctl.
    pub fn sysctl(&self, key: &str, value: &str) {
        succeed(self.command("sysctl").args(["-qw", &format!("{key}={value}")]));
    }

    /// Waits until no TCP connection is on its way to its end.
    pub fn wait_until_quiet(&self) {
        let filter = "ss -Htn state connected exclude established exclude close-wait exclude time-wait";
        until(&format!("open connections in {}", self.name), DEADLINE, || {
            let open = self.run(filter);
            open.is_empty().then_some(())
        });
    }

    /// Waits until something is bound to this UDP port.
    pub fn wait_for_udp_port(&self, port: u16) {
        until(&format!("udp port {port} in {}", self.name), DEADLINE, || {
            (!self.run(&format!("ss -Hlun sport = :{port}")).is_empty()).then_some(())
        });
    }
}

impl Drop for Netns {
    /// Ends what is still running in it, then removes it. A failure leaves the name for the next run's sweep.
    fn drop(&mut self) {
        let pids = Command::new("ip").args(["netns", "pids", &self.name]).output();
        for pid in pids
            .iter()
            .flat_map(|o| String::from_utf8_lossy(&o.stdout).lines().flat_map(str::parse).collect::<Vec<_>>())
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

/// Client, router and server.
#[derive(Debug)]
pub struct Lab {
    /// Where clients run.
    pub client: Netns,
    /// Where packets are dropped, delayed and translated.
    pub node: Netns,
    /// Where servers run.
    pub server: Netns,
}

impl Lab {
    /// The three namespaces and their links, with the addresses above.
    pub fn new() -> Self {
        let lab = Self::at([77, 1], [77, 2]);
        lab.server.ip(&format!("addr add {SERVER4_OTHER}/24 dev eth0\n"));
        lab
    }

    /// The same with other addresses: see [`link`].
    pub fn at(client: [u8; 2], server: [u8; 2]) -> Self {
        let lab = next();
        let [client_netns, node, server_netns] = ["client", "node", "server"].map(|role| Netns::new(lab, role));
        link(&node, &client_netns, "cl0", client);
        link(&node, &server_netns, "sv0", server);
        node.sysctl("net.ipv4.ip_forward", "1");
        node.sysctl("net.ipv6.conf.all.forwarding", "1");
        client_netns.sysctl("net.ipv4.ip_local_port_range", "10000 65000");
        let lab = Self { client: client_netns, node, server: server_netns };
        lab.nft("add table inet fault\nadd chain inet fault forward { type filter hook forward priority 0; }\n");
        lab
    }

    /// Inode numbers of the namespaces in which sockets live.
    pub fn inodes(&self) -> [u32; 2] {
        [self.client.inode(), self.server.inode()]
    }

    /// Adds a rule to the router's forward chain, such as `ip daddr 10.77.2.2 tcp dport 80 counter drop`.
    pub fn fault(&self, rule: &str) {
        self.nft(&format!("add rule inet fault forward {rule}\n"));
    }

    /// Adds a rule to where the router translates destinations, such as `ip daddr 10.96.0.1 tcp dport 80 dnat to …`.
    pub fn translate(&self, rule: &str) {
        self.nft("add table ip lab\nadd chain ip lab pre { type nat hook prerouting priority dstnat; }\n");
        self.nft(&format!("add rule ip lab pre {rule}\n"));
    }

    /// Packets that the rules with a counter have matched.
    pub fn faulted_packets(&self) -> u64 {
        let listing: serde_json::Value = serde_json::from_str(&self.node.run("nft -j list table inet fault")).unwrap();
        let expressions = listing["nftables"].as_array().unwrap().iter().filter_map(|o| o["rule"]["expr"].as_array());
        expressions.flatten().filter_map(|e| e["counter"]["packets"].as_u64()).sum()
    }

    /// Makes packets wait in both directions, so that nothing on a connection happens in its peer's context.
    pub fn delay(&self) {
        for dev in ["cl0", "sv0"] {
            self.node.run(&format!("tc qdisc add dev {dev} root tbf rate 200mbit burst 1600 limit 10mb"));
        }
    }

    /// Sets a sysctl of the client's namespace.
    pub fn client_sysctl(&self, key: &str, value: &str) {
        self.client.sysctl(key, value);
    }

    /// Has the router load these rules (`nft -f`).
    pub fn nft(&self, script: &str) {
        feed(self.node.command("nft").args(["-f", "-"]), script);
    }
}

/// Links a namespace to a router, which sees it as `dev`. For `[a, b]` the network is `10.a.b.0/24` and `fda:b::/64`, with the
/// same digits; the router has the first address of each, the namespace the second.
pub fn link(router: &Netns, netns: &Netns, dev: &str, [a, b]: [u8; 2]) {
    for end in [router, netns] {
        // or the first v6 packets wait seconds for duplicates of addresses to show up
        end.sysctl("net.ipv6.conf.default.dad_transmits", "0");
        end.sysctl("net.ipv6.conf.default.accept_dad", "0");
    }
    router.ip(&format!(
        "link add {dev} type veth peer name eth0 netns {}\naddr add 10.{a}.{b}.1/24 dev {dev}\n\
         addr add fd{a:02}:{b}::1/64 dev {dev} nodad\nlink set {dev} up\n",
        netns.name
    ));
    netns.ip(&format!(
        "addr add 10.{a}.{b}.2/24 dev eth0\naddr add fd{a:02}:{b}::2/64 dev eth0 nodad\nlink set eth0 up\n\
         route add default via 10.{a}.{b}.1\nroute add default via fd{a:02}:{b}::1\n"
    ));
}

/// A number that no other lab of this process has.
fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Inode numbers of the namespaces that have a name.
pub fn named() -> BTreeSet<u32> {
    let entries = std::fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
    entries.filter_map(|e| std::fs::metadata(e.path()).ok()?.ino().try_into().ok()).collect()
}

/// Deletes namespaces of runs whose process is gone.
pub fn sweep() {
    let Ok(entries) = std::fs::read_dir(NETNS_DIR) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1)?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            drop(Netns { name });
        }
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn feed(command: &mut Command, input: &str) {
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{input}", String::from_utf8_lossy(&output.stderr));
}
