//! The attach ladder: for each hook the best variant that this kernel offers and that has not failed yet.
//!
//! Pure choice from [`Features`] and the refusals so far; loading and attaching happen in `loader`.

use ktrace_bundle::manifest::{HookOutcome, HookReport, TriedVariant};

use super::features::{Answer, Features, Need};
use crate::hooks::{HOOKS, Hook, Store, Variant, limits};
use crate::plan::Plan;

/// What the kernel refused although it seemed to offer it.
#[derive(Debug, Default)]
pub struct Refusals {
    variants: Vec<(&'static str, TriedVariant)>,
    optional: Vec<(&'static str, String)>,
}

impl Refusals {
    /// A program without which a variant of a hook is none failed to load or attach.
    pub fn variant(&mut self, hook: &'static str, variant: &str, program: &str, why: String) {
        self.variants.push((hook, TriedVariant { variant: variant.into(), why, program: Some(program.into()) }));
    }

    /// An optional program failed to load or attach.
    pub fn optional(&mut self, program: &'static str, why: String) {
        self.optional.push((program, why));
    }

    fn of(&self, hook: &str, variant: &str) -> Option<TriedVariant> {
        self.variants.iter().find(|(h, tried)| *h == hook && tried.variant == variant).map(|(_, tried)| tried.clone())
    }

    fn of_program(&self, program: &str) -> Option<&str> {
        self.optional.iter().find(|(p, _)| *p == program).map(|(_, why)| why.as_str())
    }
}

/// What became of one hook.
pub struct Choice {
    /// The hook.
    pub hook: &'static dyn Hook,
    /// Whether the plan asks for it.
    pub wanted: bool,
    /// The variant to use.
    pub variant: Option<&'static Variant>,
    /// Programs to load and attach.
    pub programs: Vec<&'static str>,
    /// Variants passed over, best first.
    pub tried: Vec<TriedVariant>,
    /// What will not be seen.
    pub limits: Vec<String>,
    /// What should have been seen and will not.
    pub degraded: Vec<String>,
    refused: bool,
}

impl Choice {
    /// Programs in the order in which to attach them, so that those of `Variant::programs` run first: of several on one
    /// tracepoint the first runs first, of several on one function the last.
    pub fn attach_order(&self) -> Vec<&'static str> {
        let mut order = self.programs.clone();
        if self.variant.is_some_and(|v| v.needs.iter().any(|need| matches!(need, Need::Trampoline(_)))) {
            order.reverse();
        }
        order
    }

    /// Coverage of this hook for the manifest, before anything is attached.
    pub fn report(&self) -> HookReport {
        let outcome = match (self.wanted, self.variant) {
            (false, _) => HookOutcome::NotRequested,
            (true, Some(_)) => HookOutcome::Attached,
            (true, None) if self.refused => HookOutcome::Failed,
            (true, None) => HookOutcome::Unsupported,
        };
        HookReport {
            name: self.hook.name().into(),
            outcome,
            variant: self.variant.map(|v| v.name.into()),
            tried: self.tried.clone(),
            programs: Vec::new(),
            attached_after_ns: None,
            limits: self.limits.clone(),
        }
    }
}

/// Chooses for every hook. Without a plan all of them are wanted.
pub fn choose(plan: Option<&Plan>, features: &Features, refusals: &Refusals) -> Vec<Choice> {
    HOOKS.iter().map(|hook| choose_one(*hook, plan, features, refusals)).collect()
}

fn choose_one(hook: &'static dyn Hook, plan: Option<&Plan>, features: &Features, refusals: &Refusals) -> Choice {
    let wanted = plan.is_none_or(|plan| hook.wanted(plan));
    let mut choice = Choice {
        hook,
        wanted,
        variant: None,
        programs: Vec::new(),
        tried: Vec::new(),
        limits: Vec::new(),
        degraded: Vec::new(),
        refused: false,
    };
    if !wanted {
        return choice;
    }
    let forced = plan.and_then(|plan| plan.variants.get(hook.name()).copied());
    for variant in hook.variants() {
        let untried = |why| TriedVariant { variant: variant.name.into(), why, program: None };
        if forced.is_some_and(|name| name != variant.name) {
            choice.tried.push(untried("not the one asked for".into()));
            continue;
        }
        let refused = refusals.of(hook.name(), variant.name);
        choice.refused |= refused.is_some();
        match refused.or_else(|| obstacle(variant.needs, features).map(untried)) {
            Some(tried) => choice.tried.push(tried),
            None => {
                take(&mut choice, variant, features, refusals);
                let of_plan = plan.map(|plan| hook.plan_limits(plan)).unwrap_or_default();
                choice.limits.extend(of_plan.iter().map(|&limit| limit.to_owned()));
                break;
            }
        }
    }
    choice
}

fn take(choice: &mut Choice, variant: &'static Variant, features: &Features, refusals: &Refusals) {
    choice.variant = Some(variant);
    choice.programs.extend(variant.programs);
    if features.preempts() {
        choice.programs.extend(variant.more);
    }
    choice.programs.extend(variant.seconds);
    choice.limits.extend(variant.limits.iter().map(|limit| limit.text.to_owned()));
    if variant.store == Store::Any && !features.has_socket_storage() {
        choice.limits.extend([&limits::LISTENERS_OWNER, &limits::HASHED_OWNERS].map(|limit| limit.text.to_owned()));
    }
    for optional in variant.optional {
        if obstacle(optional.needs, features).is_some() {
            choice.limits.push(optional.limit.text.into());
            continue;
        }
        match optional.programs.iter().find_map(|p| refusals.of_program(p)) {
            Some(why) => {
                choice.limits.push(optional.limit.text.into());
                choice.degraded.push(format!(
                    "hook `{}` does not see {}: {why}",
                    choice.hook.name(),
                    optional.limit.text
                ));
            }
            None => choice.programs.extend(optional.programs),
        }
    }
}

/// Why this cannot be used here, if that is certain.
pub fn obstacle(needs: &[Need], features: &Features) -> Option<String> {
    needs.iter().find_map(|need| match features.answer(*need) {
        Answer::No(why) => Some(format!("no {need}: {why}")),
        Answer::Yes | Answer::Unknown(_) => None,
    })
}
