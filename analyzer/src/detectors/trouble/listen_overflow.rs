//! `tcp.listen_overflow`: a listener turns connections away, because its process does not accept them as fast as they come.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ktrace_bundle::event::Endpoint;
use serde::Deserialize;

use crate::capture::{Attempt, Capture, Connection, FarEnd, Needs, Overflow, Target};
use crate::detectors::{Rule, steps};
use crate::finding::{Finding, Key, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{MILLI, count, duration, share};

/// Most findings: each looks at all connections, and somebody else may have made up the bundle.
const MAX_FINDINGS: usize = 64;
/// Where a server had no room, its end of a connection is made so much later than the client's: when the first data comes
/// again, 200 ms after it was sent at the earliest (`TCP_RTO_MIN`).
const HEARD_LATE_NS: u64 = 150 * MILLI;

/// See the module.
pub(in crate::detectors) struct ListenOverflow;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_turned_away: u64,
    slow_ms: Ms,
}

/// What became of connects to a listener from this node.
#[derive(Debug, Default)]
struct Clients {
    tried: u64,
    failed: u64,
    slow: u64,
    slowest_ns: u64,
    /// Connected by their own account, while their data is sent again: the server did not have them by then.
    unheard: u64,
    /// SYN-ACKs that the server had to send again.
    answered_again: u64,
    /// Those that failed or were slow, and servers that had to send their SYN-ACK again.
    keys: BTreeSet<Key>,
    /// Those whose server does not have them yet, of these.
    unheard_keys: BTreeSet<Key>,
}

impl Rule for ListenOverflow {
    const ID: &'static str = "tcp.listen_overflow";
    const TEXT: &'static str = include_str!("../../../kb/tcp.listen_overflow.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let hooks = &["tcp_wait"];
        Needs { hooks, lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut overflows: Vec<&Overflow> = capture.overflows.iter().collect();
        overflows.sort_by_key(|o| (std::cmp::Reverse(o.turned_away), o.netns, o.local));
        let addresses = addresses(capture);
        overflows.into_iter().take(MAX_FINDINGS).map(|o| finding(capture, t, &addresses, o)).collect()
    }
}

/// Addresses that sockets in each namespace have, for listeners that listen on all of them.
fn addresses(capture: &Capture) -> BTreeSet<(u32, IpAddr)> {
    let tcp = capture.connections.iter().map(|c| (c.netns, c.local));
    let udp = capture.dns.iter().chain(&capture.udp).map(|f| (f.netns, f.local));
    tcp.chain(udp).filter_map(|(netns, local)| Some((netns, local.addr?))).collect()
}

/// Whether what is sent to this end from that namespace reaches the listener.
fn is_at(o: &Overflow, addresses: &BTreeSet<(u32, IpAddr)>, from: u32, end: Endpoint) -> bool {
    let Some(addr) = end.addr.filter(|_| end.port.is_some() && end.port == o.local.port) else { return false };
    let is_reachable = !addr.is_loopback() || from == o.netns;
    match o.local.addr {
        Some(own) => own == addr && is_reachable,
        None => is_reachable && (addr.is_loopback() || addresses.contains(&(o.netns, addr))),
    }
}

fn clients(capture: &Capture, t: &Thresholds, addresses: &BTreeSet<(u32, IpAddr)>, o: &Overflow) -> Clients {
    let mut clients = Clients::default();
    let key = |c: &Connection, remote| {
        let comm = capture.owner(c).map(|p| p.comm.clone());
        Key::from(&Target { comm, netns: c.netns, remote })
    };
    for c in &capture.connections {
        if !c.is_client() {
            let is_ours = c.netns == o.netns && c.local.port == o.local.port;
            if is_ours && c.retransmits.synack.total() > 0 {
                clients.answered_again = clients.answered_again.saturating_add(c.retransmits.synack.total());
                clients.keys.insert(key(c, Endpoint { addr: c.remote.addr, port: None }));
            }
            continue;
        }
        if !is_at(o, addresses, c.netns, c.way.backend(c.remote)) {
            continue;
        }
        let Some(attempt) = c.attempt(capture.window_end_ns) else { continue };
        clients.tried += 1;
        let took = c.handshake_ns.unwrap_or(0);
        let is_failed = matches!(attempt, Attempt::Failed(_));
        let is_slow = !is_failed && took >= t.slow_ms.ns();
        clients.failed += u64::from(is_failed);
        let again = c.retransmits.data.total().saturating_add(c.retransmits.probe.total());
        let is_late = |server: &FarEnd| {
            c.established.is_some_and(|made| server.span.from.saturating_sub(made.at) >= HEARD_LATE_NS)
        };
        let is_unheard = !is_failed && again > 0 && capture.ends.server_of(c).is_none_or(is_late);
        clients.slow += u64::from(is_slow);
        clients.unheard += u64::from(is_unheard);
        clients.slowest_ns = clients.slowest_ns.max(took);
        if is_unheard {
            clients.unheard_keys.insert(key(c, c.remote));
        }
        if is_failed || is_slow || is_unheard {
            clients.keys.insert(key(c, c.remote));
        }
    }
    clients
}

