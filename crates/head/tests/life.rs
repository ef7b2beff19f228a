//! Deploy, update, delete, failure and restart, over the real admin API and the real protocol.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::router::{FakeRouter, routed};
use common::worker::{FakeWorker, starts_all};
use common::{Head, replicas};
use mobula_store::{EmbeddedStore, MemoryStore};
use serde_json::{Value, json};

fn one(deployment: Value) -> Value {
    json!({"applications": [{
        "name": "app1",
        "route_prefix": "/a",
        "import_path": "test:one",
        "deployments": [deployment],
    }]})
}

#[tokio::test]
async fn a_config_is_deployed_updated_and_deleted() {
    let head = Head::start(Arc::new(MemoryStore::default())).await;
    let worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    let mut router = FakeRouter::start(&head).await;

    let answer = head
        .put(&one(json!({"name": "D", "num_replicas": 2})))
        .await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    let document = head.when_running("app1").await;
    let first = replicas(&document, "app1", "D");
    assert_eq!(first.len(), 2);
    let table = router
        .table_when(|table| routed(table, "app1") == first)
        .await;
    let ingress = table.ingress.clone().unwrap();
    assert_eq!((ingress.http_port, ingress.grpc_port), (8000, 9000));
    assert_eq!(table.applications[0].route_prefix.as_deref(), Some("/a"));
    assert_eq!(table.applications[0].deployments[0].max_ongoing_requests, 7);
    let assigned = worker.seen.borrow().replicas.clone();
    assert_eq!(assigned.len(), 2);
    assert_eq!(assigned[0].import_path, "test:one");

    // The same again changes nothing.
    head.put(&one(json!({"name": "D", "num_replicas": 2})))
        .await;
    assert_eq!(
        replicas(&head.when_running("app1").await, "app1", "D"),
        first
    );

    // A new environment means new processes.
    let update = json!({"name": "D", "num_replicas": 2,
        "ray_actor_options": {"num_cpus": 1, "runtime_env": {"env_vars": {"K": "v"}}}});
    head.put(&one(update)).await;
    let document = head
        .document_when(|document| {
            let ids = replicas(document, "app1", "D");
            document["applications"]["app1"]["status"] == "RUNNING"
                && ids.len() == 2
                && ids.iter().all(|id| !first.contains(id))
        })
        .await;
    let second = replicas(&document, "app1", "D");
    router
        .table_when(|table| routed(table, "app1") == second)
        .await;
    assert_eq!(worker.seen.borrow().replicas[0].env_vars["K"], "v");

    let delete = common::http::request(head.admin, "DELETE", "/api/serve/applications/", &[], "");
    assert_eq!(delete.await.status, 200);
    let gone = json!({
        "controller_info": {}, "proxies": {}, "applications": {}, "target_capacity": null,
    });
    assert_eq!(head.document().await, gone);
    router
        .table_when(|table| table.ingress.is_none() && table.applications.is_empty())
        .await;
    assert!(worker.seen.borrow().replicas.is_empty() && !worker.seen.borrow().retire);
    head.stop().await;
}

#[tokio::test]
async fn a_replica_stays_assigned_until_the_router_moved_on() {
    let head = Head::start(Arc::new(MemoryStore::default())).await;
    let worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    let mut router = FakeRouter::start(&head).await;
    head.put(&one(json!({"name": "D", "num_replicas": 2})))
        .await;
    let before = replicas(&head.when_running("app1").await, "app1", "D");
    router
        .table_when(|table| routed(table, "app1") == before)
        .await;

    router.silent.send_replace(true);
    head.put(&one(json!({"name": "D", "num_replicas": 1})))
        .await;
    router
        .table_when(|table| routed(table, "app1").len() == 1)
        .await;
    // Several reports and ticks go by.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(worker.seen.borrow().replicas.len(), 2);
    router.silent.send_replace(false);
    let mut seen = worker.seen.clone();
    let dropped = seen.wait_for(|assignment| assignment.replicas.len() == 1);
    tokio::time::timeout(common::PATIENCE, dropped)
        .await
        .unwrap()
        .unwrap();
    head.stop().await;
}

#[tokio::test]
async fn a_deployment_that_does_not_start_fails_with_its_text() {
    let head = Head::start(Arc::new(MemoryStore::default())).await;
    let verdict = Arc::new(|_: &_| Some("cannot open model.onnx".to_owned()));
    let _worker = FakeWorker::start(&head, 4.0, verdict).await;
    head.put(&one(json!({"name": "D"}))).await;
    let document = head
        .document_when(|document| document["applications"]["app1"]["status"] == "DEPLOY_FAILED")
        .await;
    let app = &document["applications"]["app1"];
    assert_eq!(app["message"], "Failed to update the deployments ['D'].");
    let deployment = &app["deployments"]["D"];
    assert_eq!(deployment["status"], "DEPLOY_FAILED");
    assert_eq!(deployment["status_trigger"], "REPLICA_STARTUP_FAILED");
    let message = deployment["message"].as_str().unwrap();
    assert!(
        message.starts_with("The deployment failed to start 3 times in a row"),
        "{message}"
    );
    assert!(message.ends_with("cannot open model.onnx"), "{message}");
    // The last one may still be on its way out.
    let dead = deployment["recent_dead_replicas"].as_array().unwrap().len();
    assert!((2..=3).contains(&dead), "{dead}");
    head.stop().await;
}

