//! A document as a tree with line numbers: the one shape that YAML and JSON are read into, so
//! that there is one way of decoding.

use serde_json::{Map, Number, Value};

/// One value and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Counted from 1; `None` when the source has no lines (JSON, or a value made here).
    pub(crate) line: Option<usize>,
    pub(crate) data: Data,
}

/// Numbers outside of these ranges were made floats by the parser.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    /// Between `i64::MIN` and `u64::MAX`.
    Int(i128),
    /// Always finite.
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// No key occurs twice.
    Object(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: Option<usize>,
    pub(crate) node: Node,
}

// === impl Node ===

impl Node {
    pub(crate) fn new(line: Option<usize>, data: Data) -> Self {
        Self { line, data }
    }

    /// The value without its lines.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Int(value) => int_to_json(*value),
            Data::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Data::Text(value) => Value::String(value.clone()),
            Data::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Data::Object(entries) => Value::Object(entries_to_json(entries)),
        }
    }

    pub(crate) fn from_json(value: &Value) -> Self {
        let data = match value {
            Value::Null => Data::Null,
            Value::Bool(value) => Data::Bool(*value),
            Value::Number(number) => number_to_data(number),
            Value::String(text) => Data::Text(text.clone()),
            Value::Array(items) => Data::List(items.iter().map(Self::from_json).collect()),
            Value::Object(map) => Data::Object(
                map.iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        line: None,
                        node: Self::from_json(value),
                    })
                    .collect(),
            ),
        };
        Self { line: None, data }
    }

    /// The value's kind as a message names it.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.data {
            Data::Null => "null",
            Data::Bool(_) => "a boolean",
            Data::Int(_) => "an integer",
            Data::Float(_) => "a number",
            Data::Text(_) => "a string",
            Data::List(_) => "a list",
            Data::Object(_) => "an object",
        }
    }

    /// Not null, not false, not empty: a value whose author expects something of it.
    pub(crate) fn asks_for_something(&self) -> bool {
        match &self.data {
            Data::Null => false,
            Data::Bool(value) => *value,
            Data::Int(_) | Data::Float(_) => true,
            Data::Text(text) => !text.is_empty(),
            Data::List(items) => !items.is_empty(),
            Data::Object(entries) => !entries.is_empty(),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }
}

pub(crate) fn entries_to_json(entries: &[Entry]) -> Map<String, Value> {
    entries
        .iter()
        .map(|entry| (entry.key.clone(), entry.node.to_json()))
        .collect()
}

fn int_to_json(value: i128) -> Value {
    if let Ok(value) = i64::try_from(value) {
        return Value::from(value);
    }
    // `Data::Int` never leaves the range of the two, so zero is unreachable.
    Value::from(u64::try_from(value).unwrap_or(0))
}

fn number_to_data(number: &Number) -> Data {
    if let Some(value) = number.as_i64() {
        Data::Int(value.into())
    } else if let Some(value) = number.as_u64() {
        Data::Int(value.into())
    } else {
        // JSON has no infinity and no NaN, so every other number is a finite float.
        Data::Float(number.as_f64().unwrap_or(0.0))
    }
}
