//! Durations as Go writes them: `30s`, `1m30s`, `500ms`, `1.5h`.
//!
//! A number without a unit is refused, since nobody can tell whether it means seconds or milliseconds.

use std::time::Duration;

use crate::error::Hint;

/// The longest capture.
pub const MAX: Duration = Duration::from_secs(24 * 60 * 60);

const UNITS: [(&str, u128); 8] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ns", 1),
];

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// There is no number where one has to be.
    #[error("a duration is a number and a unit, such as `30s`")]
    NoNumber,
    /// The last number has no unit.
    #[error("`{number}` has no unit")]
    NoUnit {
        /// The number.
        number: String,
    },
    /// The unit is not one of Go's.
    #[error("`{unit}` is not a unit of time")]
    UnknownUnit {
        /// The unit.
        unit: String,
    },
    /// Zero.
    #[error("a capture of no length sees nothing")]
    Zero,
    /// Longer than [`MAX`].
    #[error("a capture lasts 24h at most")]
    TooLong,
}

impl Hint for DurationError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoUnit { number } => format!("did you mean `{number}s`"),
            Self::UnknownUnit { .. } => "the units are `h`, `m`, `s`, `ms`, `us` and `ns`, as in `1m30s`".into(),
            Self::NoNumber | Self::Zero | Self::TooLong => "pass a duration such as `30s` or `5m`".into(),
        })
    }
}

/// Parses a duration above zero and not above [`MAX`]. Fractions of a nanosecond are cut off.
///
/// # Errors
/// See [`DurationError`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text;
    let mut total_ns: u128 = 0;
    loop {
        let (number, tail) = split_at(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, tail) = split_at(tail, |c| c.is_ascii_digit() || c == '.');
        total_ns += nanoseconds(number, unit)?;
        if total_ns > MAX.as_nanos() {
            return Err(DurationError::TooLong);
        }
        if tail.is_empty() {
            break;
        }
        rest = tail;
    }
    match u64::try_from(total_ns) {
        Ok(0) => Err(DurationError::Zero),
        Ok(ns) => Ok(Duration::from_nanos(ns)),
        Err(_) => Err(DurationError::TooLong),
    }
}

/// Writes a duration so that [`parse`] reads it back: `1m30s`.
pub fn show(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, ns) in UNITS.into_iter().filter(|(unit, _)| unit.is_ascii()) {
        if rest >= ns {
            text += &format!("{}{unit}", rest / ns);
            rest %= ns;
        }
    }
    text
}

fn split_at(text: &str, at: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

fn nanoseconds(number: &str, unit: &str) -> Result<u128, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(DurationError::NoNumber);
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit { number: number.into() });
    }
    let Some((_, unit_ns)) = UNITS.into_iter().find(|(name, _)| *name == unit) else {
        return Err(DurationError::UnknownUnit { unit: unit.into() });
    };
    // digits only, so the sole way to fail is a number too large for the type, or no digit at all
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
    let mut ns = u128::from(whole) * unit_ns;
    let mut digit_ns = unit_ns;
    for digit in fraction.chars().filter_map(|c| c.to_digit(10)) {
        digit_ns /= 10;
        ns += u128::from(digit) * digit_ns;
    }
    Ok(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Result<Duration, DurationError> {
        Ok(Duration::from_millis(ms))
    }

    #[test]
    fn go_style_durations_are_read() {
        assert_eq!(parse("60s"), ms(60_000));
        assert_eq!(parse("2m"), ms(120_000));
        assert_eq!(parse("1m30s"), ms(90_000));
        assert_eq!(parse("500ms"), ms(500));
        assert_eq!(parse("1.5h"), ms(5_400_000));
        assert_eq!(parse(".5s"), ms(500));
        assert_eq!(parse("250µs"), Ok(Duration::from_micros(250)));
    }

    #[test]
    fn a_bare_number_is_refused_with_the_likely_meaning() {
        let error = parse("30").unwrap_err();
        assert_eq!(error, DurationError::NoUnit { number: "30".into() });
        assert_eq!(error.hint().unwrap(), "did you mean `30s`");
        assert_eq!(parse("1m30"), Err(DurationError::NoUnit { number: "30".into() }));
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        assert_eq!(parse(""), Err(DurationError::NoNumber));
        assert_eq!(parse("."), Err(DurationError::NoNumber));
        assert_eq!(parse("1.2.3s"), Err(DurationError::NoNumber));
        assert_eq!(parse("-5s"), Err(DurationError::NoNumber));
        assert_eq!(parse("soon"), Err(DurationError::NoNumber));
        assert_eq!(parse("5 s"), Err(DurationError::UnknownUnit { unit: " s".into() }));
        assert_eq!(parse("1d"), Err(DurationError::UnknownUnit { unit: "d".into() }));
    }

    #[test]
    fn the_bounds_are_more_than_nothing_and_one_day() {
        assert_eq!(parse("0s"), Err(DurationError::Zero));
        assert_eq!(parse("24h"), Ok(MAX));
        assert_eq!(parse("24h1ns"), Err(DurationError::TooLong));
        assert_eq!(parse("99999999999999999999h"), Err(DurationError::TooLong));
        assert_eq!(parse(&"18446744073709551615h".repeat(50)), Err(DurationError::TooLong));
    }

    #[test]
    fn a_shown_duration_reads_back() {
        for text in ["30s", "1m30s", "1h", "500ms", "1s500ms", "2us3ns"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