#[tokio::test]
async fn what_code_and_config_do_not_agree_on_fails_late_and_the_old_version_serves() {
    let head = Head::start(Arc::new(MemoryStore::default())).await;
    let _worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    head.put(&one(json!({"name": "D"}))).await;
    let before = replicas(&head.when_running("app1").await, "app1", "D");

    let answer = head.put(&one(json!({"name": "X"}))).await;
    assert_eq!(answer.status, 200);
    // A busy head answers before it has looked at what follows.
    let document = head
        .document_when(|document| {
            let message = document["applications"]["app1"]["message"].as_str();
            message.is_some_and(|message| message.contains("rolled back"))
        })
        .await;
    let app = &document["applications"]["app1"];
    assert_eq!(app["status"], "DEPLOY_FAILED");
    let message = app["message"].as_str().unwrap();
    assert!(
        message.ends_with(
            "Deployment 'X' does not exist. Available: ['D']\nrolled back to revision 1, which \
             is serving"
        ),
        "{message}"
    );
    assert_eq!(replicas(&document, "app1", "D"), before);

    // A first version that cannot be built has nothing to show.
    let unbuildable = json!({"applications": [
        {"name": "bad", "route_prefix": "/b", "import_path": "test:unbuildable"},
        {"name": "worse", "route_prefix": "/w", "import_path": "test:unbuildable",
         "args": {"panic": true}},
    ]});
    assert_eq!(head.put(&unbuildable).await.status, 200);
    let document = head.document().await;
    let app = &document["applications"]["bad"];
    assert_eq!(app["status"], "DEPLOY_FAILED");
    assert_eq!(app["message"], "model: no such model");
    assert_eq!(app["route_prefix"], Value::Null);
    assert_eq!(app["deployments"], json!({}));
    assert_eq!(app["deployment_topology"], Value::Null);
    let message = document["applications"]["worse"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.contains("the builder panics"), "{message}");
    head.stop().await;
}

#[tokio::test]
async fn a_config_survives_the_head_and_its_workers() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("state");
    let deployed = {
        let store = Arc::new(EmbeddedStore::open(&path).unwrap());
        let head = Head::start(store).await;
        let _worker = FakeWorker::start(&head, 4.0, starts_all()).await;
        head.put(&one(json!({"name": "D", "num_replicas": 2})))
            .await;
        let document = head.when_running("app1").await;
        head.stop().await;
        document["applications"]["app1"]["last_deployed_time_s"].clone()
    };
    let head = Head::start(Arc::new(EmbeddedStore::open(&path).unwrap())).await;
    let document = head.document().await;
    assert_eq!(document["applications"]["app1"]["status"], "DEPLOYING");
    let _worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    let document = head.when_running("app1").await;
    assert_eq!(replicas(&document, "app1", "D").len(), 2);
    assert_eq!(
        document["applications"]["app1"]["last_deployed_time_s"],
        deployed
    );
    head.stop().await;
}

#[tokio::test]
async fn a_killed_head_is_followed_by_one_that_restarts_nothing() {
    let store = Arc::new(MemoryStore::default());
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let head = Head::start_at(store.clone(), dir.clone()).await;
    let worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    head.put(&one(json!({"name": "D", "num_replicas": 2})))
        .await;
    let before = replicas(&head.when_running("app1").await, "app1", "D");
    head.kill().await;

    let head = Head::start_at(store, dir).await;
    let after = replicas(&head.when_running("app1").await, "app1", "D");
    assert_eq!(before, after);
    assert_eq!(worker.seen.borrow().replicas.len(), 2);
    head.stop().await;
}

#[tokio::test]
async fn a_lost_worker_is_replaced() {
    let head = Head::start(Arc::new(MemoryStore::default())).await;
    let worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    let mut router = FakeRouter::start(&head).await;
    head.put(&one(json!({"name": "D"}))).await;
    let before = replicas(&head.when_running("app1").await, "app1", "D");
    let second = FakeWorker::start(&head, 4.0, starts_all()).await;
    worker.kill();
    let table = router
        .table_when(|table| {
            let now = routed(table, "app1");
            now.len() == 1 && now != before
        })
        .await;
    let replica = &table.applications[0].deployments[0].replicas[0];
    assert_eq!(replica.worker_id, second.id);
    head.when_running("app1").await;
    head.stop().await;
}
