//! Expressions of nft's JSON → the rule as `nft` would write it, shortened: 256 bytes at most.

use crate::services::nft::node::Node;

/// Bytes of a text.
const MOST: usize = 256;
/// How deep an expression may be.
const DEPTH: u8 = 8;

/// The statements of a rule, but for its counter.
pub fn of(statements: &[Node]) -> String {
    let mut text = String::new();
    for statement in statements {
        let Node::Map(pairs) = statement else { continue };
        for (kind, about) in pairs {
            if text.len() > MOST {
                return short(text);
            }
            let word = match (&**kind, about) {
                ("counter", _) => continue,
                ("match", it) => matched(it),
                ("jump" | "goto", it) => format!("{kind} {}", it.text_of("target").unwrap_or_default()),
                ("xt", it) => format!("xt {}", it.text_of("name").unwrap_or_default()),
                (_, Node::Other) => kind.to_string(),
                (_, it) => format!("{kind} {}", value(it, 0)),
            };
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word.trim_end());
        }
    }
    short(text)
}

fn short(mut text: String) -> String {
    if text.len() > MOST {
        let mut end = MOST - 3;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

fn matched(it: &Node) -> String {
    let side = |key| it.get(key).map_or_else(String::new, |it| value(it, 0));
    match it.text_of("op") {
        Some("==" | "in") | None => format!("{} {}", side("left"), side("right")),
        Some(op) => format!("{} {op} {}", side("left"), side("right")),
    }
}

/// An expression.
fn value(node: &Node, depth: u8) -> String {
    let inner = |node: &Node| if depth < DEPTH { value(node, depth + 1) } else { "...".to_owned() };
    match node {
        Node::Other => String::new(),
        Node::Number(number) => number.to_string(),
        Node::Text(text) => text.chars().take(MOST).collect(),
        // a list of thousands is cut in any case
        Node::List(list) => list.iter().take(MOST / 4).map(inner).collect::<Vec<_>>().join(", "),
        Node::Map(pairs) => match pairs.first().map(|(kind, about)| (&**kind, about)) {
            Some(("payload", it)) if it.get("protocol").is_some() => {
                format!("{} {}", it.text_of("protocol").unwrap_or_default(), it.text_of("field").unwrap_or_default())
            }
            Some(("meta" | "ct" | "rt" | "socket", it)) if it.get("key").is_some() => {
                let key = it.text_of("key").unwrap_or_default();
                let kind = pairs.first().map_or("", |(kind, _)| kind);
                if kind == "meta" { key.to_owned() } else { format!("{kind} {key}") }
            }
            Some(("prefix", it)) => {
                let part = |key| it.get(key).map(&inner).unwrap_or_default();
                format!("{}/{}", part("addr"), part("len"))
            }
            Some(("range", it)) => match it.pair() {
                Some((first, last)) => format!("{}-{}", inner(first), inner(last)),
                None => inner(it),
            },
            Some(("set", it)) => format!("{{ {} }}", inner(it)),
            _ => pairs.iter().take(16).map(|(key, it)| format!("{key} {}", inner(it))).collect::<Vec<_>>().join(" "),
        },
    }
}
