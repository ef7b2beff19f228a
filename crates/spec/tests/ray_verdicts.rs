//! The same documents that Ray Serve 2.60 judged (`data/ray_verdicts.py` made the table): our
//! verdicts are the same, but for a list of differences that are there on purpose.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use mobula_spec::{Given, NumReplicas, ServeConfig};
use serde_json::{Value, json};

/// Documents that Ray accepts and we refuse, each with the reason.
const STRICTER: &[(&str, &str)] = &[
    (
        "{ssl_keyfile: k}",
        "Ray checks the pair only when the certificate is given",
    ),
    ("{port: 70000}", "Ray fails when it listens"),
    ("request_timeout_s: .inf", "JSON has no infinity"),
    ("request_timeout_s: 'nan'", "not a time"),
    (
        "runtime_env: {env_vars: {A: 1}}",
        "Ray fails when it starts the process",
    ),
    ("mobula: {typo: 1}", "our own block is strict"),
    (
        "{resources: {a: x}}",
        "Ray fails when it starts the replica",
    ),
    ("max_ongoing_requests: 99999999999", "counts have 32 bits"),
];

/// Documents that Ray refuses and we accept.
const LAXER: &[(&str, &str)] = &[];

fn verdicts() -> Vec<Value> {
    let table: Value = serde_json::from_str(include_str!("data/ray_verdicts.json")).unwrap();
    table.as_array().unwrap().clone()
}

fn on_purpose(list: &[(&str, &str)], text: &str) -> bool {
    list.iter().any(|(part, _)| text.contains(part))
}

#[test]
fn we_accept_what_ray_accepts_and_refuse_what_ray_refuses() {
    let mut differences = Vec::new();
    for verdict in verdicts() {
        let text = verdict["text"].as_str().unwrap();
        let ray = verdict["accepted"].as_bool().unwrap();
        let expected = if ray {
            !on_purpose(STRICTER, text)
        } else {
            on_purpose(LAXER, text)
        };
        let ours = ServeConfig::from_yaml(text);
        if ours.is_ok() != expected {
            let why = ours.err().map(|errors| errors.to_string());
            differences.push(format!("ray accepts: {ray}, ours says: {why:?}\n{text}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n---\n"));
}

#[test]
fn every_difference_on_purpose_is_in_the_table() {
    let verdicts = verdicts();
    for (list, accepted) in [(STRICTER, true), (LAXER, false)] {
        for (part, reason) in list {
            let found = verdicts.iter().any(|verdict| {
                verdict["accepted"] == accepted && verdict["text"].as_str().unwrap().contains(part)
            });
            assert!(found, "{part}: {reason}");
        }
    }
}

#[test]
fn accepted_documents_have_the_same_values() {
    let mut compared = 0;
    for verdict in verdicts() {
        let Ok(checked) = ServeConfig::from_yaml(verdict["text"].as_str().unwrap()) else {
            continue;
        };
        if verdict["accepted"] == false {
            continue;
        }
        let config = checked.config;
        let apps: Vec<Value> = config
            .applications
            .iter()
            .map(|app| {
                let deployments: Vec<Value> = app
                    .deployments
                    .iter()
                    .map(|entry| {
                        let mut given = json!({});
                        match &entry.options.num_replicas {
                            Given::Absent => {}
                            Given::Null => given["num_replicas"] = Value::Null,
                            Given::Value(NumReplicas::Auto) => {
                                given["num_replicas"] = "auto".into()
                            }
                            Given::Value(NumReplicas::Count(count)) => {
                                given["num_replicas"] = (*count).into();
                            }
                        }
                        if let Some(count) = entry.options.max_ongoing_requests {
                            given["max_ongoing_requests"] = count.into();
                        }
                        given
                    })
                    .collect();
                json!({
                    "name": app.name, "route_prefix": app.route_prefix, "args": app.args,
                    "deployments": deployments,
                })
            })
            .collect();
        let ours = json!({
            "port": config.http_options.port,
            "request_timeout_s": config.http_options.request_timeout_s,
            "apps": apps,
        });
        assert_eq!(ours, verdict["fields"], "{}", verdict["text"]);
        compared += 1;
    }
    assert!(compared > 100, "only {compared} documents were compared");
}
