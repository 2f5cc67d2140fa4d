//! Services as lines of text, for the tests of every source, and what the sources together say.

use std::time::Duration;

use super::*;

/// `tcp 10.96.0.80:80 -> 10.244.1.5:8080 10.244.1.6:8080 (shop/api:http)`; `*` for what is not said.
pub fn show(services: &[Declared]) -> Vec<String> {
    let addr = |addr: Option<IpAddr>| addr.map_or("*".into(), |it| it.to_string());
    let port = |port: Option<u16>| port.map_or("*".into(), |it| it.to_string());
    let one = |service: &Declared| {
        let Declared { proto, vip, backends, name, source: _ } = service;
        let last = vip.last_port.map_or(String::new(), |last| format!("-{last}"));
        let mut line = format!("{} {}:{}{last} ->", proto.as_str(), addr(vip.addr), port(vip.port));
        backends.iter().for_each(|it| line += &format!(" {}:{}", addr(it.addr), port(it.port)));
        line + &name.as_ref().map_or(String::new(), |name| format!(" ({name})"))
    };
    services.iter().map(one).collect()
}

/// The same from a literal.
pub fn shown(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// The outcome of one source.
fn outcome(rules: &Rules, source: RuleSource) -> &Outcome {
    &rules.reports.iter().find(|it| it.source == source).unwrap().outcome
}

#[test]
fn every_source_reports_once_whatever_this_machine_has() {
    let rules = read(None, Duration::from_secs(20));
    let sources: Vec<_> = rules.reports.iter().map(|it| it.source).collect();
    assert_eq!(sources, RuleSource::ALL);
    let has_ipvs = std::path::Path::new("/proc/net/ip_vs").exists();
    assert_eq!(matches!(outcome(&rules, RuleSource::Ipvs), Outcome::Answered), has_ipvs);
}

#[test]
fn without_time_nothing_is_waited_for_and_every_source_says_why() {
    let begin = Instant::now();
    let rules = read(None, Duration::ZERO);
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(rules.reports.len(), RuleSource::ALL.len());
    for report in &rules.reports {
        let (Outcome::Absent { why } | Outcome::Failed { why }) = &report.outcome else { continue };
        assert!(!why.is_empty());
    }
}

#[test]
fn a_descriptor_that_is_no_network_namespace_fails_every_source() {
    let file = std::fs::File::open("/proc/self/status").unwrap();
    let rules = read(Some(std::os::fd::AsFd::as_fd(&file)), Duration::from_secs(20));
    for source in RuleSource::ALL {
        let Outcome::Failed { why } = outcome(&rules, source) else { panic!("{rules:?}") };
        assert!(why.starts_with("its network namespace cannot be entered: "), "{why}");
    }
}
