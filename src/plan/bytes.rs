//! Sizes in bytes: `512MiB`, `64KB`, `1048576`.
//!
//! A bare `K`, `M` or `G` is refused: some tools mean 1000 by it, others 1024.

use crate::error::Hint;

/// Decimal and binary factor of each prefix letter.
const PREFIXES: [(char, u64, u64); 4] = [
    ('K', 1_000, 1 << 10),
    ('M', 1_000_000, 1 << 20),
    ('G', 1_000_000_000, 1 << 30),
    ('T', 1_000_000_000_000, 1 << 40),
];

/// Why a text is not a size, or not one that fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BytesError {
    /// It does not begin with a whole number.
    #[error("a size is a whole number and a unit, such as `512MiB`")]
    NoNumber,
    /// The unit is none that is known.
    #[error("`{unit}` is not a unit of size")]
    UnknownUnit {
        /// The unit.
        unit: String,
    },
    /// `M` may be 1000² or 1024².
    #[error("`{number}{prefix}` may mean two sizes")]
    Ambiguous {
        /// The number.
        number: u64,
        /// The prefix letter.
        prefix: char,
    },
    /// Outside of the bounds.
    #[error("the size has to be between {} and {}", show(*min), show(*max))]
    OutOfRange {
        /// Smallest size, bytes.
        min: u64,
        /// Largest size, bytes.
        max: u64,
    },
    /// Not a power of two.
    #[error("{} is not a power of two", show(*bytes))]
    NotAPowerOfTwo {
        /// The size, bytes.
        bytes: u64,
    },
}

impl Hint for BytesError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoNumber | Self::UnknownUnit { .. } => "write it like `512MiB`, `64KB` or `1048576`".into(),
            Self::Ambiguous { number, prefix } => format!("write `{number}{prefix}iB` or `{number}{prefix}B`"),
            Self::OutOfRange { min, .. } => format!("pass `{}` or more, within the bounds", show(*min)),
            Self::NotAPowerOfTwo { bytes } => {
                let above = bytes.next_power_of_two();
                format!("pass `{}` or `{}`", show(above / 2), show(above))
            }
        })
    }
}

/// Parses a size between `min` and `max` bytes.
///
/// # Errors
/// See [`BytesError`].
pub fn parse(text: &str, min: u64, max: u64) -> Result<u64, BytesError> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    if number.is_empty() {
        return Err(BytesError::NoNumber);
    }
    let out_of_range = BytesError::OutOfRange { min, max };
    let Ok(number) = number.parse::<u64>() else { return Err(out_of_range) };
    match number.checked_mul(factor(number, unit)?) {
        Some(bytes) if (min..=max).contains(&bytes) => Ok(bytes),
        _ => Err(out_of_range),
    }
}

/// The same, and a power of two.
///
/// # Errors
/// See [`BytesError`].
pub fn parse_power_of_two(text: &str, min: u64, max: u64) -> Result<u64, BytesError> {
    let bytes = parse(text, min, max)?;
    if bytes.is_power_of_two() { Ok(bytes) } else { Err(BytesError::NotAPowerOfTwo { bytes }) }
}

/// Writes a size in the largest binary unit that keeps it exact: `512MiB`, `1000B`.
pub fn show(bytes: u64) -> String {
    for (prefix, _, factor) in PREFIXES.into_iter().rev() {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{prefix}iB", bytes / factor);
        }
    }
    format!("{bytes}B")
}

fn factor(number: u64, unit: &str) -> Result<u64, BytesError> {
    if unit.is_empty() || unit == "B" {
        return Ok(1);
    }
    let unknown = || BytesError::UnknownUnit { unit: unit.into() };
    let first = unit.chars().next().map(|c| c.to_ascii_uppercase());
    let (prefix, decimal, binary) = PREFIXES.into_iter().find(|(p, ..)| Some(*p) == first).ok_or_else(unknown)?;
    match unit.get(1..) {
        Some("iB" | "ib" | "i") => Ok(binary),
        Some("B" | "b") => Ok(decimal),
        Some("") => Err(BytesError::Ambiguous { number, prefix }),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(text: &str) -> Result<u64, BytesError> {
        parse(text, 0, u64::MAX)
    }

    #[test]
    fn binary_decimal_and_plain_sizes_are_read() {
        assert_eq!(any("512MiB"), Ok(512 << 20));
        assert_eq!(any("1Gi"), Ok(1 << 30));
        assert_eq!(any("64KB"), Ok(64_000));
        assert_eq!(any("64kb"), Ok(64_000));
        assert_eq!(any("1048576"), Ok(1 << 20));
        assert_eq!(any("7B"), Ok(7));
    }

    #[test]
    fn a_prefix_alone_is_refused_with_both_meanings() {
        let error = any("512M").unwrap_err();
        assert_eq!(error, BytesError::Ambiguous { number: 512, prefix: 'M' });
        assert_eq!(error.hint().unwrap(), "write `512MiB` or `512MB`");
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        assert_eq!(any(""), Err(BytesError::NoNumber));
        assert_eq!(any("-1"), Err(BytesError::NoNumber));
        assert_eq!(any("MiB"), Err(BytesError::NoNumber));
        assert_eq!(any("1.5GiB"), Err(BytesError::UnknownUnit { unit: ".5GiB".into() }));
        assert_eq!(any("5 MiB"), Err(BytesError::UnknownUnit { unit: " MiB".into() }));
        assert_eq!(any("5µB"), Err(BytesError::UnknownUnit { unit: "µB".into() }));
    }

    #[test]
    fn sizes_outside_of_the_bounds_and_beyond_the_type_are_refused() {
        let error = Err(BytesError::OutOfRange { min: 10, max: 1 << 20 });
        assert_eq!(parse("9", 10, 1 << 20), error);
        assert_eq!(parse("2MiB", 10, 1 << 20), error);
        assert_eq!(parse("99999999999999999999", 10, 1 << 20), error);
        assert_eq!(parse("18446744073709551615TiB", 10, 1 << 20), error);
    }

    #[test]
    fn a_size_between_two_powers_names_both() {
        let error = parse_power_of_two("20MiB", 0, 1 << 30).unwrap_err();
        assert_eq!(error.to_string(), "20MiB is not a power of two");
        assert_eq!(error.hint().unwrap(), "pass `16MiB` or `32MiB`");
    }
}
