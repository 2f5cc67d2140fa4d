//! Driver, offloads, rings and the driver's own counters of an interface, by the `SIOCETHTOOL` ioctl: it answers questions only.
//! A driver that does not know one is silent.

use std::os::fd::{AsRawFd, OwnedFd};

use ktrace_bundle::node::{Counters, Item, Nic};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::out::Out;
use super::rose::Rose;

/// Interfaces that are looked at.
pub const MOST: usize = 16;
/// Counters of a driver, and those of them that are kept.
const MOST_STATS: u32 = 1 << 13;
const MOST_KEPT: usize = 64;
/// Room for counters that a driver gets between two questions.
const SLACK: usize = 512;
/// Length of a name (`ETH_GSTRING_LEN`).
const NAME: usize = 32;

/// `ETHTOOL_*`.
const GSET: u32 = 0x1;
const GDRVINFO: u32 = 0x3;
const GRINGPARAM: u32 = 0x10;
const GSTRINGS: u32 = 0x1b;
const GSTATS: u32 = 0x1d;
const GSSET_INFO: u32 = 0x37;
/// `ETH_SS_STATS`.
const STATS: u32 = 1;
/// Names as `ethtool -k` abbreviates them.
const OFFLOADS: [(u32, &str); 6] =
    [(0x14, "rx-checksum"), (0x16, "tx-checksum"), (0x18, "sg"), (0x1e, "tso"), (0x23, "gso"), (0x2b, "gro")];
/// Names of counters that tell of losses have one of these.
const TELLING: [&str; 9] = ["drop", "err", "miss", "discard", "fifo", "timeout", "no_buf", "overrun", "busy"];

/// `struct ifreq` with the pointer that this ioctl takes.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut libc::c_void,
    rest: [u8; 16],
}

struct Ethtool<'a> {
    fd: OwnedFd,
    dev: &'a str,
}

impl Ethtool<'_> {
    /// Asks with a buffer that is at least as long as what the kernel writes for this question; whole words, so that it lies
    /// as the kernel's structs do.
    fn ask(&self, words: &mut [u64]) -> Option<()> {
        let mut name = [0; libc::IFNAMSIZ];
        let bytes = self.dev.as_bytes().iter().take(libc::IFNAMSIZ - 1);
        name.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let mut request = Request { name, data: words.as_mut_ptr().cast(), rest: [0; 16] };
        // SAFETY: the request outlives the call, and its buffer is as long as the question's answer, see the callers.
        let outcome = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        (outcome == 0).then_some(())
    }

    /// The answer as bytes; `head`: the words of 32 bits that it begins with.
    fn answer(&self, head: [u32; 4], bytes: usize) -> Option<Vec<u8>> {
        let mut words = vec![0_u64; bytes.div_ceil(8).max(2)];
        let pack = |low: u32, high: u32| {
            let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
            u64::from_ne_bytes([a, b, c, d, e, f, g, h])
        };
        let [a, b, c, d] = head;
        words.iter_mut().zip([pack(a, b), pack(c, d)]).for_each(|(to, from)| *to = from);
        self.ask(&mut words)?;
        Some(words.into_iter().flat_map(u64::to_ne_bytes).collect())
    }

    fn word(answer: &[u8], at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?))
    }

    /// `struct ethtool_drvinfo` has 196 bytes.
    fn driver(&self) -> Option<String> {
        let answer = self.answer([GDRVINFO, 0, 0, 0], 196)?;
        Some(text(answer.get(4..36)?)).filter(|it| !it.is_empty())
    }

    /// `struct ethtool_cmd` has 44 bytes; the kernel fills it for drivers of either kind.
    fn speed(&self) -> Option<u32> {
        let answer = self.answer([GSET, 0, 0, 0], 44)?;
        let half = |at: usize| Some(u32::from(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?)));
        Some(half(12)? | half(28)? << 16).filter(|speed| ![0, 0xffff, u32::MAX].contains(speed))
    }

    /// `struct ethtool_value`.
    fn is_on(&self, question: u32) -> bool {
        self.answer([question, 0, 0, 0], 8).and_then(|it| Self::word(&it, 4)).is_some_and(|it| it > 0)
    }

    /// `struct ethtool_ringparam` has 36 bytes.
    fn rings(&self) -> Option<Counters> {
        let answer = self.answer([GRINGPARAM, 0, 0, 0], 36)?;
        let places = [("rx_max", 4), ("tx_max", 16), ("rx", 20), ("tx", 32)];
        let ring = |(name, at): (&str, usize)| Some((name.to_owned(), u64::from(Self::word(&answer, at)?)));
        Some(places.into_iter().filter_map(ring).filter(|(_, value)| *value > 0).collect())
    }

    fn counters(&self) -> Option<Counters> {
        // `struct ethtool_sset_info`: a mask of sets, then a length for each
        let answer = self.answer([GSSET_INFO, 0, 1 << STATS, 0], 24)?;
        let count = Self::word(&answer, 16)?;
        if count == 0 || count > MOST_STATS {
            return None;
        }
        let room = 2 * count as usize + SLACK;
        let names = self.answer([GSTRINGS, STATS, count, 0], 12 + room * NAME)?;
        let values = self.answer([GSTATS, count, 0, 0], 8 + room * 8)?;
        let counts = [Self::word(&names, 8)?, Self::word(&values, 4)?];
        // it has other counters by now: whose value is whose is not known
        if counts != [count; 2] {
            return None;
        }
        let names = names.get(12..)?.chunks_exact(NAME).map(text);
        let values = values.get(8..)?.chunks_exact(8).filter_map(|it| Some(u64::from_ne_bytes(it.try_into().ok()?)));
        let tells =
            |(name, value): &(String, u64)| *value > 0 && TELLING.iter().any(|it| name.to_lowercase().contains(it));
        Some(names.zip(values).take(count as usize).filter(tells).take(MOST_KEPT).collect())
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).trim().to_owned()
}

/// Looks at an interface of the namespace that the thread is in; at one that is there, as a module may be loaded for another.
pub fn look(dev: &str, out: &mut Out, rose: &mut Rose) {
    let fd = match socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) {
        Ok(fd) => fd,
        Err(e) => return out.absent(&format!("ethtool {dev}"), e),
    };
    let ethtool = Ethtool { fd, dev };
    let counters = ethtool.counters().unwrap_or_default();
    let offloads = OFFLOADS.iter().filter(|(question, _)| ethtool.is_on(*question));
    out.put(Item::Nic(Nic {
        dev: dev.to_owned(),
        driver: ethtool.driver(),
        speed_mbit: ethtool.speed(),
        offloads: offloads.map(|(_, name)| (*name).to_owned()).collect(),
        rings: ethtool.rings().unwrap_or_default(),
        rose: rose.counters(out.when, ("nic", out.netns(), dev), &counters),
        counters,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_segments_by_itself_and_has_no_rings() {
        let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let ethtool = Ethtool { fd, dev: "lo" };
        assert!(ethtool.is_on(0x18) && ethtool.is_on(0x23));
        assert_eq!((ethtool.rings(), ethtool.speed()), (None, None));
        assert_eq!(text(b"virtio_net\0\0x"), "virtio_net");
    }
}
