//! Checks that Ray makes after it answered 200, as a failed deployment. The texts are Ray's
//! where it has a stable one, because users search for them.

use serde_json::{Map, Value};

use crate::error::{LateError, quoted};
use crate::schema::application::Application;
use crate::schema::autoscaling::AutoscalingConfig;
use crate::schema::read_late;

/// Begins with a slash, does not end with one unless it is one, no wildcards.
pub fn late_check_route_prefix(route_prefix: Option<&str>) -> Result<(), LateError> {
    let Some(prefix) = route_prefix else {
        return Ok(());
    };
    let wrong = if !prefix.starts_with('/') {
        "must start with a forward slash ('/')."
    } else if prefix != "/" && prefix.ends_with('/') {
        "may not end with a trailing '/'."
    } else if prefix.contains(['{', '}']) {
        "may not contain wildcards."
    } else {
        return Ok(());
    };
    Err(LateError::new(format!(
        "Invalid route_prefix '{}', {wrong}",
        shown(prefix)
    )))
}

/// Reads an autoscaling object. With `auto` it lies over what `num_replicas: auto` means, else
/// over the plain defaults.
pub fn late_check_autoscaling(
    config: &Map<String, Value>,
    auto: bool,
) -> Result<AutoscalingConfig, LateError> {
    let config = read_late(config, "autoscaling_config", |findings, at| {
        AutoscalingConfig::read(findings, at, AutoscalingConfig::base(auto))
    })?;
    config.check_counts().map_err(LateError::new)?;
    Ok(config)
}

/// Every override entry names a deployment that the code has.
pub fn late_check_deployment_names(app: &Application, code: &[&str]) -> Result<(), LateError> {
    for entry in &app.deployments {
        if !code.contains(&entry.name.as_str()) {
            let names: Vec<String> = code.iter().map(|name| format!("'{name}'")).collect();
            return Err(LateError::new(format!(
                "Deployment '{}' does not exist. Available: [{}]",
                shown(&entry.name),
                names.join(", ")
            )));
        }
    }
    Ok(())
}

/// Says which deployment it is about, which Ray's own texts do not.
pub(crate) fn with_name(deployment: &str, error: LateError) -> LateError {
    LateError::new(format!("deployment '{deployment}': {error}"))
}

/// A user's word without our quotes, shortened and with control characters made visible.
fn shown(word: &str) -> String {
    quoted(word).trim_matches('`').to_owned()
}
