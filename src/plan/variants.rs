//! Forced variants: `udp=kprobe`, for tests and triage.

use std::collections::BTreeMap;

use crate::error::Hint;
use crate::hooks::{HOOKS, Hook};

/// Variant by hook, both as their tables name them.
pub type Variants = BTreeMap<&'static str, &'static str>;

/// Why a text does not name a variant of a hook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariantError {
    /// No `=`.
    #[error("it is not `hook=variant`")]
    NotAPair,
    /// No such hook.
    #[error("there is no hook `{hook}`")]
    Hook {
        /// What was given.
        hook: String,
    },
    /// The hook has no such variant.
    #[error("hook `{hook}` has no variant `{variant}`")]
    Variant {
        /// The hook.
        hook: &'static str,
        /// What was given.
        variant: String,
    },
    /// The hook was given before, with another variant.
    #[error("hook `{hook}` is given twice, with different variants")]
    Twice {
        /// The hook.
        hook: &'static str,
    },
}

impl Hint for VariantError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotAPair => "write it like `--hook-variant udp=kprobe`".into(),
            Self::Hook { .. } => format!("the hooks are {}", list(HOOKS.iter().map(|h| h.name()))),
            Self::Variant { hook, .. } => format!("`{hook}` has {}", list(variants_of(hook))),
            Self::Twice { hook } => format!("give `{hook}` once"),
        })
    }
}

fn list(names: impl Iterator<Item = &'static str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn variants_of(hook: &str) -> impl Iterator<Item = &'static str> {
    find(hook).into_iter().flat_map(|hook| hook.variants().iter().map(|v| v.name))
}

fn find(name: &str) -> Option<&'static dyn Hook> {
    HOOKS.iter().copied().find(|hook| hook.name() == name)
}

/// Adds `text`, which is `hook=variant`.
///
/// # Errors
/// See [`VariantError`].
pub fn add(variants: &mut Variants, text: &str) -> Result<(), VariantError> {
    let (hook, variant) = text.split_once('=').ok_or(VariantError::NotAPair)?;
    let hook = find(hook).ok_or_else(|| VariantError::Hook { hook: hook.into() })?.name();
    let known = variants_of(hook).find(|name| *name == variant);
    let variant = known.ok_or_else(|| VariantError::Variant { hook, variant: variant.into() })?;
    match variants.insert(hook, variant) {
        Some(before) if before != variant => Err(VariantError::Twice { hook }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Result<Variants, VariantError> {
        let mut variants = Variants::new();
        texts.iter().try_for_each(|text| add(&mut variants, text)).map(|()| variants)
    }

    #[test]
    fn one_variant_for_each_of_several_hooks() {
        let variants = all(&["udp=kprobe", "tcp_state=tracepoint", "udp=kprobe"]).unwrap();
        assert_eq!(variants, Variants::from([("udp", "kprobe"), ("tcp_state", "tracepoint")]));
    }

    #[test]
    fn what_is_not_in_the_tables_is_refused_with_what_is() {
        assert_eq!(all(&["udp"]), Err(VariantError::NotAPair));
        assert_eq!(all(&["dns=kprobe"]), Err(VariantError::Hook { hook: "dns".into() }));
        let error = all(&["udp=iter"]).unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("`udp` has `fexit`, `tp_btf`, `kprobe`"));
        assert_eq!(all(&["udp=kprobe", "udp=tp_btf"]), Err(VariantError::Twice { hook: "udp" }));
    }
}
