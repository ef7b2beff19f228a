//! The code's options, the config over them, and the defaults below.

use mobula_spec::{
    AutoscalingConfig, DeploymentDefaults, DeploymentOptions, Given, MaxQueued, NumReplicas,
    RayActorOptions, Replicas, resolve, resolve_application,
};
use serde_json::{Value, json};

use crate::setup::{app, autoscaled, code, config, object, settle, settle_with};

#[test]
fn nothing_given_means_the_defaults_of_the_status_document() {
    let shown = serde_json::to_value(settle(json!({}))).unwrap();
    let expected = json!({
        "name": "D", "num_replicas": 1, "max_ongoing_requests": 5, "max_queued_requests": -1,
        "backpressure_config": {"status_code": 503, "retry_after_s": null}, "user_config": null,
        "graceful_shutdown_wait_loop_s": 2.0, "graceful_shutdown_timeout_s": 20.0,
        "health_check_period_s": 10.0, "health_check_timeout_s": 30.0,
        "ray_actor_options": {"num_cpus": 1.0},
        "request_router_config": {
            "request_router_class":
                "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter",
            "request_router_kwargs": {}, "request_routing_stats_period_s": 10.0,
            "request_routing_stats_timeout_s": 30.0, "initial_backoff_s": 0.025,
            "backoff_multiplier": 2.0, "max_backoff_s": 0.5,
        },
        "rolling_update_percentage": 0.2, "max_surge_percent": 0,
    });
    assert_eq!(shown, expected);
}

/// The application of a live Ray cluster, and what that cluster showed of it.
#[test]
fn the_status_document_shows_what_a_live_ray_cluster_shows() {
    let checked = config(json!({
        "logging_config": {"encoding": "TEXT", "log_level": "INFO"},
        "applications": [{
            "name": "app1", "route_prefix": "/a", "import_path": "app1:app",
            "runtime_env": {"env_vars": {"FOO": "bar"}},
            "deployments": [{"name": "D", "num_replicas": 1, "max_ongoing_requests": 2}],
        }],
    }));
    let app = &checked.config.applications[0];
    assert_eq!(
        app.raw,
        json!({
            "name": "app1", "route_prefix": "/a", "import_path": "app1:app",
            "runtime_env": {"env_vars": {"FOO": "bar"}},
            "deployments": [{"name": "D", "num_replicas": 1, "max_ongoing_requests": 2}],
            "logging_config": {"encoding": "TEXT", "log_level": "INFO"},
        })
    );
    let cpus = RayActorOptions {
        num_cpus: Some(0.1),
        ..RayActorOptions::default()
    };
    let code = code(DeploymentOptions {
        ray_actor_options: Some(cpus),
        ..Default::default()
    });
    let settled = resolve(&code, app.deployment("D"), app).unwrap();
    let shown = serde_json::to_value(&settled).unwrap();
    assert_eq!(shown["max_ongoing_requests"], 2);
    assert_eq!(shown["ray_actor_options"], json!({"num_cpus": 0.1}));
    assert_eq!(
        settled.ray_actor_options.required_resources(),
        [("CPU".to_owned(), 0.1)].into()
    );
    assert_eq!(
        settled.env_vars(),
        [("FOO".to_owned(), "bar".to_owned())].into()
    );
    assert_eq!(
        serde_json::to_value(&checked.config.http_options).unwrap(),
        json!({"host": "0.0.0.0", "port": 8000, "root_path": "", "request_timeout_s": null,
            "keep_alive_timeout_s": 90, "ssl_keyfile": null, "ssl_certfile": null,
            "ssl_keyfile_password": null, "ssl_ca_certs": null})
    );
    assert_eq!(
        serde_json::to_value(&checked.config.grpc_options).unwrap(),
        json!({"port": 9000, "grpc_servicer_functions": [], "request_timeout_s": null,
            "enable_reflection": true})
    );
}

