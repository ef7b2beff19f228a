//! Reading typed values out of a tree: where we are, what is known there, what is left over.
//!
//! A reader takes what it can and records what it cannot; nobody stops at the first problem,
//! so that one answer names them all. The schema itself stands with its types, not here.

mod scalar;

pub(crate) use scalar::{
    FRACTION, NON_NEGATIVE, PERCENT, POSITIVE, RATIO, boolean, count, float, float_in, integer_in,
    strict_integer, string, string_up_to, word_of,
};

use serde_json::{Map, Value};

use crate::acting::{self, Place};
use crate::error::{Findings, quoted};
use crate::node::{Data, Entry, Node, entries_to_json};

/// A value and the way that led to it.
#[derive(Debug, Clone)]
pub(crate) struct At<'n> {
    pub(crate) node: &'n Node,
    pub(crate) path: String,
    /// The line of the value's key if it has one, else of the value: an object's own line is
    /// the line of its first key, which may be the next one.
    pub(crate) line: Option<usize>,
}

/// A field whose absence and whose null mean different things.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Given<T> {
    /// Not written: the code's value stays.
    #[default]
    Absent,
    /// Written as null: the code's value is taken back.
    Null,
    Value(T),
}

/// What to do with keys that a schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// As Ray: ignored, but we say so.
    Warn,
    Reject,
}

/// The fields of one object: which were asked for, which are left over.
pub(crate) struct Fields<'n> {
    place: Place,
    path: String,
    line: Option<usize>,
    entries: &'n [Entry],
    known: Vec<&'static str>,
}

// === impl At ===

impl<'n> At<'n> {
    pub(crate) fn root(node: &'n Node) -> Self {
        Self {
            node,
            path: String::new(),
            line: node.line,
        }
    }

    pub(crate) fn named(node: &'n Node, path: &str) -> Self {
        Self {
            node,
            path: path.to_owned(),
            line: node.line,
        }
    }

    pub(crate) fn item(&self, index: usize, node: &'n Node) -> Self {
        Self {
            node,
            path: format!("{}[{index}]", self.path),
            line: node.line,
        }
    }

    pub(crate) fn entry(&self, entry: &'n Entry) -> Self {
        At {
            node: &entry.node,
            path: join(&self.path, &entry.key),
            line: entry.line,
        }
    }

    pub(crate) fn problem(&self, findings: &mut Findings, message: impl Into<String>) {
        findings.problem(&self.path, self.line, message);
    }

    pub(crate) fn warning(&self, findings: &mut Findings, message: impl Into<String>) {
        findings.warning(&self.path, self.line, message);
    }

    /// The same problem for every reader that met a value of the wrong kind.
    pub(crate) fn wrong_kind(&self, findings: &mut Findings, expected: &str) {
        self.problem(
            findings,
            format!("must be {expected}, got {}", self.node.kind()),
        );
    }
}

// === impl Given ===

impl<T> Given<T> {
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }

    pub fn into_value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Writes itself over an optional value, unless it is absent.
    pub(crate) fn put(self, slot: &mut Option<T>) {
        match self {
            Self::Absent => {}
            Self::Null => *slot = None,
            Self::Value(value) => *slot = Some(value),
        }
    }

    /// This one, or the other where this one is not written.
    pub fn or(self, other: Self) -> Self {
        if self.is_absent() { other } else { self }
    }
}

// === impl Fields ===

impl<'n> Fields<'n> {
    pub(crate) fn open(findings: &mut Findings, at: &At<'n>, place: Place) -> Option<Self> {
        let entries = entries(findings, at)?;
        Some(Self {
            place,
            path: at.path.clone(),
            line: at.line,
            entries,
            known: Vec::with_capacity(entries.len()),
        })
    }

