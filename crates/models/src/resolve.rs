//! From a model's name or directory to its files, and from those to what must be known to run it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fetch::{self, Entry, Lock, Progress};
use crate::pool::Pooling;
use crate::settings::Settings;
use crate::{FetchError, ModelError};

/// What a model is used for; decides how its output is read.
pub use crate::fetch::Task;

/// Input length where no file of the model says one; the BERT family's usual.
const TOKENS_MAX_DEFAULT: usize = 512;
/// A configuration file beyond this is not one.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Which model a deployment is to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// A hub name, an id of the lock, or a directory.
    pub name: String,
    /// A graph of the user's own, or a directory with one; `name` is then only its name.
    pub graph: Option<PathBuf>,
}

/// A model's files and facts.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// As `/info` and responses name it.
    pub name: String,
    /// The graph.
    pub graph: PathBuf,
    /// `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// Identifies the files: the lock's digest or the hub's revision.
    pub revision: Option<String>,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Whether the model's own pipeline ends in scaling to length 1.
    pub normalize: bool,
    /// Longest input.
    pub tokens_max: usize,
    /// Class names by index; empty where the files do not say.
    pub labels: Vec<String>,
    /// Name of a compiled-in classification head.
    pub head: Option<String>,
    /// When the graph's file was written, in seconds since 1970.
    pub created: u64,
}

