//! What is accepted first and refused once the code is known, in Ray's words.

use mobula_spec::{
    DeploymentOptions, late_check_deployment_names, late_check_route_prefix, resolve_application,
};
use serde_json::{Value, json};

use crate::setup::{app, code, late_error, settle};

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
