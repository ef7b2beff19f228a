//! Histories, rollbacks, changes of one application, and dry runs, over the real admin API.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::http::{Answer, request};
use common::router::{FakeRouter, routed};
use common::worker::{FakeWorker, Verdict, starts_all};
use common::{Head, replicas};
use mobula_head::history::REVISIONS_KEPT_MAX;
use mobula_store::MemoryStore;
use serde_json::{Value, json};

const BROWSER: &[(&str, &str)] = &[("user-agent", "Mozilla/5.0")];

async fn head() -> Head {
    Head::start(Arc::new(MemoryStore::default())).await
}

/// Replicas whose environment says so do not start.
fn starts_the_good() -> Verdict {
    Arc::new(|replica| {
        let bad = replica.env_vars.contains_key("BAD");
        bad.then(|| "cannot open model.onnx".to_owned())
    })
}

fn entry(name: &str, env_vars: Value) -> Value {
    json!({
        "name": name,
        "route_prefix": format!("/{name}"),
        "import_path": "test:one",
        "runtime_env": {"env_vars": env_vars},
    })
}

fn config(env_vars: Value) -> Value {
    json!({"applications": [entry("app1", env_vars)]})
}

async fn post(head: &Head, path: &str, body: &str) -> Answer {
    request(head.admin, "POST", path, &[], body).await
}

async fn history(head: &Head) -> Value {
    let answer = head.get("/api/mobula/history").await;
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.body).unwrap()
}

/// (revision, outcome), newest first.
fn outcomes(history: &Value) -> Vec<(u64, String)> {
    let revisions = history["revisions"].as_array().unwrap();
    let outcome = |r: &Value| r["outcome"].as_str().unwrap().to_owned();
    revisions
        .iter()
        .map(|r| (r["revision"].as_u64().unwrap(), outcome(r)))
        .collect()
}

fn is_failed(document: &Value) -> bool {
    document["applications"]["app1"]["status"] == "DEPLOY_FAILED"
}

#[tokio::test]
async fn a_failed_rollout_returns_to_the_version_that_never_stopped_serving() {
    let store = Arc::new(MemoryStore::default());
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let head = Head::start_at(store.clone(), dir.clone()).await;
    let _worker = FakeWorker::start(&head, 4.0, starts_the_good()).await;
    let mut router = FakeRouter::start(&head).await;
    head.put(&config(json!({"V": "1"}))).await;
    let before = replicas(&head.when_running("app1").await, "app1", "D");
    router
        .table_when(|table| routed(table, "app1") == before)
        .await;

    // From now on every table names the same replica.
    let mut tables = router.table.clone();
    let expected = before.clone();
    let watched = tokio::spawn(async move {
        let mut seen = 0;
        while tables.changed().await.is_ok() {
            let now = routed(&tables.borrow_and_update(), "app1");
            assert_eq!(now, expected);
            seen += 1;
        }
        seen
    });
    assert_eq!(head.put(&config(json!({"BAD": "1"}))).await.status, 200);
    let document = head
        .document_when(|document| {
            let text = document["applications"]["app1"]["message"].as_str();
            is_failed(document) && text.is_some_and(|text| text.contains("rolled back"))
        })
        .await;
    let app = &document["applications"]["app1"];
    let message = app["message"].as_str().unwrap();
    assert!(message.contains("cannot open model.onnx"), "{message}");
    assert!(
        message.ends_with("\nrolled back to revision 1, which is serving"),
        "{message}"
    );
    assert_eq!(
        app["deployed_app_config"]["runtime_env"]["env_vars"]["V"],
        "1"
    );
    let document = head
        .document_when(|document| {
            document["applications"]["app1"]["deployments"]["D"]["status"] == "HEALTHY"
        })
        .await;
    assert!(is_failed(&document));
    assert_eq!(replicas(&document, "app1", "D"), before);

    let listed = history(&head).await;
    let expected = [(3, "running"), (2, "rolled_back"), (1, "superseded")];
    assert_eq!(
        outcomes(&listed),
        expected.map(|(revision, outcome)| (revision, outcome.to_owned()))
    );
    let error = listed["revisions"][1]["errors"]["app1"].as_str().unwrap();
    assert!(error.contains("cannot open model.onnx"), "{error}");

    // The next head knows it, and starts nothing again.
    head.kill().await;
    drop(router);
    watched.await.unwrap();
    let head = Head::start_at(store, dir).await;
    let document = head
        .document_when(|document| {
            document["applications"]["app1"]["deployments"]["D"]["status"] == "HEALTHY"
        })
        .await;
    assert!(is_failed(&document));
    assert_eq!(replicas(&document, "app1", "D"), before);
    head.put(&config(json!({"V": "1"}))).await;
    let document = head.when_running("app1").await;
    assert_eq!(document["applications"]["app1"]["message"], "");
    head.stop().await;
}

