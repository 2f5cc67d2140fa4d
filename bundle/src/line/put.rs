//! How each value is written. By hand rather than by serde, because the collector does it for every event on the
//! path that must keep up with the kernel: 0.3 us a line instead of 1.2. Appends only; nothing can fail.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{Datelike, Timelike};

use super::keys::{K8s, Namespaces, PeerKeys, Sec};
use super::reading::Text;
use super::values::{CapsEff, End, Kind, Timestamp, Tuple};
use crate::attribution::OwnerSource;
use crate::event::{Endpoint, PacketDir, Proto, Role, When};
use crate::nat::Nat;
use crate::peer::PeerVia;
use crate::tcp::TcpState;
use crate::why::Why;
use crate::workload::Via;

/// Something that may stand in a line.
pub trait Put {
    /// Appends `key`, which is quoted and has its colon, the value and a comma; or nothing when absent.
    fn put(&self, key: &'static str, out: &mut Vec<u8>);
}

impl<T: Value> Put for Option<T> {
    fn put(&self, key: &'static str, out: &mut Vec<u8>) {
        if let Some(value) = self {
            out.extend_from_slice(key.as_bytes());
            value.write(out);
            out.push(b',');
        }
    }
}

/// Written only when true.
impl Put for bool {
    fn put(&self, key: &'static str, out: &mut Vec<u8>) {
        if *self {
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"true,");
        }
    }
}

impl Put for Why {
    fn put(&self, key: &'static str, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        out.extend_from_slice(key.as_bytes());
        out.push(b'{');
        for (key, reason) in self.iter() {
            text(key, out);
            out.push(b':');
            text(&reason.text(), out);
            out.push(b',');
        }
        out.pop();
        out.extend_from_slice(b"},");
    }
}

/// Something that has a spelling in JSON.
pub trait Value {
    /// Appends it.
    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! integers {
    ($($type:ty)*) => {
        $(impl Value for $type {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
            }
        })*
    };
}

integers! { u16 u32 u64 }

macro_rules! names {
    ($($type:ty)*) => {
        $(impl Value for $type {
            fn write(&self, out: &mut Vec<u8>) {
                quoted(self.as_str(), out);
            }
        })*
    };
}

names! { TcpState Proto Role When Kind PacketDir OwnerSource Via PeerVia }

macro_rules! objects {
    ($($type:ty)*) => {
        $(impl Value for $type {
            fn write(&self, out: &mut Vec<u8>) {
                // its own `write`, made from its keys
                <$type>::write(self, out);
            }
        })*
    };
}

objects! { Namespaces Sec K8s<'_> PeerKeys<'_> }

impl Value for Arc<Nat> {
    fn write(&self, out: &mut Vec<u8>) {
        // into memory, and of strings and numbers: it cannot fail
        let _ = serde_json::to_writer(out, self.as_ref());
    }
}

impl Value for Text<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        text(self, out);
    }
}

impl Value for IpAddr {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        address(*self, out);
        out.push(b'"');
    }
}

impl Value for End {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        endpoint(self.0, out);
        out.push(b'"');
    }
}

impl Value for Tuple {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        endpoint(self.local, out);
        out.extend_from_slice(b" -> ");
        endpoint(self.remote, out);
        out.push(b'"');
    }
}

impl Value for CapsEff {
    fn write(&self, out: &mut Vec<u8>) {
        let (high, low) = (self.0 >> 32, self.0 & 0xffff_ffff);
        // a Vec takes whatever is written
        let _ = write!(out, "\"0x{high:08x}_{low:08x}\"");
    }
}

/// `2026-01-24T21:57:54.326118Z`: always six decimals.
impl Value for Timestamp {
    fn write(&self, out: &mut Vec<u8>) {
        let at = self.0;
        let year = u32::try_from(at.year()).unwrap_or(0);
        out.push(b'"');
        digits(year, 4, out);
        for (before, value) in
            [(b'-', at.month()), (b'-', at.day()), (b'T', at.hour()), (b':', at.minute()), (b':', at.second())]
        {
            out.push(before);
            digits(value, 2, out);
        }
        out.push(b'.');
        // a leap second is told as its last microsecond
        digits((at.nanosecond() / 1000).min(999_999), 6, out);
        out.extend_from_slice(b"Z\"");
    }
}

/// A number with leading zeros.
fn digits(mut value: u32, count: usize, out: &mut Vec<u8>) {
    let mut text = [b'0'; 10];
    for place in text.iter_mut().take(count).rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
    out.extend(text.iter().take(count));
}

fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            for (octet, dot) in [(a, true), (b, true), (c, true), (d, false)] {
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
                if dot {
                    out.push(b'.');
                }
            }
        }
        // a Vec takes whatever is written
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// As [`Endpoint`]'s display.
fn endpoint(end: Endpoint, out: &mut Vec<u8>) {
    match end.addr {
        Some(v4 @ IpAddr::V4(_)) => address(v4, out),
        Some(v6 @ IpAddr::V6(_)) => {
            out.push(b'[');
            address(v6, out);
            out.push(b']');
        }
        None => out.push(b'*'),
    }
    if let Some(port) = end.port {
        out.push(b':');
        port.write(out);
    }
}

/// A string of ours, which needs no escapes.
fn quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// A string from outside.
fn text(text: &str, out: &mut Vec<u8>) {
    let plain = |b: &u8| matches!(b, b' '..=b'~') && *b != b'"' && *b != b'\\';
    if text.as_bytes().iter().all(plain) {
        quoted(text, out);
    } else {
        // C1 controls are legal in JSON, but not in anybody's terminal
        for (at, part) in text.split_inclusive(|c| matches!(c, '\u{7f}'..='\u{9f}')).enumerate() {
            if at == 0 {
                out.push(b'"');
            }
            escaped(part, out);
        }
        out.push(b'"');
    }
}

/// The inside of a JSON string, of which only the last character may be a C1 control or DEL.
fn escaped(part: &str, out: &mut Vec<u8>) {
    let control = part.chars().next_back().filter(|c| matches!(c, '\u{7f}'..='\u{9f}'));
    let rest = part.get(..part.len() - control.map_or(0, char::len_utf8)).unwrap_or_default();
    // a string always becomes JSON, within quotes that are dropped again
    let json = serde_json::to_string(rest).unwrap_or_default();
    out.extend_from_slice(json.get(1..json.len().saturating_sub(1)).unwrap_or_default().as_bytes());
    if let Some(control) = control {
        let _ = write!(out, "\\u{:04x}", u32::from(control));
    }
}
