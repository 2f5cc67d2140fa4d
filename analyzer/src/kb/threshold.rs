//! One number that a rule decides by.

use crate::units::{MILLI, duration, percent};
use serde::Deserialize;

/// A number with what it means. Its name ends in its unit: `_ms`, `_share` (0 to 1), `_rate` (per second), else it is
/// a count or a plain factor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The number.
    pub(super) value: Number,
    /// What it means.
    pub means: String,
    /// What it was in the release, if it has been changed to something else.
    #[serde(skip)]
    pub(super) default: Option<Number>,
}

/// A number as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Number {
    /// A count, or milliseconds.
    Whole(u32),
    /// A share, a rate or a factor.
    Real(f64),
}

impl Number {
    /// As a value that a rule's own form is made of.
    pub(super) fn value(self) -> toml::Value {
        match self {
            Self::Whole(n) => toml::Value::Integer(n.into()),
            Self::Real(n) => toml::Value::Float(n),
        }
    }

    pub(super) fn number(self) -> f64 {
        match self {
            Self::Whole(n) => n.into(),
            Self::Real(n) => n,
        }
    }

    /// For people, with the unit that its name tells.
    pub(super) fn shown(self, name: &str) -> String {
        match self {
            Self::Whole(n) if name.ends_with("_ms") => duration(u64::from(n).saturating_mul(MILLI)),
            Self::Real(n) if name.ends_with("_share") => percent(n),
            Self::Real(n) if name.ends_with("_rate") => format!("{n} per second"),
            Self::Whole(n) => n.to_string(),
            Self::Real(n) => n.to_string(),
        }
    }
}

/// A duration in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Ms(u64);

impl Ms {
    /// The same in nanoseconds.
    pub const fn ns(self) -> u64 {
        self.0.saturating_mul(MILLI)
    }
}

/// Of a rule that decides by no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoThresholds {}

impl Threshold {
    /// For people, with its unit.
    pub fn shown(&self, name: &str) -> String {
        self.value.shown(name)
    }

    /// What it is in the release, for people, where it has been changed.
    pub fn default_shown(&self, name: &str) -> Option<String> {
        self.default.map(|value| value.shown(name))
    }

    /// The same threshold with another value, which must be of the same kind.
    pub(super) fn with(&self, name: &str, text: &str) -> Result<Self, &'static str> {
        let value = match self.value {
            Number::Whole(_) => Number::Whole(text.parse().map_err(|_| "it must be a whole number, 0 or more")?),
            Number::Real(_) => {
                let n: f64 = text.parse().map_err(|_| "it must be a number")?;
                if !n.is_finite() || n < 0.0 {
                    return Err("it must be a number, 0 or more");
                }
                if name.ends_with("_share") && n > 1.0 {
                    return Err("a share is between 0 and 1");
                }
                Number::Real(n)
            }
        };
        let release = self.default.unwrap_or(self.value);
        let default = (release != value).then_some(release);
        Ok(Self { value, means: self.means.clone(), default })
    }
}
