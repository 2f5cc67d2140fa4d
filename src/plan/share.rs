//! `30%`: a share of a whole.

use crate::error::Hint;

/// Whole percent, from 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u8);

/// Why a text is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// A number without `%`.
    #[error("`{0}` has no `%`")]
    NoPercent(String),
    /// Not between 1 and 100, or not whole.
    #[error("a share is a whole number from 1 to 100 with `%`")]
    OutOfRange,
}

impl Hint for ShareError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            // `0.3` and `30` are both what people write for 30 %
            Self::NoPercent(text) => match text.parse::<f64>() {
                Ok(part) if part > 0.0 && part < 1.0 => format!("did you mean `{:.0}%`", part * 100.0),
                Ok(part) if (1.0..=100.0).contains(&part) => format!("did you mean `{part:.0}%`"),
                _ => "pass a share such as `30%`".into(),
            },
            Self::OutOfRange => "pass a share such as `30%`".into(),
        })
    }
}

impl Share {
    /// That part of `whole`, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        u64::try_from(u128::from(whole) * u128::from(self.0) / 100).unwrap_or(whole)
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// Parses a share.
///
/// # Errors
/// See [`ShareError`].
pub fn parse(text: &str) -> Result<Share, ShareError> {
    let Some(digits) = text.strip_suffix('%') else { return Err(ShareError::NoPercent(text.into())) };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.trim_end().parse() {
        Ok(percent @ 1..=100) if plain => Ok(Share(percent)),
        _ => Err(ShareError::OutOfRange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_whole_percentage() {
        assert_eq!([parse("1%"), parse("100%")], [Ok(Share(1)), Ok(Share(100))]);
        for text in ["0%", "101%", "1.5%", "-1%", "+1%", "%", " 5%", "256%"] {
            assert_eq!(parse(text), Err(ShareError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn a_share_without_its_sign_is_met_with_the_one_that_was_meant() {
        for (text, hint) in
            [("0.3", "did you mean `30%`"), ("30", "did you mean `30%`"), ("x", "pass a share such as `30%`")]
        {
            assert_eq!(parse(text).unwrap_err().hint().unwrap(), hint);
        }
    }

    #[test]
    fn a_share_of_a_large_volume_does_not_overflow() {
        assert_eq!(Share(30).of(1000), 300);
        assert_eq!(Share(100).of(u64::MAX), u64::MAX);
        assert_eq!(Share(1).of(99), 0);
    }
}
