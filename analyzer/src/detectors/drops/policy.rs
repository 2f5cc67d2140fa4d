//! `policy.drop`: somebody's rule throws packets away: netfilter, a BPF program, traffic control, a security module.

use super::{Account, Kind, NEEDS, Strangers, Thresholds, findings, found, found_strange, state, words};
use crate::capture::{Capture, DropRow, Needs, Target};
use crate::detectors::{Rule, steps};
use crate::finding::{Finding, Severity, Step, Subject};
use crate::units::count;

/// What connection tracking counts when it drops packets itself.
const TRACKING_LOSSES: [&str; 2] = ["drop", "insert_failed"];

/// See the module.
pub(in crate::detectors) struct PolicyDrop;

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    Netfilter,
    CgroupOut,
    SocketFilter,
    TrafficControl,
    Xdp,
    Security,
    Xfrm,
}

/// Reasons by the kernel's names, and whose they are.
const REASONS: &[(&str, Agent)] = &[
    ("NETFILTER_DROP", Agent::Netfilter),
    ("NETFILTER_INGRESS", Agent::Netfilter),
    ("BPF_CGROUP_EGRESS", Agent::CgroupOut),
    ("SOCKET_FILTER", Agent::SocketFilter),
    ("TCP_FILTER", Agent::SocketFilter),
    ("TC_INGRESS", Agent::TrafficControl),
    ("TC_EGRESS", Agent::TrafficControl),
    ("XDP", Agent::Xdp),
    ("SECURITY_HOOK", Agent::Security),
    ("XFRM_POLICY", Agent::Xfrm),
];

/// Functions by which a kernel without reasons (before 5.17) tells the same.
const SYMBOLS: &[(&str, Agent)] = &[("nf_hook_slow", Agent::Netfilter), ("sk_filter_trim_cap", Agent::SocketFilter)];

fn agent(row: &DropRow) -> Option<Agent> {
    let (table, name) = if row.reason.is_some() { (REASONS, row.reason()) } else { (SYMBOLS, row.symbol()) };
    table.iter().find(|(known, _)| *known == name).map(|(_, agent)| *agent)
}

impl Agent {
    /// Who it is in a sentence.
    const fn name(self) -> &'static str {
        match self {
            Self::Netfilter => "netfilter",
            Self::CgroupOut => "a BPF program of the sender's cgroup",
            Self::SocketFilter => "a filter of the receiving socket, or a BPF program of its cgroup,",
            Self::TrafficControl => "traffic control (a `tc` filter, or a BPF program there)",
            Self::Xdp => "an XDP program",
            Self::Security => "a security module",
            Self::Xfrm => "an IPsec policy",
        }
    }

    /// What shows its rules.
    fn step(self, capture: &Capture, row: &DropRow, subject: &Subject) -> Step {
        let there = |text: &str, command: &str| words::there(capture, row, subject, text, command);
        match self {
            Self::Netfilter => there("look for the rule that drops or rejects it", "nft list ruleset"),
            Self::CgroupOut | Self::SocketFilter => {
                Step::run("on the node: see which BPF programs hang on which cgroups", "bpftool cgroup tree")
            }
            Self::TrafficControl | Self::Xdp => {
                there("see which BPF programs hang on which interfaces", "bpftool net show")
            }
            Self::Security => {
                Step::run("on the node: see what security modules have refused", "ausearch -m avc -ts recent")
            }
            Self::Xfrm => there("see the IPsec policies", "ip -s xfrm policy"),
        }
    }
}

impl Rule for PolicyDrop {
    const ID: &'static str = "policy.drop";
    const TEXT: &'static str = include_str!("../../../kb/policy.drop.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        NEEDS
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        findings(capture, t, |row| agent(row).is_some(), finding, strange)
    }
}

fn finding(capture: &Capture, t: &Thresholds, kind: Kind, target: &Target, account: &Account<'_>) -> Option<Finding> {
    let (row, is_own) = account.worst()?;
    let agent = agent(row)?;
    let subject = account.subject(capture, target);
    let verb = match (account.hit, account.severity(t)) {
        (0, _) => "loses packets of connections to",
        (_, Severity::Critical) => "gets nothing through to",
        (_, Severity::Warning | Severity::Info) => "does not always get through to",
    };
    let drops = if account.refused == account.hit && account.hit > 0 { "rejects" } else { "drops" };
    let title = format!(
        "{} {verb} {}: {} {drops} {} in {}, {}",
        subject.who(),
        subject.whom(),
        agent.name(),
        words::what(is_own),
        words::netns(capture, row.netns, &subject),
        words::extent(account, kind),
    );
    let told = found(t, "policy.drop", "blocked_share", account, (subject.clone(), title));
    Some(Finding {
        cause: cause(capture, row, agent),
        next_steps: next_steps(capture, row, agent, kind, &subject),
        ..told
    })
}

fn cause(capture: &Capture, row: &DropRow, agent: Agent) -> String {
    let reason = row.reason.as_deref().map_or_else(String::new, |r| format!(" (`{}`)", crate::escape::shown(r)));
    let rule = format!(
        "a rule of {} throws them away{reason} {}{}",
        agent.name().trim_end_matches(','),
        words::way(row.dir),
        words::spot(row)
    );
    let rules: Vec<String> = match agent {
        Agent::Netfilter => state::rules(capture, row).into_iter().map(state::risen_in_words).collect(),
        _ => Vec::new(),
    };
    if !rules.is_empty() {
        return format!("{rule}: {}", rules.join(", or "));
    }
    let lost: Vec<String> = TRACKING_LOSSES
        .iter()
        .map(|counter| (counter, capture.coverage.tracking.gained(counter, row.netns)))
        .filter(|(_, n)| *n > 0)
        .map(|(counter, n)| format!("`{counter}` rose by {n}"))
        .collect();
    if agent == Agent::Netfilter && !lost.is_empty() {
        return format!("{rule}; it may be connection tracking itself, of which {}", lost.join(" and "));
    }
    rule
}

fn next_steps(capture: &Capture, row: &DropRow, agent: Agent, kind: Kind, subject: &Subject) -> Vec<Step> {
    let mut out = vec![agent.step(capture, row, subject)];
    if agent == Agent::Netfilter {
        out.push(words::there(
            capture,
            row,
            subject,
            "the same as iptables writes it, with counters",
            "iptables-save -c",
        ));
    }
    out.extend(if kind == Kind::Tcp { steps::try_connect(subject) } else { None });
    out.extend(if kind == Kind::Dns { steps::dig(subject) } else { None });
    out.push(Step::think("ask whose rule it is: a NetworkPolicy of the cluster (`kubectl get networkpolicy -A`), a host firewall, an agent"));
    out
}

/// Packets of which nobody here waits for an answer.
fn strange(capture: &Capture, t: &Thresholds, them: &Strangers<'_>) -> Option<Finding> {
    let row = *them.rows.first()?;
    let agent = agent(row)?;
    let place = words::netns(capture, row.netns, &Subject::default());
    let title = format!(
        "{} drops {} {} packets of {} in {place}, none of which is of a socket that was seen here: {}",
        agent.name().trim_end_matches(','),
        them.packets(),
        words::adjective(row.dir),
        count(them.rows.len() as u64, "flow", "flows"),
        words::destinations(them),
    );
    let told = found_strange(t, "policy.drop", them, row, title);
    let next_steps = vec![agent.step(capture, row, &Subject::default())];
    Some(Finding { cause: cause(capture, row, agent), next_steps, ..told })
}