fn finding(capture: &Capture, t: &Thresholds, addresses: &BTreeSet<(u32, IpAddr)>, o: &Overflow) -> Finding {
    let clients = clients(capture, t, addresses, o);
    let subject = subject(capture, o);
    let is_full = is_accept_queue(o);
    // a SYN that comes again because its answer was lost is thrown away, too
    let is_repeated = !is_full && o.turned_away <= clients.answered_again;
    let severity = match (is_full && clients.failed > 0, o.turned_away >= t.min_turned_away && !is_repeated) {
        (true, _) => Severity::Critical,
        (false, true) => Severity::Warning,
        (false, false) => Severity::Info,
    };
    let title = format!(
        "{} turns connections to {} away: {}{}, {}",
        subject.who(),
        o.local,
        count(o.turned_away, "segment of a handshake was dropped", "segments of handshakes were dropped"),
        if is_full { " for want of room" } else { "" },
        queue(o),
    );
    // a listener with room may drop SYNs for another reason, of which another rule tells; the last ACK of a handshake it drops only
    // for want of room
    let covered = if is_full { &clients.keys } else { &clients.unheard_keys };
    let mut covers: Vec<Key> = covered.iter().cloned().collect();
    covers.push(subject.key());
    Finding {
        rule: "tcp.listen_overflow",
        severity,
        title,
        signal: Signal {
            name: "turned_away_count",
            value: o.turned_away as f64,
            unit: "segments",
            threshold: t.min_turned_away as f64,
        },
        cause: cause(o),
        impact: impact(&clients),
        next_steps: next_steps(&subject, o),
        share: if clients.tried > 0 { share(clients.failed + clients.slow, clients.tried) } else { 0.5 },
        confidence: if is_full { 0.97 } else { 0.6 },
        evidence: o.evidence.clone(),
        symptoms: Vec::new(),
        covers: Some(covers),
        subject,
    }
}

fn subject(capture: &Capture, o: &Overflow) -> Subject {
    let process = o.owner().and_then(|id| capture.processes.get(id));
    Subject {
        comm: process.map(|p| p.comm.clone()),
        pids: process.map(|p| p.pid).into_iter().collect(),
        home: o.owner().and_then(|id| capture.processes.home(id)).cloned(),
        local: Some(o.local),
        netns: Some(o.netns),
        ..Subject::default()
    }
}

/// `129 waited to be accepted where 128 may`.
fn queue(o: &Overflow) -> String {
    match (o.accept_queue, o.backlog) {
        (Some(waiting), Some(room)) => format!("{waiting} waited to be accepted where {room} may"),
        (None, Some(room)) => format!("with room for {room}"),
        _ => "the length of its queue is not known".to_owned(),
    }
}

fn is_accept_queue(o: &Overflow) -> bool {
    o.accept_queue.zip(o.backlog).is_none_or(|(waiting, room)| waiting >= room)
}

fn cause(o: &Overflow) -> String {
    if is_accept_queue(o) {
        return "the accept queue is full: the process does not call accept(2) as fast as connections come, or asked for too \
                small a backlog in listen(2), which `net.core.somaxconn` limits; SYN cookies do not help against that"
            .to_owned();
    }
    "the accept queue had room when it was looked at, once a second: it was full for moments only, or the queue of half-open \
     connections (`net.ipv4.tcp_max_syn_backlog`) is and SYN cookies (`net.ipv4.tcp_syncookies`) are off, or a filter of the \
     socket drops them"
        .to_owned()
}

fn impact(clients: &Clients) -> String {
    let of = count(clients.tried, "connect from this node", "connects from this node");
    let parts: Vec<String> = [
        (clients.failed, "failed".to_owned()),
        (clients.slow, format!("took up to {}, dropped at first and tried again", duration(clients.slowest_ns))),
        (clients.unheard, "are made for the client only, which sends its first data again and again".to_owned()),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect();
    if parts.is_empty() {
        return "whose first try is dropped waits 1 s for the second, 3 s for the third and so on, or gives up"
            .to_owned();
    }
    format!("of {of}, {}", parts.join("; "))
}

fn next_steps(subject: &Subject, o: &Overflow) -> Vec<Step> {
    let mut out = Vec::new();
    if let Some(port) = o.local.port {
        let command = steps::inside(subject, &format!("ss -ltn 'sport = :{port}'"));
        out.push(Step::run("see the queue (Recv-Q) and its limit (Send-Q)", command));
    }
    let counters = "nstat -az TcpExtListenOverflows TcpExtListenDrops TcpExtTCPReqQFullDoCookies TcpExtTCPReqQFullDrop";
    out.push(Step::run("see which queue overflows", steps::inside(subject, counters)));
    let limits =
        "sysctl net.core.somaxconn net.ipv4.tcp_max_syn_backlog net.ipv4.tcp_syncookies net.ipv4.tcp_abort_on_overflow";
    out.push(Step::run("see the limits", steps::inside(subject, limits)));
    if let Some(pid) = subject.pid() {
        out.push(Step::run("see where its threads wait instead of accepting", format!("cat /proc/{pid}/task/*/wchan")));
    }
    out.push(Step::think("then let the program accept faster (more workers, more CPU), or ask for a longer backlog and raise `net.core.somaxconn`"));
    out
}
