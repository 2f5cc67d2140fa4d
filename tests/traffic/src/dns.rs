//! The few bytes of DNS that a query needs.

/// An A query for `name` with this id, as it goes into a datagram.
pub fn query(id: u16, name: &str) -> Vec<u8> {
    query_of(id, name, 1)
}

/// The same for AAAA, the other one of the two that a resolver sends at once.
pub fn query_v6(id: u16, name: &str) -> Vec<u8> {
    query_of(id, name, 28)
}

fn query_of(id: u16, name: &str, kind: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 18);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap_or_default());
        out.extend_from_slice(label.as_bytes());
    }
    out.extend_from_slice(&[0, 0, kind, 0, 1]);
    out
}

#[cfg(test)]
mod tests {
    use super::query;

    #[test]
    fn a_query_is_header_labels_type_and_class() {
        assert_eq!(
            query(258, "ok.test"),
            b"\x01\x02\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02ok\x04test\x00\x00\x01\x00\x01"
        );
    }
}
