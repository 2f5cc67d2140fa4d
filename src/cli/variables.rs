//! Variables that begin like ktrace's and are none: a slip of the finger that would otherwise go unnoticed.

use std::ffi::OsString;

use super::{flags, nearest};
use crate::error::Hint;

/// Variables that look like ktrace's and are not, with the one that was probably meant.
pub fn strange(names: impl Iterator<Item = OsString>) -> Vec<StrangeVariable> {
    let known: Vec<_> = flags().map(|(flag, _)| format!("KTRACE_{}", flag.replace('-', "_").to_uppercase())).collect();
    let names = names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("KTRACE_"));
    let strange = names.filter(|name| !known.contains(name));
    strange
        .map(|name| {
            // what all of them begin with would make all of them alike
            let bare = |name: &'_ str| name.strip_prefix("KTRACE_").unwrap_or_default().to_owned();
            let flags: Vec<_> = known.iter().map(|it| bare(it)).collect();
            let nearest = nearest::nearest(&bare(&name), flags.iter().map(String::as_str));
            let nearest = nearest.map(|it| format!("KTRACE_{it}"));
            StrangeVariable { name, nearest }
        })
        .collect()
}

/// A variable that has no effect.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variable `{name}` is no flag of ktrace, and has no effect")]
pub struct StrangeVariable {
    name: String,
    nearest: Option<String>,
}

impl Hint for StrangeVariable {
    fn hint(&self) -> Option<String> {
        self.nearest.as_ref().map(|it| format!("did you mean `{it}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_s_variable_is_known_and_others_are_none_of_our_business() {
        assert_eq!(strange(["KTRACE_DNS_ONLY", "PATH", "KUBERNETES_PORT"].into_iter().map(Into::into)), []);
        let found = strange(["KTRACE_MAX_EVENT", "KTRACE_QWZ"].into_iter().map(Into::into));
        let hints: Vec<_> = found.iter().map(Hint::hint).collect();
        assert_eq!(hints, [Some("did you mean `KTRACE_MAX_EVENTS`".to_owned()), None]);
    }
}
