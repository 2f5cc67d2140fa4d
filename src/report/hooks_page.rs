//! `docs/hooks.md`, for people who have no ktrace at hand. Written by its own test, which fails when it is stale.

use std::path::Path;

use super::*;

fn page() -> String {
    let mut text = String::from(
        "# Hooks\n\nWhat ktrace can watch, made from the table of hooks by `KTRACE_BLESS=1 cargo test -p ktrace hooks`: the \
         same as `ktrace hooks show NAME`. Keys of every line stand in [bundle-format.md](bundle-format.md#keys); what a limit does to \
         lines in [variants.md](variants.md).\n\n",
    );
    let _ = writeln!(text, "Costs are ns per run of a program: {}.\n", cost::HOW);
    text += "| hook | question | makes |\n|---|---|---|\n";
    for hook in HOOKS {
        let _ = writeln!(text, "| [`{0}`](#{0}) | {1} | {2} |", hook.name(), hook.question(), makes(*hook));
    }
    for hook in HOOKS {
        section(&mut text, *hook);
    }
    text
}

fn section(text: &mut String, hook: &dyn Hook) {
    let _ = writeln!(text, "\n## {}\n\n{} It runs {}.\n", hook.name(), capital(hook.question()), runs(hook));
    *text += "| variant | needs | does not see |\n|---|---|---|\n";
    for variant in hook.variants() {
        let limits: Vec<_> = limits(hook, variant).map(|(_, said)| said).collect();
        let _ = writeln!(text, "| `{}` | {} | {} |", variant.name, needs(variant), limits.join("; "));
    }
    let fields = fields(hook);
    if !fields.is_empty() {
        *text += "\n| field | type | on | meaning |\n|---|---|---|---|\n";
        for Key { name, kind, on, meaning } in fields {
            let _ = writeln!(text, "| `{name}` | {kind} | {on} | {meaning} |");
        }
    }
    if cost::of(hook).next().is_some() {
        *text += "\n| program | ns per run |\n|---|---|\n";
    }
    for (program, ns) in cost::of(hook) {
        let _ = writeln!(text, "| `{program}` | {ns} |");
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[test]
fn the_page_of_the_hooks_is_what_the_hooks_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/hooks.md");
    if std::env::var_os("KTRACE_BLESS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(written == page(), "docs/hooks.md is stale: KTRACE_BLESS=1 cargo test -p ktrace hooks");
}
