//! Booleans and counts.

use crate::error::Hint;

/// Why a text is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScalarError {
    /// Neither true nor false.
    #[error("a boolean is `true` or `false`")]
    NotABoolean,
    /// Not a whole number of at least one.
    #[error("the count has to be a whole number between 1 and {max}")]
    NotACount {
        /// Largest count.
        max: u64,
    },
    /// A share where one in N is meant; N, if the share has one.
    #[error("a sample is one in N flows")]
    Share {
        /// N.
        one_in: Option<u64>,
    },
}

impl Hint for ScalarError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotABoolean => "pass `true` or `false`".into(),
            Self::NotACount { .. } => "pass a plain number such as `500000`".into(),
            Self::Share { one_in: Some(n) } => format!("write `{n}` for one flow in {n}"),
            Self::Share { one_in: None } => "write `10` for one flow in 10".into(),
        })
    }
}

/// Parses `true` or `false`; `1` and `0` are what people put into environment variables.
///
/// # Errors
/// [`ScalarError::NotABoolean`].
pub fn boolean(text: &str) -> Result<bool, ScalarError> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ScalarError::NotABoolean),
    }
}

/// Parses a count from 1 to `max`.
///
/// # Errors
/// [`ScalarError::NotACount`].
pub fn count(text: &str, max: u64) -> Result<u64, ScalarError> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(count) if digits && (1..=max).contains(&count) => Ok(count),
        _ => Err(ScalarError::NotACount { max }),
    }
}

/// Parses N of "1 in N flows".
///
/// # Errors
/// [`ScalarError::Share`] for `0.1` and `10%`, else [`ScalarError::NotACount`].
pub fn sample(text: &str, max: u64) -> Result<u64, ScalarError> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok().map(|it| it / 100.0),
        None => text.contains('.').then(|| text.parse::<f64>().ok()).flatten(),
    };
    match share {
        Some(share) => {
            // in range by the check
            let one_in =
                (share > 0.0 && share <= 1.0 && 1.0 / share <= max as f64).then(|| (1.0 / share).round() as u64);
            Err(ScalarError::Share { one_in })
        }
        None => count(text, max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_no_sample_but_tells_which_one_is_meant() {
        assert_eq!(sample("10", 1000), Ok(10));
        for (text, one_in) in [("0.1", Some(10)), ("25%", Some(4)), ("1.0", Some(1)), ("2.5", None), ("0.0", None)] {
            assert_eq!(sample(text, 1000), Err(ScalarError::Share { one_in }), "{text}");
        }
        assert_eq!(sample("0", 1000), Err(ScalarError::NotACount { max: 1000 }));
        let hint = sample("0.1", 1000).unwrap_err().hint();
        assert_eq!(hint.as_deref(), Some("write `10` for one flow in 10"));
    }

    #[test]
    fn booleans_are_read_in_both_spellings() {
        assert_eq!(["true", "1", "false", "0"].map(boolean), [Ok(true), Ok(true), Ok(false), Ok(false)]);
        assert_eq!(["", "yes", "TRUE"].map(boolean), [const { Err(ScalarError::NotABoolean) }; 3]);
    }

    #[test]
    fn a_count_is_a_whole_number_within_its_bounds() {
        assert_eq!(count("500000", 1_000_000), Ok(500_000));
        for text in ["0", "-1", "+1", "1e6", "", "11", "99999999999999999999"] {
            assert_eq!(count(text, 10), Err(ScalarError::NotACount { max: 10 }), "{text}");
        }
    }
}
