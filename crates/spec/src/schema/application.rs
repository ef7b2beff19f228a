//! One application of the config: what code it runs, under which route, with which overrides.

use serde_json::{Map, Value};

use crate::acting::Place;
use crate::decode::{At, Fields, Unknown, boolean, list, object, string};
use crate::error::{Findings, quoted};
use crate::late::late_check_route_prefix;
use crate::limits::DEPLOYMENTS_MAX;
use crate::node::Data;
use crate::schema::budget::Budget;
use crate::schema::deployment::DeploymentOverride;
use crate::schema::logging::LoggingConfig;
use crate::schema::traffic::{Traffic, traffic};
use crate::schema::{Extension, Level, WILL_FAIL, extension, runtime_env};
use crate::version;

pub const APPLICATION_NAME_DEFAULT: &str = "default";
pub const ROUTE_PREFIX_DEFAULT: &str = "/";

#[derive(Debug, Clone, PartialEq)]
pub struct Application {
    pub name: String,
    /// `None`: not reachable over HTTP. The format is checked late, see `late_check_route_prefix`.
    pub route_prefix: Option<String>,
    pub import_path: String,
    /// Handed to the builder that `import_path` names.
    pub args: Map<String, Value>,
    pub runtime_env: Map<String, Value>,
    pub deployments: Vec<DeploymentOverride>,
    pub autoscaling_policy: Option<Map<String, Value>>,
    pub external_scaler_enabled: bool,
    /// The application's own, else the one at the top of the config.
    pub logging_config: Option<LoggingConfig>,
    pub mobula: Option<Extension>,
    /// The entry as it was written, with a logging config from the top where it had none: the
    /// `deployed_app_config` of the status document.
    pub raw: Value,
    code_version: String,
}

// === impl Application ===

impl Application {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::Application)?;
        let name = fields.get(findings, "name", name);
        let route_prefix = fields.nullable(findings, "route_prefix", route_prefix);
        let import_path = fields.require(findings, "import_path", import_path);
        let args = fields.get(findings, "args", object).unwrap_or_default();
        let runtime_env = fields
            .get(findings, "runtime_env", runtime_env::read)
            .unwrap_or_default();
        let deployments = fields
            .get(findings, "deployments", deployments)
            .unwrap_or_default();
        let autoscaling_policy = fields.optional(findings, "autoscaling_policy", object);
        let external_scaler_enabled = fields
            .get(findings, "external_scaler_enabled", boolean)
            .unwrap_or(false);
        let logging_config = fields.optional(findings, "logging_config", LoggingConfig::read);
        let mobula = fields.optional(findings, "mobula", |findings, at| {
            extension(findings, at, Level::Application)
        });
        refuse_listen_address(findings, &mut fields);
        fields.close(findings, Unknown::Warn);

        let mut application = Self {
            name: name.unwrap_or_else(|| APPLICATION_NAME_DEFAULT.to_owned()),
            route_prefix: match route_prefix {
                crate::Given::Absent => Some(ROUTE_PREFIX_DEFAULT.to_owned()),
                crate::Given::Null => None,
                crate::Given::Value(prefix) => Some(prefix),
            },
            import_path: import_path?,
            args,
            runtime_env,
            deployments,
            autoscaling_policy,
            external_scaler_enabled,
            logging_config,
            mobula,
            raw: at.node.to_json(),
            code_version: String::new(),
        };
        application.check_external_scaler(findings, at);
        application.code_version = version::hash_of_code(&application);
        Some(application)
    }

    /// A hash of what makes the code that runs; see `version`. Stable between processes.
    pub fn code_version(&self) -> &str {
        &self.code_version
    }

    /// Ray's rule is that of several entries with one name the last one counts.
    pub fn deployment(&self, name: &str) -> Option<&DeploymentOverride> {
        self.deployments
            .iter()
            .rev()
            .find(|entry| entry.name == name)
    }

    /// How a new version of one of its deployments takes over the requests: as the
    /// deployment's entry says, else as the application says. None: as any other rollout.
    pub fn traffic(&self, entry: Option<&DeploymentOverride>) -> Option<Traffic> {
        traffic(entry.and_then(|entry| entry.mobula.as_ref()))
            .or(traffic(self.mobula.as_ref()))
            .into_value()
    }

    /// What its deployments may have together; None: each has its own bounds alone.
    pub fn budget(&self) -> Option<Budget> {
        Budget::of(self.mobula.as_ref())
    }

    /// The environment variables that every deployment inherits.
    pub fn env_vars(&self) -> std::collections::BTreeMap<String, String> {
        runtime_env::env_vars(&self.runtime_env)
    }

    /// Gives an application without a logging config the one from the top: `given` is its
    /// object with the fields that were written.
    pub(crate) fn inherit_logging(&mut self, config: &LoggingConfig, given: &Value) {
        if self.logging_config.is_some() {
            return;
        }
        self.logging_config = Some(config.clone());
        if let Some(raw) = self.raw.as_object_mut() {
            raw.insert("logging_config".to_owned(), given.clone());
        }
    }

    fn check_external_scaler(&self, findings: &mut Findings, at: &At<'_>) {
        if !self.external_scaler_enabled {
            return;
        }
        let scaled: Vec<String> = self
            .deployments
            .iter()
            .filter(|entry| entry.options.autoscales())
            .map(|entry| format!("\"{}\"", entry.name))
            .collect();
        if !scaled.is_empty() {
            let names = scaled.join(", ");
            at.problem(
                findings,
                format!(
                    "external_scaler_enabled is set to True, but the following deployment(s) \
                     have autoscaling configured: {names}. When using an external autoscaler, \
                     Serve's built-in autoscaling must be disabled for all deployments in the \
                     application."
                ),
            );
        }
    }
}