    /// The value of a field, if it was written and is right.
    pub(crate) fn get<T>(
        &mut self,
        findings: &mut Findings,
        key: &'static str,
        read: impl FnOnce(&mut Findings, &At<'n>) -> Option<T>,
    ) -> Option<T> {
        self.at(key).and_then(|at| read(findings, &at))
    }

    /// As [`Self::get`]; not written is a problem.
    pub(crate) fn require<T>(
        &mut self,
        findings: &mut Findings,
        key: &'static str,
        read: impl FnOnce(&mut Findings, &At<'n>) -> Option<T>,
    ) -> Option<T> {
        let Some(at) = self.at(key) else {
            findings.problem(
                &self.path,
                self.line,
                format!("`{key}` is required and missing"),
            );
            return None;
        };
        read(findings, &at)
    }

    /// As [`Self::get`]; null is allowed and told apart.
    pub(crate) fn nullable<T>(
        &mut self,
        findings: &mut Findings,
        key: &'static str,
        read: impl FnOnce(&mut Findings, &At<'n>) -> Option<T>,
    ) -> Given<T> {
        match self.at(key) {
            None => Given::Absent,
            Some(at) if at.node.is_null() => Given::Null,
            Some(at) => read(findings, &at).map_or(Given::Absent, Given::Value),
        }
    }

    /// As [`Self::get`]; null is allowed and the same as not written.
    pub(crate) fn optional<T>(
        &mut self,
        findings: &mut Findings,
        key: &'static str,
        read: impl FnOnce(&mut Findings, &At<'n>) -> Option<T>,
    ) -> Option<T> {
        match self.nullable(findings, key, read) {
            Given::Absent | Given::Null => None,
            Given::Value(value) => Some(value),
        }
    }

    /// Marks a field as known and says where it is, if it was written.
    pub(crate) fn at(&mut self, key: &'static str) -> Option<At<'n>> {
        self.known.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(At {
            node: &entry.node,
            path: join(&self.path, key),
            line: entry.line,
        })
    }

    /// An application's field where a list of applications should be.
    pub(crate) fn single_application(&self) -> Option<At<'n>> {
        let find = |key: &str| self.entries.iter().find(|entry| entry.key == key);
        let entry = find("import_path")?;
        find("applications").is_none().then(|| At {
            node: &entry.node,
            path: join(&self.path, &entry.key),
            line: entry.line,
        })
    }

    /// Says what is left over, and which of the known fields do not act yet.
    pub(crate) fn close(self, findings: &mut Findings, unknown: Unknown) {
        for entry in self.entries {
            let path = join(&self.path, &entry.key);
            let key = entry.key.as_str();
            if let Some(reason) = acting::without_effect(self.place, key) {
                if entry.node.asks_for_something() {
                    findings.warning(&path, entry.line, reason);
                }
            } else if self.known.contains(&key) {
                continue;
            } else if unknown == Unknown::Reject {
                let allowed = self.known.join(", ");
                let message = format!("the key is not known here, allowed: {allowed}");
                findings.problem(&path, entry.line, message);
            } else {
                findings.warning(
                    &path,
                    entry.line,
                    "the key is not known here and is ignored",
                );
            }
        }
    }
}

// === readers of lists and objects ===

pub(crate) fn entries<'n>(findings: &mut Findings, at: &At<'n>) -> Option<&'n [Entry]> {
    match &at.node.data {
        Data::Object(entries) => Some(entries),
        Data::Null
        | Data::Bool(_)
        | Data::Int(_)
        | Data::Float(_)
        | Data::Text(_)
        | Data::List(_) => {
            at.wrong_kind(findings, "an object");
            None
        }
    }
}

/// An object that is kept as it is.
pub(crate) fn object(findings: &mut Findings, at: &At<'_>) -> Option<Map<String, Value>> {
    entries(findings, at).map(entries_to_json)
}

/// A list, each item read by the same reader; wrong items are recorded and left out.
pub(crate) fn list<'n, T>(
    findings: &mut Findings,
    at: &At<'n>,
    read: impl Fn(&mut Findings, &At<'n>) -> Option<T>,
) -> Option<Vec<T>> {
    let Data::List(items) = &at.node.data else {
        at.wrong_kind(findings, "a list");
        return None;
    };
    let mut values = Vec::with_capacity(items.len());
    for (index, node) in items.iter().enumerate() {
        values.extend(read(findings, &at.item(index, node)));
    }
    Some(values)
}

/// An object of any keys, each value read by the same reader.
pub(crate) fn values<'n, T>(
    findings: &mut Findings,
    at: &At<'n>,
    read: impl Fn(&mut Findings, &At<'n>) -> Option<T>,
) -> Option<std::collections::BTreeMap<String, T>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in entries(findings, at)? {
        if let Some(value) = read(findings, &at.entry(entry)) {
            found.insert(entry.key.clone(), value);
        }
    }
    Some(found)
}

/// `parent.key`; a key that is no plain word is quoted, and shortened when it is long.
fn join(parent: &str, key: &str) -> String {
    let plain = key.len() <= crate::limits::QUOTED_CHARS_MAX
        && !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let key = if plain { key.to_owned() } else { quoted(key) };
    if parent.is_empty() {
        key
    } else {
        format!("{parent}.{key}")
    }
}
