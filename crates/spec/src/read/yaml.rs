//! YAML into a tree with line numbers.
//!
//! The parser is YAML 1.2, the words mean what YAML 1.1 says (see `yaml_scalar`), and the rest
//! follows PyYAML: of a key given twice the last value counts, `<<` merges, keys that are not
//! strings become strings as Python's `json.dumps` writes them. Aliases are written out, and
//! everything written out is counted, so that a few lines cannot become gigabytes.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::error::{ConfigErrors, Findings, quoted};
use crate::limits::{DOCUMENT_DEPTH_MAX, DOCUMENT_NODES_MAX, DOCUMENT_TEXT_BYTES_MAX};
use crate::node::{Data, Entry, Node};
use crate::read::check_size;
use crate::read::yaml_scalar::{resolve_plain, resolve_tagged};

/// Reads one document. Keys given twice are warned about in `findings`.
pub(crate) fn read_yaml(text: &str, findings: &mut Findings) -> Result<Node, ConfigErrors> {
    check_size(text.len())?;
    // A byte order mark, as some editors write it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut composer = Composer::new(findings);
    for item in Parser::new_from_str(text) {
        let (event, span) = item.map_err(|error| {
            let line = error.marker().line();
            ConfigErrors::one(Some(line), format!("is not usable YAML: {}", error.info()))
        })?;
        let line = span.start.line();
        composer
            .event(event, span)
            .map_err(|message| ConfigErrors::one(Some(line), message))?;
    }
    composer
        .root
        .ok_or_else(|| ConfigErrors::one(None, "the document is empty"))
}

/// Builds the tree from the parser's events, without recursion.
struct Composer<'f> {
    findings: &'f mut Findings,
    open: Vec<Open>,
    /// Finished values that an alias may name. A value still open is not here, so that an
    /// alias inside of what it names is an error and not an endless tree.
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    nodes_left: usize,
    text_bytes_left: usize,
}

/// A list or an object whose end was not seen yet.
struct Open {
    line: usize,
    anchor: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Object {
        key: Option<Key>,
        pairs: Vec<(Key, Node)>,
    },
}

struct Key {
    line: usize,
    name: Name,
}

enum Name {
    Text(String),
    /// An unquoted `<<`.
    Merge,
}

// === impl Composer ===

