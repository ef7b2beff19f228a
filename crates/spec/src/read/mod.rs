//! From text to a tree: JSON and YAML, within the limits.

mod json;
mod yaml;
mod yaml_scalar;

pub(crate) use json::read_json;
pub(crate) use yaml::read_yaml;

use serde_json::Value;

use crate::error::{ConfigErrors, Findings};
use crate::limits::DOCUMENT_BYTES_MAX;

/// Any YAML document as JSON, read as a config is: the same meaning of words, the same limits.
/// For documents that hold a config among other things.
pub fn yaml_to_json(text: &str) -> Result<Value, ConfigErrors> {
    read_yaml(text, &mut Findings::default()).map(|node| node.to_json())
}

/// Both formats refuse a document by its size before they look at it.
fn check_size(bytes: usize) -> Result<(), ConfigErrors> {
    if bytes > DOCUMENT_BYTES_MAX {
        return Err(ConfigErrors::one(
            None,
            format!("the document has {bytes} bytes, allowed are {DOCUMENT_BYTES_MAX}"),
        ));
    }
    Ok(())
}