/// Finds a model's files, fetching them where needed. Blocking.
pub fn resolve(
    settings: &Settings,
    choice: &Choice,
    progress: &dyn Progress,
) -> Result<Resolved, ModelError> {
    let lock = Lock::embedded()?;
    let entry = lock.model(&choice.name);
    let dir = match &choice.graph {
        Some(graph) if graph.is_dir() => graph.clone(),
        Some(graph) if graph.is_file() => parent(graph),
        // Whatever lies beside it is another model than the one that was asked for.
        Some(graph) => {
            return Err(ModelError::BadFile {
                path: graph.clone(),
                reason: "the ONNX path is neither a file nor a directory".to_owned(),
            });
        }
        None if Path::new(&choice.name).is_dir() => PathBuf::from(&choice.name),
        None => fetch::ensure_model(settings, &choice.name, progress)?,
    };
    let graph = match &choice.graph {
        Some(graph) if graph.is_file() => graph.clone(),
        Some(_) | None => find(&dir, &["onnx/model.onnx", "model.onnx"])
            .ok_or_else(|| lacks(&dir, "onnx/model.onnx or model.onnx"))?,
    };
    let files = match find(&dir, &["tokenizer.json", "../tokenizer.json"]) {
        Some(_) => dir.clone(),
        // A bare graph goes with the tokenizer of the model it is named after.
        None if choice.graph.is_some() => fetch::ensure_model(settings, &choice.name, progress)
            .map_err(|error| beside(&dir, error))?,
        None => return Err(lacks(&dir, "tokenizer.json")),
    };
    let tokenizer = find(&files, &["tokenizer.json", "../tokenizer.json"])
        .ok_or_else(|| lacks(&files, "tokenizer.json"))?;
    let facts = Facts::read(&files)?;
    Ok(facts.resolved(choice.name.clone(), graph, tokenizer, entry, &files))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

fn find(dir: &Path, names: &[&str]) -> Option<PathBuf> {
    let mut paths = names.iter().map(|name| dir.join(name));
    paths.find(|path| path.is_file())
}

fn lacks(dir: &Path, what: &str) -> ModelError {
    ModelError::BadFile {
        path: dir.to_owned(),
        reason: format!("the directory has no {what}"),
    }
}

fn beside(dir: &Path, error: FetchError) -> ModelError {
    ModelError::BadFile {
        path: dir.to_owned(),
        reason: format!("no tokenizer.json beside the graph, and {error}"),
    }
}

/// A model's own configuration files; each may be missing.
#[derive(Debug, Default)]
struct Facts {
    config: Value,
    tokenizer: Value,
    pooling: Value,
    sentence: Value,
    modules: Value,
}

// === impl Facts ===

impl Facts {
    fn read(dir: &Path) -> Result<Facts, ModelError> {
        let up = |name: &str| [name.to_owned(), format!("../{name}")];
        let read = |names: &[String]| -> Result<Value, ModelError> {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            find(dir, &names).map_or(Ok(Value::Null), |path| read_json(&path))
        };
        Ok(Facts {
            config: read(&up("config.json"))?,
            tokenizer: read(&up("tokenizer_config.json"))?,
            pooling: read(&[up("pooling_config.json"), up("1_Pooling/config.json")].concat())?,
            sentence: read(&up("sentence_bert_config.json"))?,
            modules: read(&up("modules.json"))?,
        })
    }

    fn resolved(
        &self,
        name: String,
        graph: PathBuf,
        tokenizer: PathBuf,
        entry: Option<&Entry>,
        files: &Path,
    ) -> Resolved {
        let locked_pooling = entry
            .and_then(|entry| entry.pooling.as_deref())
            .and_then(Pooling::parse);
        let last = files.file_name().and_then(|name| name.to_str());
        Resolved {
            name,
            created: written(&graph),
            graph,
            tokenizer,
            revision: last.filter(|name| is_revision(name)).map(str::to_owned),
            pooling: self.pooling().or(locked_pooling).unwrap_or(Pooling::Mean),
            normalize: entry
                .and_then(|entry| entry.normalize)
                .unwrap_or_else(|| self.normalizes()),
            tokens_max: self.tokens_max(entry.and_then(|entry| entry.tokens_max)),
            labels: self.labels(),
            head: entry.and_then(|entry| entry.head.clone()),
        }
    }

    fn pooling(&self) -> Option<Pooling> {
        let on = |key: &str| self.pooling.get(key).and_then(Value::as_bool) == Some(true);
        [
            ("pooling_mode_cls_token", Pooling::Cls),
            ("pooling_mode_lasttoken", Pooling::LastToken),
            ("pooling_mode_max_tokens", Pooling::Max),
            ("pooling_mode_mean_tokens", Pooling::Mean),
        ]
        .into_iter()
        .find(|(key, _)| on(key))
        .map(|(_, pooling)| pooling)
    }

    /// Without a list of modules nobody says no, and scaled vectors are what clients expect.
    fn normalizes(&self) -> bool {
        let Some(modules) = self.modules.as_array() else {
            return true;
        };
        modules.iter().any(|module| {
            let kind = module.get("type").and_then(Value::as_str);
            kind.is_some_and(|kind| kind.ends_with(".Normalize"))
        })
    }

    fn tokens_max(&self, locked: Option<usize>) -> usize {
        let number = |value: &Value, key: &str| {
            let number = value.get(key).and_then(Value::as_u64)?;
            usize::try_from(number).ok().filter(|&number| number > 0)
        };
        let kind = self.config.get("model_type").and_then(Value::as_str);
        // RoBERTa counts positions from the padding id on, so two of them are never used.
        let reserved = match kind {
            Some("roberta" | "xlm-roberta" | "camembert" | "mpnet") => 2,
            _ => 0,
        };
        let positions = number(&self.config, "max_position_embeddings");
        [
            positions.map(|positions| positions.saturating_sub(reserved).max(1)),
            number(&self.tokenizer, "model_max_length"),
            number(&self.sentence, "max_seq_length").or(locked),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(TOKENS_MAX_DEFAULT)
    }

    fn labels(&self) -> Vec<String> {
        let Some(names) = self.config.get("id2label").and_then(Value::as_object) else {
            return Vec::new();
        };
        let mut labels: Vec<(usize, String)> = names
            .iter()
            .filter_map(|(id, name)| Some((id.parse().ok()?, name.as_str()?.to_owned())))
            .collect();
        labels.sort();
        labels.into_iter().map(|(_, name)| name).collect()
    }
}

fn written(path: &Path) -> u64 {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let since = modified
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}

fn is_revision(name: &str) -> bool {
    name.len() >= 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn read_json(path: &Path) -> Result<Value, ModelError> {
    let bad = |reason: String| ModelError::BadFile {
        path: path.to_owned(),
        reason,
    };
    let length = std::fs::metadata(path)
        .map_err(|e| bad(e.to_string()))?
        .len();
    if length > CONFIG_BYTES_MAX {
        return Err(bad(format!("larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_input_length_is_the_least_that_any_file_says() {
        let facts = Facts {
            config: json!({"max_position_embeddings": 514, "model_type": "roberta"}),
            tokenizer: json!({"model_max_length": 1e30}),
            ..Facts::default()
        };
        assert_eq!(facts.tokens_max(None), 512);
        assert_eq!(facts.tokens_max(Some(256)), 256);
        assert_eq!(Facts::default().tokens_max(None), 512);
        let sentence = Facts {
            sentence: json!({"max_seq_length": 128}),
            ..Facts::default()
        };
        assert_eq!(sentence.tokens_max(Some(256)), 128);
    }

    #[test]
    fn pooling_and_scaling_come_from_the_models_own_files() {
        let facts = Facts {
            pooling: json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}),
            modules: json!([{"type": "sentence_transformers.models.Transformer"}]),
            ..Facts::default()
        };
        assert_eq!(facts.pooling(), Some(Pooling::Cls));
        assert!(!facts.normalizes());
        assert!(Facts::default().normalizes());
    }

    #[test]
    fn labels_are_ordered_by_their_number() {
        let facts = Facts {
            config: json!({"id2label": {"10": "ten", "2": "two", "0": "zero"}}),
            ..Facts::default()
        };
        assert_eq!(facts.labels(), ["zero", "two", "ten"]);
    }

    #[test]
    fn a_directory_without_a_graph_is_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::from_env(&Default::default());
        let choice = Choice {
            name: "own".to_owned(),
            graph: Some(dir.path().to_owned()),
        };
        let error = resolve(&settings, &choice, &fetch::Silent).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("has no onnx/model.onnx or model.onnx"),
            "{error}"
        );
    }

    #[test]
    fn a_graph_that_is_not_there_is_an_error_even_beside_another_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.onnx"), b"another").unwrap();
        let settings = Settings::from_env(&Default::default());
        let choice = Choice {
            name: "own".to_owned(),
            graph: Some(dir.path().join("modle.onnx")),
        };
        let error = resolve(&settings, &choice, &fetch::Silent)
            .unwrap_err()
            .to_string();
        assert!(error.contains("modle.onnx"), "{error}");
        assert!(error.contains("neither a file nor a directory"), "{error}");
    }
}
