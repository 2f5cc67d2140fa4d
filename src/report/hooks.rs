//! The table of hooks → `ktrace hooks list` and `show`, and, in a test, the page `docs/hooks.md`. Fields come from the page of the
//! bundle format, all else from the hooks themselves, so that there is nothing to keep in step.

use std::fmt::Write;

use ktrace_bundle::keys::{self, Key};

use crate::cli::About;
use crate::cli::nearest::nearest;
use crate::error::Hint;
use crate::hooks::limits::{self, Limit};
use crate::hooks::{HOOKS, Hook, Variant, cost};

/// A name that no hook has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no hook `{name}`")]
pub struct NoSuchHook {
    name: String,
}

impl Hint for NoSuchHook {
    fn hint(&self) -> Option<String> {
        let known = nearest(&self.name, HOOKS.iter().map(|hook| hook.name()));
        Some(known.map_or_else(|| "`ktrace hooks list` has them".into(), |it| format!("did you mean `{it}`")))
    }
}

/// What was asked for, for stdout.
///
/// # Errors
/// [`NoSuchHook`].
pub fn text(about: &About) -> Result<String, NoSuchHook> {
    match about {
        About::List => Ok(list()),
        About::Show { name } => {
            let hook = HOOKS.iter().find(|hook| hook.name() == name);
            hook.map(|hook| show(*hook)).ok_or_else(|| NoSuchHook { name: name.clone() })
        }
    }
}

fn list() -> String {
    let widest = HOOKS.iter().map(|hook| hook.name().len()).max().unwrap_or(0);
    HOOKS.iter().map(|hook| format!("{:widest$}  {}\n", hook.name(), hook.question())).collect()
}

fn show(hook: &dyn Hook) -> String {
    let mut text = format!("{}: {}\n\n", hook.name(), hook.question());
    let _ = writeln!(text, "makes   {}", makes(hook));
    let _ = writeln!(text, "runs    {}", runs(hook));
    let _ = writeln!(text, "\nvariants, best first");
    for variant in hook.variants() {
        let _ = writeln!(text, "  {}: needs {}", variant.name, needs(variant));
        for (limit, said) in limits(hook, variant) {
            let _ = writeln!(text, "    does not see: {said}");
            for effect in limit.effects {
                let _ = writeln!(text, "      {effect}");
            }
        }
    }
    let fields = fields(hook);
    if !fields.is_empty() {
        let _ = writeln!(text, "\nfields of its own");
        rows(&mut text, &fields);
        let _ = writeln!(text, "\nfields of every line");
        rows(&mut text, &keys::all().filter(Key::is_common).collect::<Vec<_>>());
    }
    if cost::of(hook).next().is_some() {
        let _ = writeln!(text, "\ncost, ns per run of a program\n  {}", cost::HOW);
    }
    for (program, ns) in cost::of(hook) {
        let _ = writeln!(text, "  {ns:>6}  {program}");
    }
    text
}

fn rows(text: &mut String, keys: &[Key]) {
    let widest = keys.iter().map(|key| key.name.len()).max().unwrap_or(0);
    for key in keys {
        let _ = writeln!(text, "  {:widest$}  {:6}  {}", key.name, key.kind, key.meaning);
    }
}

/// Lines that it makes: event types, or those of `sockets.jsonl`.
fn lines(hook: &dyn Hook) -> Vec<&'static str> {
    match hook.kinds() {
        [] => vec![hook.name()],
        kinds => kinds.iter().map(|kind| kind.as_str()).collect(),
    }
}

fn fields(hook: &dyn Hook) -> Vec<Key> {
    let lines = lines(hook);
    keys::all().filter(|key| !key.is_common() && lines.iter().any(|line| key.belongs_to(line))).collect()
}

fn makes(hook: &dyn Hook) -> String {
    match hook.kinds() {
        [] if fields(hook).is_empty() => "no lines of its own".into(),
        [] => "lines of `sockets.jsonl`".into(),
        _ => lines(hook).iter().map(|line| format!("`{line}`")).collect::<Vec<_>>().join(", "),
    }
}

fn runs(hook: &dyn Hook) -> String {
    match hook.flag() {
        Some(flag) => format!("unless `--{flag}=false`"),
        None => "in every capture".into(),
    }
}

fn needs(variant: &Variant) -> String {
    let needs: Vec<_> = variant.needs.iter().map(ToString::to_string).collect();
    needs.join(", ")
}

/// What it cannot see at all, and what not where the kernel lacks something.
fn limits(hook: &dyn Hook, variant: &'static Variant) -> impl Iterator<Item = (&'static Limit, String)> {
    let uncounted = variant.is_skipped() && !hook.kinds().is_empty();
    let always = variant.limits.iter().map(|limit| (*limit, limit.text.to_owned()));
    let without = variant.optional.iter().map(|optional| {
        let needs: Vec<_> = optional.needs.iter().map(ToString::to_string).collect();
        let said = match needs.is_empty() {
            true => format!("{}, where the kernel refuses `{}`", optional.limit.text, optional.programs.join("`, `")),
            false => format!("{}, without {}", optional.limit.text, needs.join(" and ")),
        };
        (optional.limit, said)
    });
    let old = uncounted.then(|| (&limits::UNCOUNTED, limits::UNCOUNTED.text.to_owned()));
    always.chain(without).chain(old)
}

#[cfg(test)]
#[path = "hooks_page.rs"]
mod page;

#[cfg(test)]
#[path = "variants_page.rs"]
mod variants_page;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_about_a_hook_is_its_question_fields_variants_and_cost() {
        let text = text(&About::Show { name: "udp".into() }).unwrap();
        for part in [
            "udp: who sent and who read which datagram?",
            "makes   `udp_send`, `udp_recv`",
            "  tp_btf: needs typed tracepoint `sock_send_length`",
            "    does not see: the remote end of a receive by `read()`",
            "      lines where `type` is `udp_recv` and that tell of a recv() on an unconnected socket: no `raddr`, `rport`",
            "dns_rtt_ns",
            "udp__send_tp_btf",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("handshake_ns"), "a field of another hook in {text}");
    }

    #[test]
    fn a_hook_that_is_not_there_is_met_with_its_neighbour() {
        let error = super::text(&About::Show { name: "tcp_stat".into() }).unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean `tcp_state`");
    }

    #[test]
    fn a_list_has_a_line_for_each_hook() {
        assert_eq!(list().lines().count(), HOOKS.len());
    }

    #[test]
    fn a_flag_that_turns_a_hook_off_is_a_flag() {
        for flag in HOOKS.iter().filter_map(|hook| hook.flag()) {
            let args = ["ktrace".to_owned(), format!("--{flag}=false")];
            let crate::cli::Request::Capture(args, origins) = crate::cli::parse(args).unwrap() else {
                panic!("{flag}")
            };
            let plan = crate::plan::Plan::from_args(&args, &origins).unwrap();
            let off: Vec<_> = HOOKS.iter().filter(|hook| !hook.wanted(&plan)).map(|hook| hook.flag()).collect();
            assert_eq!(off, [Some(flag)]);
        }
    }
}
