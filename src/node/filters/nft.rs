//! What `nft -j list ruleset` prints → rules that count or throw away, and chains whose policy does. Rules that iptables made are
//! among them.

use std::collections::HashMap;
use std::io::{self, BufRead};

use ktrace_bundle::node::Filter;

use super::text;
use crate::services::nft::node::{Node, each_of};

/// Chains that are remembered with their hooks.
const MOST_CHAINS: usize = 1 << 14;
/// Bytes of a name.
const MOST_NAME: usize = 128;

fn short(text: Option<&str>) -> String {
    text.unwrap_or_default().chars().take(MOST_NAME).collect()
}

/// Calls `each` with every rule; returns how many objects were cut.
///
/// # Errors
/// It cannot be read to its end, or is no ruleset.
pub fn read(input: &mut dyn BufRead, each: &mut dyn FnMut(Filter)) -> io::Result<u64> {
    let mut hooks: HashMap<(String, String, String), String> = HashMap::new();
    each_of(input, "nftables", &mut |item| {
        let Node::Map(pairs) = item else { return };
        for (kind, object) in pairs {
            let place = Filter {
                tool: "nftables".to_owned(),
                family: short(object.text_of("family")),
                table: short(object.text_of("table")),
                ..Filter::default()
            };
            match &**kind {
                "chain" => chain(place, object, &mut hooks, each),
                "rule" => rule(place, object, &hooks).into_iter().for_each(&mut *each),
                _ => {}
            }
        }
    })
}

fn chain(
    place: Filter,
    chain: &Node,
    hooks: &mut HashMap<(String, String, String), String>,
    each: &mut dyn FnMut(Filter),
) {
    let Some(hook) = chain.text_of("hook") else { return };
    let (name, hook) = (short(chain.text_of("name")), short(Some(hook)));
    if hooks.len() < MOST_CHAINS {
        hooks.insert((place.family.clone(), place.table.clone(), name.clone()), hook.clone());
    }
    if chain.text_of("policy") == Some("drop") {
        let words = "policy drop".to_owned();
        each(Filter { chain: name, hook: Some(hook), verdict: words.clone(), text: words, ..place });
    }
}

fn rule(place: Filter, rule: &Node, hooks: &HashMap<(String, String, String), String>) -> Option<Filter> {
    let statements = rule.get("expr").and_then(Node::list)?;
    let packets = statements.iter().find_map(|it| number(it.get("counter")?.get("packets")?));
    let verdict = statements.iter().find_map(verdict).unwrap_or_else(|| "continue".to_owned());
    if packets.is_none() && !super::throws_away(&verdict) {
        return None;
    }
    let chain = short(rule.text_of("chain"));
    let hook = hooks.get(&(place.family.clone(), place.table.clone(), chain.clone())).cloned();
    let number = rule.get("handle").and_then(number);
    Some(Filter { chain, hook, number, verdict, text: text::of(statements), packets, ..place })
}

const fn number(node: &Node) -> Option<u64> {
    match node {
        Node::Number(number) => Some(*number),
        _ => None,
    }
}

/// What a statement does with the packet, if it ends the rule.
fn verdict(statement: &Node) -> Option<String> {
    let Node::Map(pairs) = statement else { return None };
    let (kind, about) = pairs.first()?;
    match &**kind {
        "drop" | "reject" | "accept" | "return" | "masquerade" | "dnat" | "snat" | "redirect" | "queue" => {
            Some(kind.to_string())
        }
        "jump" | "goto" => Some(format!("{kind} {}", short(about.text_of("target")))),
        // of rules that iptables made: `REJECT` and others that nft does not know
        "xt" if about.text_of("type") == Some("target") => Some(short(about.text_of("name")).to_lowercase()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "inet", "name": "f", "handle": 1}},
        {"chain": {"family": "inet", "table": "f", "name": "in", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "f", "name": "sub", "handle": 2}},
        {"rule": {"family": "inet", "table": "f", "chain": "in", "handle": 7, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}},
            {"match": {"op": "!=", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [80, {"range": [90, 99]}]}}},
            {"counter": {"packets": 12, "bytes": 720}}, {"drop": null}]}},
        {"rule": {"family": "inet", "table": "f", "chain": "in", "handle": 8, "expr": [
            {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "f", "chain": "sub", "handle": 9, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}, {"counter": {"packets": 0, "bytes": 0}}, {"goto": {"target": "x"}}]}},
        {"rule": {"family": "inet", "table": "f", "chain": "sub", "handle": 10, "expr": [{"reject": {"type": "tcp reset"}}]}}]}"#;

    fn all(text: &str) -> io::Result<Vec<Filter>> {
        let mut rules = Vec::new();
        read(&mut text.as_bytes(), &mut |it| rules.push(it)).map(|_| rules)
    }

    #[test]
    fn rules_that_count_or_throw_away_are_read_with_a_short_text() {
        let place = Filter { tool: "nftables".into(), family: "inet".into(), table: "f".into(), ..Filter::default() };
        let of = |chain: &str, number, verdict: &str, text: &str, packets| Filter {
            chain: chain.into(),
            hook: (chain == "in").then(|| "input".into()),
            number,
            verdict: verdict.into(),
            text: text.into(),
            packets,
            ..place.clone()
        };
        let expected = [
            of("in", None, "policy drop", "policy drop", None),
            of("in", Some(7), "drop", "ip saddr 10.0.0.0/8 tcp dport != { 80, 90-99 } drop", Some(12)),
            of("sub", Some(9), "goto x", "iifname eth0 goto x", Some(0)),
            of("sub", Some(10), "reject", "reject type tcp reset", None),
        ];
        assert_eq!(all(RULES).unwrap(), expected);
    }

    #[test]
    fn what_is_cut_off_is_told_and_texts_are_short() {
        for end in (0..RULES.len()).step_by(7) {
            assert!(all(&RULES[..end]).is_err(), "{end}");
        }
        let long = RULES.replace("\"eth0\"", &format!("[{}\"é\"]", "\"éééé\", ".repeat(500)));
        let longest = all(&long).unwrap().iter().map(|it| it.text.len()).max();
        assert!((250..=256).contains(&longest.unwrap()), "{longest:?}");
    }
}
