//! JSON into a tree.
//!
//! Of a key that occurs twice the last value counts, as in Python's `json` module. `NaN` and
//! `Infinity`, which that module also reads, are not JSON and are refused.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::ConfigErrors;
use crate::limits::{DOCUMENT_DEPTH_MAX, DOCUMENT_NODES_MAX};
use crate::node::{Data, Entry, Node};
use crate::read::check_size;

pub(crate) fn read_json(bytes: &[u8]) -> Result<Node, ConfigErrors> {
    check_size(bytes.len())?;
    let mut nodes_left = DOCUMENT_NODES_MAX;
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let seed = NodeSeed {
        depth_left: DOCUMENT_DEPTH_MAX,
        nodes_left: &mut nodes_left,
    };
    let node = seed
        .deserialize(&mut source)
        .and_then(|node| source.end().map(|()| node));
    node.map_err(|error| ConfigErrors::one(None, format!("is not usable JSON: {error}")))
}

/// Reads one value with what is left of the limits.
struct NodeSeed<'a> {
    depth_left: usize,
    nodes_left: &'a mut usize,
}

// === impl NodeSeed ===

impl NodeSeed<'_> {
    /// The seed for a value inside of this one.
    fn inner<E: Error>(&mut self) -> Result<NodeSeed<'_>, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(NodeSeed {
                depth_left,
                nodes_left: self.nodes_left,
            }),
            None => Err(E::custom(format!(
                "lists and objects stand deeper than {DOCUMENT_DEPTH_MAX} levels"
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        match self.nodes_left.checked_sub(1) {
            Some(left) => *self.nodes_left = left,
            None => {
                return Err(D::Error::custom(format!(
                    "more than {DOCUMENT_NODES_MAX} values"
                )));
            }
        }
        deserializer
            .deserialize_any(self)
            .map(|data| Node::new(None, data))
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(Data::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Data, E> {
        Ok(Data::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Ok(Data::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Data, E> {
        Ok(Data::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Data, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.inner()?)? {
            items.push(item);
        }
        Ok(Data::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Data, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        while let Some(key) = access.next_key::<String>()? {
            let node = access.next_value_seed(self.inner()?)?;
            if let Some(&at) = seen.get(&key) {
                entries[at].node = node;
                continue;
            }
            seen.insert(key.clone(), entries.len());
            entries.push(Entry {
                key,
                line: None,
                node,
            });
        }
        Ok(Data::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_key_given_twice_the_last_value_counts() {
        let node = read_json(br#"{"a": 1, "b": 2, "a": 3}"#).unwrap();
        assert_eq!(node.to_json(), serde_json::json!({"a": 3, "b": 2}));
    }

    #[test]
    fn deep_documents_are_refused_before_the_stack_ends() {
        let text = "[".repeat(500_000);
        let error = read_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("deeper than 64 levels"), "{error}");
        let fits = format!("{}{}", "[".repeat(64), "]".repeat(64));
        read_json(fits.as_bytes()).unwrap();
    }

    #[test]
    fn a_document_of_too_many_values_is_refused() {
        let text = format!("[{}0]", "0,".repeat(DOCUMENT_NODES_MAX));
        let error = read_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("more than 200000 values"), "{error}");
    }

    #[test]
    fn trailing_text_and_non_numbers_are_refused() {
        for text in ["{} {}", "NaN", "Infinity", "", "{\"a\": }", "\u{feff}{}"] {
            assert!(read_json(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read_json(b"\xff\xfe").is_err());
    }

    #[test]
    fn integers_beyond_64_bits_become_floats() {
        let node = read_json(b"[18446744073709551615, 18446744073709551616, -3]").unwrap();
        let Data::List(items) = node.data else {
            panic!("a list was read")
        };
        assert_eq!(items[0].data, Data::Int(u64::MAX.into()));
        assert_eq!(items[1].data, Data::Float(18_446_744_073_709_551_616.0));
        assert_eq!(items[2].data, Data::Int(-3));
    }
}
