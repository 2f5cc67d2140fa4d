//! What stands below flags and variables: the file of `--config`, then the values of `--profile`.
//!
//! Turns both into further defaults of the command line, so that their values go through the same checks. Refuses keys
//! that are no flags. Says nothing about what the values mean.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ktrace_bundle::manifest::PlanSource;
use toml::{Table, Value};

use super::nearest::nearest;
use crate::error::Hint;

/// More than any configuration needs.
const MAX_CONFIG_BYTES: u64 = 64 << 10;

/// Values by flag, each with its origin.
pub type Layer = BTreeMap<String, (Vec<String>, PlanSource)>;

/// A named set of values.
#[derive(Debug)]
pub struct Profile {
    /// Name.
    pub name: &'static str,
    /// Flags and their values.
    pub values: &'static [(&'static str, &'static str)],
}

/// All profiles, as `--help` lists them.
pub static PROFILES: &[Profile] = &[
    Profile {
        name: "dns",
        values: &[("dns-only", "true"), ("with-connect-latency", "false"), ("with-retransmits", "false")],
    },
    Profile {
        name: "connect",
        values: &[("with-connect-latency", "true"), ("with-retransmits", "true"), ("with-security", "false")],
    },
    Profile {
        name: "service",
        values: &[("max-events", "2000000"), ("max-bytes", "2GiB"), ("with-security", "false")],
    },
    Profile {
        name: "full",
        values: &[
            ("max-events", "5000000"),
            ("max-bytes", "4GiB"),
            ("ring-bytes", "64MiB"),
            ("with-connect-latency", "true"),
            ("with-retransmits", "true"),
            ("with-security", "true"),
        ],
    },
];

/// Why a configuration or a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("the configuration `{}` is not TOML: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// A key that is no flag.
    #[error("unknown key `{key}` in the configuration `{}`", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The flag that was probably meant.
        nearest: Option<String>,
    },
    /// A value that no flag takes.
    #[error("the value of `{key}` in the configuration `{}` is a {kind}", .path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it is.
        kind: &'static str,
    },
    /// No such profile.
    #[error("there is no profile `{0}`")]
    Profile(String),
}

impl Hint for LayerError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read { .. } => "pass a file that you may read with `--config`".into(),
            Self::Syntax { .. } => "write `flag = value` on each line, such as `duration = \"60s\"`".into(),
            Self::Key { nearest: Some(flag), .. } => format!("did you mean `{flag}`"),
            Self::Key { .. } => "keys are the flags of `ktrace --help` without the dashes in front".into(),
            Self::Kind { .. } => "write a string, a whole number, a boolean or a list of them".into(),
            Self::Profile(_) => {
                let names: Vec<_> = PROFILES.iter().map(|it| format!("`{}`", it.name)).collect();
                format!("the profiles are {}", names.join(", "))
            }
        })
    }
}

/// The values of a file; `flags` are the keys that may stand in it, and whether such a flag may be repeated.
///
/// # Errors
/// See [`LayerError`].
pub fn of_file(path: &Path, flags: &BTreeMap<String, bool>) -> Result<Layer, LayerError> {
    let read = |source| LayerError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text)).map_err(read)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(read(io::Error::other(format!("it has more than {MAX_CONFIG_BYTES} bytes"))));
    }
    let table: Table = text.parse().map_err(|error: toml::de::Error| LayerError::Syntax {
        path: path.to_owned(),
        message: error.message().to_owned(),
    })?;
    let mut layer = Layer::new();
    for (key, value) in table {
        let Some(repeated) = flags.get(&key) else {
            let nearest = nearest(&key, flags.keys().map(String::as_str)).map(str::to_owned);
            return Err(LayerError::Key { path: path.to_owned(), key, nearest });
        };
        let texts = texts(*repeated, &value).map_err(|kind| LayerError::Kind {
            path: path.to_owned(),
            key: key.clone(),
            kind,
        })?;
        layer.insert(key, (texts, PlanSource::File));
    }
    Ok(layer)
}

/// A value as the command line would have it. A list is one value with commas, unless the flag may be repeated; then a
/// table gives `key=value` texts, too.
fn texts(repeated: bool, value: &Value) -> Result<Vec<String>, &'static str> {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(scalar).collect::<Result<_, _>>()?;
            Ok(if repeated { items } else { vec![items.join(",")] })
        }
        Value::Table(pairs) if repeated => {
            pairs.iter().map(|(name, value)| scalar(value).map(|text| format!("{name}={text}"))).collect()
        }
        other => Ok(vec![scalar(other)?]),
    }
}

fn scalar(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(it) => Ok(it.to_string()),
        other => Err(other.type_str()),
    }
}

/// Adds the values of a profile below those that are there.
///
/// # Errors
/// [`LayerError::Profile`].
pub fn add_profile(layer: &mut Layer, name: &str) -> Result<(), LayerError> {
    let profile = PROFILES.iter().find(|it| it.name == name).ok_or_else(|| LayerError::Profile(name.to_owned()))?;
    for (flag, value) in profile.values {
        layer.entry((*flag).to_owned()).or_insert_with(|| (vec![(*value).to_owned()], PlanSource::Profile));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Layer, LayerError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        let flags = [("duration", false), ("ports", false), ("label", true), ("quiet", false)];
        of_file(file.path(), &flags.map(|(name, repeated)| (name.to_owned(), repeated)).into())
    }

    #[test]
    fn values_become_what_the_command_line_would_have() {
        let layer = of("duration = \"5s\"\nports = [80, 443]\nquiet = true\n[label]\na = \"1,b\"\nc = 2\n").unwrap();
        let texts: Vec<_> = layer.iter().map(|(key, (texts, _))| (key.as_str(), texts.join(" + "))).collect();
        let expected = [("duration", "5s"), ("label", "a=1,b + c=2"), ("ports", "80,443"), ("quiet", "true")];
        assert_eq!(texts, expected.map(|(key, text)| (key, text.to_owned())));
    }

    #[test]
    fn what_is_no_value_of_a_flag_is_refused() {
        assert!(
            matches!(of("durations = \"5s\""), Err(LayerError::Key { nearest: Some(flag), .. }) if flag == "duration")
        );
        assert!(matches!(of("quiet = 1979-05-27"), Err(LayerError::Kind { kind: "datetime", .. })));
        assert!(matches!(of("[ports]\na = 1"), Err(LayerError::Kind { kind: "table", .. })));
        assert!(matches!(of("duration"), Err(LayerError::Syntax { .. })));
        assert!(matches!(of(&"#".repeat(1 << 17)), Err(LayerError::Read { .. })));
    }

    #[test]
    fn a_profile_stands_below_the_file() {
        let mut layer = Layer::from([("dns-only".to_owned(), (vec!["false".to_owned()], PlanSource::File))]);
        add_profile(&mut layer, "dns").unwrap();
        assert_eq!(layer["dns-only"], (vec!["false".to_owned()], PlanSource::File));
        assert_eq!(layer["with-retransmits"], (vec!["false".to_owned()], PlanSource::Profile));
        assert!(add_profile(&mut layer, "dsn").is_err());
    }
}
