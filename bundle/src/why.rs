//! Reasons for absent keys: a closed list, in one table.

use std::borrow::Cow;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Why a key is absent.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
            /// The id belongs to this cgroup v1 hierarchy, not to v2: `v1:<hierarchy>`.
            CgroupV1(Cow<'static, str>),
            /// A reason of a newer writer.
            Other(String),
        }

        impl Reason {
            /// The texts of the closed list.
            pub const TEXTS: &[&str] = &[$($text),*];

            /// The text as it stands in a bundle.
            pub fn text(&self) -> Cow<'_, str> {
                match self {
                    $(Self::$variant => Cow::Borrowed($text),)*
                    Self::CgroupV1(hierarchy) => Cow::Owned(format!("v1:{hierarchy}")),
                    Self::Other(text) => Cow::Borrowed(text),
                }
            }

            /// The reason that this text names.
            pub fn parse(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    _ => match text.strip_prefix("v1:") {
                        Some(h) => Self::CgroupV1(Cow::Owned(h.to_owned())),
                        None => Self::Other(text.to_owned()),
                    },
                }
            }
        }
    };
}

reasons! {
    /// The user did not ask for it.
    NotRequested = "not_requested",
    /// The hook that would tell is not attached.
    HookMissing = "hook_missing",
    /// The source does not exist on this node.
    SourceAbsent = "source_absent",
    /// The source did not answer in time.
    SourceTimeout = "source_timeout",
    /// The source answered with an error.
    SourceError = "source_error",
    /// The collector may not read it.
    NoPermission = "no_permission",
    /// The subsystem is there but does nothing.
    Inactive = "inactive",
    /// It did not exist yet when it was looked up.
    TooEarly = "too_early",
    /// Looked up and not there.
    NotFound = "not_found",
    /// It existed, and ended before it was looked up.
    Gone = "gone",
    /// A process of the host, not of a container.
    HostProcess = "host_process",
    /// The socket is bound to the wildcard address.
    WildcardBind = "wildcard_bind",
    /// The socket has no owner that could be proven.
    NoOwner = "no_owner",
    /// Seen in softirq, where the running task is a bystander.
    Softirq = "softirq",
    /// The value was cut.
    Truncated = "truncated",
    /// A bounded table was full.
    Overflow = "overflow",
    /// This kernel does not offer it.
    UnsupportedKernel = "unsupported_kernel",
}

/// Key → reason, for the keys that are absent from a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Why(Vec<(Cow<'static, str>, Reason)>);

impl Why {
    /// No reason to give.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// States the reason for an absent key; a later reason replaces an earlier one.
    pub fn set(&mut self, key: &'static str, reason: Reason) {
        self.insert(Cow::Borrowed(key), reason);
    }

    /// The reason given for this key.
    pub fn get(&self, key: &str) -> Option<&Reason> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, r)| r)
    }

    /// Removes and returns the reason given for this key.
    pub fn take(&mut self, key: &str) -> Option<Reason> {
        let at = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.remove(at).1)
    }

    /// Every key with its reason.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Reason)> {
        self.0.iter().map(|(k, r)| (k.as_ref(), r))
    }

    fn insert(&mut self, key: Cow<'static, str>, reason: Reason) {
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, r)) => *r = reason,
            None => self.0.push((key, reason)),
        }
    }
}

impl Serialize for Why {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(k, r)| (k, r.text())))
    }
}

impl<'de> Deserialize<'de> for Why {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct WhyVisitor;
        impl<'de> Visitor<'de> for WhyVisitor {
            type Value = Why;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of key to reason")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Why, A::Error> {
                let mut why = Why::none();
                while let Some((key, reason)) = map.next_entry::<String, String>()? {
                    why.insert(Cow::Owned(key), Reason::parse(&reason));
                }
                Ok(why)
            }
        }
        d.deserialize_map(WhyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_its_text() {
        for text in ["hook_missing", "wildcard_bind", "softirq", "v1:memory", "made_up_later"] {
            assert_eq!(Reason::parse(text).text(), text);
        }
        assert_eq!(Reason::parse("made_up_later"), Reason::Other("made_up_later".into()));
    }

    #[test]
    fn a_later_reason_replaces_an_earlier_one() {
        let mut why = Why::none();
        why.set("k8s", Reason::TooEarly);
        why.set("k8s", Reason::Gone);
        assert_eq!(serde_json::to_string(&why).unwrap(), r#"{"k8s":"gone"}"#);
    }
}
