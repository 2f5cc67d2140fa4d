//! The table of cases about the machine: its ports, its queues, the pressure on it, and what the kubelet makes of it; see `cases.rs`.

use crate::cases::{Case, DNS, Expect, healthy, top, unjudged};
use crate::node_stories::*;
use crate::probe_stories::*;
use crate::trouble::machine_in_trouble;

/// A finding about the machine, or about a process without any destination.
const fn about(rule: &'static str, severity: &'static str, pid: u64, title: &'static str) -> Expect {
    Expect::Top { rule, severity, pid, remote: None, title }
}

/// Nothing worse than a note.
const NOTE: Expect = Expect::Healthy { clear: None };

pub const NODE_CASES: &[Case] = &[
    Case {
        name: "ephemeral-ports-exhausted",
        story: "A crawler opens a connection for each request. All 28,232 ports of the range are taken towards its destination, and twelve connects find none.",
        build: ports_exhausted,
        expect: top(
            "net.ephemeral_ports_exhausted",
            "critical",
            1847,
            SHOP,
            "finds no local port to connect to 203.0.113.8:443: 12 of 20 attempts failed; 28232 of 28232 ports of the range 32768 to 60999 were taken (TCP)",
        ),
    },
    Case {
        name: "ephemeral-ports-many",
        story: "Nearly all ports are taken, but towards many destinations, and every connect finds one: a port can be used again towards another destination.",
        build: ports_many,
        expect: healthy("net.ephemeral_ports_exhausted"),
    },
    Case {
        name: "ephemeral-ports-nearly",
        story: "Nearly all ports are taken towards one destination, and no connect has failed yet.",
        build: ports_nearly,
        expect: NOTE,
    },
    Case {
        name: "ephemeral-ports-exhausted-lossy",
        story: "The connects without a port again, but what became of them is not in the bundle.",
        build: || ports_exhausted().losing(is_failed_connect),
        expect: unjudged("net.ephemeral_ports_exhausted"),
    },
    Case {
        name: "ephemeral-ports-unread",
        story: "Healthy connects; how many ports are taken could not be read.",
        build: || without("ports"),
        expect: unjudged("net.ephemeral_ports_exhausted"),
    },
    Case {
        name: "softnet-drops",
        story: "One CPU takes all packets in, and is too slow: its queue is full at times.",
        build: || softnet(412),
        expect: about(
            "net.softnet_drops",
            "warning",
            0,
            "the node dropped 412 of 130412 packets that it took in: a receive queue was full (most on CPU 3: 412)",
        ),
    },
    Case {
        name: "softnet-drops-seen",
        story: "The same, and the `drop` hook saw packets of a connection that had to send twelve segments again.",
        build: softnet_seen,
        expect: about("net.softnet_drops", "warning", 0, "the node dropped 412 of 130412 packets that it took in"),
    },
    Case {
        name: "softnet-squeezed",
        story: "CPUs now and then use up their budget for packets, and drop none. That happens.",
        build: || softnet(0),
        expect: healthy("net.softnet_drops"),
    },
    Case {
        name: "softnet-drops-unread",
        story: "Nobody could read the counters of the receive queues.",
        build: || without("/proc/net/softnet_stat"),
        expect: unjudged("net.softnet_drops"),
    },
    Case {
        name: "qdisc-overflow",
        story: "A shaper on the node's only way out lets less through than a backup sends. Its queue overflows, and the backup sends segments again.",
        build: qdisc_overflow,
        expect: about(
            "net.qdisc_drops",
            "critical",
            0,
            "the queue `tbf` of interface `eth0` of the node dropped 96 of 1216 packets (7.9 %)",
        ),
    },
    Case {
        name: "qdisc-overflow-seen",
        story: "The same, and the `drop` hook saw whose packets they were.",
        build: qdisc_overflow_seen,
        expect: about(
            "net.qdisc_drops",
            "critical",
            0,
            "the queue `tbf` of interface `eth0` of the node dropped 96 of 1216 packets (7.9 %)",
        ),
    },
    Case {
        name: "qdisc-overflow-uncounted",
        story: "The same where the queues could not be read: the `drop` hook alone tells of it.",
        build: qdisc_uncounted,
        expect: about("net.qdisc_drops", "warning", 0, "a queue of interface `eth0` of the node dropped 96 packets"),
    },
    Case {
        name: "qdisc-overflow-elsewhere-lossy",
        story: "The queues of another network namespace were read, and what was dropped here is not in the bundle.",
        build: qdisc_elsewhere_lossy,
        expect: unjudged("net.qdisc_drops"),
    },
    Case {
        name: "qdisc-telling-tcp",
        story: "`fq_codel` drops 40 of 120,040 packets, which is how it tells TCP to slow down.",
        build: qdisc_telling_tcp,
        expect: NOTE,
    },
    Case {
        name: "qdisc-overflow-unread",
        story: "Nobody could read the queues.",
        build: || without("qdiscs"),
        expect: unjudged("net.qdisc_drops"),
    },
    Case {
        name: "cpu-throttled",
        story: "A pod may use half a CPU, and wants more: it is held back in every second period.",
        build: || throttled(312),
        expect: about(
            "pod.cpu_throttled",
            "critical",
            1847,
            "`api` (pid 1847) was held back by its CPU limit of 0.5 CPUs in 312 of 600 periods (52 %)",
        ),
    },
    Case {
        name: "cpu-throttled-rarely",
        story: "A pod is held back in one period of thirty. That happens.",
        build: || throttled(20),
        expect: healthy("pod.cpu_throttled"),
    },
    Case {
        name: "cpu-throttled-unread",
        story: "Nobody could read the cgroups of the pods.",
        build: || without("cgroup"),
        expect: unjudged("pod.cpu_throttled"),
    },
    Case {
        name: "pressure-cpu",
        story: "Fourteen tasks want to run on two CPUs.",
        build: || cpu_pressure(862, 31),
        expect: about(
            "host.pressure",
            "critical",
            0,
            "the machine is short of CPU: some task waited for one for 86.2 % of the time; load 14.2 on 2 CPUs",
        ),
    },
    Case {
        name: "pressure-cpu-of-one-pod",
        story: "A pod waits for its own limit, which is pressure on the CPU, too; but the CPUs are idle for 40 % of the time.",
        build: || cpu_pressure(620, 400),
        expect: healthy("host.pressure"),
    },
    Case {
        name: "pressure-cpu-without-psi",
        story: "The same as the first on a kernel that tells no pressure: no time is idle, and the load is seven for each CPU.",
        build: || cpu_without_psi(20, 1420),
        expect: about(
            "host.pressure",
            "critical",
            0,
            "load 14.2 on 2 CPUs, idle for 2 % of their time (this kernel tells no pressure)",
        ),
    },
    Case {
        name: "pressure-steal",
        story: "The host of this virtual machine gives a third of its CPU time to others.",
        build: || stolen(340),
        expect: about(
            "host.pressure",
            "critical",
            0,
            "the hypervisor gave 34 % of this machine's CPU time to others (steal)",
        ),
    },
    Case {
        name: "pressure-unread",
        story: "Nobody could read pressure, nor the times of the CPUs.",
        build: || without("/proc/stat"),
        expect: unjudged("host.pressure"),
    },
    Case {
        name: "memory-oom",
        story: "A pod reaches its memory limit, and the kernel ends two of its processes.",
        build: || memory(&[("oom_kill", 0)], &[("memory.oom_kill", 2), ("memory.max", 512)]),
        expect: about(
            "host.memory_pressure",
            "critical",
            1847,
            "`api` (pid 1847) ran out of memory: the kernel ended 2 processes",
        ),
    },
    Case {
        name: "memory-pressure-of-a-pod",
        story: "A pod waits for memory in its own cgroup; the machine has enough.",
        build: || memory_of_a_pod(310, 90),
        expect: about(
            "host.memory_pressure",
            "warning",
            1847,
            "`api` (pid 1847) is short of memory: some task waited for it for 31 % of the time",
        ),
    },
    Case {
        name: "memory-stalls-without-psi",
        story: "The machine frees memory while tasks wait, on a kernel that tells no pressure.",
        build: || memory(&[("allocstall_normal", 4000), ("allocstall_movable", 5000)], &[]),
        expect: about(
            "host.memory_pressure",
            "warning",
            0,
            "the machine is short of memory: 9000 allocations had to wait until some was freed (this kernel tells no pressure)",
        ),
    },
    Case {
        name: "memory-limit-of-caches",
        story: "The caches of a pod fill its memory limit, and nobody waits for it.",
        build: || memory_of_a_pod(12, 0),
        expect: NOTE,
    },
    Case {
        name: "memory-unread",
        story: "Nobody could read pressure, nor the counters of the memory.",
        build: || without("/proc/vmstat"),
        expect: unjudged("host.memory_pressure"),
    },
    Case {
        name: "resolver-search-domains",
        story: "Each name that `api` looks up is asked for under the three domains of the cluster first, A and AAAA: eight queries for one lookup, ten times in three seconds.",
        build: || for_ms(searching(300, 3000), 3000),
        expect: top(
            "dns.resolver_config",
            "warning",
            1847,
            DNS,
            "asks 10.96.0.10:53 4 times for a name: 60 of 80 queries were for names under 3 search domains (`ndots:5`)",
        ),
    },
    Case {
        name: "resolver-by-default",
        story: "The same in a pod that looks up a name every eight seconds: Kubernetes does it that way.",
        build: || searching(8000, 58_000),
        expect: healthy("dns.resolver_config"),
    },
    Case {
        name: "resolver-search-domains-unread",
        story: "The first lookups again, but nobody could read `resolv.conf`.",
        build: search_unread,
        expect: unjudged("dns.resolver_config"),
    },
    Case {
        name: "resolver-search-domains-of-others",
        story: "Each name is asked for in four ways, by a process whose own resolver configuration nobody read.",
        build: search_of_others,
        expect: unjudged("dns.resolver_config"),
    },
    Case {
        name: "resolver-search-domains-lossy",
        story: "The first lookups again, but their answers are not in the bundle.",
        build: || for_ms(searching(300, 3000), 3000).losing(is_recv),
        expect: unjudged("dns.resolver_config"),
    },
    Case {
        name: "probe-refused",
        story: "The kubelet probes a pod, and nothing listens on that port any more.",
        build: probes_refused,
        expect: top(
            "kubelet.probe_failing",
            "critical",
            900,
            POD,
            "`kubelet` (pid 900) is refused by shop/api-1 at 10.42.1.30:8080: 6 of 6 probes failed",
        ),
    },
    Case {
        name: "probe-answered",
        story: "The kubelet's probes are answered; each takes 300 ms to connect.",
        build: probes_answered,
        expect: healthy("kubelet.probe_failing"),
    },
    Case {
        name: "probe-while-starting",
        story: "Two probes are refused while the pod starts; the later ones are answered.",
        build: pod_starting,
        expect: NOTE,
    },
    Case {
        name: "probe-refused-lossy",
        story: "The probes that are refused again, but what became of them is not in the bundle.",
        build: || probes_refused().losing(is_refused),
        expect: unjudged("kubelet.probe_failing"),
    },
    Case {
        name: "cpu-throttled-fails-probes",
        story: "A pod is held back by its CPU limit, and answers none of the kubelet's probes within a second. That the probes fail is a symptom.",
        build: throttled_pod,
        expect: about(
            "pod.cpu_throttled",
            "critical",
            1847,
            "`api` (pid 1847) in shop/api-1/api was held back by its CPU limit of 0.5 CPUs in 412 of 600 periods (68.7 %)",
        ),
    },
    Case {
        name: "machine-in-trouble",
        story: "Nothing much happens on the network while the machine under it is in a bad way: see `node.txt`.",
        build: machine_in_trouble,
        expect: about("host.pressure", "critical", 0, "some task waited for one for 86.2 % of the time"),
    },
];
