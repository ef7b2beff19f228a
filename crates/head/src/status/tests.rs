//! The document as a whole, and its key sets by Ray version.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{About, ApiType, LoopStats, document};
use crate::world::Event;
use crate::world::fixtures::{V1, Version, application, at, config};
use crate::world::sim::{BAD_CODE, Sim};

fn about(version: &str) -> About {
    About {
        ray_version: version.parse().unwrap(),
        node_id: "a".repeat(56),
        node_ip: "192.0.2.2".to_owned(),
        pid: 42,
        started_at_s: 1_700_000_000.0,
    }
}

fn of(sim: &Sim, version: &str) -> Value {
    let stats = LoopStats {
        loops: 10,
        pause_s: 0.1,
        ..LoopStats::default()
    };
    document(&sim.world, &about(version), &stats, None, at(5_000))
}

fn running() -> Sim {
    let mut sim = Sim::new();
    sim.add_worker(4.0);
    sim.add_router();
    let apps = vec![
        application("app", V1),
        application(
            "bad",
            Version {
                code: BAD_CODE,
                ..V1
            },
        ),
    ];
    sim.observe(Event::Deploy(Box::new(config(apps))));
    sim.settle();
    sim
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn the_whole_document() {
    let text = serde_json::to_string_pretty(&of(&running(), "2.60.0")).unwrap();
    insta::assert_snapshot!(text);
}

#[test]
fn keys_at_the_strict_levels_are_exactly_those_of_2_60() {
    let document = of(&running(), "2.60.0");
    let top = [
        "controller_info",
        "proxy_location",
        "http_options",
        "grpc_options",
        "proxies",
        "applications",
        "target_capacity",
        "target_groups",
        "controller_health_metrics",
        "restores_unset_config_options",
    ];
    assert_eq!(keys(&document), BTreeSet::from(top));
    let application = [
        "name",
        "route_prefix",
        "docs_path",
        "status",
        "message",
        "last_deployed_time_s",
        "deployed_app_config",
        "source",
        "deployments",
        "external_scaler_enabled",
        "deployment_topology",
    ];
    assert_eq!(
        keys(&document["applications"]["app"]),
        BTreeSet::from(application)
    );
    let deployment = [
        "name",
        "status",
        "status_trigger",
        "message",
        "deployment_config",
        "target_num_replicas",
        "required_resources",
        "replicas",
        "recent_dead_replicas",
    ];
    let shown = &document["applications"]["app"]["deployments"]["D"];
    assert_eq!(keys(shown), BTreeSet::from(deployment));
}

#[test]
fn older_command_lines_see_only_keys_that_they_know() {
    let sim = running();
    let new = of(&sim, "2.60.0");
    let without = |version: &str, at: fn(&Value) -> &Value| -> Vec<String> {
        let old = of(&sim, version);
        let missing = keys(at(&new))
            .into_iter()
            .filter(|key| !keys(at(&old)).contains(key));
        missing.map(str::to_owned).collect()
    };
    let top: fn(&Value) -> &Value = |document| document;
    let app: fn(&Value) -> &Value = |document| &document["applications"]["app"];
    let deployment: fn(&Value) -> &Value =
        |document| &document["applications"]["app"]["deployments"]["D"];
    let newest = ["controller_health_metrics", "restores_unset_config_options"];
    assert_eq!(without("2.55.1", top), newest);
    assert_eq!(without("2.53.0", app), [""; 0]);
    assert_eq!(without("2.53.0", deployment), ["recent_dead_replicas"]);
    assert_eq!(
        without("2.51.0", app),
        ["deployment_topology", "external_scaler_enabled"]
    );
    assert_eq!(
        without("2.40.0", deployment),
        ["recent_dead_replicas", "required_resources"]
    );
    assert!(without("2.40.0", top).contains(&"target_groups".to_owned()));
    assert!(
        of(&sim, "2.55.1")["grpc_options"]
            .get("enable_reflection")
            .is_none()
    );
}

#[test]
fn a_deployment_that_cannot_start_is_unhealthy_to_the_oldest_command_line() {
    let sim = running();
    let shown = |version: &str| {
        let document = of(&sim, version);
        let bad = &document["applications"]["bad"];
        assert_eq!(bad["status"], "DEPLOY_FAILED");
        bad["deployments"]["D"]["status"].clone()
    };
    assert_eq!(shown("2.41.0"), "DEPLOY_FAILED");
    assert_eq!(shown("2.40.0"), "UNHEALTHY");
}

#[test]
fn nothing_deployed_is_rays_empty_document_in_every_version() {
    let empty = json!({
        "controller_info": {}, "proxies": {}, "applications": {}, "target_capacity": null,
    });
    assert_eq!(of(&Sim::new(), "2.60.0"), empty);
    assert_eq!(of(&Sim::new(), "2.40.0"), empty);
}

#[test]
fn imperative_applications_do_not_exist_here() {
    let sim = running();
    let stats = LoopStats::default();
    let about = about("2.60.0");
    let filtered = document(&sim.world, &about, &stats, Some(ApiType::Imperative), at(0));
    assert_eq!(filtered["applications"], json!({}));
    assert_eq!(filtered["controller_info"]["node_id"], about.node_id);
}