#[test]
fn an_application_with_its_own_logging_config_keeps_it() {
    let checked = config(json!({
        "logging_config": {"log_level": 10},
        "applications": [
            {"name": "a", "import_path": "a:b", "logging_config": {"encoding": "JSON"}},
            {"name": "b", "import_path": "a:b", "route_prefix": "/b", "logging_config": null},
        ],
    }));
    let [a, b] = &checked.config.applications[..] else {
        panic!("two applications")
    };
    assert_eq!(a.raw["logging_config"], json!({"encoding": "JSON"}));
    assert_eq!(a.logging_config.as_ref().unwrap().log_level, "INFO");
    assert_eq!(b.raw["logging_config"], json!({"log_level": "DEBUG"}));
    assert_eq!(b.logging_config.as_ref().unwrap().log_level, "DEBUG");
}

#[test]
fn the_config_wins_over_the_code_field_by_field_and_a_dropped_field_goes_back() {
    let options = DeploymentOptions {
        num_replicas: Given::Value(NumReplicas::Count(4)),
        max_ongoing_requests: Some(7),
        max_queued_requests: Some(MaxQueued::Limit(9)),
        user_config: Given::Value(object(json!({"from": "code"}))),
        health_check_period_s: Some(1.5),
        ..DeploymentOptions::default()
    };
    let settled = settle_with(options.clone(), json!({"max_ongoing_requests": 8}));
    assert_eq!(settled.replicas, Replicas::Fixed(4));
    assert_eq!(settled.max_ongoing_requests, 8);
    assert_eq!(settled.max_queued_requests, MaxQueued::Limit(9));
    assert_eq!(settled.user_config, Some(object(json!({"from": "code"}))));
    assert_eq!(settled.health_check_period_s, 1.5);
    assert_eq!(settle_with(options, json!({})).max_ongoing_requests, 7);
}

#[test]
fn a_null_takes_the_code_back_and_an_object_replaces_the_codes() {
    let actor = RayActorOptions {
        num_gpus: Some(1.0),
        ..RayActorOptions::default()
    };
    let options = DeploymentOptions {
        num_replicas: Given::Value(NumReplicas::Count(4)),
        user_config: Given::Value(object(json!({"from": "code"}))),
        ray_actor_options: Some(actor),
        ..DeploymentOptions::default()
    };
    let entry = json!({
        "user_config": null, "num_replicas": null, "ray_actor_options": {"num_cpus": 2},
    });
    let settled = settle_with(options, entry);
    assert_eq!(settled.user_config, None);
    assert_eq!(settled.replicas, Replicas::Fixed(1));
    assert_eq!(settled.ray_actor_options.num_gpus, None);
    assert_eq!(settled.ray_actor_options.num_cpus, Some(2.0));
}

#[test]
fn of_several_entries_with_one_name_the_last_one_counts() {
    let app = app(json!({"deployments": [
        {"name": "D", "num_replicas": 2, "max_ongoing_requests": 9},
        {"name": "D", "num_replicas": 3},
    ]}));
    let settled = resolve(
        &code(DeploymentOptions::default()),
        app.deployment("D"),
        &app,
    )
    .unwrap();
    assert_eq!(
        (settled.replicas, settled.max_ongoing_requests),
        (Replicas::Fixed(3), 5)
    );
}

#[test]
fn auto_starts_from_a_hundred_at_most_and_the_object_lies_over_it() {
    let auto = settle(json!({"num_replicas": "auto"}));
    assert_eq!(autoscaled(&auto), &AutoscalingConfig::auto());
    assert_eq!(autoscaled(&auto).max_replicas, 100);
    let entry = json!({"num_replicas": "auto", "autoscaling_config": {"min_replicas": 3}});
    let config = settle(entry);
    assert_eq!(
        (
            autoscaled(&config).min_replicas,
            autoscaled(&config).max_replicas
        ),
        (3, 100)
    );
    let entry = json!({"autoscaling_config": {"max_replicas": 3, "initial_replicas": 2}});
    let config = settle(entry);
    assert_eq!(
        (
            autoscaled(&config).min_replicas,
            autoscaled(&config).max_replicas
        ),
        (1, 3)
    );
    assert_eq!(config.first_replicas(None), 2);
    assert_eq!(config.first_replicas(Some(50.0)), 1);
}

