//! `net.no_route`: this node, or a router on the way, has no route to a destination.

use std::collections::BTreeMap;

use ktrace_bundle::event::Errno;

use super::{
    Account, Blame, Kind, MAX_FINDINGS, Outcome, Strangers, Thresholds, blame, found, found_strange, state, words,
};
use crate::capture::{Attempt, Capture, DropRow, Failure, Needs, Target};
use crate::detectors::nat::Socket;
use crate::detectors::{Rule, steps};
use crate::finding::{Finding, Severity, Step, Subject};
use crate::units::count;

/// The error of who has no route.
const ERROR: &str = "ENETUNREACH";
/// The kernel's names for packets without one.
const REASONS: [&str; 3] = ["IP_OUTNOROUTES", "IP_INNOROUTES", "IP_INADDRERRORS"];

/// See the module.
pub(in crate::detectors) struct NoRoute;

/// Failures with the error, and whether it came before anything was sent.
#[derive(Debug, Default)]
struct Errors<'a> {
    account: Account<'a>,
    local: u64,
}

impl Rule for NoRoute {
    const ID: &'static str = "net.no_route";
    const TEXT: &'static str = include_str!("../../../kb/net.no_route.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let hooks = &["drop", "tcp_state", "connect", "udp"];
        Needs { hooks, lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let Blame { accounts, strangers } = blame(capture, t, |row| REASONS.contains(&row.reason()));
        let errors = errors(capture, t);
        let by_error = errors.iter().filter(|(key, _)| !accounts.contains_key(*key));
        let by_error = by_error.map(|((kind, target), e)| by_error_only(capture, t, *kind, target, e));
        let by_drop =
            accounts.iter().filter_map(|((kind, target), account)| by_drop(capture, t, *kind, target, account));
        let others = strangers.values().filter_map(|them| strange(capture, t, them));
        by_drop.chain(by_error).chain(others).take(MAX_FINDINGS).collect()
    }
}

fn is_error(errno: Errno) -> bool {
    errno.name() == Some(ERROR)
}

/// Who failed with the error; losers of a race that was won are left out.
fn errors<'a>(capture: &'a Capture, t: &Thresholds) -> BTreeMap<(Kind, Target), Errors<'a>> {
    let races = capture.races();
    let mut by_target: BTreeMap<(Kind, Target), Errors<'_>> = BTreeMap::new();
    for (target, members) in capture.attempts() {
        let errors = by_target.entry((Kind::Tcp, target)).or_default();
        for (c, attempt) in members {
            let failure = match attempt {
                Attempt::Failed(failure @ Failure::Unreachable(errno)) if is_error(errno) => Some(failure),
                Attempt::Failed(_) | Attempt::Established => None,
            };
            let settled = failure.is_some_and(|failure| races.settled_elsewhere(c, failure));
            let outcome = Outcome { tried: 1, failed: failure.is_some().into(), settled, ..Outcome::default() };
            errors.local += u64::from(failure.is_some() && c.opened.is_none());
            errors.account.fail(Socket::Tcp(c), outcome);
        }
    }
    let dns = capture.dns.iter().map(|f| (Kind::Dns, f));
    for (kind, f) in dns.chain(capture.udp.iter().map(|f| (Kind::Udp, f))) {
        let failed = if f.failed.errno.is_some_and(is_error) { f.failed.n } else { 0 };
        let comm = f.owner.and_then(|id| capture.processes.get(id)).map(|p| p.comm.clone());
        let errors = by_target.entry((kind, Target { comm, netns: f.netns, remote: f.server })).or_default();
        errors.local = errors.local.saturating_add(failed);
        errors.account.fail(Socket::Udp(f), Outcome { tried: f.sent, failed, ..Outcome::default() });
    }
    by_target.retain(|_, errors| errors.account.hit > 0 && errors.account.severity(t) != Severity::Info);
    by_target
}

fn by_error_only(capture: &Capture, t: &Thresholds, kind: Kind, target: &Target, errors: &Errors<'_>) -> Finding {
    let account = &errors.account;
    let subject = account.subject(capture, target);
    let is_local = errors.local.saturating_mul(2) >= account.hit;
    let failed = format!("{} of {} failed with `{ERROR}`", account.hit, kind.count(account.tried));
    let title = match is_local {
        true => format!("{} has no route to {}: {failed}", subject.who(), subject.whom()),
        false => format!("{} cannot reach {} for want of a route on the way: {failed}", subject.who(), subject.whom()),
    };
    let cause = match is_local {
        true => "no route of its network namespace leads to that address, not even a default route",
        false => "a router on the way answers that it has no route there (ICMP)",
    };
    let mut next_steps: Vec<Step> = steps::route(&subject).into_iter().collect();
    next_steps.push(Step::run("see all routes", steps::inside(&subject, "ip route show table all")));
    next_steps.push(Step::run("see which table is asked for whom", steps::inside(&subject, "ip rule show")));
    let confidence = if is_local { 0.97 } else { 0.8 };
    let told = found(t, "net.no_route", "no_route_share", account, (subject, title));
    Finding { cause: cause.to_owned(), next_steps, confidence, ..told }
}

fn by_drop(capture: &Capture, t: &Thresholds, kind: Kind, target: &Target, account: &Account<'_>) -> Option<Finding> {
    let (row, is_own) = account.worst()?;
    let subject = account.subject(capture, target);
    let title = format!(
        "{} cannot reach {}: {} has no route for {}, {}",
        subject.who(),
        subject.whom(),
        words::netns(capture, row.netns, &subject),
        words::what(is_own),
        words::extent(account, kind),
    );
    let next_steps = next_steps(capture, row, &subject);
    let told = found(t, "net.no_route", "no_route_share", account, (subject, title));
    Some(Finding { cause: cause(capture, row), next_steps, ..told })
}

fn strange(capture: &Capture, t: &Thresholds, them: &Strangers<'_>) -> Option<Finding> {
    let row = *them.rows.iter().max_by_key(|row| row.packets)?;
    let title = format!(
        "{} has no route for {} {} packets of {}: {}",
        words::netns(capture, row.netns, &Subject::default()),
        them.packets(),
        words::adjective(row.dir),
        count(them.rows.len() as u64, "flow", "flows"),
        words::destinations(them),
    );
    let next_steps = next_steps(capture, row, &Subject::default());
    Some(Finding { cause: cause(capture, row), next_steps, ..found_strange(t, "net.no_route", them, row, title) })
}

fn cause(capture: &Capture, row: &DropRow) -> String {
    let default = match state::lacks_default_route(capture, row.netns, row.to.addr) {
        true => "; there was no default route",
        false => "",
    };
    let to = row.to.addr.map_or_else(|| "that address".to_owned(), |addr| addr.to_string());
    format!(
        "no route there leads to {to} (`{}`){}{default}, or it is to be forwarded and forwarding is off",
        crate::escape::shown(row.reason()),
        words::spot(row)
    )
}

fn next_steps(capture: &Capture, row: &DropRow, subject: &Subject) -> Vec<Step> {
    let there = |text: &str, command: &str| words::there(capture, row, subject, text, command);
    let route = row.to.addr.map(|addr| there("see what the routes say of it", &format!("ip route get {addr}")));
    let mut out: Vec<Step> = route.into_iter().collect();
    out.push(there("see all routes", "ip route show table all"));
    out.push(there("see whether packets are forwarded", "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding"));
    out
}
