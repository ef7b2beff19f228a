//! What becomes of the code's options, the config and the defaults; what Ray says late.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use mobula_spec::{
    Application, AutoscalingConfig, Change, Checked, DeploymentConfig, DeploymentDefaults,
    DeploymentOptions, Given, MaxQueued, NumReplicas, RayActorOptions, Replicas, ServeConfig,
    code_version, diff, late_check_deployment_names, late_check_route_prefix, resolve,
    resolve_application,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn config(document: Value) -> Checked {
    ServeConfig::from_json(document.to_string().as_bytes()).unwrap()
}

/// An application with one entry for the deployment `D`.
fn app_with(mut entry: Value) -> Application {
    entry["name"] = "D".into();
    app(json!({"deployments": [entry]}))
}

fn app(mut fields: Value) -> Application {
    if fields.get("import_path").is_none() {
        fields["import_path"] = "a:b".into();
    }
    config(json!({"applications": [fields]}))
        .config
        .applications
        .remove(0)
}

fn code(options: DeploymentOptions) -> DeploymentDefaults {
    DeploymentDefaults {
        name: "D".into(),
        ingress: true,
        options,
    }
}

fn settle_with(options: DeploymentOptions, entry: Value) -> DeploymentConfig {
    let app = app_with(entry);
    resolve(&code(options), app.deployment("D"), &app).unwrap()
}

fn settle(entry: Value) -> DeploymentConfig {
    settle_with(DeploymentOptions::default(), entry)
}

