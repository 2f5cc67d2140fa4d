//! What `nft -j list ruleset` prints → chains of rules.
//!
//! It lists the sets and chains of a table before its rules. What a match asks for besides protocol, destination and port is
//! passed over, so that its scope is wider than it is; what it negates, too. Of rules that iptables made, nft says that they
//! are there, and not what they do: those are counted, for iptables to be asked.

mod expr;
pub mod node;

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead};
use std::rc::Rc;

use super::ruleset::{Branch, ChainId, Does, Ruleset};
use super::scope::{Scope, backends};
use super::{Declared, RuleSource, names};
use expr::{Atom, addrs, atoms, fields, ports, scope};
use node::Node;

/// Elements of all sets and maps that are kept.
const MOST_ELEMENTS: usize = 1 << 16;
/// A set with more elements than this narrows nothing down: it is no list of services.
const MOST_OF_A_SET: usize = 4096;

/// What nft tells.
#[derive(Debug, Default)]
pub struct Told {
    /// The services.
    pub services: Vec<Declared>,
    /// What was left out.
    pub omitted: u64,
    /// Rules that iptables made, and so many of ip6tables.
    pub foreign: [u64; 2],
}

/// Reads a ruleset.
///
/// # Errors
/// It cannot be read to its end, or is none.
pub fn read(text: &mut dyn BufRead) -> io::Result<Told> {
    let mut reader = Reader::default();
    let cut = node::each_of(text, "nftables", &mut |item| reader.take(item))?;
    let Reader { rules, foreign, omitted, .. } = reader;
    let (services, bounded) = rules.services(RuleSource::Nftables);
    Ok(Told { services, omitted: omitted + bounded + cut, foreign })
}

/// An element of a set or map.
struct Element {
    key: Vec<Atom>,
    value: Value,
    name: Option<Rc<str>>,
}

/// What a map has for a key.
enum Value {
    /// Of a set.
    None,
    /// Goes on there.
    Chain(ChainId),
    /// Addresses and ports.
    Data(Vec<Atom>),
}

#[derive(Default)]
struct Reader {
    rules: Ruleset,
    /// Of tables with a chain where packets come in to be translated, by family and name.
    tables: HashSet<(Box<str>, Box<str>)>,
    sets: HashMap<String, Vec<Element>>,
    elements: usize,
    foreign: [u64; 2],
    omitted: u64,
}

/// Where an object is.
#[derive(Clone, Copy)]
struct Place<'a> {
    family: &'a str,
    table: &'a str,
}

impl Place<'_> {
    fn key(self, name: &str) -> String {
        // neither has a NUL in it
        format!("{}\0{}\0{name}", self.family, self.table)
    }

    fn is_kubes(self) -> bool {
        self.table == "kube-proxy"
    }
}

impl Reader {
    fn take(&mut self, item: &Node) {
        let Node::Map(pairs) = item else { return };
        for (kind, object) in pairs {
            let table = object.text_of("table");
            let (Some(family), Some(table)) = (object.text_of("family"), table) else { continue };
            let place = Place { family, table };
            match &**kind {
                "set" | "map" => self.set(place, object),
                "chain" => self.chain(place, object),
                "rule" => self.rule(place, object),
                _ => {}
            }
        }
    }

    fn chain(&mut self, place: Place<'_>, chain: &Node) {
        let is_entry = chain.text_of("type") == Some("nat")
            && matches!(chain.text_of("hook"), Some("prerouting" | "output"))
            && matches!(place.family, "ip" | "ip6" | "inet");
        let Some(name) = chain.text_of("name") else { return };
        if is_entry {
            self.tables.insert((place.family.into(), place.table.into()));
            if let Some(id) = self.rules.chain(&place.key(name)) {
                self.rules.enter_at(id);
            }
        }
    }

    fn set(&mut self, place: Place<'_>, set: &Node) {
        let Some(name) = set.text_of("name") else { return };
        let list = set.get("elem").and_then(Node::list).unwrap_or_default();
        let room = MOST_ELEMENTS - self.elements.min(MOST_ELEMENTS);
        self.omitted += list.len().saturating_sub(room) as u64;
        let elements: Vec<_> = list.iter().take(room).map(|it| self.element(place, it)).collect();
        self.elements += elements.len();
        self.sets.insert(place.key(name), elements);
    }

    /// `KEY` of a set, `[KEY, VALUE]` of a map.
    fn element(&mut self, place: Place<'_>, node: &Node) -> Element {
        let (key, value) = node.pair().map_or((node, None), |(key, value)| (key, Some(value)));
        let (key, comment) = match key.get("elem") {
            Some(about) => (about.get("val").unwrap_or(about), about.text_of("comment")),
            None => (key, None),
        };
        let value = match value {
            None => Value::None,
            Some(value) => match self.verdict(place, value) {
                Some(id) => Value::Chain(id),
                None => Value::Data(atoms(value)),
            },
        };
        let name = comment.filter(|_| place.is_kubes()).and_then(names::of_comment);
        Element { key: atoms(key), value, name }
    }

    /// `{"goto": {"target": "x"}}` and `jump`.
    fn verdict(&mut self, place: Place<'_>, node: &Node) -> Option<ChainId> {
        let target = node.get("goto").or_else(|| node.get("jump"))?.text_of("target")?;
        let id = self.rules.chain(&place.key(target))?;
        if let Some(name) = place.is_kubes().then(|| names::of_chain(target)).flatten() {
            self.rules.name_chain(id, name);
        }
        Some(id)
    }

