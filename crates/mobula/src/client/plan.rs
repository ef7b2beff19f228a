//! `mobula plan`: what a config would do, read by people.

use anyhow::Result;
use http::Method;
use serde_json::Value;

use super::deploy::read_config;
use super::http::send;
use super::target::Target;
use crate::args::PlanArgs;

/// Asks what deploying a config file would do, and prints it. Changes nothing.
pub async fn plan(args: &PlanArgs) -> Result<()> {
    let document = read_config(&args.config)?;
    let target = Target::from_args(&args.address)?;
    let answer = send(&target, Method::POST, "/api/mobula/plan", document).await?;
    print!("{}", readable(&answer.json()?));
    Ok(())
}

fn readable(plan: &Value) -> String {
    let mut lines = Vec::new();
    let applications = plan["applications"].as_object();
    for (name, application) in applications.into_iter().flatten() {
        lines.push(format!("{name}: {}", change(application)));
        let deployments = application["deployments"].as_object();
        for (name, deployment) in deployments.into_iter().flatten() {
            lines.push(format!("  {name}: {}", change(deployment)));
            lines.extend(replicas(deployment).map(|line| format!("    {line}")));
            lines.extend(canary(deployment).map(|line| format!("    {line}")));
            lines.extend(room(deployment).map(|line| format!("    {line}")));
        }
    }
    let revision = &plan["revision"];
    lines.push(if plan["changes"] == true {
        format!("Compared with revision {revision}. Nothing was changed.")
    } else {
        format!("This is what runs already, revision {revision}.")
    });
    lines.join("\n") + "\n"
}

/// What happens to an application or a deployment, and because of what.
fn change(part: &Value) -> String {
    let change = part["change"].as_str().unwrap_or("unknown");
    let meaning = match change {
        "fails" => "would fail to deploy",
        "retarget" => "changes, replicas keep running",
        "reconfigure" => "replicas are told, and keep running",
        "replace" => "replicas are replaced",
        other => other,
    };
    let fields: Vec<&str> = part["fields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut text = meaning.to_owned();
    if !fields.is_empty() {
        text.push_str(&format!(" ({})", fields.join(", ")));
    }
    if let Some(message) = part["message"].as_str() {
        text.push_str(&format!(": {message}"));
    }
    text
}

fn replicas(deployment: &Value) -> Option<String> {
    let replicas = &deployment["replicas"];
    let number = |key: &str| replicas[key].as_u64().unwrap_or(0);
    let (start, stop) = (number("start"), number("stop"));
    (start + stop > 0).then(|| {
        format!(
            "{} -> {} replicas: {start} start, {stop} stop",
            number("now"),
            number("target")
        )
    })
}

/// Said only where a part of the requests decides.
fn canary(deployment: &Value) -> Option<String> {
    let steps = deployment["canary"].as_array()?;
    let steps: Vec<String> = steps.iter().map(|step| format!("{step} %")).collect();
    let steps = steps.join(", ");
    Some(format!(
        "the new version answers {steps} of the requests first"
    ))
}

/// Said only where not everything finds room at once.
fn room(deployment: &Value) -> Option<String> {
    let room = &deployment["room"];
    let number = |key: &str| room[key].as_u64().unwrap_or(0);
    let needs = room["needs_each"].as_str().unwrap_or_default();
    let mut parts = Vec::new();
    if number("after_others_left") > 0 {
        parts.push(format!(
            "for {} once others have left",
            number("after_others_left")
        ));
    }
    if number("does_not_fit") > 0 {
        parts.push(format!("NONE for {}", number("does_not_fit")));
    }
    (!parts.is_empty()).then(|| format!("room ({needs} each): {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_says_what_changes_what_it_costs_and_what_does_not_fit() {
        let plan = json!({"revision": 4, "changes": true, "applications": {
            "bad": {"change": "fails", "message": "model: no such model", "deployments": {}},
            "old": {"change": "deleted", "fields": [], "deployments": {
                "D": {"change": "deleted", "replicas": {"now": 1, "target": 0, "start": 0, "stop": 1}},
            }},
            "rag": {"change": "changed", "fields": ["route_prefix"], "deployments": {
                "Embedder": {"change": "replace", "fields": ["ray_actor_options.num_cpus"],
                    "replicas": {"now": 2, "target": 3, "start": 3, "stop": 2},
                    "canary": [5, 50],
                    "room": {"needs_each": "2 CPU", "at_once": 1, "after_others_left": 1,
                        "does_not_fit": 1}},
                "Reranker": {"change": "nothing", "fields": [],
                    "replicas": {"now": 1, "target": 1, "start": 0, "stop": 0}},
            }},
        }});
        insta::assert_snapshot!(readable(&plan), @r"
        bad: would fail to deploy: model: no such model
        old: deleted
          D: deleted
            1 -> 0 replicas: 0 start, 1 stop
        rag: changed (route_prefix)
          Embedder: replicas are replaced (ray_actor_options.num_cpus)
            2 -> 3 replicas: 3 start, 2 stop
            the new version answers 5 %, 50 % of the requests first
            room (2 CPU each): for 1 once others have left, NONE for 1
          Reranker: nothing
        Compared with revision 4. Nothing was changed.
        ");
        let same = json!({"revision": 4, "changes": false, "applications": {}});
        assert_eq!(readable(&same), "This is what runs already, revision 4.\n");
    }
}