fn late_error(entry: Value) -> String {
    let app = app_with(entry);
    resolve(
        &code(DeploymentOptions::default()),
        app.deployment("D"),
        &app,
    )
    .unwrap_err()
    .to_string()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn autoscaled(config: &DeploymentConfig) -> &AutoscalingConfig {
    match &config.replicas {
        Replicas::Autoscaled(config) => config,
        Replicas::Fixed(count) => panic!("fixed at {count}"),
    }
}

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

// === late errors ===

#[test]
fn bad_autoscaling_values_are_accepted_first_and_fail_late_with_rays_words() {
    let late = |config: Value| late_error(json!({"autoscaling_config": config}));
    let text = late(json!({"min_replicas": 5, "max_replicas": 3}));
    assert!(
        text.ends_with("max_replicas (3) must be greater than or equal to min_replicas (5)!"),
        "{text}"
    );
    assert!(text.starts_with("deployment 'D': "));
    let text = late(json!({"min_replicas": 2, "initial_replicas": 1, "max_replicas": 3}));
    assert!(
        text.ends_with("min_replicas (2) must be less than or equal to initial_replicas (1)!"),
        "{text}"
    );
    let text = late(json!({"initial_replicas": 4, "max_replicas": 3}));
    assert!(
        text.ends_with("max_replicas (3) must be greater than or equal to initial_replicas (4)!"),
        "{text}"
    );
    let text = late(json!({"max_replicas": 0, "upscale_delay_s": "x"}));
    assert!(
        text.contains("autoscaling_config.max_replicas: must be"),
        "{text}"
    );
    assert!(
        text.contains("autoscaling_config.upscale_delay_s: must be"),
        "{text}"
    );
}

#[test]
fn an_entry_for_a_deployment_that_the_code_does_not_have_fails_late() {
    let app = app(json!({"deployments": [{"name": "X"}]}));
    let error = late_check_deployment_names(&app, &["A", "B"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Deployment 'X' does not exist. Available: ['A', 'B']"
    );
    assert!(resolve_application(&[code(DeploymentOptions::default())], &app).is_err());
    late_check_deployment_names(&app, &["X"]).unwrap();
}

#[test]
fn route_prefixes_fail_late() {
    for good in [None, Some("/"), Some("/a"), Some("/a/b")] {
        late_check_route_prefix(good).unwrap();
    }
    for (bad, part) in [
        ("a", "must start"),
        ("", "must start"),
        ("/a/", "trailing"),
        ("/{x}", "wildcards"),
    ] {
        let text = late_check_route_prefix(Some(bad)).unwrap_err().to_string();
        assert!(
            text.starts_with("Invalid route_prefix '") && text.contains(part),
            "{text}"
        );
    }
}

#[test]
fn bundles_that_no_replica_could_use_fail_late_in_rays_words() {
    let first = "When using `placement_group_bundles`, the replica actor will be placed in the \
                 first bundle, so the resource requirements for the actor must be a subset of the \
                 first bundle.";
    let cases = [
        (json!([]), json!({}), "Got empty list instead."),
        (
            json!([{"CPU": 1}, {}]),
            json!({}),
            "Bundles cannot be an empty dictionary or resources with only 0 values.",
        ),
        (
            json!([{"CPU": 1}, {"GPU": -1}]),
            json!({}),
            "`GPU` must be 0 or more, got -1",
        ),
        (
            json!([{"CPU": 0.5}, {"CPU": 1}]),
            json!({}),
            "`num_cpus` for the actor is 1, but the bundle only has 0.5 `CPU` specified.",
        ),
        (
            json!([{"CPU": 1}, {"GPU": 1}]),
            json!({"num_gpus": 1}),
            "`num_gpus` for the actor is 1, but the bundle only has 0 `GPU` specified.",
        ),
        (
            json!([{"CPU": 1}]),
            json!({"memory": 1e9}),
            "`memory` for the actor is 1000000000, but the bundle only has 0 `memory` specified.",
        ),
        (
            json!([{"CPU": 1, "ssd": 1}]),
            json!({"resources": {"ssd": 2}}),
            "`ssd` requirement for the actor is 2, but the bundle only has 1 `ssd` specified.",
        ),
    ];
    for (bundles, actor, says) in cases {
        let text = late_error(json!({
            "placement_group_bundles": bundles, "ray_actor_options": actor,
        }));
        assert!(text.contains(says), "{text}");
        assert_eq!(
            text.contains(first),
            says.contains("for the actor"),
            "{text}"
        );
    }
    let fits = settle(json!({
        "placement_group_bundles": [{"CPU": 2, "ssd": 1}, {"GPU": 1}],
        "placement_group_strategy": "STRICT_SPREAD",
        "placement_group_bundle_label_selector": [{"market": "spot"}],
        "ray_actor_options": {"num_cpus": 2, "resources": {"ssd": 1}},
    }));
    assert_eq!(fits.placement_group_bundles.unwrap().len(), 2);
}

#[test]
fn what_is_placed_at_once_has_a_limit_and_selectors_a_form() {
    let text = late_error(json!({
        "num_replicas": 600,
        "gang_scheduling_config": {"gang_size": 600},
        "placement_group_bundles": [{"CPU": 1}, {"CPU": 1}],
    }));
    let says = "placement_group_bundles times gang_size is 1200, at most 1000 bundles";
    assert!(text.contains(says), "{text}");
    let text = late_error(json!({
        "placement_group_bundles": [{"CPU": 1}],
        "placement_group_bundle_label_selector": [{"market": "in(spot"}],
    }));
    assert!(text.contains("`in(spot` is no label selector"), "{text}");
    for (resources, says) in [
        (
            json!({"GPU": 1}),
            "instead of 'CPU' and 'GPU' in 'resources'",
        ),
        (json!({"memory": 1}), "ray_actor_options.memory"),
    ] {
        let text = late_error(json!({"ray_actor_options": {"resources": resources}}));
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn placement_and_actor_mistakes_fail_late() {
    let text = late_error(json!({"placement_group_strategy": "PACK"}));
    assert!(
        text.contains("`placement_group_bundles` must also be provided"),
        "{text}"
    );
    let bundles = json!([{"CPU": 1}]);
    let text =
        late_error(json!({"placement_group_strategy": "ANY", "placement_group_bundles": bundles}));
    assert!(text.contains("must be one of PACK, SPREAD"), "{text}");
    let text = late_error(json!({"max_replicas_per_node": 101}));
    assert!(text.contains("range of [1, 100]"), "{text}");
    let actor = json!({"name": "a", "actor_class": "x:Y"});
    let text = late_error(json!({"deployment_actors": [actor, actor]}));
    assert!(text.contains("Duplicate name(s): ['a']"), "{text}");
    let text = late_error(json!({"deployment_actors": [{"name": "a"}]}));
    assert!(
        text.contains("deployment_actors[0]: `actor_class` is required"),
        "{text}"
    );
    let text = late_error(json!({"request_router_config": {"max_backoff_s": 0}}));
    assert!(
        text.contains("request_router_config.max_backoff_s"),
        "{text}"
    );
}

// === versions and changes ===

#[test]
fn the_code_version_is_the_same_in_every_process() {
    let one = app(json!({"args": {"a": 1, "b": 2}, "name": "x"}));
    let two = app(json!({"name": "y", "args": {"b": 2, "a": 1}, "route_prefix": "/y"}));
    assert_eq!(code_version(&one), code_version(&two));
    // Written down once: a release that changes it replaces every replica of every user.
    assert_eq!(
        code_version(&app(json!({}))),
        "5f168d29966c448907f584e11d0f4deb82d99198db01d588aa1ac22e0c919dfc"
    );
}

#[test]
fn the_code_version_follows_what_the_code_is_made_of() {
    let base = code_version(&app_with(json!({})));
    let changed = [
        app(json!({"import_path": "a:c", "deployments": [{"name": "D"}]})),
        app(json!({"args": {"a": 1}, "deployments": [{"name": "D"}]})),
        app(json!({"runtime_env": {"env_vars": {"A": "b"}}, "deployments": [{"name": "D"}]})),
        app(json!({"autoscaling_policy": {"policy_function": "a:b"}})),
        app_with(json!({"autoscaling_config": {"policy": {"policy_function": "a:b"}}})),
        app_with(json!({"request_router_config": {"max_backoff_s": 1}})),
        app_with(json!({"deployment_actors": [{"name": "a", "actor_class": "x:Y"}]})),
    ];
    for app in &changed {
        assert_ne!(code_version(app), base, "{}", app.raw);
    }
    for entry in [json!({"num_replicas": 3}), json!({"user_config": {"a": 1}})] {
        assert_eq!(code_version(&app_with(entry)), base);
    }
}

#[test]
fn every_field_costs_what_it_costs_on_ray() {
    let auto = |config: Value| json!({"num_replicas": "auto", "autoscaling_config": config});
    let cases = [
        (json!({}), json!({}), Change::Nothing),
        (
            json!({}),
            json!({"max_ongoing_requests": 5}),
            Change::Nothing,
        ),
        (json!({}), json!({"num_replicas": 2}), Change::Retarget),
        (
            json!({}),
            json!({"max_queued_requests": 2}),
            Change::Retarget,
        ),
        (
            json!({}),
            json!({"rolling_update_percentage": 0.5}),
            Change::Retarget,
        ),
        (
            json!({}),
            json!({"max_surge_percent": 50}),
            Change::Retarget,
        ),
        (
            json!({}),
            json!({"graceful_shutdown_timeout_s": 1}),
            Change::Retarget,
        ),
        (
            json!({}),
            json!({"health_check_period_s": 1}),
            Change::Retarget,
        ),
        (
            json!({}),
            json!({"health_check_timeout_s": 1}),
            Change::Retarget,
        ),
        (
            auto(json!({})),
            auto(json!({"max_replicas": 9})),
            Change::Retarget,
        ),
        (
            auto(json!({})),
            auto(json!({"metrics_interval_s": 9})),
            Change::Reconfigure,
        ),
        (
            auto(json!({})),
            auto(json!({"look_back_period_s": 9})),
            Change::Reconfigure,
        ),
        (
            json!({}),
            json!({"max_ongoing_requests": 6}),
            Change::Reconfigure,
        ),
        (json!({}), json!({"user_config": {}}), Change::Reconfigure),
        (
            json!({}),
            json!({"backpressure_config": {"status_code": 429}}),
            Change::Reconfigure,
        ),
        (
            json!({}),
            json!({"graceful_shutdown_wait_loop_s": 1}),
            Change::Reconfigure,
        ),
        (
            json!({}),
            json!({"logging_config": {}}),
            Change::Reconfigure,
        ),
        (
            json!({}),
            json!({"ray_actor_options": {"num_cpus": 2}}),
            Change::Replace,
        ),
        (
            json!({}),
            json!({"ray_actor_options": {"num_cpus": 1}}),
            Change::Nothing,
        ),
        (
            json!({}),
            json!({"placement_group_bundles": [{"CPU": 1}]}),
            Change::Replace,
        ),
        (
            json!({}),
            json!({"max_replicas_per_node": 1}),
            Change::Replace,
        ),
        (
            json!({}),
            json!({"gang_scheduling_config": {"gang_size": 1}}),
            Change::Replace,
        ),
        (
            json!({}),
            json!({"request_router_config": {"max_backoff_s": 1}}),
            Change::Replace,
        ),
        (
            json!({"num_replicas": 2}),
            json!({"user_config": {}}),
            Change::Reconfigure,
        ),
    ];
    for (old, new, expected) in cases {
        let (a, b) = (settle(old.clone()), settle(new.clone()));
        assert_eq!(diff(&a, &b), expected, "{old} -> {new}");
        assert_eq!(diff(&b, &a), expected, "{new} -> {old}");
        assert_eq!(
            a.process_version() != b.process_version(),
            expected == Change::Replace
        );
    }
}

#[test]
fn a_route_is_told_to_the_ingress_and_arguments_replace_it() {
    let settle =
        |app: &Application| resolve(&code(DeploymentOptions::default()), None, app).unwrap();
    let base = settle(&app(json!({})));
    assert_eq!(
        diff(&base, &settle(&app(json!({"route_prefix": "/x"})))),
        Change::Reconfigure
    );
    assert_eq!(
        diff(&base, &settle(&app(json!({"args": {"a": 1}})))),
        Change::Replace
    );
    assert_eq!(
        diff(
            &base,
            &settle(&app(json!({"runtime_env": {"env_vars": {"A": "b"}}})))
        ),
        Change::Replace
    );
}

// === properties ===

fn entry() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        Just(json!("auto")),
        Just(Value::Null),
        (1u32..50).prop_map(Value::from)
    ];
    let autoscaling = (0u32..5, 5u32..20)
        .prop_map(|(min, max)| json!({"min_replicas": min, "max_replicas": max}));
    let count = prop::option::of(number);
    let scaling = prop::option::of(autoscaling);
    let seconds = prop::option::of(0.001f64..1e6);
    let queued = prop::option::of(prop_oneof![Just(-1i64), 1i64..100]);
    let user = prop::option::of(prop::collection::btree_map("[a-c]", any::<i32>(), 0..3));
    let cpus = prop::option::of(0.0f64..64.0);
    (count, scaling, seconds, queued, user, cpus).prop_map(
        |(count, scaling, seconds, queued, user, cpus)| {
            let mut entry = json!({"name": "D"});
            if let Some(count) = &count {
                entry["num_replicas"] = count.clone();
            }
            if let Some(scaling) = scaling.filter(|_| !count.is_some_and(|n| n.is_number())) {
                entry["autoscaling_config"] = scaling;
            }
            if let Some(seconds) = seconds {
                entry["health_check_period_s"] = seconds.into();
                entry["graceful_shutdown_timeout_s"] = seconds.into();
            }
            if let Some(queued) = queued {
                entry["max_queued_requests"] = queued.into();
            }
            if let Some(user) = user {
                entry["user_config"] = json!(user);
            }
            if let Some(cpus) = cpus {
                entry["ray_actor_options"] = json!({"num_cpus": cpus});
            }
            entry
        },
    )
}

fn document() -> impl Strategy<Value = Value> {
    let locations = ["Disabled", "HeadOnly", "EveryNode"];
    let application = (prop::collection::vec(entry(), 0..3), any::<bool>());
    let applications = prop::collection::vec(application, 0..4);
    let location = prop::sample::select(locations.to_vec());
    let capacity = prop::option::of(0.0f64..=100.0);
    let logging = prop::option::of(prop::sample::select(vec!["DEBUG", "INFO"]));
    let timeout = prop::option::of(-5.0f64..1e9);
    (
        applications,
        location,
        capacity,
        logging,
        timeout,
        any::<u16>(),
    )
        .prop_map(
            |(applications, location, capacity, logging, timeout, port)| {
                let applications: Vec<Value> = applications
                    .into_iter()
                    .enumerate()
                    .map(|(n, (deployments, routed))| {
                        let route = routed.then(|| format!("/{n}"));
                        json!({
                            "name": format!("app{n}"), "route_prefix": route,
                            "import_path": "a:b", "deployments": deployments,
                        })
                    })
                    .collect();
                let logging = logging.map(|level| json!({"log_level": level}));
                json!({
                    "proxy_location": location, "target_capacity": capacity,
                    "logging_config": logging, "applications": applications,
                    "http_options": {
                        "port": port, "request_timeout_s": timeout,
                        "ssl_keyfile": "k", "ssl_certfile": "c", "ssl_keyfile_password": "secret",
                    },
                })
            },
        )
}

proptest! {
    #[test]
    fn a_config_written_out_reads_back_to_the_same(document in document()) {
        let config = config(document).config;
        let text = config.to_json().to_string();
        prop_assert_eq!(&ServeConfig::from_json(text.as_bytes()).unwrap().config, &config);
        // JSON is YAML, but for numbers such as 1e-7, which YAML 1.1 takes for words.
        if !text.contains("e-") {
            prop_assert_eq!(&ServeConfig::from_yaml(&text).unwrap().config, &config);
        }
    }

    #[test]
    fn a_deployment_does_not_differ_from_itself(entry in entry()) {
        let one = settle(entry.clone());
        let two = settle(entry);
        prop_assert_eq!(diff(&one, &two), Change::Nothing);
        prop_assert_eq!(one.process_version(), two.process_version());
    }

    #[test]
    fn a_change_costs_the_same_both_ways_and_something_if_configs_differ(
        old in entry(), new in entry(),
    ) {
        let (old, new) = (settle(old), settle(new));
        let change = diff(&old, &new);
        prop_assert_eq!(change, diff(&new, &old));
        prop_assert_eq!(change == Change::Nothing, old == new);
        prop_assert_eq!(change == Change::Replace, old.process_version() != new.process_version());
        if change == Change::Reconfigure {
            prop_assert_ne!(old.settings_version(), new.settings_version());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = ServeConfig::from_json(&bytes);
        let _ = ServeConfig::from_yaml(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_config_with_one_value_exchanged_is_read_or_refused(
        document in document(), at in any::<prop::sample::Index>(), value in any::<i64>(),
    ) {
        let text = document.to_string();
        let places: Vec<usize> = text.match_indices(':').map(|(at, _)| at + 1).collect();
        let at = places[at.index(places.len())];
        let exchanged = format!("{}{value},\"x\":{}", &text[..at], &text[at..]);
        if let Ok(checked) = ServeConfig::from_json(exchanged.as_bytes()) {
            let text = checked.config.to_json().to_string();
            prop_assert_eq!(ServeConfig::from_json(text.as_bytes()).unwrap().config, checked.config);
        }
    }
}

/// A float that comes back from storage a hair off would reconfigure replicas for nothing. This
/// one does, unless `serde_json` is built to read numbers exactly.
#[test]
fn floats_come_back_from_storage_exactly() {
    let text =
        r#"{"applications": [], "http_options": {"request_timeout_s": 1.2745252045451971e17}}"#;
    let config = ServeConfig::from_json(text.as_bytes()).unwrap().config;
    assert_eq!(
        config.http_options.request_timeout_s,
        Some(1.274_525_204_545_197_1e17)
    );
    let again = ServeConfig::from_json(config.to_json().to_string().as_bytes())
        .unwrap()
        .config;
    assert_eq!(again, config);
}

#[test]
fn secrets_are_not_shown() {
    let checked = config(json!({"applications": [], "http_options": {
        "ssl_keyfile": "k", "ssl_certfile": "c", "ssl_keyfile_password": "hunter2"}}));
    let http = &checked.config.http_options;
    assert!(!format!("{http:?}").contains("hunter2"));
    assert!(!serde_json::to_string(http).unwrap().contains("hunter2"));
    assert_eq!(
        http.ssl_keyfile_password.as_ref().unwrap().reveal(),
        "hunter2"
    );
}
