//! Pods and containers by name: `--namespace shop,!kube-system`, `--pod 'api-*'`, `--container istio-proxy`. What is in no pod
//! has none of these names, and a pod's sandbox has no container's.

use std::fmt;

use ktrace_bundle::attribution::Attribution;
use ktrace_bundle::workload::Home;

use super::Listed;
use crate::error::Hint;

/// RFC 1123, and so Kubernetes: no name is longer.
const LONGEST: usize = 253;

/// A name, in which `*` stands for any letters or none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

/// Why a text matches no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Kubernetes allows no such name.
    #[error("`{item}` is no name in Kubernetes")]
    NotAName {
        /// The item.
        item: String,
    },
}

impl Hint for PatternError {
    fn hint(&self) -> Option<String> {
        Some("names have small letters, digits, `-` and `.`; `*` stands for any of them".into())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a name.
///
/// # Errors
/// See [`PatternError`].
pub fn parse(item: &str) -> Result<Pattern, PatternError> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'*');
    if item.len() > LONGEST || !item.bytes().all(known) {
        return Err(PatternError::NotAName { item: item.into() });
    }
    Ok(Pattern(item.into()))
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        // the first place at which a part stands leaves most for those behind it
        for part in parts {
            let Some((_, behind)) = rest.split_once(part) else { return false };
            rest = behind;
        }
        rest.ends_with(last)
    }
}

/// The filters by what a process belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HomeFilters {
    /// `--namespace`: that of the pod.
    pub namespace: Listed<Pattern>,
    /// `--pod`.
    pub pod: Listed<Pattern>,
    /// `--container`: its name in the pod.
    pub container: Listed<Pattern>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HomeFilter {
    /// `--namespace`.
    Namespace,
    /// `--pod`.
    Pod,
    /// `--container`.
    Container,
}

/// What they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It passes all.
    Passes,
    /// This one refuses it.
    Refused(HomeFilter),
    /// A name is missing that would tell.
    Unknown,
}

impl HomeFilters {
    /// Whether none has values, so that everything passes.
    pub fn is_off(&self) -> bool {
        [&self.namespace, &self.pod, &self.container].into_iter().all(Listed::is_off)
    }

    /// What they say about this home. `is_whole`: no name of it is missing that may come.
    pub fn answer(&self, home: &Attribution<Home>, is_whole: bool) -> Answer {
        let names = match home {
            Attribution::Unresolved(_) => [Name::Unknown; 3],
            Attribution::Resolved(Home::Host(_)) => [Name::None; 3],
            Attribution::Resolved(Home::Pod(it)) => {
                let missing = if is_whole { Name::None } else { Name::Unknown };
                [&it.namespace, &it.pod, &it.container].map(|name| name.as_deref().map_or(missing, Name::Is))
            }
        };
        let filters = [
            (HomeFilter::Namespace, &self.namespace),
            (HomeFilter::Pod, &self.pod),
            (HomeFilter::Container, &self.container),
        ];
        let mut answer = Answer::Passes;
        for ((filter, listed), name) in filters.into_iter().zip(names) {
            match listed.allow(name) {
                Some(true) => {}
                Some(false) => return Answer::Refused(filter),
                None => answer = Answer::Unknown,
            }
        }
        answer
    }
}

#[derive(Clone, Copy)]
enum Name<'a> {
    Is(&'a str),
    None,
    Unknown,
}

