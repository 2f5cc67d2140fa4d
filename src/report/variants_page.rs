//! `docs/variants.md`: what each variant cannot give, in one table. Written by its own test, as `docs/hooks.md` is;
//! `tests/live/equivalence.rs` holds the variants to the same data.

use std::path::Path;

use super::*;
use crate::hooks::Store;
use crate::hooks::limits::{ALL, HASHED_OWNERS, LISTENERS_OWNER};

fn page() -> String {
    let mut text = String::from(
        "# What each variant cannot give\n\nVariants of a hook yield the same lines for the same traffic, but for this \
         table. It is made from `src/hooks/limits.rs` by `KTRACE_BLESS=1 cargo test -p ktrace hooks`, and \
         `tests/live/equivalence.rs` enforces it both ways: one deterministic workload, captured with each variant \
         forced, must yield what its programs did less what stands here, and whatever stands here must be missing.\n\n\
         A bundle names the limits of its own capture: `hooks[].limits` in `manifest.json`. Where the last column is \
         empty, it takes more load, or other programs, than the workload has.\n\n\
         | hook | variants | does not see | in the bundle |\n|---|---|---|---|\n",
    );
    for hook in HOOKS {
        let mut rows: Vec<(String, &Limit, Vec<&str>)> = Vec::new();
        for variant in hook.variants() {
            for (limit, said) in limits(*hook, variant) {
                match rows.iter_mut().find(|(other, ..)| *other == said) {
                    Some((.., variants)) => variants.push(variant.name),
                    None => rows.push((said, limit, vec![variant.name])),
                }
            }
        }
        for (said, limit, variants) in rows {
            let effects: Vec<_> = limit.effects.iter().map(ToString::to_string).collect();
            let variants = variants.join("`, `");
            let _ = writeln!(text, "| `{}` | `{variants}` | {said} | {} |", hook.name(), effects.join("; "));
        }
    }
    text
}

#[test]
fn the_page_of_the_variants_is_what_the_limits_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/variants.md");
    if std::env::var_os("KTRACE_BLESS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(written == page(), "docs/variants.md is stale: KTRACE_BLESS=1 cargo test -p ktrace hooks");
}

#[test]
fn every_limit_is_some_variants_and_in_the_list() {
    let of_hook = |hook: &&'static dyn Hook| hook.variants().iter().flat_map(|variant| limits(*hook, variant));
    let of_variants: Vec<_> = HOOKS.iter().flat_map(of_hook).collect();
    for limit in ALL {
        assert!(of_variants.iter().any(|(of, _)| std::ptr::eq(*of, *limit)), "no variant has `{}`", limit.text);
    }
    for (limit, _) in of_variants {
        assert!(ALL.iter().any(|of| std::ptr::eq(*of, limit)), "not in the list: `{}`", limit.text);
    }
}

#[test]
fn variants_that_use_the_hash_say_what_it_lacks() {
    for variant in HOOKS.iter().flat_map(|hook| hook.variants()) {
        let hashed = variant.store == Store::Hash;
        for lack in [&LISTENERS_OWNER, &HASHED_OWNERS] {
            assert_eq!(variant.limits.iter().any(|limit| std::ptr::eq(*limit, lack)), hashed, "{}", variant.name);
        }
    }
}
