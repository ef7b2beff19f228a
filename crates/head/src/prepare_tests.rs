//! Code and config put together.

use std::collections::BTreeMap;

use mobula_app::{Application, BuildContext, Deployment, PathRoute, Registry};
use mobula_spec::ServeConfig;
use serde_json::{Value, json};

use crate::prepare::Preparer;
use crate::world::spec::{ApplicationSpec, DeploySpec};

fn preparer() -> Preparer {
    let mut registry = Registry::default();
    registry.register("code:app", |context: &BuildContext| {
        // Code may take a default from the environment, over which the config's is laid.
        let ongoing: u32 = context.env["ONGOING"].parse().unwrap();
        let front = Deployment::without_code("Front");
        let model = Deployment::without_code("Model")
            .option("max_ongoing_requests", ongoing)
            .option("num_replicas", 2);
        let mut application = Application::single(front);
        application.deployments.push(model);
        application.routes.push(PathRoute {
            path: "/v1".into(),
            deployment: "Model".into(),
        });
        Ok(application)
    });
    registry.register("code:broken", |_: &BuildContext| {
        let deployment = Deployment::without_code("D");
        Ok(Application::single(
            deployment.option("max_ongoing_requests", "many"),
        ))
    });
    let env = BTreeMap::from([("ONGOING".to_owned(), "11".to_owned())]);
    Preparer::new(registry, env)
}

async fn prepared(document: Value) -> DeploySpec {
    let checked = ServeConfig::from_json(document.to_string().as_bytes()).unwrap();
    preparer().prepare(&checked.config, 3.5).await
}

fn only(spec: DeploySpec) -> ApplicationSpec {
    spec.applications.into_iter().next().unwrap()
}

fn app(extra: Value) -> Value {
    let mut entry = json!({"name": "a", "import_path": "code:app"});
    entry
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    json!({"applications": [entry]})
}

#[tokio::test]
async fn the_config_lies_over_the_codes_options() {
    let config = app(json!({
        "runtime_env": {"env_vars": {"ONGOING": "12"}},
        "deployments": [{"name": "Model", "num_replicas": 3,
            "ray_actor_options": {"num_cpus": 0.5}, "user_config": {"k": [1]}}],
    }));
    let built = only(prepared(config).await).built.unwrap();
    assert_eq!(built.ingress, "Front");
    assert_eq!(built.routes, [("/v1".to_owned(), "Model".to_owned())]);
    let [front, model] = built.deployments.as_slice() else {
        panic!("two deployments")
    };
    assert_eq!((front.target, front.replica.max_ongoing_requests), (1, 5));
    assert_eq!((model.target, model.replica.max_ongoing_requests), (3, 12));
    assert_eq!(model.replica.required.to_string(), "0.5 CPU");
    assert_eq!(
        model.replica.user_config_json.as_deref(),
        Some(r#"{"k":[1]}"#)
    );
    assert_eq!(model.replica.env_vars["ONGOING"], "12");
    assert_eq!(model.config["num_replicas"], 3);
}

#[tokio::test]
async fn bundles_and_gangs_become_a_group_and_their_counts_whole_gangs() {
    let config = app(json!({
        "deployments": [{"name": "Model", "num_replicas": 6,
            "ray_actor_options": {"num_cpus": 0.5, "resources": {"ssd": 1}},
            "placement_group_bundles": [{"CPU": 1, "ssd": 1}, {"GPU": 2}],
            "placement_group_bundle_label_selector": [{"market": "spot"}],
            "gang_scheduling_config": {"gang_size": 3, "gang_placement_strategy": "SPREAD"}}],
    }));
    let mut half = config.clone();
    half["target_capacity"] = json!(60);
    let built = only(prepared(config).await).built.unwrap();
    let model = &built.deployments[1];
    assert_eq!(model.target, 6);
    assert_eq!(model.replica.required.to_string(), "0.5 CPU, 1 ssd");
    assert_eq!(
        model.replica.need().to_string(),
        "1 CPU, 1 ssd + 2 GPU for each of 3 replicas at once (SPREAD)"
    );
    assert_eq!(model.replica.group.labels[0].to_string(), "market=spot");
    assert_eq!(model.config["placement_group_bundles"][1]["GPU"], 2.0);
    let built = only(prepared(half).await).built.unwrap();
    assert_eq!(built.deployments[1].target, 6, "four, in whole gangs");
}

#[tokio::test]
async fn versions_change_with_what_they_stand_for() {
    let version = async |deployment: Value| {
        let built = only(prepared(app(json!({"deployments": [deployment]}))).await)
            .built
            .unwrap();
        let replica = built.deployments[1].replica.clone();
        (replica.code_version.clone(), replica.config_version.clone())
    };
    let base = version(json!({"name": "Model"})).await;
    assert_eq!(
        version(json!({"name": "Model", "num_replicas": 5})).await,
        base
    );
    let told = version(json!({"name": "Model", "user_config": {"k": 1}})).await;
    assert_eq!(told.0, base.0);
    assert_ne!(told.1, base.1);
    let new = version(json!({"name": "Model", "ray_actor_options": {"num_cpus": 2}})).await;
    assert_ne!(new.0, base.0);
}

#[tokio::test]
async fn target_capacity_scales_counts_and_disabled_proxies_mean_no_ingress() {
    let mut config = app(json!({}));
    config["target_capacity"] = json!(50);
    config["proxy_location"] = json!("Disabled");
    let spec = prepared(config).await;
    assert_eq!(spec.serving.ingress, None);
    assert_eq!(spec.serving.target_capacity, Some(50.0));
    let built = only(spec).built.unwrap();
    assert_eq!(built.deployments[1].target, 1);
}

#[tokio::test]
async fn wrong_options_in_the_code_are_the_applications_failure() {
    let config = json!({"applications": [{"name": "a", "import_path": "code:broken"}]});
    let error = only(prepared(config).await).built.unwrap_err();
    assert!(
        error.contains("deployment 'D'") && error.contains("max_ongoing_requests"),
        "{error}"
    );
}

#[tokio::test]
async fn a_budget_that_cannot_be_kept_is_said_so_and_so_is_a_name_in_it_that_does_not_exist() {
    let built = async |autoscaling: Value| {
        let config = app(json!({"mobula": {"autoscaling": autoscaling}}));
        only(prepared(config).await).built
    };
    let kept = built(json!({"max_replicas": 3, "priorities": {"Model": 2}})).await;
    assert_eq!(kept.unwrap().budget.unwrap().max_replicas, Some(3));
    assert_eq!(
        built(json!({"max_replicas": 2, "max_cpus": 8}))
            .await
            .unwrap_err(),
        "mobula.autoscaling: the least numbers of replicas of all deployments together need \
         3 replicas, 3 CPU, 0 GPU, allowed are max_replicas 2, max_cpus 8"
    );
    assert_eq!(
        built(json!({"max_cpus": 8, "priorities": {"Modell": 2}}))
            .await
            .unwrap_err(),
        "mobula.autoscaling.priorities.Modell: the application has no such deployment, it has: \
         Front, Model"
    );
}
