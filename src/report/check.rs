//! What preflight found → the table of `ktrace check`: facts about the host, then each hook with the
//! variant it would use and why the others would not do.

use std::borrow::Cow;
use std::fmt::Write;

use super::escape::escape;
use crate::error::Exit;

/// Answer to a question about the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Yes,
    /// It is not there.
    No,
    /// The host did not let us see.
    Unknown,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "could not tell",
        }
    }
}

/// One fact about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// What it is about: `btf`, `cap_bpf`.
    pub name: String,
    /// Whether the host has it.
    pub state: State,
    /// Where it was found, or what its absence means.
    pub detail: String,
}

/// One way to attach a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantCheck {
    /// `tp_btf`, `fentry`, `kprobe`.
    pub name: String,
    /// Whether it would work here.
    pub usable: bool,
    /// Why, or why not.
    pub why: String,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookCheck {
    /// Hook name.
    pub name: String,
    /// The question that it answers.
    pub question: String,
    /// Variant that a capture would use; `None` if none is usable.
    pub chosen: Option<String>,
    /// All variants, best first.
    pub variants: Vec<VariantCheck>,
    /// What the chosen variant cannot see.
    pub limits: Vec<String>,
}

/// The result of `ktrace check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// Facts about the host.
    pub facts: Vec<Fact>,
    /// All hooks.
    pub hooks: Vec<HookCheck>,
}

impl CheckReport {
    /// Success if a capture could attach anything.
    pub fn exit(&self) -> Exit {
        if self.hooks.iter().any(|hook| hook.chosen.is_some()) { Exit::Complete } else { Exit::NothingAttached }
    }

    /// The table, for stdout.
    pub fn render(&self) -> String {
        let mut text = format!("linux {} on {}\n\nhost\n", escape(&self.kernel), escape(&self.arch));
        let facts = self.facts.iter().map(|fact| [fact.name.as_str(), fact.state.as_str(), fact.detail.as_str()]);
        table(&mut text, 2, facts.collect());
        text += "\nhooks\n";
        let hooks = self.hooks.iter().map(|hook| {
            let chosen = hook.chosen.as_deref().unwrap_or("none usable");
            [hook.name.as_str(), chosen, hook.question.as_str()]
        });
        table(&mut text, 2, hooks.collect());
        for hook in &self.hooks {
            variants(&mut text, hook);
        }
        text
    }
}

fn variants(text: &mut String, hook: &HookCheck) {
    let _ = writeln!(text, "\n{}", escape(&hook.name));
    let rows = hook.variants.iter().map(|variant| {
        let verdict = match variant.usable {
            true if hook.chosen.as_ref() == Some(&variant.name) => "used",
            true => "usable",
            false => "no",
        };
        [variant.name.as_str(), verdict, variant.why.as_str()]
    });
    table(text, 2, rows.collect());
    for limit in &hook.limits {
        let _ = writeln!(text, "  does not see: {}", escape(limit));
    }
}

/// Appends rows of which all but the last column are as wide as their widest cell.
fn table(text: &mut String, indent: usize, rows: Vec<[&str; 3]>) {
    let rows: Vec<[_; 3]> = rows.into_iter().map(|row| row.map(escape)).collect();
    let widest = |cells: &mut dyn Iterator<Item = &Cow<'_, str>>| cells.map(|it| it.chars().count()).max().unwrap_or(0);
    let first = widest(&mut rows.iter().map(|[it, ..]| it));
    let second = widest(&mut rows.iter().map(|[_, it, _]| it));
    for [a, b, c] in &rows {
        let line = format!("{:indent$}{a:first$}  {b:second$}  {c}", "");
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_report() -> CheckReport {
        let variant = |name: &str, usable, why: &str| VariantCheck { name: name.into(), usable, why: why.into() };
        let fact = |name: &str, state, detail: &str| Fact { name: name.into(), state, detail: detail.into() };
        CheckReport {
            kernel: "6.12.0".into(),
            arch: "x86_64".into(),
            facts: vec![
                fact("btf", State::Yes, "/sys/kernel/btf/vmlinux"),
                fact("cap_perfmon", State::Unknown, "`/proc/self/status` cannot be read"),
            ],
            hooks: vec![
                HookCheck {
                    name: "udp".into(),
                    question: "who sends and receives".into(),
                    chosen: Some("tracepoint".into()),
                    variants: vec![
                        variant("fentry", false, "not on this kernel"),
                        variant("tracepoint", true, ""),
                        variant("kprobe", true, "slower"),
                    ],
                    limits: vec!["the peer of `read()`".into()],
                },
                HookCheck {
                    name: "x".into(),
                    question: "\u{1b}".into(),
                    chosen: None,
                    variants: Vec::new(),
                    limits: Vec::new(),
                },
            ],
        }
    }

    #[test]
    fn a_check_is_an_aligned_table() {
        let expected = "\
linux 6.12.0 on x86_64

host
  btf          yes             /sys/kernel/btf/vmlinux
  cap_perfmon  could not tell  `/proc/self/status` cannot be read

hooks
  udp  tracepoint   who sends and receives
  x    none usable  \\u{1b}

udp
  fentry      no      not on this kernel
  tracepoint  used
  kprobe      usable  slower
  does not see: the peer of `read()`

x
";
        assert_eq!(a_report().render(), expected);
    }

    #[test]
    fn one_usable_hook_is_enough_to_capture() {
        let mut report = a_report();
        assert_eq!(report.exit(), Exit::Complete);
        report.hooks.remove(0);
        assert_eq!(report.exit(), Exit::NothingAttached);
    }
}
