//! `mobula status` and `mobula config`: YAML in the shape of Ray's `serve` command.

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Map, Value, json};

use super::http::{APPLICATIONS, send};
use crate::args::ReadArgs;

/// Prints the state of all applications, or of one.
pub async fn status(args: &ReadArgs) -> Result<()> {
    let document = fetch(args).await?;
    let applications = object(&document, "applications");
    let shown = match &args.name {
        Some(name) => match applications.get(name) {
            Some(application) => application_status(application),
            None => bail!("application \"{name}\" does not exist"),
        },
        None => overall_status(&document, &applications),
    };
    print!("{}", spaced_yaml(&shown)?);
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
            let texts = configs.iter().map(|config| match config {
                Value::Object(map) => spaced_yaml(map),
                other => Ok(format!("{other}\n")),
            });
            print!("{}", texts.collect::<Result<Vec<_>>>()?.join("\n---\n\n"));
        }
    }
    Ok(())
}

async fn fetch(args: &ReadArgs) -> Result<Value> {
    send(&args.address.address, Method::GET, APPLICATIONS, Vec::new())
        .await?
        .json()
}

fn overall_status(document: &Value, applications: &Map<String, Value>) -> Map<String, Value> {
    let proxies = object(document, "proxies");
    let proxy_states = proxies
        .iter()
        .map(|(id, proxy)| (id.clone(), proxy["status"].clone()));
    let states = applications.iter();
    let states = states.map(|(name, app)| (name.clone(), Value::Object(application_status(app))));
    let mut shown = Map::new();
    shown.insert("proxies".to_owned(), Value::Object(proxy_states.collect()));
    shown.insert("applications".to_owned(), Value::Object(states.collect()));
    shown.insert(
        "target_capacity".to_owned(),
        document["target_capacity"].clone(),
    );
    shown
}

fn application_status(application: &Value) -> Map<String, Value> {
    let deployments = object(application, "deployments");
    let deployments = deployments.iter().map(|(name, deployment)| {
        let state = json!({
            "status": deployment["status"],
            "status_trigger": deployment["status_trigger"],
            "replica_states": replica_states(deployment),
            "message": deployment["message"],
        });
        (name.clone(), state)
    });
    let mut shown = Map::new();
    for key in ["status", "message", "last_deployed_time_s"] {
        shown.insert(key.to_owned(), application[key].clone());
    }
    shown.insert(
        "deployments".to_owned(),
        Value::Object(deployments.collect()),
    );
    shown
}

/// How many replicas are in which state.
fn replica_states(deployment: &Value) -> Map<String, Value> {
    let mut counts: Map<String, Value> = Map::new();
    let replicas = deployment["replicas"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for replica in replicas {
        let state = replica["state"].as_str().unwrap_or("UNKNOWN").to_owned();
        let so_far = counts.get(&state).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(state, json!(so_far + 1));
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
fn spaced_yaml(map: &Map<String, Value>) -> Result<String> {
    let parts = map.iter().map(|(key, value)| {
        let single = Map::from_iter([(key.clone(), value.clone())]);
        let text = serde_saphyr::to_string(&single).context("cannot be written as YAML")?;
        Ok(format!("{}\n", text.trim_end()))
    });
    Ok(parts.collect::<Result<Vec<_>>>()?.join("\n"))
}

#[cfg(test)]
mod tests {
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
}
