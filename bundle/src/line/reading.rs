//! How a JSON object becomes a struct of the table in `keys`: each key is looked up in a table made at compile time. What serde
//! derives compares it with all names one after the other, a hundred times for each of forty keys of a line.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::MAX_STRING_BYTES;

/// Slots of a [`Table`]: more than twice as many as any struct has keys.
const SLOTS: usize = 256;

/// The places of names, by their hash.
pub struct Table {
    names: &'static [&'static str],
    /// Place + 1; 0: free. Of names with the same hash the later ones lie in the next free slots.
    slots: [u8; SLOTS],
}

impl Table {
    /// Of all keys of a struct.
    #[allow(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "runs at compile time, where a panic is an error"
    )]
    pub const fn of(names: &'static [&'static str]) -> Self {
        assert!(names.len() < SLOTS / 2, "as many bits as `seen` has");
        let mut slots = [0; SLOTS];
        let mut place = 0;
        while place < names.len() {
            let mut slot = hash(names[place].as_bytes());
            while slots[slot] != 0 {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = place as u8 + 1;
            place += 1;
        }
        Self { names, slots }
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        let mut slot = hash(name.as_bytes());
        loop {
            let place = usize::from(*self.slots.get(slot)?).checked_sub(1)?;
            if self.names.get(place) == Some(&name) {
                return Some(place);
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

#[allow(clippy::indexing_slicing, reason = "below its length")]
const fn hash(name: &[u8]) -> usize {
    let (mut hash, mut i) = (0_u32, 0);
    while i < name.len() {
        hash = hash.wrapping_mul(31).wrapping_add(name[i] as u32);
        i += 1;
    }
    (hash ^ hash >> 8) as usize % SLOTS
}

/// A struct whose fields are keys.
pub trait Keys<'de>: Default {
    /// Its keys.
    fn table() -> &'static Table;

    /// Reads the value of the key at this place.
    fn take<A: MapAccess<'de>>(&mut self, place: usize, map: &mut A) -> Result<(), A::Error>;

    /// A key that it does not have was skipped.
    fn skipped(&mut self) {}
}

/// Reads an object; keys may come in any order, each at most once. It is made in its place: a line is too large to be passed on.
pub fn read<'de, T: Keys<'de>, D: Deserializer<'de>>(d: D, object: &mut T) -> Result<(), D::Error> {
    d.deserialize_map(Object(object))
}

struct Object<'o, T>(&'o mut T);

impl<'de, T: Keys<'de>> Visitor<'de> for Object<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (object, mut seen) = (self.0, 0_u128);
        while let Some(place) = map.next_key_seed(Place(T::table()))? {
            let Some(place) = place else {
                map.next_value::<IgnoredAny>()?;
                object.skipped();
                continue;
            };
            if seen >> place & 1 == 1 {
                let name = T::table().names.get(place).copied().unwrap_or_default();
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            seen |= 1 << place;
            object.take(place, &mut map)?;
        }
        Ok(())
    }
}

/// A key: its place, if it has one.
struct Place(&'static Table);

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Place {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.place_of(name))
    }
}

/// A string: where it stands in the line, if nothing in it is escaped. (What serde reads as a `Cow` is always a copy.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_str(Words)
    }
}

/// Reads a line. One that is UTF-8 as a whole is checked once, another one string by string.
pub fn json<'a, T: Keys<'a>>(text: &'a [u8], object: &mut T) -> Result<(), serde_json::Error> {
    if let Ok(text) = std::str::from_utf8(text) {
        let mut d = serde_json::Deserializer::from_str(text);
        read(&mut d, object)?;
        d.end()
    } else {
        let mut d = serde_json::Deserializer::from_slice(text);
        read(&mut d, object)?;
        d.end()
    }
}

/// The same text as that of the line before is the same one in memory: a bundle is of one node.
pub fn shared(text: &str) -> Arc<str> {
    thread_local! {
        static LAST: RefCell<Arc<str>> = RefCell::new(Arc::from(""));
    }
    LAST.with_borrow_mut(|last| {
        if **last != *text {
            *last = Arc::from(text);
        }
        Arc::clone(last)
    })
}

/// The text, cut to [`MAX_STRING_BYTES`] at a character boundary.
pub fn clip(text: &str) -> Text<'_> {
    Text(Cow::Borrowed(text.get(..text.floor_char_boundary(MAX_STRING_BYTES)).unwrap_or(text)))
}

#[cfg(test)]
mod tests {
    use super::super::keys::{Line, Namespaces};

    fn line(text: &str) -> Result<Line<'_>, serde_json::Error> {
        let mut line = Line::default();
        super::json(text.as_bytes(), &mut line)?;
        Ok(line)
    }

    #[test]
    fn keys_come_in_any_order_and_unknown_ones_are_counted() {
        let text = r#"{"cpu":3,"odd":[1,{"v":2}],"v":1,"vv":null,"":0,"ns":{"pid":7,"odd":1,"net":5},"comm":"a"}"#;
        let line = line(text).unwrap();
        assert_eq!((line.v, line.cpu, line.rest, line.comm.as_deref()), (Some(1), Some(3), 3, Some("a")));
        let Some(Namespaces { net: Some(5), mnt: None, pid: Some(7), user: None }) = line.ns else {
            panic!("{:?}", line.ns)
        };
    }

    #[test]
    fn every_key_has_a_place_of_its_own() {
        let table = <Line<'_> as super::Keys<'_>>::table();
        for (place, name) in table.names.iter().enumerate() {
            assert_eq!(table.place_of(name), Some(place), "{name}");
            assert_eq!(table.place_of(&format!("{name}_")), None, "{name}");
        }
    }

    #[test]
    fn a_key_twice_or_a_value_of_another_type_is_refused() {
        for (text, why) in [
            (r#"{"v":1,"v":1}"#, "duplicate field `v`"),
            (r#"{"ns":{"net":1,"net":2}}"#, "duplicate field `net`"),
            (r#"{"cpu":"1"}"#, "invalid type: string"),
            (r#"{"cpu":-1}"#, "invalid value"),
            (r#"{"comm":1}"#, "expected a string"),
            (r#"[1]"#, "expected an object"),
            (r#"{"v":1"#, "EOF"),
        ] {
            let error = line(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn text_is_borrowed_unless_something_in_it_is_escaped() {
        let line = line(r#"{"node":"plain","comm":"a\nb"}"#).unwrap();
        assert!(matches!(line.node.unwrap().0, std::borrow::Cow::Borrowed("plain")));
        assert!(matches!(line.comm.unwrap().0, std::borrow::Cow::Owned(text) if text == "a\nb"));
    }
}
