//! What clients of the admin API see, status code by status code.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::Arc;

use common::Head;
use common::http::request;
use common::router::FakeRouter;
use common::worker::{FakeWorker, starts_all};
use mobula_store::MemoryStore;
use serde_json::{Value, json};

const APPLICATIONS: &str = "/api/serve/applications/";

async fn head() -> Head {
    Head::start(Arc::new(MemoryStore::default())).await
}

fn app(extra: Value) -> Value {
    let mut entry = json!({"name": "app1", "route_prefix": "/a", "import_path": "test:one"});
    for (key, value) in extra.as_object().unwrap() {
        entry[key] = value.clone();
    }
    json!({"applications": [entry]})
}

#[tokio::test]
async fn version_and_health_routes_answer_as_rays() {
    let head = head().await;
    for path in ["/api/ray/version", "/api/version"] {
        let answer = head.get(path).await;
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(
            (&body["version"], &body["ray_version"]),
            (&json!("4"), &json!("2.60.0"))
        );
        assert!(body["ray_commit"].is_string() && body["session_name"].is_string());
    }
    for path in ["/api/gcs_healthz", "/api/local_raylet_healthz"] {
        let answer = head.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "success"));
    }
    let mode = head.get("/api/authentication_mode").await;
    assert_eq!(mode.body, r#"{"authentication_mode":"disabled"}"#);
    for path in ["/api/healthz", "/livez", "/readyz", "/"] {
        assert_eq!(head.get(path).await.status, 200, "{path}");
    }
    for path in [
        "/api/serve/applications",
        "/api/serve/deployments/",
        "/nope",
    ] {
        assert_eq!(head.get(path).await.status, 404, "{path}");
    }
    let wrong = request(head.admin, "POST", APPLICATIONS, &[], "").await;
    assert_eq!(
        (wrong.status, wrong.header("allow")),
        (405, Some("DELETE,GET,HEAD,PUT"))
    );
    let head_only = request(head.admin, "HEAD", APPLICATIONS, &[], "").await;
    assert_eq!((head_only.status, head_only.body.as_str()), (200, ""));
    head.stop().await;
}

#[tokio::test]
async fn nothing_deployed_is_the_empty_document() {
    let head = head().await;
    let empty = json!({
        "controller_info": {}, "proxies": {}, "applications": {}, "target_capacity": null,
    });
    assert_eq!(head.document().await, empty);
    let delete = request(head.admin, "DELETE", APPLICATIONS, &[], "").await;
    assert_eq!((delete.status, delete.body.as_str()), (200, ""));
    // An empty list is something else: serving, with no application.
    assert_eq!(head.put(&json!({"applications": []})).await.status, 200);
    let document = head.document().await;
    assert_eq!(document["applications"], json!({}));
    assert_eq!(document["controller_info"]["node_id"], "a".repeat(56));
    head.stop().await;
}

#[tokio::test]
async fn a_refused_config_changes_nothing_and_names_all_problems() {
    let head = head().await;
    let _worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    head.put(&app(json!({}))).await;
    let before = head.when_running("app1").await["applications"].clone();

    let bad = json!({"applications": [
        {"name": "", "import_path": "test:one", "route_prefix": "/a"},
        {"name": "x", "import_path": "nocolon", "route_prefix": "/b",
         "deployments": [{"name": "D", "num_replicas": 0}]},
    ]});
    let answer = head.put(&bad).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    assert_eq!(answer.body.lines().count(), 3, "{}", answer.body);

    let answer = head.put_text("{not json").await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("JSON"), "{}", answer.body);

    let python = json!({"applications": [{"import_path": "my_python:app"}]});
    let answer = head.put(&python).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.body.contains("test:one, test:two, test:unbuildable"),
        "{}",
        answer.body
    );

    let large = "x".repeat(mobula_head::admin::BODY_BYTES_MAX + 1);
    assert_eq!(head.put_text(&large).await.status, 413);

    assert_eq!(head.document().await["applications"], before);
    head.stop().await;
}