#[tokio::test]
async fn a_head_that_restarts_during_a_rollout_still_takes_it_back() {
    let store = Arc::new(MemoryStore::default());
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let head = Head::start_at(store.clone(), dir.clone()).await;
    let _worker = FakeWorker::start(&head, 4.0, starts_the_good()).await;
    head.put(&config(json!({"V": "1"}))).await;
    let before = replicas(&head.when_running("app1").await, "app1", "D");
    head.put(&config(json!({"BAD": "1"}))).await;
    head.kill().await;
    let head = Head::start_at(store, dir).await;
    let document = head
        .document_when(|document| {
            let app = &document["applications"]["app1"];
            app["status"] == "DEPLOY_FAILED" && app["deployments"]["D"]["status"] == "HEALTHY"
        })
        .await;
    let message = document["applications"]["app1"]["message"].as_str();
    assert!(message.unwrap().contains("rolled back to revision 1"));
    assert_eq!(replicas(&document, "app1", "D"), before);
    head.stop().await;
}

#[tokio::test]
async fn a_version_that_is_not_well_soon_after_its_start_is_taken_back_also_by_the_next_head() {
    let store = Arc::new(MemoryStore::default());
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let head = Head::start_at(store.clone(), dir.clone()).await;
    let worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    head.put(&config(json!({"V": "1"}))).await;
    head.when_running("app1").await;
    head.put(&config(json!({"SICKLY": "1"}))).await;
    head.when_running("app1").await;
    assert_eq!(outcomes(&history(&head).await)[0].1, "running");
    head.kill().await;

    let head = Head::start_at(store, dir).await;
    head.when_running("app1").await;
    worker.flu.store(true, Ordering::Relaxed);
    let document = head
        .document_when(|document| {
            is_failed(document)
                && document["applications"]["app1"]["deployments"]["D"]["status"] == "HEALTHY"
        })
        .await;
    let app = &document["applications"]["app1"];
    let message = app["message"].as_str().unwrap();
    assert!(message.contains("the model answers nonsense"), "{message}");
    assert!(
        message.ends_with("\nrolled back to revision 1"),
        "{message}"
    );
    let environment = &app["deployed_app_config"]["runtime_env"]["env_vars"];
    assert_eq!(*environment, json!({"V": "1"}));
    let expected = [(3, "running"), (2, "rolled_back"), (1, "superseded")];
    let expected = expected.map(|(revision, outcome)| (revision, outcome.to_owned()));
    assert_eq!(outcomes(&history(&head).await), expected);
    // What ran for a moment is nothing to go back to, and the first is the same as the third.
    let answer = post(&head, "/api/mobula/rollback", "{}").await;
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert!(answer.body.contains("no other revision"), "{}", answer.body);
    head.kill().await;
}

