//! The whole config: the top level, and the rules between applications.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::acting::Place;
use crate::decode::{At, Fields, PERCENT, Unknown, float_in, list};
use crate::error::{ConfigErrors, Findings, Warning};
use crate::limits::APPLICATIONS_MAX;
use crate::node::{Data, Node};
use crate::read::{read_json, read_yaml};
use crate::schema::application::Application;
use crate::schema::logging::{LoggingConfig, TracingConfig};
use crate::schema::options::{ControllerOptions, GrpcOptions, HttpOptions, ProxyLocation};
use crate::schema::placement::CompactionMode;
use crate::schema::{Extension, Level, compaction, extension, rollback};

/// What the user declared, with the defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ServeConfig {
    pub proxy_location: ProxyLocation,
    pub http_options: HttpOptions,
    pub grpc_options: GrpcOptions,
    pub controller_options: Option<ControllerOptions>,
    pub logging_config: Option<LoggingConfig>,
    pub tracing_config: Option<TracingConfig>,
    pub applications: Vec<Application>,
    /// Percent of every count, 0 to 100.
    pub target_capacity: Option<f64>,
    pub mobula: Option<Extension>,
}

/// A config that was accepted, and what about it will not act.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub config: ServeConfig,
    pub warnings: Vec<Warning>,
}

// === impl ServeConfig ===

impl ServeConfig {
    /// Reads a config file.
    pub fn from_yaml(text: &str) -> Result<Checked, ConfigErrors> {
        let mut findings = Findings::default();
        let node = read_yaml(text, &mut findings)?;
        Self::decode(&node, findings)
    }

    /// Reads the body of a request.
    pub fn from_json(bytes: &[u8]) -> Result<Checked, ConfigErrors> {
        let node = read_json(bytes)?;
        Self::decode(&node, Findings::default())
    }

    /// The config as a document that reads back to the same: defaults written out at the top,
    /// applications as they were given. Contains secrets, so it is for storing and sending,
    /// not for showing.
    pub fn to_json(&self) -> Value {
        let applications: Vec<&Value> = self.applications.iter().map(|app| &app.raw).collect();
        let mut document = json!({
            "proxy_location": self.proxy_location,
            "http_options": self.http_options.to_config(),
            "grpc_options": self.grpc_options,
            "controller_options": self.controller_options,
            "logging_config": self.logging_config,
            "tracing_config": self.tracing_config,
            "applications": applications,
            "target_capacity": self.target_capacity,
        });
        if let Some(mobula) = &self.mobula {
            document["mobula"] = Value::Object(mobula.clone());
        }
        document
    }

    pub fn application(&self, name: &str) -> Option<&Application> {
        self.applications
            .iter()
            .find(|application| application.name == name)
    }

    /// Whether a rollout of the application that fails is taken back: as the application says,
    /// else as the top says, else yes.
    pub fn rolls_back(&self, application: &Application) -> bool {
        rollback(application.mobula.as_ref())
            .or_else(|| rollback(self.mobula.as_ref()))
            .unwrap_or(true)
    }

    /// Whether workers are emptied so that they can go.
    pub fn compaction(&self) -> CompactionMode {
        compaction(self.mobula.as_ref()).unwrap_or_default()
    }

    fn decode(node: &Node, mut findings: Findings) -> Result<Checked, ConfigErrors> {
        let config = Self::read(&mut findings, &At::root(node));
        let warnings = findings.finish()?;
        match config {
            Some(config) => Ok(Checked { config, warnings }),
            // A reader that gives nothing has recorded why, so this is for the compiler.
            None => Err(ConfigErrors::one(None, "the document is not usable")),
        }
    }

    fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::Top)?;
        if let Some(at) = fields.single_application() {
            at.problem(
                findings,
                "belongs to the single-application format of older releases, put the \
                 application into the list `applications`",
            );
            return None;
        }
        let logging = fields.at("logging_config").filter(|at| !at.node.is_null());
        let config = Self {
            proxy_location: fields
                .get(findings, "proxy_location", ProxyLocation::read)
                .unwrap_or_default(),
            http_options: fields
                .get(findings, "http_options", HttpOptions::read)
                .unwrap_or_default(),
            grpc_options: fields
                .get(findings, "grpc_options", GrpcOptions::read)
                .unwrap_or_default(),
            controller_options: fields.optional(
                findings,
                "controller_options",
                ControllerOptions::read,
            ),
            logging_config: fields.optional(findings, "logging_config", LoggingConfig::read),
            tracing_config: fields.optional(findings, "tracing_config", TracingConfig::read),
            applications: fields
                .require(findings, "applications", applications)
                .unwrap_or_default(),
            target_capacity: fields.optional(findings, "target_capacity", float_in(PERCENT)),
            mobula: fields.optional(findings, "mobula", |findings, at| {
                extension(findings, at, Level::Top)
            }),
        };
        fields.close(findings, Unknown::Warn);
        Some(config.with_logging_inherited(logging))
    }

    fn with_logging_inherited(mut self, at: Option<At<'_>>) -> Self {
        if let (Some(config), Some(at)) = (&self.logging_config, at) {
            let given = given_fields(config, at.node);
            for application in &mut self.applications {
                application.inherit_logging(config, &given);
            }
        }
        self
    }
}

/// The fields of a logging config that were written, in their checked form.
fn given_fields(config: &LoggingConfig, node: &Node) -> Value {
    let Data::Object(entries) = &node.data else {
        return Value::Null;
    };
    let all = json!(config);
    let given = entries.iter().filter_map(|entry| {
        all.get(&entry.key)
            .map(|value| (entry.key.clone(), value.clone()))
    });
    Value::Object(given.collect::<Map<_, _>>())
}

fn applications(findings: &mut Findings, at: &At<'_>) -> Option<Vec<Application>> {
    if let Data::List(items) = &at.node.data
        && items.len() > APPLICATIONS_MAX
    {
        let count = items.len();
        at.problem(
            findings,
            format!("has {count} entries, allowed are {APPLICATIONS_MAX}"),
        );
        return None;
    }
    let applications = list(findings, at, Application::read)?;
    check_names(findings, at, &applications);
    check_routes(findings, at, &applications);
    Some(applications)
}

fn check_names(findings: &mut Findings, at: &At<'_>, applications: &[Application]) {
    let twice = given_twice(applications.iter().map(|app| app.name.as_str()));
    if !twice.is_empty() {
        let word = if twice.len() == 1 {
            "application"
        } else {
            "applications"
        };
        let names = twice.join(", ");
        at.problem(
            findings,
            format!("Found multiple configs for {word} {names}. Please remove all duplicates."),
        );
    }
}

fn check_routes(findings: &mut Findings, at: &At<'_>, applications: &[Application]) {
    let routes = applications
        .iter()
        .filter_map(|app| app.route_prefix.as_deref());
    let twice = given_twice(routes);
    if !twice.is_empty() {
        let word = if twice.len() == 1 {
            "route prefix"
        } else {
            "route prefixes"
        };
        let routes = twice.join(", ");
        at.problem(
            findings,
            format!(
                "Found duplicate applications for {word} {routes}. Please ensure each \
                 application's route_prefix is unique."
            ),
        );
    }
}

/// The words that occur more than once, in quotes and in order.
fn given_twice<'w>(words: impl Iterator<Item = &'w str>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(word, _)| format!("{word:?}"))
        .collect()
}
