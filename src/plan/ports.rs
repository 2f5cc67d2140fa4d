//! Port lists: `53,5353`. At most as many as the filter in the kernel holds.

use std::collections::BTreeSet;

use crate::error::Hint;

/// Ports that a filter can hold.
pub const MAX: usize = 64;

/// Why a text is not a list of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// An item is not a whole number.
    #[error("`{item}` is not a port number")]
    NotANumber {
        /// The item.
        item: String,
    },
    /// An item is 0 or above 65535.
    #[error("port {item} is not between 1 and 65535")]
    OutOfRange {
        /// The item.
        item: String,
    },
    /// More than [`MAX`] different ports.
    #[error("{count} ports are more than the {MAX} that a filter holds")]
    TooMany {
        /// Different ports in the list.
        count: usize,
    },
}

impl Hint for PortsError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotANumber { .. } => "write port numbers separated by commas, such as `80,443`".into(),
            Self::OutOfRange { .. } => "pass ports from 1 to 65535".into(),
            Self::TooMany { .. } => format!("pass {MAX} ports at most, or capture all and filter in `analyze`"),
        })
    }
}

/// Parses a list of one to [`MAX`] ports.
///
/// # Errors
/// See [`PortsError`].
pub fn parse(text: &str) -> Result<BTreeSet<u16>, PortsError> {
    let ports = text.split(',').map(|item| port(item.trim())).collect::<Result<BTreeSet<_>, _>>()?;
    if ports.len() > MAX {
        return Err(PortsError::TooMany { count: ports.len() });
    }
    Ok(ports)
}

/// Parses one port.
///
/// # Errors
/// See [`PortsError`].
pub fn port(item: &str) -> Result<u16, PortsError> {
    if item.is_empty() || !item.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PortsError::NotANumber { item: item.into() });
    }
    match item.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(PortsError::OutOfRange { item: item.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_a_set() {
        assert_eq!(parse("53, 5353,53"), Ok(BTreeSet::from([53, 5353])));
    }

    #[test]
    fn zero_and_numbers_beyond_the_type_are_no_ports() {
        for item in ["0", "65536", "70000", "99999999999999999999"] {
            assert_eq!(parse(item), Err(PortsError::OutOfRange { item: item.into() }));
        }
    }

    #[test]
    fn names_ranges_signs_and_holes_are_refused() {
        for (text, item) in [("http", "http"), ("80-90", "80-90"), ("+80", "+80"), ("80,", ""), ("", "")] {
            assert_eq!(parse(text), Err(PortsError::NotANumber { item: item.into() }));
        }
    }

    #[test]
    fn one_port_more_than_the_filter_holds_is_refused() {
        let list = |n: u16| (1..=n).map(|p| p.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(parse(&list(64)).unwrap().len(), MAX);
        assert_eq!(parse(&list(65)), Err(PortsError::TooMany { count: 65 }));
    }
}
