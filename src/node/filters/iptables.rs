//! What `iptables-save -c` of the old kind prints → rules that count or throw away, and chains whose policy does.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use ktrace_bundle::node::Filter;

use crate::services::tool::lines;

/// Characters of a rule.
const MOST_CHARS: usize = 200;
/// Chains whose rules are numbered.
const MOST_CHAINS: usize = 1 << 14;

/// Calls `each` with every rule; `tool`: `iptables` or `ip6tables`.
///
/// # Errors
/// It cannot be read to its end.
pub fn read(input: &mut dyn BufRead, tool: &str, each: &mut dyn FnMut(Filter)) -> io::Result<u64> {
    let family = if tool == "ip6tables" { "ip6" } else { "ip" };
    let mut table = String::new();
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    let mut is_over = true;
    lines(input, |line| {
        let place =
            Filter { tool: tool.to_owned(), family: family.to_owned(), table: table.clone(), ..Filter::default() };
        if let Some(name) = line.strip_prefix('*') {
            (table, is_over) = (name.chars().take(32).collect(), false);
            numbers.clear();
        } else if line == "COMMIT" {
            is_over = true;
        } else if let Some(chain) = line.strip_prefix(':') {
            policy(place, chain).into_iter().for_each(&mut *each);
        } else if let Some(rule) = rule(place, line, &mut numbers) {
            each(rule);
        }
    })?;
    // what ends within a table was cut
    if is_over { Ok(0) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a table")) }
}

/// `[12:720]`: packets and bytes.
fn packets(text: &str) -> Option<u64> {
    text.strip_prefix('[')?.split_once(':')?.0.parse().ok()
}

/// `INPUT DROP [12:720]`.
fn policy(place: Filter, line: &str) -> Option<Filter> {
    let mut words = line.split(' ');
    let (chain, policy, count) = (words.next()?, words.next()?, words.next());
    let words = "policy drop".to_owned();
    let hook = Some(chain.to_lowercase());
    (policy == "DROP").then(|| Filter {
        chain: chain.to_owned(),
        hook,
        verdict: words.clone(),
        text: words,
        packets: count.and_then(packets),
        ..place
    })
}

/// `[12:720] -A INPUT -p tcp -j DROP`.
fn rule(place: Filter, line: &str, numbers: &mut BTreeMap<String, u64>) -> Option<Filter> {
    let (count, rest) = line.split_once(' ')?;
    let (chain, text) = rest.strip_prefix("-A ")?.split_once(' ')?;
    if numbers.len() >= MOST_CHAINS && !numbers.contains_key(chain) {
        return None;
    }
    let number = numbers.entry(chain.to_owned()).or_default();
    *number += 1;
    let mut words = text.split(' ');
    let target = words.find(|word| ["-j", "-g"].contains(word)).and_then(|_| words.next());
    let built_in = ["INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING"].contains(&chain);
    Some(Filter {
        chain: chain.to_owned(),
        hook: built_in.then(|| chain.to_lowercase()),
        number: Some(*number),
        verdict: target.map_or_else(|| "continue".to_owned(), verdict),
        text: text.chars().take(MOST_CHARS).collect(),
        packets: packets(count),
        ..place
    })
}

/// A target of iptables' own is a verdict; another one is a chain.
fn verdict(target: &str) -> String {
    match target {
        "DROP" | "REJECT" | "ACCEPT" | "RETURN" | "MASQUERADE" | "DNAT" | "SNAT" | "REDIRECT" => target.to_lowercase(),
        chain => format!("jump {chain}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "# Generated\n*filter\n:INPUT DROP [3:180]\n:KUBE-X - [0:0]\n[12:720] -A INPUT -p tcp -m tcp --dport 80 -j DROP\n\
                         [1:60] -A INPUT -j KUBE-X\n[0:0] -A KUBE-X -m comment --comment \"a b\"\nCOMMIT\n";

    #[test]
    fn rules_are_numbered_within_their_chains() {
        let mut rules = Vec::new();
        assert_eq!(read(&mut RULES.as_bytes(), "iptables", &mut |it| rules.push(it)).unwrap(), 0);
        let told: Vec<_> =
            rules.iter().map(|it| (it.chain.as_str(), it.number, it.verdict.as_str(), it.packets)).collect();
        assert_eq!(
            told,
            [
                ("INPUT", None, "policy drop", Some(3)),
                ("INPUT", Some(1), "drop", Some(12)),
                ("INPUT", Some(2), "jump KUBE-X", Some(1)),
                ("KUBE-X", Some(1), "continue", Some(0)),
            ]
        );
        assert_eq!((rules[1].table.as_str(), rules[1].text.as_str()), ("filter", "-p tcp -m tcp --dport 80 -j DROP"));
    }

    #[test]
    fn what_ends_within_a_table_is_told() {
        for end in 12..RULES.len() - 7 {
            assert!(read(&mut &RULES.as_bytes()[..end], "iptables", &mut drop).is_err() || end < 20, "{end}");
        }
    }
}
