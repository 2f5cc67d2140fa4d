//! Workloads that are well, some of which look ill at first sight: `analyze` must say nothing above `info`.

use crate::Test;
use crate::analyze::analyze;
use crate::capture::Capture;
use crate::dns::{self, Dnsmasq, NAMES};
use crate::faults::{Scene, UNANSWERED_AFTER_NS, ready};
use crate::net::{Lab, SERVER4, SERVER4_OTHER, SERVER6};
use crate::program::Program;
use crate::wait::{boot_ns, until_boot_ns};
use crate::workdir::Workdir;

struct Healthy {
    /// A sentence.
    name: &'static str,
    /// Rules of the router's forward chain: part of what looks ill.
    rules: &'static [&'static str],
    servers: fn(&Lab) -> Vec<Program>,
    traffic: fn(&Scene),
    /// Time that the window stays open after the traffic, ns.
    settle_ns: u64,
}

const HEALTHY: &[Healthy] = &[
    Healthy {
        name: "answered_queries_are_healthy",
        rules: &[],
        servers: |lab| vec![Dnsmasq::start(&lab.server)],
        traffic: |scene| {
            for server in [SERVER4, SERVER6] {
                succeeds(dns::client(&scene.lab.client, "sendto", server, dns::PORT, NAMES));
            }
        },
        settle_ns: 0,
    },
    Healthy {
        name: "glibc_lookups_of_both_families_are_healthy",
        rules: &[],
        servers: |lab| vec![Dnsmasq::start(&lab.server)],
        traffic: |scene| {
            for name in NAMES {
                let lookup = dns::getent(&scene.lab, &scene.dir, name, 2).wait();
                assert!(lookup.status.success(), "{lookup:?}");
            }
        },
        settle_ns: 0,
    },
    Healthy {
        name: "names_that_do_not_exist_are_healthy",
        rules: &[],
        servers: |lab| vec![Dnsmasq::start(&lab.server)],
        traffic: |scene| {
            for name in ["a.nx.test", "b.nx.test"] {
                let mut dig = scene.lab.client.command("dig");
                dig.args([&format!("@{SERVER4}"), "+tries=1", name]);
                succeeds(dig);
            }
        },
        settle_ns: 0,
    },
    Healthy {
        name: "asking_two_resolvers_at_once_is_healthy",
        rules: &[],
        servers: |lab| vec![Dnsmasq::start(&lab.server)],
        traffic: |scene| {
            for name in NAMES {
                let both = [name, SERVER4_OTHER.to_string().as_str()].map(str::to_owned);
                succeeds(dns::client(
                    &scene.lab.client,
                    "parallel",
                    SERVER4,
                    dns::PORT,
                    &both.each_ref().map(|s| s.as_str()),
                ));
            }
        },
        settle_ns: UNANSWERED_AFTER_NS,
    },
    Healthy {
        name: "connecting_udp_sockets_without_sending_is_healthy",
        rules: &[],
        servers: |lab| vec![Dnsmasq::start(&lab.server)],
        traffic: |scene| {
            // as a lookup does: ask first, then sort the addresses
            succeeds(dns::client(&scene.lab.client, "sendto", SERVER4, dns::PORT, NAMES));
            succeeds(dns::client(&scene.lab.client, "address-sorting", SERVER4, 53, &["10.77.2.2", "10.77.2.3"]));
        },
        settle_ns: 0,
    },
    Healthy {
        name: "short_connections_are_healthy",
        rules: &[],
        servers: |lab| vec![ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080")))],
        traffic: |scene| client(scene, &format!("tcp-client --to {SERVER4}:8080 --count 200 --threads 4")),
        settle_ns: 0,
    },
    Healthy {
        name: "a_connection_that_stays_open_is_healthy",
        rules: &[],
        servers: |lab| {
            let server = ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then echo")));
            let chat = ready(lab.client.start(&format!("tcp-chat --to {SERVER4}:8080 --rounds 1000 --interval-ms 20")));
            vec![server, chat]
        },
        traffic: |_| {},
        settle_ns: 1_000_000_000,
    },
    Healthy {
        name: "non_blocking_connects_are_healthy",
        rules: &[],
        servers: |lab| vec![ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then close")))],
        traffic: |scene| client(scene, &format!("connect --to {SERVER4}:8080 --count 30")),
        settle_ns: 0,
    },
    Healthy {
        name: "losing_a_happy_eyeballs_race_is_healthy",
        rules: &["ip6 daddr fd77:2::2 tcp dport 8080 counter drop"],
        servers: |lab| vec![ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then close")))],
        traffic: |scene| {
            for _ in 0..3 {
                client(scene, &format!("race --first [{SERVER6}]:8080 --second {SERVER4}:8080"));
            }
        },
        settle_ns: 0,
    },
    Healthy {
        name: "health_checks_that_connect_and_close_are_healthy",
        rules: &[],
        servers: |lab| {
            vec![ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --model prefork --then close")))]
        },
        traffic: |scene| client(scene, &format!("tcp-client --to {SERVER4}:8080 --mode probe --count 30")),
        settle_ns: 0,
    },
    Healthy {
        name: "a_bulk_transfer_is_healthy",
        rules: &[],
        servers: |lab| vec![ready(lab.server.start(&format!("tcp-server --listen {SERVER4}:8080")))],
        traffic: |scene| client(scene, &format!("tcp-client --to {SERVER4}:8080 --bytes 30000000 --reply 30000000")),
        settle_ns: 0,
    },
];

/// One test for each workload.
pub fn tests() -> Vec<Test> {
    HEALTHY.iter().map(|workload| Test::new(workload.name, || workload.is_healthy())).collect()
}

impl Healthy {
    fn is_healthy(&self) {
        let lab = Lab::new();
        for rule in self.rules {
            lab.fault(rule);
        }
        let servers = (self.servers)(&lab);
        let scene = Scene { lab, dir: Workdir::new(), servers };
        let capture = Capture::start();
        (self.traffic)(&scene);
        until_boot_ns(boot_ns() + self.settle_ns);
        let bundle = capture.stop();
        let netns = scene.lab.inodes();
        let seen = bundle.sockets.iter().map(|s| s.id.netns).chain(bundle.events.iter().map(|e| e.id.netns));
        assert!(seen.into_iter().any(|n| netns.contains(&n)), "nothing of the workload was seen");

        let report = analyze(&bundle.path);
        assert_eq!(report.exit_code, 0);
        let above_info: Vec<_> = report.findings(&netns).into_iter().filter(|f| f.severity() != "info").collect();
        assert!(above_info.is_empty(), "{above_info:#?}");
    }
}

fn client(scene: &Scene, args: &str) {
    succeeds(scene.lab.client.traffic(args));
}

fn succeeds(command: std::process::Command) {
    let ended = Program::run(command);
    assert!(ended.status.success(), "{ended:?}");
}
