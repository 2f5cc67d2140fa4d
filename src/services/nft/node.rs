//! JSON → small trees, one for each object of a list, none larger than a bound. What is beyond is read, not kept.

use std::fmt;
use std::io::{self, BufReader, Read};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Values of one object. A set of 20,000 services has as many.
const MOST_NODES: usize = 1 << 18;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `null`, a boolean, or a number that is no port.
    Other,
    /// A whole number.
    Number(u64),
    /// A text.
    Text(Box<str>),
    /// A list.
    List(Vec<Node>),
    /// An object.
    Map(Vec<(Box<str>, Node)>),
}

impl Node {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(name, _)| **name == *key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a key.
    pub fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// If it is a text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// If it is a list.
    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// If it is a list of two.
    pub fn pair(&self) -> Option<(&Self, &Self)> {
        match self.list()? {
            [one, other] => Some((one, other)),
            _ => None,
        }
    }
}

/// Calls `each` with every item of the list `key` of an object; returns how many items were cut.
///
/// # Errors
/// Reading failed, or it is no JSON, no object, or one without that list.
pub fn each_of(text: &mut dyn Read, key: &str, each: &mut dyn FnMut(&Node)) -> io::Result<u64> {
    let mut cut = None;
    // it takes bytes one by one, which is slow through a pointer to somebody's `read`
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(text));
    let top = Top { key, each, cut: &mut cut };
    json.deserialize_map(top).and_then(|()| json.end()).map_err(|e| match e.io_error_kind() {
        Some(kind) => kind.into(),
        None => io::Error::new(io::ErrorKind::InvalidData, e.to_string()),
    })?;
    cut.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("it has no `{key}`")))
}

struct Top<'a> {
    key: &'a str,
    each: &'a mut dyn FnMut(&Node),
    cut: &'a mut Option<u64>,
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == self.key {
                let cut = map.next_value_seed(Items { each: &mut *self.each })?;
                *self.cut = Some(self.cut.unwrap_or_default() + cut);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Items<'a> {
    each: &'a mut dyn FnMut(&Node),
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<u64, A::Error> {
        let mut cut = 0;
        loop {
            let mut room = MOST_NODES;
            let Some(node) = list.next_element_seed(Tree { room: &mut room })? else { return Ok(cut) };
            cut += u64::from(room == 0);
            (self.each)(&node);
        }
    }
}

struct Tree<'a> {
    room: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        *self.room = self.room.saturating_sub(1);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while *self.room > 0 {
            let Some(node) = list.next_element_seed(Tree { room: self.room })? else { return Ok(Node::List(nodes)) };
            nodes.push(node);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while *self.room > 0 {
            let Some(key) = map.next_key::<Box<str>>()? else { return Ok(Node::Map(pairs)) };
            pairs.push((key, map.next_value_seed(Tree { room: self.room })?));
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Node::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> (Vec<Node>, io::Result<u64>) {
        let mut found = Vec::new();
        let cut = each_of(&mut text.as_bytes(), "nftables", &mut |node| found.push(node.clone()));
        (found, cut)
    }

    #[test]
    fn the_items_of_the_list_come_one_by_one() {
        let (found, cut) = items(r#"{"x": [1], "nftables": [{"a": [1, "b", null, true, -1, 1.5]}, 7]}"#);
        assert_eq!(cut.unwrap(), 0);
        let [map, Node::Number(7)] = found.as_slice() else { panic!("{found:?}") };
        let list = [Node::Number(1), Node::Text("b".into()), Node::Other, Node::Other, Node::Other, Node::Other];
        assert_eq!(map.get("a").unwrap().list().unwrap(), list);
    }

    #[test]
    fn what_is_no_such_list_is_refused() {
        for text in ["", "[]", "{}", "{\"nftables\": 1}", "{\"nftables\": [1", "{\"nftables\": []} x"] {
            assert!(items(text).1.is_err(), "{text}");
        }
        // deeper than any rule
        let deep = format!("{{\"nftables\": [{}", "[".repeat(100_000));
        assert!(items(&deep).1.is_err());
    }

    #[test]
    fn a_huge_item_is_cut_and_the_next_one_is_whole() {
        let (found, cut) = items(&format!(r#"{{"nftables": [[{}0], {{"a": "b"}}]}}"#, "0,".repeat(2 * MOST_NODES)));
        assert_eq!(cut.unwrap(), 1);
        assert_eq!(found[0].list().unwrap().len(), MOST_NODES - 1);
        assert_eq!(found[1].text_of("a"), Some("b"));
    }
}