#[tokio::test]
async fn browsers_may_look_but_not_touch_and_see_no_secrets() {
    let head = head().await;
    let config = app(json!({"runtime_env": {"env_vars": {"TOKEN": "hunter2"}}}));
    let browser = [("user-agent", "Mozilla/5.0")];
    for (method, body) in [("PUT", config.to_string()), ("DELETE", String::new())] {
        let answer = request(head.admin, method, APPLICATIONS, &browser, &body).await;
        assert_eq!(answer.status, 405, "{method}");
        let from_page = [("origin", "http://evil.example")];
        let answer = request(head.admin, method, APPLICATIONS, &from_page, &body).await;
        assert_eq!(answer.status, 405, "{method}");
    }
    assert_eq!(head.document().await["applications"], json!({}));

    head.put(&config).await;
    let seen = request(head.admin, "GET", APPLICATIONS, &browser, "")
        .await
        .body;
    assert!(
        seen.contains("<redacted>") && !seen.contains("hunter2"),
        "{seen}"
    );
    assert!(head.get(APPLICATIONS).await.body.contains("hunter2"));
    head.stop().await;
}

#[tokio::test]
async fn applications_are_filtered_by_where_they_came_from() {
    let head = head().await;
    head.put(&app(json!({}))).await;
    let names = async |query: &str| {
        let answer = head.get(&format!("{APPLICATIONS}?{query}")).await;
        let document: Value = serde_json::from_str(&answer.body).unwrap();
        document["applications"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(names("api_type=DECLARATIVE").await, ["app1"]);
    assert!(names("api_type=imperative").await.is_empty());
    let wrong = head.get(&format!("{APPLICATIONS}?api_type=unknown")).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("declarative"), "{}", wrong.body);
    head.stop().await;
}

#[tokio::test]
async fn what_is_accepted_and_ignored_is_said_in_a_header() {
    let head = head().await;
    let answer = head.put(&app(json!({"max_concurrent_queries": 3}))).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    let warnings = answer.header("x-mobula-warnings").unwrap();
    assert!(warnings.contains("max_concurrent_queries"), "{warnings}");
    let mut moved = app(json!({}));
    moved["http_options"] = json!({"port": 8123});
    let answer = head.put(&moved).await;
    assert!(
        answer
            .header("x-mobula-warnings")
            .unwrap()
            .contains("http_options")
    );
    assert_eq!(head.document().await["http_options"]["port"], 8000);
    head.stop().await;
}

#[tokio::test]
async fn the_scale_route_sets_counts_where_it_may() {
    let head = head().await;
    let _worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    let scale = async |app: &str, body: &str| {
        let path = format!("/api/v1/applications/{app}/deployments/D/scale");
        request(head.admin, "POST", &path, &[], body).await
    };
    let two = r#"{"target_num_replicas": 2}"#;
    assert_eq!(scale("app1", two).await.status, 404);
    head.put(&app(json!({}))).await;
    assert_eq!(scale("app1", two).await.status, 412);
    head.put(&app(json!({"external_scaler_enabled": true})))
        .await;
    for wrong in [
        r#"{"target_num_replicas": "2"}"#,
        r#"{"target_num_replicas": -1}"#,
        r#"{"target_num_replicas": 1.5}"#,
        r#"{"replicas": 2}"#,
        "[]",
        "two",
    ] {
        let answer = scale("app1", wrong).await;
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(
            answer.body.contains("Invalid request body: "),
            "{}",
            answer.body
        );
    }
    let path = "/api/v1/applications/app1/deployments/Nobody/scale";
    let missing = request(head.admin, "POST", path, &[], two).await;
    assert_eq!(missing.status, 404);
    assert!(
        missing.body.contains("Application or Deployment not found"),
        "{}",
        missing.body
    );
    let answer = scale("app1", two).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.body.contains("Scaling request received."),
        "{}",
        answer.body
    );
    head.document_when(|document| {
        let deployment = &document["applications"]["app1"]["deployments"]["D"];
        deployment["target_num_replicas"] == 2 && deployment["status"] == "HEALTHY"
    })
    .await;
    // A router that does not take the table without them keeps the replicas.
    let mut router = FakeRouter::start(&head).await;
    router
        .table
        .wait_for(|table| table.version > 0)
        .await
        .unwrap();
    router.silent.send_replace(true);
    head.put(&json!({"applications": []})).await;
    let gone = scale("app1", two).await;
    assert_eq!(gone.status, 412);
    assert!(gone.body.contains("Deployment is deleted"), "{}", gone.body);
    head.stop().await;
}

