//! Versions, and what a change costs.

use mobula_spec::{Application, Change, DeploymentOptions, code_version, diff, resolve};
use serde_json::{Value, json};

use crate::setup::{app, app_with, code, settle};

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
