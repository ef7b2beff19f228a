//! From text to a tree: JSON and YAML, within the limits.

mod json;
mod yaml;
mod yaml_scalar;

pub(crate) use json::read_json;
pub(crate) use yaml::read_yaml;

use crate::error::ConfigErrors;
use crate::limits::DOCUMENT_BYTES_MAX;

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
