//! Node and time → the name of a bundle.

use chrono::{DateTime, Utc};

/// Longest node name in a file name, bytes: with it, the longest member path still fits a tar header.
const MAX_NODE_BYTES: usize = 120;

/// What a bundle is called after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleName {
    /// Node; characters that a file name should not have become `_`.
    pub node: String,
    /// When the capture started.
    pub at: DateTime<Utc>,
}

impl BundleName {
    /// `ktrace.<node>.<YYYYmmddTHHMMSSZ>`.
    pub fn stem(&self) -> String {
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let node: String = self.node.chars().take(MAX_NODE_BYTES).map(|c| if is_plain(&c) { c } else { '_' }).collect();
        let node = if node.is_empty() { "node" } else { &node };
        format!("ktrace.{node}.{}", self.at.format("%Y%m%dT%H%M%SZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stem(node: &str) -> String {
        BundleName { node: node.to_owned(), at: DateTime::from_timestamp(1_769_291_874, 0).unwrap() }.stem()
    }

    #[test]
    fn a_node_name_cannot_leave_its_directory() {
        assert_eq!(stem("etcd-1.example"), "ktrace.etcd-1.example.20260124T215754Z");
        assert_eq!(stem("../../etc/\n\u{e9}"), "ktrace..._.._etc___.20260124T215754Z");
        assert_eq!(stem(""), "ktrace.node.20260124T215754Z");
        assert_eq!(stem(&"x".repeat(999)).len(), 7 + 120 + 17);
    }
}
