//! One table of faults: what is broken, who suffers, and what `analyze` must name first. A new fault is a new line.

use ktrace_traffic::Truth;

use crate::Test;
use crate::analyze::analyze;
use crate::capture::Capture;
use crate::dns::{self, Dnsmasq, NAMES};
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::wait::{boot_ns, until_boot_ns};
use crate::workdir::Workdir;

const S: u64 = 1_000_000_000;

/// A query counts as unanswered when it is older than this at the end of the window; with a margin.
pub const UNANSWERED_AFTER_NS: u64 = 5 * S + S / 4;

/// What traffic runs in.
#[derive(Debug)]
pub struct Scene {
    /// Client, router and server.
    pub lab: Lab,
    /// For files.
    pub dir: Workdir,
    /// The servers of this case, in its order.
    pub servers: Vec<Program>,
}

/// Whom the top finding must name.
#[derive(Debug, PartialEq, Eq)]
struct Suspect {
    comm: String,
    pid: u64,
    /// The end that tells the destination: `remote` of a client, `local` of a server.
    end: (&'static str, String),
}

struct Fault {
    /// A sentence.
    name: &'static str,
    /// Rules of the router's forward chain.
    rules: &'static [&'static str],
    servers: fn(&Lab) -> Vec<Program>,
    /// Makes the traffic and says who suffered.
    traffic: fn(&Scene) -> Suspect,
    /// Time that the window stays open after the traffic, ns.
    settle_ns: u64,
    /// Rule of the top finding.
    rule: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "dropped_dns_queries_are_the_top_finding",
        rules: &["udp dport 53 counter drop"],
        servers: |lab| vec![Dnsmasq::start(&lab.server)],
        traffic: |scene| {
            let client = dns::client(&scene.lab.client, "timeout", SERVER4, dns::PORT, &NAMES[..3]);
            suffers(Program::start(client), "python3", format!("{SERVER4}:53"))
        },
        settle_ns: UNANSWERED_AFTER_NS,
        rule: "dns.no_reply",
    },
    Fault {
        name: "dropped_dns_replies_are_the_top_finding",
        // of A and AAAA on one socket the first reply is lost, and again when glibc asks again
        rules: &["udp sport 53 numgen inc mod 2 == 0 counter drop"],
        servers: |lab| vec![Dnsmasq::start(&lab.server)],
        traffic: |scene| suffers(dns::getent(&scene.lab, &scene.dir, "ok.test", 1), "getent", format!("{SERVER4}:53")),
        settle_ns: UNANSWERED_AFTER_NS,
        rule: "dns.no_reply",
    },
    Fault {
        name: "dropped_syns_are_the_top_finding",
        rules: &["tcp dport 8080 tcp flags & (syn | ack) == syn counter drop"],
        servers: |lab| vec![ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080")))],
        traffic: |scene| {
            // two SYNs instead of seven: the kernel's timeout comes after seconds, not minutes
            scene.lab.client_sysctl("net.ipv4.tcp_syn_retries", "1");
            let client = scene.lab.client.start(&format!("connect --to {SERVER4}:8080 --blocking"));
            suffers(client, "traffic", format!("{SERVER4}:8080"))
        },
        settle_ns: 0,
        rule: "tcp.connect_timeout",
    },
    Fault {
        name: "a_refused_port_is_the_top_finding",
        rules: &[],
        servers: |_| Vec::new(),
        traffic: |scene| {
            let client = scene.lab.client.start(&format!("connect --to {SERVER4}:8081 --count 5"));
            suffers(client, "traffic", format!("{SERVER4}:8081"))
        },
        settle_ns: 0,
        rule: "tcp.refused",
    },
    Fault {
        name: "loss_on_a_bulk_transfer_is_the_top_finding",
        rules: &["ip daddr 10.77.2.2 tcp dport 8080 meta length > 100 numgen inc mod 7 == 6 counter drop"],
        servers: |lab| vec![ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080")))],
        traffic: |scene| {
            let client = format!("tcp-client --to {SERVER4}:8080 --count 4 --bytes 1000000");
            suffers(scene.lab.client.start(&client), "traffic", format!("{SERVER4}:8080"))
        },
        settle_ns: 0,
        rule: "tcp.retransmits",
    },
    Fault {
        // each request is one segment: what is lost is sent again as a tail loss probe; the pause is longer than a
        // delayed acknowledgement, so that answers do not wait for one that the lost request carried
        name: "loss_between_requests_and_answers_is_the_top_finding",
        rules: &["ip daddr 10.77.2.2 tcp dport 8080 meta length > 100 numgen inc mod 7 == 6 counter drop"],
        servers: |lab| vec![ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then echo")))],
        traffic: |scene| {
            let text = "x".repeat(200);
            let chat = format!("tcp-chat --to {SERVER4}:8080 --rounds 36 --interval-ms 60 --text {text}");
            suffers(scene.lab.client.start(&chat), "traffic", format!("{SERVER4}:8080"))
        },
        settle_ns: 0,
        rule: "tcp.retransmits",
    },
    Fault {
        name: "a_server_that_never_closes_is_the_top_finding",
        rules: &[],
        servers: |lab| vec![ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then hold")))],
        traffic: |scene| {
            let client = scene.lab.client.traffic(&format!("tcp-client --to {SERVER4}:8080 --mode probe --count 5"));
            assert!(Program::run(client).status.success());
            let held = scene.servers[0].truths(5);
            assert!(held.iter().all(|t| matches!(t, Truth::Conn(_))), "{held:?}");
            let pid = scene.servers[0].pid().into();
            Suspect { comm: "traffic".into(), pid, end: ("local", "*:8080".into()) }
        },
        settle_ns: 4 * S,
        rule: "tcp.close_wait_leak",
    },
];

/// One test for each fault.
pub fn tests() -> Vec<Test> {
    FAULTS.iter().map(|fault| Test::new(fault.name, || fault.is_found())).collect()
}

impl Fault {
    fn is_found(&self) {
        let lab = Lab::new();
        for rule in self.rules {
            lab.fault(rule);
        }
        let servers = (self.servers)(&lab);
        let scene = Scene { lab, dir: Workdir::new(), servers };
        // what the drop hook makes of faults stands in `node_faults.rs`
        let capture = Capture::of_drops_elsewhere();
        let suspect = (self.traffic)(&scene);
        until_boot_ns(boot_ns() + self.settle_ns);
        let bundle = capture.stop();
        assert!(self.rules.is_empty() || scene.lab.faulted_packets() > 0, "the fault did not happen");

        let report = analyze(&bundle.path);
        assert_eq!(report.exit_code, 0);
        let findings = report.findings(&scene.lab.inodes());
        let top = findings.first().unwrap_or_else(|| panic!("nothing found: {}", report.text()));
        assert_eq!(top.rule(), self.rule, "{}", report.text());
        assert_ne!(top.severity(), "info", "{}", report.text());
        let comm = top.subject("comm");
        let comm = if comm.starts_with("python3") { "python3".into() } else { comm };
        assert_eq!((comm, top.pid()), (suspect.comm, Some(suspect.pid)), "{}", report.text());
        assert_eq!(top.subject(suspect.end.0), suspect.end.1, "{}", report.text());
    }
}

/// Waits until a traffic server listens.
pub fn ready(server: Program) -> Program {
    server.ready();
    server
}

/// Waits for the end of a client, however it ends.
fn suffers(client: Program, comm: &str, remote: String) -> Suspect {
    let pid = client.pid().into();
    client.wait();
    Suspect { comm: comm.into(), pid, end: ("remote", remote) }
}