#[tokio::test]
async fn a_count_that_cannot_be_stored_is_503_and_changes_nothing() {
    let store = Arc::new(MemoryStore::default());
    let head = Head::start(store.clone()).await;
    let _worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    head.put(&app(json!({"external_scaler_enabled": true})))
        .await;
    head.when_running("app1").await;
    let path = "/api/v1/applications/app1/deployments/D/scale";
    let scale = async || {
        let body = r#"{"target_num_replicas": 2}"#;
        request(head.admin, "POST", path, &[], body).await
    };
    let target = |document: &Value| {
        document["applications"]["app1"]["deployments"]["D"]["target_num_replicas"].clone()
    };
    let before = target(&head.document().await);
    assert_ne!(before, 2);
    store.cut_off(true);
    let answer = scale().await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    let error: Value = serde_json::from_str(&answer.body).unwrap();
    let error = error["error"].as_str().unwrap();
    assert!(
        error.starts_with("the count is not known to be stored: "),
        "{error}"
    );
    assert_eq!(target(&head.document().await), before);
    store.cut_off(false);
    assert_eq!(scale().await.status, 200);
    head.document_when(|document| target(document) == 2).await;
    head.stop().await;
}

#[tokio::test]
async fn metrics_are_those_of_the_head_and_of_its_workers() {
    let head = head().await;
    let _worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    head.put(&app(json!({}))).await;
    head.when_running("app1").await;
    let text = head.get("/metrics").await.body;
    for line in [
        r#"ray_serve_application_status{application="app1"} 6"#,
        r#"ray_serve_deployment_status{deployment="D",application="app1"} 6"#,
        "mobula_head_workers 1",
        "fake_worker_series 3",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in\n{text}"
        );
    }
    head.stop().await;
}

#[tokio::test]
async fn the_overview_says_what_runs_and_tells_no_secrets() {
    let head = head().await;
    let _worker = FakeWorker::start(&head, 4.0, starts_all()).await;
    let overview = async |query: &str| {
        let answer = head.get(&format!("/api/mobula/overview{query}")).await;
        let document: Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, document)
    };
    let (status, empty) = overview("").await;
    assert_eq!(status, 200);
    assert_eq!(empty["summary"]["sentence"], "Nothing is deployed.");

    let secret = json!({"env_vars": {"TOKEN": "hunter2"}});
    head.put(&app(
        json!({"runtime_env": secret, "args": {"key": "hunter2"}}),
    ))
    .await;
    head.when_running("app1").await;
    let (_, document) = overview("").await;
    assert_eq!(document["summary"]["sentence"], "1 of 1 applications run.");
    let deployment = &document["applications"][0]["deployments"][0];
    assert_eq!(deployment["name"], "D");
    assert_eq!(
        (&deployment["target"], &deployment["running"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(document["history"]["current"], 1);
    let decisions = document["decisions"].as_array().unwrap();
    let started = decisions
        .iter()
        .find(|decision| decision["what"] == "start a replica");
    assert_eq!(started.unwrap()["why"], "0 of 1 replicas exist");

    let (status, replicas) = overview("?application=app1&deployment=D").await;
    assert_eq!((status, &replicas["total"]), (200, &json!(1)));
    assert_eq!(replicas["replicas"][0]["state"], "RUNNING");
    assert_eq!(overview("?application=app1&deployment=E").await.0, 404);
    assert_eq!(overview("?application=app1").await.0, 400);
    for text in [document.to_string(), replicas.to_string()] {
        assert!(
            !text.contains("hunter2") && !text.contains("TOKEN"),
            "{text}"
        );
    }
    head.stop().await;
}

#[tokio::test]
async fn the_dashboard_is_for_browsers_and_only_looks() {
    let head = head().await;
    let html = [("accept", "text/html,*/*;q=0.8")];
    let page = request(head.admin, "GET", "/", &html, "").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let text = head.get("/").await;
    assert!(text.body.contains("/api/mobula/overview"), "{}", text.body);
    assert!(text.header("content-security-policy").is_none());

    let script = head.get("/dashboard/app.js").await;
    assert_eq!(
        (script.status, script.header("content-type")),
        (200, Some("text/javascript; charset=utf-8"))
    );
    let only_head = request(head.admin, "HEAD", "/dashboard/app.js", &[], "").await;
    assert_eq!((only_head.status, only_head.body.as_str()), (200, ""));
    for path in ["/dashboard/app.js", "/api/mobula/overview", "/"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = request(head.admin, method, path, &[], "").await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("GET,HEAD")),
                "{method} {path}"
            );
        }
    }
    for path in ["/dashboard/", "/dashboard/../app.js", "/dashboard/none.js"] {
        assert_eq!(head.get(path).await.status, 404, "{path}");
    }
    head.stop().await;
}
