//! `mobula status` and `mobula config`: YAML in the shape of Ray's `serve` command.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use serde::Serialize;
use serde_json::{Map, Value};

use super::http::{APPLICATIONS, send};
use super::running;
use super::target::Target;
use crate::args::{ReadArgs, StatusArgs};

/// Prints the state of all applications, or of one; waits for it to be RUNNING if asked to.
pub async fn status(args: &StatusArgs) -> Result<()> {
    let within = args.wait.map(Duration::from_secs);
    let args = &args.read;
    let document = match within {
        Some(within) => running::wait(within, async || fetch(args).await).await?,
        None => fetch(args).await?,
    };
    let applications = object(&document, "applications");
    let shown = match &args.name {
        Some(name) => match applications.get(name) {
            Some(application) => spaced_yaml(&application_status(application))?,
            None => bail!("application \"{name}\" does not exist"),
        },
        None => spaced_yaml(&overall_status(&document, &applications))?,
    };
    print!("{shown}");
    Ok(())
}

/// Prints the deployed config of all applications, or of one: one YAML document each.
pub async fn config(args: &ReadArgs) -> Result<()> {
    let document = fetch(args).await?;
    let applications = object(&document, "applications");
    let wanted = |name: &String| args.name.as_ref().is_none_or(|only| only == name);
    let configs: Vec<&Value> = applications
        .iter()
        .filter(|(name, _)| wanted(name))
        .filter_map(|(_, application)| application.get("deployed_app_config"))
        .filter(|config| !config.is_null())
        .collect();
    match (&args.name, configs.is_empty()) {
        (Some(name), true) => println!("No config has been deployed for application \"{name}\"."),
        (None, true) => println!("No configuration was found."),
        (_, false) => {
            let texts = configs
                .into_iter()
                .map(|config| spaced_yaml(&in_order(config)));
            print!("{}", texts.collect::<Result<Vec<_>>>()?.join("\n---\n\n"));
        }
    }
    Ok(())
}

async fn fetch(args: &ReadArgs) -> Result<Value> {
    let target = Target::from_args(&args.address)?;
    send(&target, Method::GET, APPLICATIONS, Vec::new())
        .await?
        .json()
}

/// The fields in the order in which Ray's `serve status` prints them.
#[derive(Serialize)]
struct OverallStatus {
    proxies: BTreeMap<String, Value>,
    applications: BTreeMap<String, ApplicationStatus>,
    target_capacity: Value,
}

#[derive(Serialize)]
struct ApplicationStatus {
    status: Value,
    message: Value,
    last_deployed_time_s: Value,
    deployments: BTreeMap<String, DeploymentStatus>,
}

#[derive(Serialize)]
struct DeploymentStatus {
    status: Value,
    status_trigger: Value,
    replica_states: BTreeMap<String, u64>,
    message: Value,
}

fn overall_status(document: &Value, applications: &Map<String, Value>) -> OverallStatus {
    let proxies = object(document, "proxies");
    let states = applications.iter();
    OverallStatus {
        proxies: proxies
            .iter()
            .map(|(id, proxy)| (id.clone(), proxy["status"].clone()))
            .collect(),
        applications: states
            .map(|(name, app)| (name.clone(), application_status(app)))
            .collect(),
        target_capacity: document["target_capacity"].clone(),
    }
}

fn application_status(application: &Value) -> ApplicationStatus {
    let deployments = object(application, "deployments");
    let deployments = deployments.iter().map(|(name, deployment)| {
        let state = DeploymentStatus {
            status: deployment["status"].clone(),
            status_trigger: deployment["status_trigger"].clone(),
            replica_states: replica_states(deployment),
            message: deployment["message"].clone(),
        };
        (name.clone(), state)
    });
    ApplicationStatus {
        status: application["status"].clone(),
        message: application["message"].clone(),
        last_deployed_time_s: application["last_deployed_time_s"].clone(),
        deployments: deployments.collect(),
    }
}

/// An application's config with the fields that say what it is before those that say how.
#[derive(Serialize)]
struct OrderedConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route_prefix: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    import_path: Option<&'a Value>,
    #[serde(flatten)]
    others: BTreeMap<&'a str, &'a Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deployments: Vec<OrderedDeployment<'a>>,
}

#[derive(Serialize)]
struct OrderedDeployment<'a> {
    name: Option<&'a Value>,
    #[serde(flatten)]
    others: BTreeMap<&'a str, &'a Value>,
}

fn in_order(config: &Value) -> OrderedConfig<'_> {
    OrderedConfig {
        name: config.get("name"),
        route_prefix: config.get("route_prefix"),
        import_path: config.get("import_path"),
        others: rest(
            config,
            &["name", "route_prefix", "import_path", "deployments"],
        ),
        deployments: config["deployments"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|deployment| OrderedDeployment {
                name: deployment.get("name"),
                others: rest(deployment, &["name"]),
            })
            .collect(),
    }
}

fn rest<'a>(value: &'a Value, without: &[&str]) -> BTreeMap<&'a str, &'a Value> {
    let fields = value.as_object().into_iter().flatten();
    fields
        .map(|(key, value)| (key.as_str(), value))
        .filter(|(key, _)| !without.contains(key))
        .collect()
}

/// How many replicas are in which state.
fn replica_states(deployment: &Value) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let replicas = deployment["replicas"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for replica in replicas {
        let state = replica["state"].as_str().unwrap_or("UNKNOWN").to_owned();
        *counts.entry(state).or_insert(0) += 1;
    }
    counts
}

fn object(value: &Value, key: &str) -> Map<String, Value> {
    value
        .get(key)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

/// YAML with an empty line between the top-level keys, as `serve` prints it.
fn spaced_yaml(value: &impl Serialize) -> Result<String> {
    let text = serde_saphyr::to_string(value).context("cannot be written as YAML")?;
    let mut spaced = String::with_capacity(text.len());
    for (index, line) in text.trim_end().lines().enumerate() {
        let is_top_level = !line.starts_with([' ', '-', '#']);
        if index > 0 && is_top_level && !line.is_empty() {
            spaced.push('\n');
        }
        spaced.push_str(line);
        spaced.push('\n');
    }
    Ok(spaced)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_reads_like_the_one_of_ray() {
        let document = json!({
            "proxies": {"n1": {"status": "HEALTHY"}},
            "applications": {"app1": {
                "status": "RUNNING", "message": "", "last_deployed_time_s": 17.5,
                "deployments": {"D": {
                    "status": "HEALTHY", "status_trigger": "CONFIG_UPDATE_COMPLETED",
                    "message": "two\nlines",
                    "replicas": [{"state": "RUNNING"}, {"state": "STARTING"}, {"state": "RUNNING"}],
                }},
            }},
            "target_capacity": null,
        });
        let applications = object(&document, "applications");
        let text = spaced_yaml(&overall_status(&document, &applications)).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_config_begins_with_what_the_application_is() {
        let config = json!({
            "args": {"x": 1}, "deployments": [{"max_ongoing_requests": 2, "name": "D"}],
            "import_path": "a:b", "name": "app1", "route_prefix": null,
        });
        insta::assert_snapshot!(spaced_yaml(&in_order(&config)).unwrap());
    }
}
