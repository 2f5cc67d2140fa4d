//! The commands that next steps are made of.
//!
//! They hold numbers and addresses of the finding, never a name that the captured machine chose: what is pasted into
//! a root shell at night must not come from there.

use std::net::IpAddr;

use ktrace_bundle::event::Endpoint;

use crate::escape::shell_word;
use crate::finding::{Step, Subject};

/// The command as seen from the subject's network namespace.
pub(super) fn inside(subject: &Subject, command: &str) -> String {
    match subject.pid() {
        Some(pid) => format!("nsenter -t {pid} -n {command}"),
        None => command.to_owned(),
    }
}

/// How the subject's namespace routes to the other end.
pub(super) fn route(subject: &Subject) -> Option<Step> {
    let addr = subject.remote?.addr?;
    Some(Step::run("see the route that the packets take", inside(subject, &format!("ip route get {addr}"))))
}

/// The subject's sockets to the other end, with `ss` filters.
pub(super) fn sockets(subject: &Subject, text: &str, options: &str) -> Option<Step> {
    let remote = subject.remote.filter(|r| r.addr.is_some())?;
    Some(Step::run(text, inside(subject, &format!("ss {options} dst {}", shell_word(&remote.to_string())))))
}

/// One connection attempt, nothing sent over it.
pub(super) fn try_connect(subject: &Subject) -> Option<Step> {
    let (addr, port) = subject.remote.and_then(|r| r.addr.zip(r.port))?;
    let command = inside(subject, &format!("nc -vz -w 2 {addr} {port}"));
    Some(Step::run("try one connection from the same network namespace", command))
}

/// Whether anything listens on the server's port, on the server.
pub(super) fn listeners(remote: Option<Endpoint>, options: &str) -> Option<Step> {
    let port = remote?.port?;
    Some(Step::run("on the server: see whether anything listens there", format!("ss {options} 'sport = :{port}'")))
}

/// One DNS query from the subject's namespace.
pub(super) fn dig(subject: &Subject) -> Option<Step> {
    let (addr, port) = subject.remote.and_then(|r| r.addr.zip(r.port))?;
    let port = if port == 53 { String::new() } else { format!(" -p {port}") };
    let command = inside(subject, &format!("dig @{addr}{port} +time=2 +tries=1 example.org"));
    Some(Step::run("ask the server once from the same network namespace", command))
}

/// What filters packets to the other end, in the subject's namespace.
pub(super) fn filters(subject: &Subject) -> Step {
    Step::run("look for a rule that drops or rejects it", inside(subject, "nft list ruleset"))
}

/// Where on the path the packets go.
pub(super) fn watch(subject: &Subject, proto: &str) -> Option<Step> {
    let remote = subject.remote?;
    let host = remote.addr.map(|a: IpAddr| format!("host {a}"))?;
    let port = remote.port.map(|p| format!(" and port {p}")).unwrap_or_default();
    let command = inside(subject, &format!("timeout 10 tcpdump -ni any -c 20 '{proto} and {host}{port}'"));
    Some(Step::run("watch what leaves and what comes back for 10 s", command))
}