fn name(findings: &mut Findings, at: &At<'_>) -> Option<String> {
    let name = string(findings, at)?;
    if name.is_empty() {
        at.problem(findings, "Application names must be nonempty.");
    }
    Some(name)
}

/// Any string: Ray finds out later that it is no route, and we say so now.
fn route_prefix(findings: &mut Findings, at: &At<'_>) -> Option<String> {
    let prefix = string(findings, at)?;
    if let Err(error) = late_check_route_prefix(Some(&prefix)) {
        at.warning(findings, format!("{WILL_FAIL}: {error}"));
    }
    Some(prefix)
}

/// The shape only; whether anything of this name exists is the head's question.
fn import_path(findings: &mut Findings, at: &At<'_>) -> Option<String> {
    let path = string(findings, at)?;
    let wrong = if path.contains(':') {
        if path.matches(':').count() > 1 {
            Some("may have at most one colon")
        } else if path.starts_with(':') || path.ends_with(':') {
            Some("may not start or end with a colon")
        } else {
            None
        }
    } else if !path.contains('.') {
        Some("must contain a colon or a dot between module and application, as in `app:builder`")
    } else if path.rfind('.') == Some(0) || path.ends_with('.') {
        Some("may not start or end with a dot")
    } else {
        None
    };
    if let Some(wrong) = wrong {
        at.problem(findings, format!("{wrong}, got {}", quoted(&path)));
    }
    Some(path)
}

fn deployments(findings: &mut Findings, at: &At<'_>) -> Option<Vec<DeploymentOverride>> {
    if let Data::List(items) = &at.node.data
        && items.len() > DEPLOYMENTS_MAX
    {
        let count = items.len();
        at.problem(
            findings,
            format!("has {count} entries, allowed are {DEPLOYMENTS_MAX}"),
        );
        return None;
    }
    list(findings, at, DeploymentOverride::read)
}

/// Fields of the old single-application format.
fn refuse_listen_address(findings: &mut Findings, fields: &mut Fields<'_>) {
    for key in ["host", "port"] {
        if let Some(at) = fields.at(key) {
            at.problem(
                findings,
                format!(
                    "{key} is set in the config for an application, please remove it and set \
                     http_options.{key} in the top level deploy config only"
                ),
            );
        }
    }
}
