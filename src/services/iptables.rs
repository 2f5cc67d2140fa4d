//! What `iptables-save -t nat` prints → chains of rules.
//!
//! What a rule asks for besides protocol, destination and port (a source, a device, a set, a share of packets) is passed
//! over, so that its scope is wider than it is; what it negates, too. A protocol other than TCP and UDP declares nothing.

use std::io::{self, BufRead};
use std::net::IpAddr;
use std::rc::Rc;

use ktrace_bundle::event::Proto;

use super::ruleset::{Branch, Does, Ruleset};
use super::scope::{Scope, backends, spread_addrs, spread_ports};
use super::tool::lines;
use super::{Backend, Declared, RuleSource, names};

/// Words of a rule that are looked at.
const MOST_WORDS: usize = 256;

/// The services, and what was left out.
///
/// # Errors
/// It cannot be read to its end, or ends before its table does.
pub fn read(text: &mut dyn BufRead, source: RuleSource) -> io::Result<(Vec<Declared>, u64)> {
    let mut rules = Ruleset::default();
    let mut is_nat = false;
    let mut is_over = true;
    lines(text, |line| match line {
        "*nat" => (is_nat, is_over) = (true, false),
        "COMMIT" => (is_nat, is_over) = (false, true),
        _ if is_nat => rule(&mut rules, line),
        _ => {}
    })?;
    if !is_over {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a table"));
    }
    for entry in ["PREROUTING", "OUTPUT"] {
        if let Some(id) = rules.chain(entry) {
            rules.enter_at(id);
        }
    }
    Ok(rules.services(source))
}

/// What the words of a rule say.
#[derive(Default)]
struct Said {
    proto: Option<String>,
    addr: Option<IpAddr>,
    ports: Option<Vec<(u16, u16)>>,
    target: Option<String>,
    to: Vec<Backend>,
    name: Option<Rc<str>>,
}

/// `[0:0] -A CHAIN … -j TARGET …`
fn rule(rules: &mut Ruleset, line: &str) {
    let line = if line.starts_with('[') { line.split_once(' ').map_or("", |(_, rest)| rest) } else { line };
    let Some(line) = line.strip_prefix("-A ") else { return };
    let mut words = words(line).into_iter();
    let Some(chain) = words.next() else { return };
    let said = said(words, chain.starts_with("KUBE-"));
    let does = match said.target.as_deref() {
        Some("DNAT" | "REDIRECT") if said.to.iter().all(|it| it.is_nothing()) => return,
        Some("DNAT" | "REDIRECT") => Does::Translate(said.to),
        None | Some("ACCEPT" | "DROP" | "RETURN" | "MASQUERADE" | "SNAT" | "MARK" | "LOG" | "NETMAP" | "CONNMARK") => {
            return;
        }
        Some(next) => match rules.chain(next) {
            Some(id) => Does::Chain(id),
            None => return,
        },
    };
    let proto = match said.proto.as_deref() {
        None | Some("all") => Scope::ANY,
        Some("tcp") => Scope::of_proto(Proto::Tcp),
        Some("udp") => Scope::of_proto(Proto::Udp),
        Some(_) => return,
    };
    let addr = said.addr.map_or(Scope::ANY, Scope::to_addr);
    let ports =
        said.ports.map_or_else(|| vec![Scope::ANY], |it| it.iter().map(|(a, b)| Scope::to_ports(*a, *b)).collect());
    let branch = Branch { scope: Scope::ANY, does, name: None };
    if let Some(id) = rules.chain(&chain) {
        rules.add(id, &[vec![proto], vec![addr], ports], vec![branch], said.name);
    }
}

fn said(mut words: impl Iterator<Item = String>, is_kubes: bool) -> Said {
    let mut said = Said::default();
    let mut is_negated = false;
    while let Some(word) = words.next() {
        let is_not = std::mem::take(&mut is_negated);
        let mut value = || words.next().unwrap_or_default();
        match word.as_str() {
            "!" => is_negated = true,
            "-p" => said.proto = Some(value()).filter(|_| !is_not),
            "-d" => said.addr = host(&value()).filter(|_| !is_not),
            "--dport" | "--dports" => said.ports = ports(&value()).filter(|_| !is_not),
            "--comment" if is_kubes => said.name = names::of_comment(&value()),
            "--to-destination" => said.to.extend(destination(&value())),
            "--to-ports" => said.to.extend(
                ports(&value())
                    .into_iter()
                    .flatten()
                    .flat_map(|(first, last)| backends(&[None], &spread_ports(first, last))),
            ),
            "-j" | "-g" => said.target = Some(value()),
            // the value of an option that looks like one: `--comment --dport` is a comment
            "-s" | "-i" | "-o" | "-m" | "--sport" | "--sports" | "--comment" => drop(value()),
            _ => {}
        }
    }
    said
}

/// `10.96.0.1/32`, `fd00::1/128`; not a prefix.
fn host(text: &str) -> Option<IpAddr> {
    let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
    let addr: IpAddr = addr.parse().ok()?;
    let all = if addr.is_ipv4() { "32" } else { "128" };
    bits.is_none_or(|bits| bits == all).then_some(addr)
}

/// `80`, `1000:1010`, `80,443,8000:8010`, `16001-16002`; `None` if it is none of that.
fn ports(text: &str) -> Option<Vec<(u16, u16)>> {
    let port = |text: &str| text.parse::<u16>().ok();
    let range = |item: &str| {
        let (first, last) = item.split_once([':', '-']).unwrap_or((item, item));
        Some((port(first)?, port(last)?))
    };
    text.split(',').map(range).collect()
}

/// `10.1.0.1:8080`, `10.1.0.1-10.1.0.9:80-90`, `:8082`, `[fd00::1]:80`, `[fd00::1-fd00::2]:80`, `fd00::3`,
/// `10.1.0.1:6000-6010/5000`.
fn destination(text: &str) -> Vec<Backend> {
    let (addrs, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((addrs, port)) => (addrs, port.strip_prefix(':')),
        // of v6 without brackets there is no port
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(addrs, port)| (addrs, Some(port))),
    };
    let (first, last) = addrs.split_once('-').unwrap_or((addrs, addrs));
    let addrs = match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) => spread_addrs(first, last),
        _ => vec![None],
    };
    // behind the slash: the port that the first of the range stands for
    let port = port.map(|text| text.split('/').next().unwrap_or_default());
    let ports = match port.and_then(ports).as_deref() {
        Some([(first, last)]) => spread_ports(*first, *last),
        _ => vec![None],
    };
    backends(&addrs, &ports)
}

/// As the tool quotes them: `"` around, `\` before a quote.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    let mut all = line.chars();
    while let Some(c) = all.next() {
        match c {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().extend(all.next()),
            ' ' if !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
        if words.len() >= MOST_WORDS {
            return words;
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
#[path = "iptables_tests.rs"]
mod tests;