#[tokio::test]
async fn without_rollback_the_failed_config_stays_and_the_old_version_serves() {
    let head = head().await;
    let _worker = FakeWorker::start(&head, 4.0, starts_the_good()).await;
    head.put(&config(json!({"V": "1"}))).await;
    let before = replicas(&head.when_running("app1").await, "app1", "D");
    let mut bad = config(json!({"BAD": "1"}));
    bad["mobula"] = json!({"rollback": false});
    head.put(&bad).await;
    let document = head.document_when(is_failed).await;
    let app = &document["applications"]["app1"];
    assert_eq!(app["message"], "Failed to update the deployments ['D'].");
    assert_eq!(app["deployments"]["D"]["status"], "DEPLOY_FAILED");
    assert!(replicas(&document, "app1", "D").contains(&before[0]));
    let listed = history(&head).await;
    assert_eq!(outcomes(&listed)[0], (2, "failed".to_owned()));
    assert_eq!(listed["current"], 2);

    // By hand it goes back, to the newest that ran.
    let answer = post(&head, "/api/mobula/rollback", "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let document = head.when_running("app1").await;
    assert_eq!(replicas(&document, "app1", "D"), before);
    head.stop().await;
}

#[tokio::test]
async fn a_rollback_by_hand_is_a_new_revision_with_the_old_config() {
    let head = head().await;
    let _worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    let nowhere = post(&head, "/api/mobula/rollback", "{}").await;
    assert_eq!(nowhere.status, 409, "{}", nowhere.body);
    head.put(&config(json!({"V": "1"}))).await;
    head.when_running("app1").await;
    head.put(&config(json!({"V": "2"}))).await;
    head.when_running("app1").await;

    let refused = request(head.admin, "POST", "/api/mobula/rollback", BROWSER, "").await;
    assert_eq!(refused.status, 405);
    let unknown = post(&head, "/api/mobula/rollback", r#"{"revision": 9}"#).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("kept are: 1, 2"), "{}", unknown.body);
    let wrong = post(&head, "/api/mobula/rollback", r#"{"revision": "1"}"#).await;
    assert_eq!(wrong.status, 400);

    let answer = post(&head, "/api/mobula/rollback", "").await;
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body, json!({"revision": 3, "rolled_back_to": 1}));
    assert_eq!(answer.header("etag"), Some("\"3\""));
    let document = head
        .document_when(|document| {
            let app = &document["applications"]["app1"];
            app["status"] == "RUNNING"
                && app["deployed_app_config"]["runtime_env"]["env_vars"]["V"] == "1"
        })
        .await;
    assert_eq!(document["applications"]["app1"]["message"], "");
    let listed = history(&head).await;
    assert_eq!(
        listed["revisions"][0]["reason"],
        "rolled back to revision 1"
    );
    assert_eq!(outcomes(&listed)[1], (2, "rolled_back".to_owned()));
    let answer = post(&head, "/api/mobula/rollback", r#"{"revision": 2}"#).await;
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["rolled_back_to"], 2);
    head.stop().await;
}

#[tokio::test]
async fn the_history_is_bounded_and_the_same_config_is_one_revision() {
    let head = head().await;
    assert_eq!(history(&head).await["revisions"], json!([]));
    for _ in 0..3 {
        head.put(&config(json!({"V": "0"}))).await;
    }
    assert_eq!(outcomes(&history(&head).await).len(), 1);
    for index in 1..2 * REVISIONS_KEPT_MAX {
        head.put(&config(json!({"V": index.to_string()}))).await;
    }
    let listed = outcomes(&history(&head).await);
    assert_eq!(listed.len(), REVISIONS_KEPT_MAX);
    assert_eq!(listed[0].0, 2 * REVISIONS_KEPT_MAX as u64);
    let delete = request(head.admin, "DELETE", "/api/serve/applications/", &[], "");
    assert_eq!(delete.await.status, 200);
    let listed = history(&head).await;
    assert_eq!(outcomes(&listed)[0].1, "deleted");
    assert_eq!(listed["current"], Value::Null);
    let gone = listed["revisions"][0]["revision"].to_string();
    let body = format!(r#"{{"revision": {gone}}}"#);
    let answer = post(&head, "/api/mobula/rollback", &body).await;
    assert_eq!(answer.status, 404);
    assert!(
        answer.body.contains("deleted everything"),
        "{}",
        answer.body
    );
    head.stop().await;
}

#[tokio::test]
async fn one_application_changes_and_the_others_stay() {
    let head = head().await;
    let _worker = FakeWorker::start(&head, 8.0, starts_all()).await;
    let one = async |method: &str, name: &str, headers: &[(&str, &str)], body: &Value| {
        let path = format!("/api/mobula/applications/{name}");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        request(head.admin, method, &path, headers, &body).await
    };
    let a = entry("a", json!({"V": "1"}));
    let answer = one("PUT", "a", &[], &a).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("etag"), Some("\"1\""));
    let b = one("PUT", "b", &[("if-match", "\"1\"")], &entry("b", json!({}))).await;
    assert_eq!(b.header("etag"), Some("\"2\""));
    head.when_running("a").await;
    let before = head.when_running("b").await["applications"]["b"].clone();

    // Somebody who has not seen the newest is told so.
    let changed = entry("a", json!({"V": "2"}));
    let stale = one("PUT", "a", &[("if-match", "\"1\"")], &changed).await;
    assert_eq!(stale.status, 412);
    assert!(
        stale.body.contains("revision 1,") && stale.body.contains("revision is 2;"),
        "{}",
        stale.body
    );
    assert_eq!(stale.header("etag"), Some("\"2\""));
    assert_eq!(
        one("DELETE", "a", &[("if-match", "\"1\"")], &Value::Null)
            .await
            .status,
        412
    );
    let seen = one("GET", "a", &[], &Value::Null).await;
    assert_eq!(seen.header("etag"), Some("\"2\""));
    let seen: Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(seen["runtime_env"]["env_vars"]["V"], "1");
    let hidden = one("GET", "a", BROWSER, &Value::Null).await.body;
    assert!(hidden.contains("<redacted>"), "{hidden}");

    assert_eq!(
        one("PUT", "a", &[("if-match", "\"2\"")], &changed)
            .await
            .status,
        200
    );
    head.document_when(|document| {
        let app = &document["applications"]["a"];
        app["status"] == "RUNNING" && app["deployed_app_config"] == changed
    })
    .await;
    assert_eq!(head.document().await["applications"]["b"], before);

    for (name, body, wrong) in [
        ("a", json!({"name": "b", "import_path": "test:one"}), "name"),
        (
            "c",
            json!({"route_prefix": "/b", "import_path": "test:one"}),
            "route prefix",
        ),
        (
            "c",
            json!({"route_prefix": "/c", "import_path": "my:python"}),
            "import_path",
        ),
        ("c", json!([]), "object"),
    ] {
        let answer = one("PUT", name, &[], &body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body.contains(wrong), "{}", answer.body);
    }
    for method in ["PUT", "DELETE"] {
        assert_eq!(one(method, "a", BROWSER, &a).await.status, 405, "{method}");
    }
    assert_eq!(one("PUT", "a", &[("if-match", "2")], &a).await.status, 400);

    assert_eq!(one("DELETE", "a", &[], &Value::Null).await.status, 200);
    head.document_when(|document| document["applications"].get("a").is_none())
        .await;
    assert_eq!(head.document().await["applications"]["b"], before);
    assert_eq!(one("DELETE", "a", &[], &Value::Null).await.status, 404);
    assert_eq!(one("GET", "a", &[], &Value::Null).await.status, 404);
    head.stop().await;
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let head = head().await;
    let worker = FakeWorker::start(&head, 2.0, starts_all()).await;
    head.put(&config(json!({"V": "1"}))).await;
    let before = head.when_running("app1").await["applications"].clone();
    let (known, assigned) = (history(&head).await, worker.seen.borrow().clone());

    let mut wanted = config(json!({"V": "2"}));
    wanted["applications"][0]["deployments"] = json!([{"name": "D", "num_replicas": 3}]);
    wanted["applications"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "x", "route_prefix": "/x", "import_path": "test:unbuildable"}));
    let path = "/api/mobula/plan";
    let answer = post(&head, path, &wanted.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("etag"), Some("\"1\""));
    let plan: Value = serde_json::from_str(&answer.body).unwrap();
    let deployment = &plan["applications"]["app1"]["deployments"]["D"];
    assert_eq!(deployment["change"], "replace");
    assert_eq!(
        deployment["fields"],
        json!(["num_replicas", "runtime_env.env_vars.V"])
    );
    assert_eq!(
        deployment["replicas"],
        json!({"now": 1, "target": 3, "start": 3, "stop": 1})
    );
    assert_eq!(deployment["room"]["does_not_fit"], 1);
    let failing = &plan["applications"]["x"];
    assert_eq!(
        (&failing["change"], &failing["message"]),
        (&json!("fails"), &json!("model: no such model"))
    );
    let same = post(&head, path, &config(json!({"V": "1"})).to_string()).await;
    let same: Value = serde_json::from_str(&same.body).unwrap();
    assert_eq!(same["changes"], false);
    let nothing = post(&head, path, r#"{"applications": []}"#).await;
    let nothing: Value = serde_json::from_str(&nothing.body).unwrap();
    assert_eq!(nothing["applications"]["app1"]["change"], "deleted");
    assert_eq!(post(&head, path, "{").await.status, 400);
    let refused = request(head.admin, "POST", path, BROWSER, &wanted.to_string()).await;
    assert_eq!(refused.status, 405);

    assert_eq!(head.document().await["applications"], before);
    assert_eq!(history(&head).await, known);
    assert_eq!(*worker.seen.borrow(), assigned);
    head.stop().await;
}