impl<'f> Composer<'f> {
    fn new(findings: &'f mut Findings) -> Self {
        Self {
            findings,
            open: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            documents: 0,
            nodes_left: DOCUMENT_NODES_MAX,
            text_bytes_left: DOCUMENT_TEXT_BYTES_MAX,
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), String> {
        let line = span.start.line();
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.start_document(),
            Event::Alias(anchor) => self.alias(anchor, line),
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(&text, style, anchor, tag.as_deref(), line)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq")?;
                self.start(line, anchor, Items::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map")?;
                self.start(
                    line,
                    anchor,
                    Items::Object {
                        key: None,
                        pairs: Vec::new(),
                    },
                )
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn start_document(&mut self) -> Result<(), String> {
        self.documents += 1;
        if self.documents > 1 {
            return Err("a second document begins here, allowed is one".to_owned());
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), String> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err("an alias stands inside of the value that it names".to_owned());
        };
        charge(&mut self.nodes_left, &mut self.text_bytes_left, node)?;
        if depth(node) + self.open.len() > DOCUMENT_DEPTH_MAX {
            return Err(too_deep());
        }
        // The values keep the lines of the place where they are written.
        let node = node.clone();
        self.attach(node, line)
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        line: usize,
    ) -> Result<(), String> {
        let plain = style == ScalarStyle::Plain;
        if plain && tag.is_none() && text == "<<" && self.awaits_key() {
            return self.set_key(Key {
                line,
                name: Name::Merge,
            });
        }
        let data = match tag {
            None if plain => resolve_plain(text)?,
            None => Data::Text(text.to_owned()),
            // A lone `!` says: this is a string.
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Data::Text(text.to_owned()),
            Some(tag) if tag.is_yaml_core_schema() => resolve_tagged(&tag.suffix, text)?,
            Some(tag) => return Err(unknown_tag(tag)),
        };
        let node = Node::new(Some(line), data);
        charge(&mut self.nodes_left, &mut self.text_bytes_left, &node)?;
        self.finish(node, anchor, line)
    }

    fn start(&mut self, line: usize, anchor: usize, items: Items) -> Result<(), String> {
        if self.open.len() == DOCUMENT_DEPTH_MAX {
            return Err(too_deep());
        }
        if self.awaits_key() {
            return Err("a list or an object is no key, allowed are single words".to_owned());
        }
        spend(&mut self.nodes_left, 1)?;
        self.open.push(Open {
            line,
            anchor,
            items,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        // The parser pairs starts and ends.
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let data = match open.items {
            Items::List(items) => Data::List(items),
            Items::Object { key: _, pairs } => Data::Object(self.merge(pairs)?),
        };
        self.finish(Node::new(Some(open.line), data), open.anchor, open.line)
    }

    fn finish(&mut self, node: Node, anchor: usize, line: usize) -> Result<(), String> {
        if anchor > 0 {
            charge(&mut self.nodes_left, &mut self.text_bytes_left, &node)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.attach(node, line)
    }

    fn attach(&mut self, node: Node, line: usize) -> Result<(), String> {
        if self.awaits_key() {
            let name = Name::Text(key_text(&node)?);
            return self.set_key(Key { line, name });
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Object { key, pairs }) => {
                if let Some(key) = key.take() {
                    pairs.push((key, node));
                }
            }
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(
            self.open.last().map(|open| &open.items),
            Some(Items::Object { key: None, .. })
        )
    }

    fn set_key(&mut self, new: Key) -> Result<(), String> {
        if let Some(Items::Object { key, .. }) = self.open.last_mut().map(|open| &mut open.items) {
            *key = Some(new);
        }
        Ok(())
    }

    /// The entries of an object: first what `<<` brings, then its own, which win.
    fn merge(&mut self, pairs: Vec<(Key, Node)>) -> Result<Vec<Entry>, String> {
        let mut entries = Entries::default();
        for (key, node) in &pairs {
            if let Name::Merge = key.name {
                for source in merge_sources(node)? {
                    charge_entries(&mut self.nodes_left, &mut self.text_bytes_left, source)?;
                    for entry in source {
                        entries.put(entry.clone());
                    }
                }
            }
        }
        let inherited = entries.list.len();
        let mut given = vec![false; inherited];
        for (key, node) in pairs {
            let Name::Text(name) = key.name else { continue };
            let line = Some(key.line);
            let at = entries.put(Entry {
                key: name,
                line,
                node,
            });
            given.resize(entries.list.len(), false);
            if std::mem::replace(&mut given[at], true) {
                let name = quoted(&entries.list[at].key);
                let message = format!("the key {name} is given twice, the last one counts");
                self.findings.warning("", line, message);
            }
        }
        Ok(entries.list)
    }
}

/// Entries by key, in the order of their first appearance.
#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
    by_key: HashMap<String, usize>,
}

// === impl Entries ===

impl Entries {
    /// Puts an entry in, over an older one of the same key, and says where it stands.
    fn put(&mut self, entry: Entry) -> usize {
        if let Some(&at) = self.by_key.get(&entry.key) {
            self.list[at] = entry;
            return at;
        }
        self.by_key.insert(entry.key.clone(), self.list.len());
        self.list.push(entry);
        self.list.len() - 1
    }
}

/// The objects that a `<<` names, the one that wins last.
fn merge_sources(node: &Node) -> Result<Vec<&[Entry]>, String> {
    let refused = || Err("`<<` takes an object or a list of objects".to_owned());
    match &node.data {
        Data::Object(entries) => Ok(vec![entries]),
        Data::List(items) => {
            let mut sources = Vec::with_capacity(items.len());
            // Of several objects the earlier ones win.
            for item in items.iter().rev() {
                let Data::Object(entries) = &item.data else {
                    return refused();
                };
                sources.push(entries.as_slice());
            }
            Ok(sources)
        }
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text(_) => refused(),
    }
}

/// A key as Python's `json.dumps` writes it.
fn key_text(node: &Node) -> Result<String, String> {
    match &node.data {
        Data::Null => Ok("null".to_owned()),
        Data::Bool(value) => Ok(value.to_string()),
        Data::Int(value) => Ok(value.to_string()),
        Data::Float(value) => Ok(format!("{value:?}")),
        Data::Text(text) => Ok(text.clone()),
        Data::List(_) | Data::Object(_) => {
            Err("a list or an object is no key, allowed are single words".to_owned())
        }
    }
}

fn check_tag(tag: Option<&Tag>, expected: &str) -> Result<(), String> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == expected => Ok(()),
        Some(tag) => Err(unknown_tag(tag)),
    }
}

fn unknown_tag(tag: &Tag) -> String {
    format!(
        "the tag {} is not allowed, leave it out",
        quoted(&tag.to_string())
    )
}

fn too_deep() -> String {
    format!("lists and objects stand deeper than {DOCUMENT_DEPTH_MAX} levels")
}

fn spend(nodes_left: &mut usize, nodes: usize) -> Result<(), String> {
    *nodes_left = nodes_left
        .checked_sub(nodes)
        .ok_or_else(|| format!("more than {DOCUMENT_NODES_MAX} values with aliases written out"))?;
    Ok(())
}

fn spend_text(text_bytes_left: &mut usize, text: &str) -> Result<(), String> {
    *text_bytes_left = text_bytes_left.checked_sub(text.len()).ok_or_else(|| {
        format!("more than {DOCUMENT_TEXT_BYTES_MAX} bytes with aliases written out")
    })?;
    Ok(())
}

/// Counts a value before it is copied. Stops at the limit, so that counting is bounded too.
fn charge(nodes: &mut usize, text: &mut usize, node: &Node) -> Result<(), String> {
    spend(nodes, 1)?;
    match &node.data {
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) => Ok(()),
        Data::Text(value) => spend_text(text, value),
        Data::List(items) => items.iter().try_for_each(|item| charge(nodes, text, item)),
        Data::Object(entries) => charge_entries(nodes, text, entries),
    }
}

fn charge_entries(nodes: &mut usize, text: &mut usize, entries: &[Entry]) -> Result<(), String> {
    for entry in entries {
        spend_text(text, &entry.key)?;
        charge(nodes, text, &entry.node)?;
    }
    Ok(())
}

/// Levels of lists and objects in a value.
fn depth(node: &Node) -> usize {
    match &node.data {
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text(_) => 0,
        Data::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Data::Object(entries) => {
            1 + entries
                .iter()
                .map(|entry| depth(&entry.node))
                .max()
                .unwrap_or(0)
        }
    }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