    fn rule(&mut self, place: Place<'_>, rule: &Node) {
        let is_here = self.tables.contains(&(place.family.into(), place.table.into()));
        let (Some(chain), true) = (rule.text_of("chain"), is_here) else { return };
        let mut matches = Vec::new();
        let mut branches = Vec::new();
        let mut is_foreign = false;
        for statement in rule.get("expr").and_then(Node::list).unwrap_or_default() {
            if let Some(it) = statement.get("match") {
                matches.extend(self.selected(place, it));
            } else if let Some(it) = statement.get("vmap") {
                branches.extend(self.verdicts(place, it));
            } else if let Some(it) = statement.get("dnat").or_else(|| statement.get("redirect")) {
                branches.extend(self.translations(place, it));
            } else if let Some(id) = self.verdict(place, statement) {
                branches.push(Branch { scope: Scope::ANY, does: Does::Chain(id), name: None });
            } else {
                is_foreign |= statement.get("xt").is_some();
            }
        }
        let [v4, v6] = &mut self.foreign;
        *(if place.family == "ip6" { v6 } else { v4 }) += u64::from(is_foreign);
        if let Some(id) = self.rules.chain(&place.key(chain)).filter(|_| !branches.is_empty()) {
            self.rules.add(id, &matches, branches, None);
        }
    }

    /// What a match selects: one of these; `None` if that says nothing here.
    fn selected(&mut self, place: Place<'_>, it: &Node) -> Option<Vec<Scope>> {
        let (left, right) = (it.get("left")?, it.get("right")?);
        let fields = fields(left);
        if fields.iter().all(|field| *field == expr::Field::Other) {
            return None;
        }
        if !matches!(it.text_of("op"), Some("==" | "in")) {
            // a port that is another one is still one of its protocol
            return Some(vec![expr::implied(&fields)?]);
        }
        let is_set = right.get("set").is_some() || right.text().is_some_and(|text| text.starts_with('@'));
        if !is_set {
            return Some(scope(&fields, &atoms(right)).into_iter().collect());
        }
        self.with(place, right, |elements| {
            let few = (elements.len() <= MOST_OF_A_SET).then_some(elements)?;
            Some(few.iter().filter_map(|it| scope(&fields, &it.key)).collect())
        })
    }

    /// `KEY vmap { VALUE : goto CHAIN, … }`
    fn verdicts(&mut self, place: Place<'_>, it: &Node) -> Vec<Branch> {
        let Some((fields, data)) = map(it) else { return Vec::new() };
        self.with(place, data, |elements| {
            let branch = |it: &Element| match it.value {
                Value::Chain(id) => {
                    Some(Branch { scope: scope(&fields, &it.key)?, does: Does::Chain(id), name: it.name.clone() })
                }
                _ => None,
            };
            elements.iter().filter_map(branch).collect()
        })
    }

    /// `dnat to ADDR:PORT`, where each may be a map, or the address one of both.
    fn translations(&mut self, place: Place<'_>, it: &Node) -> Vec<Branch> {
        let (addrs_, ports_) = (self.values(place, it.get("addr")), self.values(place, it.get("port")));
        let mut branches = Vec::new();
        // both are as long as a map, and mostly one of them is a plain value
        for (a, b) in addrs_.iter().flat_map(|a| ports_.iter().map(move |b| (a, b))).take(MOST_ELEMENTS) {
            let (addr, of_both) = match a.data.as_slice() {
                [addr, port] => (Some(addr), Some(port)),
                [addr] => (Some(addr), None),
                _ => (None, None),
            };
            let addrs = addr.map_or_else(|| vec![None], addrs);
            let ports = b.data.first().or(of_both).map_or_else(|| vec![None], ports);
            if let Some(scope) = a.scope.and(b.scope) {
                let name = a.name.clone();
                branches.push(Branch { scope, does: Does::Translate(backends(&addrs, &ports)), name });
            }
        }
        branches
    }

    /// What an expression may come to, and for which packets.
    fn values(&mut self, place: Place<'_>, node: Option<&Node>) -> Vec<Possible> {
        let always = |data| vec![Possible { scope: Scope::ANY, data, name: None }];
        let Some(node) = node else { return always(Vec::new()) };
        let Some((fields, data)) = node.get("map").and_then(map) else { return always(atoms(node)) };
        self.with(place, data, |elements| {
            let possible = |it: &Element| match &it.value {
                Value::Data(data) => {
                    Some(Possible { scope: scope(&fields, &it.key)?, data: data.clone(), name: it.name.clone() })
                }
                _ => None,
            };
            elements.iter().filter_map(possible).collect()
        })
    }

    /// The elements of a named or an anonymous set or map.
    fn with<T>(&mut self, place: Place<'_>, set: &Node, see: impl FnOnce(&[Element]) -> T) -> T {
        if let Some(name) = set.text().and_then(|text| text.strip_prefix('@')) {
            return see(self.sets.get(&place.key(name)).map_or(&[], Vec::as_slice));
        }
        let list = set.get("set").and_then(Node::list).unwrap_or_default();
        let elements: Vec<_> = list.iter().map(|it| self.element(place, it)).collect();
        see(&elements)
    }
}

struct Possible {
    scope: Scope,
    data: Vec<Atom>,
    name: Option<Rc<str>>,
}

/// What a map looks at, and where its elements are. nftables 0.9.0 has other names for both.
fn map(node: &Node) -> Option<(Vec<expr::Field>, &Node)> {
    let of = |key, old| node.get(key).or_else(|| node.get(old));
    Some((fields(of("key", "left")?), of("data", "right")?))
}

#[cfg(test)]
#[path = "nft_tests.rs"]
mod tests;