impl Listed<Pattern> {
    fn allow(&self, name: Name<'_>) -> Option<bool> {
        match name {
            _ if self.is_off() => Some(true),
            Name::Is(name) => {
                let listed = |list: &std::collections::BTreeSet<Pattern>| list.iter().any(|it| it.matches(name));
                Some(self.passes(listed(&self.wanted), listed(&self.unwanted)))
            }
            Name::None => Some(self.passes(false, false)),
            Name::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::why::Reason;
    use ktrace_bundle::workload::Workload;

    use super::*;

    fn listed(text: &str) -> Listed<Pattern> {
        if text.is_empty() { Listed::default() } else { super::super::parse(text, parse).unwrap() }
    }

    fn filters(namespace: &str, pod: &str, container: &str) -> HomeFilters {
        HomeFilters { namespace: listed(namespace), pod: listed(pod), container: listed(container) }
    }

    fn api(names: [Option<&str>; 3]) -> Attribution<Home> {
        let [namespace, pod, container] = names.map(|name| name.map(str::to_owned));
        let workload = Workload { namespace, pod, container, ..Workload::of_cgroup("u".into()) };
        Attribution::Resolved(Home::Pod(workload.into()))
    }

    #[test]
    fn a_star_stands_for_any_letters_or_none() {
        for (pattern, name, is_one) in [
            ("api", "api", true),
            ("api", "api-1", false),
            ("api-*", "api-7d9f-x2x", true),
            ("api-*", "api-", true),
            ("api-*", "api", false),
            ("*-x2x", "api-x2x", true),
            ("a*i*x", "api-7d9f-x2x", true),
            ("a*pp*x", "api-7d9f-x2x", false),
            ("aa*a", "aa", false),
            ("a*b*b", "ab", false),
            ("*", "api", true),
            ("**", "a", true),
        ] {
            assert_eq!(parse(pattern).unwrap().matches(name), is_one, "{pattern} {name}");
        }
    }

    #[test]
    fn what_kubernetes_would_not_allow_is_refused() {
        for text in ["Api", "a_b", "a/b", "a b", "\u{1b}[31m", &"x".repeat(254)] {
            assert_eq!(parse(text), Err(PatternError::NotAName { item: text.into() }));
        }
    }

    #[test]
    fn every_filter_has_to_let_it_pass_and_the_first_one_that_does_not_is_named() {
        let home = api([Some("shop"), Some("api-1"), Some("main")]);
        for (namespace, pod, container, answer) in [
            ("", "", "", Answer::Passes),
            ("shop", "api-*", "main", Answer::Passes),
            ("!kube-system", "", "", Answer::Passes),
            ("bank", "web", "", Answer::Refused(HomeFilter::Namespace)),
            ("shop", "!api-*", "", Answer::Refused(HomeFilter::Pod)),
            ("shop", "", "api-*,!main", Answer::Refused(HomeFilter::Container)),
        ] {
            assert_eq!(filters(namespace, pod, container).answer(&home, true), answer, "{namespace} {pod} {container}");
        }
    }

    #[test]
    fn what_has_no_such_name_passes_where_none_is_wanted() {
        let host = Attribution::Resolved(Home::Host("kubelet.service".into()));
        let sandbox = api([Some("shop"), Some("api-1"), None]);
        assert_eq!(filters("!shop", "", "").answer(&host, true), Answer::Passes);
        assert_eq!(filters("shop", "", "").answer(&host, true), Answer::Refused(HomeFilter::Namespace));
        assert_eq!(filters("shop", "", "!main").answer(&sandbox, true), Answer::Passes);
        assert_eq!(filters("shop", "", "main").answer(&sandbox, true), Answer::Refused(HomeFilter::Container));
    }

    #[test]
    fn a_name_that_is_missing_matters_only_to_the_filter_that_asks_for_it() {
        let (nobody, unnamed) = (Attribution::Unresolved(Reason::Gone), api([None, None, None]));
        let half = api([Some("shop"), Some("api-1"), None]);
        for home in [&nobody, &unnamed] {
            assert_eq!(filters("shop", "", "").answer(home, false), Answer::Unknown);
            assert_eq!(filters("", "", "!main").answer(home, false), Answer::Unknown);
            assert_eq!(HomeFilters::default().answer(home, false), Answer::Passes);
        }
        assert_eq!(filters("shop", "", "").answer(&half, false), Answer::Passes);
        assert_eq!(filters("shop", "", "main").answer(&half, false), Answer::Unknown);
        assert_eq!(filters("", "web", "main").answer(&half, false), Answer::Refused(HomeFilter::Pod));
    }

    proptest::proptest! {
        #[test]
        fn a_pattern_matches_what_is_put_in_for_its_stars(parts in proptest::collection::vec("[a-c]{0,3}", 1..4)) {
            proptest::prop_assert!(parse(&parts.join("*")).unwrap().matches(&parts.join("ab")));
        }
    }
}
