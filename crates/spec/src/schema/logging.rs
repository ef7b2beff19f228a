//! `logging_config` and `tracing_config`. Both are strict: an unknown key is a problem.

use serde::Serialize;

use crate::acting::Place;
use crate::decode::{
    At, Fields, RATIO, Unknown, boolean, float_in, list, string, string_up_to, word_of,
};
use crate::error::{Findings, quoted};
use crate::node::Data;

/// Bytes of a directory's name: Linux's `PATH_MAX`. Also keeps small what is copied into
/// every application.
const PATH_BYTES_MAX: usize = 4096;

const SAMPLING_RATIO_DEFAULT: f64 = 0.01;

/// Ray's level names, which are Python's.
const LEVELS: &[(&str, &str)] = &[
    ("CRITICAL", "CRITICAL"),
    ("FATAL", "FATAL"),
    ("ERROR", "ERROR"),
    ("WARN", "WARN"),
    ("WARNING", "WARNING"),
    ("INFO", "INFO"),
    ("DEBUG", "DEBUG"),
    ("NOTSET", "NOTSET"),
];

/// Attributes of a Python log record, which Ray can add to every line.
const RECORD_ATTRIBUTES: &[&str] = &[
    "args",
    "asctime",
    "created",
    "exc_info",
    "exc_text",
    "filename",
    "funcName",
    "levelname",
    "levelno",
    "lineno",
    "message",
    "module",
    "msecs",
    "msg",
    "name",
    "pathname",
    "process",
    "processName",
    "relativeCreated",
    "stack_info",
    "taskName",
    "thread",
    "threadName",
];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum LogEncoding {
    #[default]
    #[serde(rename = "TEXT")]
    Text,
    #[serde(rename = "JSON")]
    Json,
}

/// How a component logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoggingConfig {
    pub encoding: LogEncoding,
    /// One of Python's level names.
    pub log_level: &'static str,
    pub logs_dir: Option<String>,
    pub enable_access_log: bool,
    /// Sorted, each once.
    pub additional_log_standard_attrs: Vec<&'static str>,
}

/// Distributed tracing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TracingConfig {
    pub enabled: bool,
    pub exporter_import_path: String,
    pub sampling_ratio: f64,
}

// === impl LoggingConfig ===

impl Default for LoggingConfig {
    fn default() -> Self {
        Self {
            encoding: LogEncoding::Text,
            log_level: "INFO",
            logs_dir: None,
            enable_access_log: true,
            additional_log_standard_attrs: Vec::new(),
        }
    }
}

impl LoggingConfig {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::LoggingConfig)?;
        let encodings = [("TEXT", LogEncoding::Text), ("JSON", LogEncoding::Json)];
        let config = Self {
            encoding: fields
                .get(findings, "encoding", word_of(&encodings))
                .unwrap_or_default(),
            log_level: fields.get(findings, "log_level", level).unwrap_or("INFO"),
            logs_dir: fields.optional(findings, "logs_dir", string_up_to(PATH_BYTES_MAX)),
            enable_access_log: fields
                .get(findings, "enable_access_log", boolean)
                .unwrap_or(true),
            additional_log_standard_attrs: fields
                .get(findings, "additional_log_standard_attrs", attributes)
                .unwrap_or_default(),
        };
        fields.close(findings, Unknown::Reject);
        Some(config)
    }
}

/// A name, or the number that Python gives it.
fn level(findings: &mut Findings, at: &At<'_>) -> Option<&'static str> {
    let Data::Int(number) = &at.node.data else {
        return word_of(LEVELS)(findings, at);
    };
    let name = match number {
        50 => "CRITICAL",
        40 => "ERROR",
        30 => "WARNING",
        20 => "INFO",
        10 => "DEBUG",
        0 => "NOTSET",
        _ => {
            let message = format!("must be one of 50, 40, 30, 20, 10, 0, got {number}");
            at.problem(findings, message);
            return None;
        }
    };
    Some(name)
}

fn attributes(findings: &mut Findings, at: &At<'_>) -> Option<Vec<&'static str>> {
    let mut names = list(findings, at, |findings, at| {
        let name = string(findings, at)?;
        let known = RECORD_ATTRIBUTES
            .iter()
            .find(|known| **known == name)
            .copied();
        if known.is_none() {
            let allowed = RECORD_ATTRIBUTES.join(", ");
            at.problem(
                findings,
                format!("must be one of {allowed}, got {}", quoted(&name)),
            );
        }
        known
    })?;
    names.sort_unstable();
    names.dedup();
    Some(names)
}

// === impl TracingConfig ===

impl Default for TracingConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            exporter_import_path: String::new(),
            sampling_ratio: SAMPLING_RATIO_DEFAULT,
        }
    }
}

impl TracingConfig {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::TracingConfig)?;
        let default = Self::default();
        let config = Self {
            enabled: fields
                .get(findings, "enabled", boolean)
                .unwrap_or(default.enabled),
            exporter_import_path: fields
                .get(findings, "exporter_import_path", string)
                .unwrap_or(default.exporter_import_path),
            sampling_ratio: fields
                .get(findings, "sampling_ratio", float_in(RATIO))
                .unwrap_or(default.sampling_ratio),
        };
        fields.close(findings, Unknown::Reject);
        Some(config)
    }
}
