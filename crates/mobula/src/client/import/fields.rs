//! An object that is taken apart field by field: what is left at the end has no equivalent, so
//! nothing is lost without a word.

use std::fmt;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// Something that was not carried over as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where in the RayService, or in what came of it.
    pub path: String,
    /// Why, and the nearest thing to do.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// The notes so far.
#[derive(Debug, Default)]
pub struct Notes(Vec<Note>);

impl Notes {
    pub fn add(&mut self, path: impl Into<String>, text: impl Into<String>) {
        let note = Note {
            path: path.into(),
            text: text.into(),
        };
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    pub fn into_vec(self) -> Vec<Note> {
        self.0
    }
}

/// The fields of an object that nobody has taken yet.
#[derive(Debug)]
pub struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Of an object; null is an empty one.
    pub fn new(path: impl Into<String>, value: Value) -> Result<Fields> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Fields { path, map }),
            Value::Null => Ok(Fields {
                path,
                map: Map::new(),
            }),
            _ => bail!("{path} must be an object"),
        }
    }

    /// Where a field is.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The object's own name.
    pub fn name(&self) -> Option<&str> {
        self.map.get("name")?.as_str()
    }

    pub fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    /// A field that says something: null counts as absent.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    pub fn object(&mut self, key: &str) -> Result<Fields> {
        let value = self.take(key).unwrap_or_default();
        Fields::new(self.path(key), value)
    }

    pub fn list(&mut self, key: &str) -> Result<Vec<Value>> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => bail!("{} must be a list", self.path(key)),
        }
    }

    pub fn objects(&mut self, key: &str) -> Result<Vec<Fields>> {
        let path = self.path(key);
        let items = self.list(key)?.into_iter().enumerate();
        items
            .map(|(index, item)| Fields::new(format!("{path}[{index}]"), item))
            .collect()
    }

    pub fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => bail!("{} must be a string", self.path(key)),
        }
    }

    pub fn count(&mut self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(count) => Ok(Some(count)),
            None => bail!("{} must be a whole number from 0", self.path(key)),
        }
    }

    pub fn flag(&mut self, key: &str) -> Result<bool> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => bail!("{} must be true or false", self.path(key)),
        }
    }

    /// Takes what needs no equivalent and no note.
    pub fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.map.remove(*key);
        }
    }

    /// Takes fields that have the same meaning here, under the same name.
    pub fn keep(&mut self, keys: &[&str], into: &mut Map<String, Value>) {
        for key in keys {
            if let Some(value) = self.take(key) {
                into.insert((*key).to_owned(), value);
            }
        }
    }

    /// Takes a field with a note, if it is there.
    pub fn replace(&mut self, key: &str, notes: &mut Notes, text: &str) {
        if self.take(key).is_some() {
            notes.add(self.path(key), text);
        }
    }

    /// Takes what starts with a prefix.
    pub fn take_starting(&mut self, prefix: &str) -> Vec<String> {
        let keys: Vec<String> = self.map.keys().cloned().collect();
        let (found, _): (Vec<String>, Vec<String>) =
            keys.into_iter().partition(|key| key.starts_with(prefix));
        for key in &found {
            self.map.remove(key);
        }
        found
    }

    /// What is left, as it is.
    pub fn into_map(self) -> Map<String, Value> {
        self.map
    }

    /// A note for everything that is left.
    pub fn finish(self, notes: &mut Notes, text: &str) {
        for (key, value) in &self.map {
            if !value.is_null() {
                notes.add(self.path(key), text);
            }
        }
    }
}

/// Sets a value below a path of objects, which are made.
pub fn set(map: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [key] => {
            map.insert((*key).to_owned(), value);
        }
        [key, rest @ ..] => {
            let inner = map.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}