#[test]
fn numbers_auto_and_objects_of_code_and_config_meet() {
    let scaled = |max: u32| Given::Value(object(json!({"max_replicas": max})));
    let code = DeploymentOptions {
        autoscaling_config: scaled(7),
        ..Default::default()
    };
    assert_eq!(
        autoscaled(&settle_with(code.clone(), json!({}))).max_replicas,
        7
    );
    let auto = settle_with(code.clone(), json!({"num_replicas": "auto"}));
    assert_eq!(autoscaled(&auto).max_replicas, 7);
    let fixed = settle_with(code.clone(), json!({"num_replicas": 2}));
    assert_eq!(fixed.replicas, Replicas::Fixed(2));
    let none = settle_with(code.clone(), json!({"autoscaling_config": null}));
    assert_eq!(none.replicas, Replicas::Fixed(1));
    let other = settle_with(code, json!({"autoscaling_config": {"max_replicas": 5}}));
    assert_eq!(autoscaled(&other).max_replicas, 5);
}

#[test]
fn the_status_document_never_shows_number_and_autoscaling_together() {
    let shown = serde_json::to_value(settle(json!({"num_replicas": "auto"}))).unwrap();
    assert_eq!(shown.get("num_replicas"), None);
    assert_eq!(shown["autoscaling_config"]["max_replicas"], 100);
    assert_eq!(
        shown["autoscaling_config"]["policy"]["policy_function"],
        "ray.serve.autoscaling_policy:default_autoscaling_policy"
    );
}

#[test]
fn names_of_foreign_code_are_not_shown() {
    let entry = json!({
        "autoscaling_config": {"max_replicas": 2, "policy": {"policy_function": "mine:policy"}},
        "request_router_config": {"request_router_class": "mine:Router"},
    });
    let shown = serde_json::to_string(&settle(entry)).unwrap();
    assert!(
        shown.contains("autoscaling_config") && !shown.contains("mine:"),
        "{shown}"
    );
    assert!(!shown.contains("request_router"), "{shown}");
}

#[test]
fn the_environments_are_merged_variable_by_variable() {
    let app = app(json!({
        "runtime_env": {"env_vars": {"A": "app", "B": "app"}, "pip": ["x"]},
        "deployments": [{"name": "D", "ray_actor_options": {
            "runtime_env": {"env_vars": {"B": "own", "C": "own"}, "pip": ["y"]}}}],
    }));
    let options = DeploymentOptions::default;
    let settled = resolve(&code(options()), app.deployment("D"), &app).unwrap();
    assert_eq!(
        Value::Object(settled.runtime_env),
        json!({"env_vars": {"A": "app", "B": "own", "C": "own"}, "pip": ["y"]})
    );
    let plain = resolve(&code(options()), None, &app).unwrap();
    assert_eq!(plain.env_vars().len(), 2);
}

#[test]
fn a_deployment_inherits_the_applications_logging_and_the_ingress_its_route() {
    let app = app(json!({"logging_config": {"log_level": "DEBUG"}, "route_prefix": "/x"}));
    let ingress = code(DeploymentOptions::default());
    let inner = DeploymentDefaults {
        name: "E".into(),
        ..Default::default()
    };
    let configs = resolve_application(&[ingress, inner], &app).unwrap();
    assert_eq!(
        configs[0].logging_config.as_ref().unwrap().log_level,
        "DEBUG"
    );
    let routes: Vec<_> = configs
        .iter()
        .map(|config| config.route_prefix.as_deref())
        .collect();
    assert_eq!(routes, [Some("/x"), None]);
}
