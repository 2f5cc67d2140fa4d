//! Bytes of a netlink socket → the messages in them, and back. No length is believed: a message that does not fit ends
//! the datagram and is told.

/// The length of a message's header (`struct nlmsghdr`).
const HEADER: usize = 16;
/// Netfilter's own header behind it (`struct nfgenmsg`).
const NETFILTER: usize = 4;
/// Connection tracking's part of netfilter (`NFNL_SUBSYS_CTNETLINK`), the upper byte of a message's type.
const CTNETLINK: u16 = 1 << 8;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The end of a dump, with 0 or an error number below it.
    Done(i32),
    /// The answer to a request: 0 or an error number below it.
    Error(i32),
    /// One of connection tracking's (`IPCTNL_MSG_CT_*`).
    Conntrack(u8),
    /// Any other.
    Other,
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: Kind,
    /// `NLM_F_*`.
    pub flags: u16,
    /// That of the request that it answers; 0 in an event.
    pub sequence: u32,
    /// The attributes of one of connection tracking's; else empty.
    pub attributes: &'a [u8],
}

/// A message that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The messages of a datagram. After a malformed one there are no others.
#[derive(Debug)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Some((length, message)) = message(bytes) else { return Some(Err(Malformed)) };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(message))
    }
}

/// The first message, and its length.
fn message(bytes: &[u8]) -> Option<(usize, Message<'_>)> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let [l0, l1, l2, l3, t0, t1, f0, f1, s0, s1, s2, s3, ..] = *header;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let body = bytes.get(HEADER..length)?;
    let number = || Some(i32::from_ne_bytes(*body.first_chunk()?));
    let (kind, attributes): (_, &[u8]) = match u16::from_ne_bytes([t0, t1]) {
        kind if i32::from(kind) == libc::NLMSG_ERROR => (Kind::Error(number()?), &[]),
        // old dumps end without a number
        kind if i32::from(kind) == libc::NLMSG_DONE => (Kind::Done(number().unwrap_or(0)), &[]),
        kind if kind & 0xff00 == CTNETLINK => (Kind::Conntrack(kind.to_le_bytes()[0]), body.get(NETFILTER..)?),
        _ => (Kind::Other, &[]),
    };
    let flags = u16::from_ne_bytes([f0, f1]);
    Some((length, Message { kind, flags, sequence: u32::from_ne_bytes([s0, s1, s2, s3]), attributes }))
}

/// A request: `kind` is an `IPCTNL_MSG_CT_*`, `family` an address family or 0 for all.
pub fn request(kind: u8, flags: i32, sequence: u32, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER + NETFILTER + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    // both fit: a request has two addresses and two ports
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_ne_bytes());
    bytes.extend_from_slice(&(CTNETLINK | u16::from(kind)).to_ne_bytes());
    bytes.extend_from_slice(&u16::try_from(libc::NLM_F_REQUEST | flags).unwrap_or(0).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]); // from whom: the kernel knows
    bytes.extend_from_slice(&[family, 0, 0, 0]);
    bytes.extend_from_slice(attributes);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_reads_as_what_it_is() {
        let mut bytes = request(1, libc::NLM_F_DUMP, 7, 0, &[8, 0, 3, 0, 0, 0, 0, 1]);
        bytes.extend(request(4, 0, 8, 2, &[]));
        let flags = |flags: i32| u16::try_from(libc::NLM_F_REQUEST | flags).unwrap();
        let first = Message {
            kind: Kind::Conntrack(1),
            flags: flags(libc::NLM_F_DUMP),
            sequence: 7,
            attributes: &[8, 0, 3, 0, 0, 0, 0, 1],
        };
        let second = Message { kind: Kind::Conntrack(4), flags: flags(0), sequence: 8, attributes: &[] };
        assert_eq!(Messages(&bytes).collect::<Vec<_>>(), [Ok(first), Ok(second)]);
    }

    #[test]
    fn a_message_that_does_not_fit_ends_the_datagram() {
        let whole = request(1, 0, 7, 0, &[0; 8]);
        for cut in 1..whole.len() {
            assert_eq!(Messages(&whole[..cut]).collect::<Vec<_>>(), [Err(Malformed)], "{cut}");
        }
        for length in [0_u32, 15, 19, 29, u32::MAX] {
            let mut bytes = whole.clone();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Messages(&bytes).collect::<Vec<_>>(), [Err(Malformed)], "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(Messages(&bytes).count() <= bytes.len());
        }
    }
}
