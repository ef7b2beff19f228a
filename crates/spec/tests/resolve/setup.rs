//! Configs and code of one deployment, put together.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use mobula_spec::{
    Application, AutoscalingConfig, Checked, DeploymentConfig, DeploymentDefaults,
    DeploymentOptions, Replicas, ServeConfig, resolve,
};
use serde_json::{Map, Value, json};

pub fn config(document: Value) -> Checked {
    ServeConfig::from_json(document.to_string().as_bytes()).unwrap()
}

/// An application with one entry for the deployment `D`.
pub fn app_with(mut entry: Value) -> Application {
    entry["name"] = "D".into();
    app(json!({"deployments": [entry]}))
}

pub fn app(mut fields: Value) -> Application {
    if fields.get("import_path").is_none() {
        fields["import_path"] = "a:b".into();
    }
    config(json!({"applications": [fields]}))
        .config
        .applications
        .remove(0)
}

pub fn code(options: DeploymentOptions) -> DeploymentDefaults {
    DeploymentDefaults {
        name: "D".into(),
        ingress: true,
        options,
    }
}

pub fn settle_with(options: DeploymentOptions, entry: Value) -> DeploymentConfig {
    let app = app_with(entry);
    resolve(&code(options), app.deployment("D"), &app).unwrap()
}

pub fn settle(entry: Value) -> DeploymentConfig {
    settle_with(DeploymentOptions::default(), entry)
}

pub fn late_error(entry: Value) -> String {
    let app = app_with(entry);
    resolve(
        &code(DeploymentOptions::default()),
        app.deployment("D"),
        &app,
    )
    .unwrap_err()
    .to_string()
}

pub fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub fn autoscaled(config: &DeploymentConfig) -> &AutoscalingConfig {
    match &config.replicas {
        Replicas::Autoscaled(config) => config,
        Replicas::Fixed(count) => panic!("fixed at {count}"),
    }
}
