//! Names of processes and threads, as the kernel keeps them: 15 bytes, the rest is cut off.

use std::convert::Infallible;
use std::fmt;

/// Bytes of a name, without the zero behind it.
const MAX_BYTES: usize = 15;

/// A name, filled up with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Comm(pub [u8; MAX_BYTES + 1]);

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(MAX_BYTES);
        f.write_str(&String::from_utf8_lossy(self.0.get(..end).unwrap_or_default()))
    }
}

/// Takes the first 15 bytes, as the kernel does.
///
/// # Errors
/// None.
pub fn parse(item: &str) -> Result<Comm, Infallible> {
    let mut bytes = [0; MAX_BYTES + 1];
    bytes.iter_mut().zip(item.bytes().take(MAX_BYTES)).for_each(|(to, from)| *to = from);
    Ok(Comm(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_as_the_kernel_cuts_it() {
        assert_eq!(parse("nginx").unwrap().to_string(), "nginx");
        assert_eq!(parse("node_exporter_with_more").unwrap().to_string(), "node_exporter_w");
        assert_eq!(parse("node_exporter_with_more").unwrap().0[15], 0);
    }
}
