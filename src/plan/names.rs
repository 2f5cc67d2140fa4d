//! Names that go into the bundle: node, cluster, labels.
//!
//! The node's name becomes part of a file name, so only harmless characters pass; the others are text
//! and merely bounded.

use std::collections::BTreeMap;

use crate::error::Hint;

/// Longest node name, bytes. A file name has 255, of which the bundle's name needs the rest.
pub const MAX_NODE: usize = 200;

const MAX_TEXT: usize = 256;
const MAX_KEY: usize = 63;
const MAX_LABELS: usize = 64;

/// Why a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but blanks.
    #[error("it is empty")]
    Empty,
    /// More bytes than fit.
    #[error("it has {len} bytes, more than {max}")]
    TooLong {
        /// Length, bytes.
        len: usize,
        /// Limit, bytes.
        max: usize,
    },
    /// A character that is not allowed here.
    #[error("it contains {found:?}")]
    Character {
        /// The first such character.
        found: char,
        /// The allowed ones, in words.
        allowed: &'static str,
    },
    /// A label without `=`.
    #[error("a label is `key=value`")]
    NotALabel,
    /// A key that was given before, with another value.
    #[error("label `{key}` is given twice, with different values")]
    LabelTwice {
        /// The key.
        key: String,
    },
    /// More than a bundle carries.
    #[error("there are more than {MAX_LABELS} labels")]
    TooManyLabels,
}

impl Hint for NameError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Empty => "pass a name, or leave it out".into(),
            Self::TooLong { max, .. } => format!("pass a shorter one, {max} bytes at most"),
            Self::Character { allowed, .. } => format!("use {allowed} only"),
            Self::NotALabel => "write it like `--label incident=4711`".into(),
            Self::LabelTwice { key } => format!("give `{key}` once"),
            Self::TooManyLabels => format!("pass {MAX_LABELS} labels at most"),
        })
    }
}

/// Checks a node name.
///
/// # Errors
/// See [`NameError`].
pub fn node(text: &str) -> Result<String, NameError> {
    let ok = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    check(text, MAX_NODE, ok, "letters, digits, `.`, `_` and `-`")
}

/// Checks a cluster name: any printable text.
///
/// # Errors
/// See [`NameError`].
pub fn cluster(text: &str) -> Result<String, NameError> {
    check(text, MAX_TEXT, |c| !c.is_control(), "printable characters")
}

/// Adds `text`, which is `key=value`, to `labels`. The value may be empty and may contain `=`.
///
/// # Errors
/// See [`NameError`].
pub fn label(labels: &mut BTreeMap<String, String>, text: &str) -> Result<(), NameError> {
    let (key, value) = text.split_once('=').ok_or(NameError::NotALabel)?;
    let ok = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let key = check(key, MAX_KEY, ok, "letters, digits, `.`, `_`, `/` and `-` in a label's key")?;
    let value = match value {
        "" => String::new(),
        _ => check(value, MAX_TEXT, |c| !c.is_control(), "printable characters")?,
    };
    match labels.get(&key) {
        Some(before) if *before != value => return Err(NameError::LabelTwice { key }),
        None if labels.len() == MAX_LABELS => return Err(NameError::TooManyLabels),
        _ => labels.insert(key, value),
    };
    Ok(())
}

fn check(text: &str, max: usize, ok: impl Fn(char) -> bool, allowed: &'static str) -> Result<String, NameError> {
    if text.trim().is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong { len: text.len(), max });
    }
    match text.chars().find(|c| !ok(*c)) {
        Some(found) => Err(NameError::Character { found, allowed }),
        None => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Result<BTreeMap<String, String>, NameError> {
        let mut labels = BTreeMap::new();
        texts.iter().try_for_each(|text| label(&mut labels, text))?;
        Ok(labels)
    }

    #[test]
    fn host_names_and_kubernetes_node_names_pass() {
        for name in ["etcd-1", "ip-10-0-0-1.eu-west-1.compute.internal", "my_PC"] {
            assert_eq!(node(name), Ok(name.into()));
        }
    }

    #[test]
    fn a_node_name_that_could_leave_the_directory_or_the_line_is_refused() {
        for (name, found) in [("a/b", '/'), ("../x", '/'), ("a\nb", '\n'), ("a\0", '\0'), ("a$(b)", '$')] {
            let error = node(name).unwrap_err();
            assert!(matches!(error, NameError::Character { found: it, .. } if it == found), "{name:?}: {error}");
        }
    }

    #[test]
    fn an_empty_and_an_overlong_node_name_are_refused() {
        assert_eq!(node(""), Err(NameError::Empty));
        assert_eq!(node(&"x".repeat(254)), Err(NameError::TooLong { len: 254, max: MAX_NODE }));
    }

    #[test]
    fn a_label_keeps_the_equals_signs_of_its_value() {
        let expected = BTreeMap::from([("a/b".into(), "c=d".into()), ("e".into(), String::new())]);
        assert_eq!(labels(&["a/b=c=d", "e="]), Ok(expected));
    }

    #[test]
    fn labels_that_contradict_each_other_are_refused() {
        assert!(labels(&["a=1", "a=1"]).is_ok());
        assert_eq!(labels(&["a=1", "a=2"]), Err(NameError::LabelTwice { key: "a".into() }));
    }

    #[test]
    fn malformed_labels_are_refused() {
        assert_eq!(labels(&["a"]), Err(NameError::NotALabel));
        assert_eq!(labels(&["=a"]), Err(NameError::Empty));
        assert!(matches!(labels(&["a b=c"]), Err(NameError::Character { found: ' ', .. })));
        assert!(matches!(labels(&["a=\u{1b}"]), Err(NameError::Character { found: '\u{1b}', .. })));
        assert_eq!(labels(&[&format!("{}=c", "k".repeat(64))]), Err(NameError::TooLong { len: 64, max: 63 }));
        assert_eq!(labels(&[&format!("a={}", "v".repeat(257))]), Err(NameError::TooLong { len: 257, max: 256 }));
    }
}
