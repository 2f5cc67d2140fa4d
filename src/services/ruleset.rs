//! Chains of rules → the services that they declare: a walk from the chains where packets come in, which narrows down at
//! each rule what they are for, until an address is translated.
//!
//! A rule that ends the walk for some packets is not thought of: what stands behind it counts, too. A chain is walked once
//! for the same packets, so that chains in a circle end, and everything that is kept or done is bounded.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use ktrace_bundle::event::Proto;

use super::scope::Scope;
use super::{Backend, Declared, RuleSource, Vip};

const MOST_CHAINS: usize = 1 << 17;
/// Branches of all rules together.
const MOST_BRANCHES: usize = 1 << 18;
/// Scopes of one rule, when its matches are multiplied out.
const MOST_SCOPES: usize = 4096;
/// Chains that are walked, each time for other packets.
const MOST_VISITS: usize = 1 << 18;
/// Branches that are looked at on the way.
const MOST_STEPS: usize = 1 << 22;
/// Chains on top of each other; the kernel allows 16 in nftables.
const DEEPEST: usize = 32;
/// Services of one source.
const MOST_SERVICES: usize = 1 << 14;
/// Backends of all services of one source.
const MOST_BACKENDS: usize = 1 << 16;

/// Number of a chain.
pub type ChainId = usize;

/// What a rule does with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Does {
    /// Goes on with another chain.
    Chain(ChainId),
    /// Translates the destination to one of these.
    Translate(Vec<Backend>),
}

/// One of the things that a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// With which of its packets.
    pub scope: Scope,
    /// What.
    pub does: Does,
    /// Kubernetes name of the service, if it is said here.
    pub name: Option<Rc<str>>,
}

/// Chains and rules of one source.
#[derive(Debug, Default)]
pub struct Ruleset {
    numbers: HashMap<Rc<str>, ChainId>,
    chains: Vec<Chain>,
    branches: usize,
    /// What was left out because a bound was met.
    pub omitted: u64,
}

#[derive(Debug, Default)]
struct Chain {
    is_entry: bool,
    name: Option<Rc<str>>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    scopes: Vec<Scope>,
    branches: Vec<Branch>,
    name: Option<Rc<str>>,
}

impl Ruleset {
    /// The chain of this name, which need not have been seen yet; `None` if there are too many.
    pub fn chain(&mut self, name: &str) -> Option<ChainId> {
        if let Some(id) = self.numbers.get(name) {
            return Some(*id);
        }
        if self.chains.len() >= MOST_CHAINS {
            self.omitted += 1;
            return None;
        }
        self.chains.push(Chain::default());
        self.numbers.insert(name.into(), self.chains.len() - 1);
        Some(self.chains.len() - 1)
    }

    /// Packets come in here.
    pub fn enter_at(&mut self, id: ChainId) {
        self.at(id, |chain| chain.is_entry = true);
    }

    /// All of this chain is about one Kubernetes service.
    pub fn name_chain(&mut self, id: ChainId, name: Rc<str>) {
        self.at(id, |chain| chain.name = Some(name));
    }

    /// Adds a rule for packets that are in one scope of each of `matches`.
    pub fn add(&mut self, id: ChainId, matches: &[Vec<Scope>], branches: Vec<Branch>, name: Option<Rc<str>>) {
        if self.branches + branches.len() > MOST_BRANCHES {
            self.omitted += 1;
            return;
        }
        let scopes = multiplied(matches);
        if !branches.is_empty() && !scopes.is_empty() {
            self.branches += branches.len().max(scopes.len());
            self.at(id, |chain| chain.rules.push(Rule { scopes, branches, name }));
        }
    }

    fn at(&mut self, id: ChainId, change: impl FnOnce(&mut Chain)) {
        if let Some(chain) = self.chains.get_mut(id) {
            change(chain);
        }
    }

    /// The services, in order, and what found no room.
    pub fn services(self, source: RuleSource) -> (Vec<Declared>, u64) {
        let mut walk = Walk { chains: &self.chains, ..Walk::default() };
        for (id, _) in self.chains.iter().enumerate().filter(|(_, chain)| chain.is_entry) {
            walk.chain(id, Scope::ANY, None, 0);
        }
        walk.found.finish(source, self.omitted + walk.omitted)
    }
}

/// The scopes that are in one of each list. A list that makes too many of them narrows nothing down.
fn multiplied(matches: &[Vec<Scope>]) -> Vec<Scope> {
    let mut scopes = vec![Scope::ANY];
    for list in matches {
        if scopes.len().saturating_mul(list.len()) > MOST_SCOPES {
            continue;
        }
        let both = |scope: &Scope| list.iter().filter_map(|it| scope.and(*it)).collect::<Vec<_>>();
        scopes = scopes.iter().flat_map(both).collect();
    }
    scopes
}

#[derive(Default)]
struct Walk<'a> {
    chains: &'a [Chain],
    seen: HashSet<(ChainId, Scope)>,
    steps: usize,
    found: Services,
    omitted: u64,
}

impl Walk<'_> {
    fn chain(&mut self, id: ChainId, scope: Scope, name: Option<&Rc<str>>, depth: usize) {
        let Some(chain) = self.chains.get(id).filter(|chain| !chain.rules.is_empty()) else { return };
        if depth >= DEEPEST || self.seen.len() >= MOST_VISITS {
            self.omitted += 1;
            return;
        }
        if !self.seen.insert((id, scope)) {
            return;
        }
        for rule in &chain.rules {
            for narrower in rule.scopes.iter().filter_map(|it| scope.and(*it)) {
                for branch in &rule.branches {
                    self.steps += 1;
                    if self.steps > MOST_STEPS {
                        self.omitted += 1;
                        return;
                    }
                    let Some(scope) = narrower.and(branch.scope) else { continue };
                    let name = name.or(branch.name.as_ref()).or(rule.name.as_ref()).or(chain.name.as_ref());
                    match &branch.does {
                        Does::Chain(next) => self.chain(*next, scope, name, depth + 1),
                        Does::Translate(backends) => self.found.add(scope, backends, name),
                    }
                }
            }
        }
    }
}

/// Services that are being found.
#[derive(Debug, Default)]
pub struct Services {
    found: BTreeMap<(Proto, Vip), Service>,
    backends: usize,
    omitted: u64,
}

#[derive(Debug, Default)]
struct Service {
    backends: BTreeSet<Backend>,
    name: Option<Rc<str>>,
}

impl Services {
    /// Packets of this scope go to these backends. Without any it is a service all the same; with none that says
    /// anything it is not.
    pub fn add(&mut self, scope: Scope, backends: &[Backend], name: Option<&Rc<str>>) {
        if !backends.is_empty() && backends.iter().all(|it| it.is_nothing()) {
            return;
        }
        for key in scope.vips() {
            let count = self.found.len();
            let service = match self.found.entry(key) {
                Entry::Vacant(_) if count >= MOST_SERVICES => {
                    self.omitted += 1;
                    continue;
                }
                entry => entry.or_default(),
            };
            if service.name.is_none() {
                service.name = name.cloned();
            }
            for backend in backends.iter().filter(|it| !it.is_nothing()) {
                if self.backends < MOST_BACKENDS {
                    self.backends += usize::from(service.backends.insert(*backend));
                } else if !service.backends.contains(backend) {
                    self.omitted += 1;
                }
            }
        }
    }

    /// The services, in order, and what was left out, with `omitted` before.
    pub fn finish(self, source: RuleSource, omitted: u64) -> (Vec<Declared>, u64) {
        let all = self.found.into_iter().map(|((proto, vip), it)| Declared {
            proto,
            vip,
            backends: it.backends.into_iter().collect(),
            source,
            name: it.name.map(|name| name.to_string()),
        });
        (all.collect(), omitted + self.omitted)
    }
}
