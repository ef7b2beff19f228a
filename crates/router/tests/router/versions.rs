//! Two versions of a deployment's code that share its requests.

use std::time::Duration;

use http::Request;
use mobula_proto::v1;

use crate::setup::{House, deployment, table, within};
use crate::worker::{Call, Worker};

/// w1/r1 serves version "v1"; w2/r2 serves version "v2", which gets so many percent.
async fn shared<F, R>(percent: u32, canary: F) -> (House, Worker, Worker)
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    shared_for(None, percent, canary).await
}

/// The same, with a time-out in the config.
async fn shared_for<F, R>(
    timeout_s: Option<f64>,
    percent: u32,
    canary: F,
) -> (House, Worker, Worker)
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let ok = |call: Call| async move { call.answer(200, "ok") };
    let w1 = Worker::start(dir.path(), "w1", ok).await;
    let w2 = Worker::start(dir.path(), "w2", canary).await;
    let of = |mut replica: v1::TableReplica, version: &str| {
        replica.code_version = version.to_owned();
        replica
    };
    let replicas = vec![of(w1.replica("r1"), "v1"), of(w2.replica("r2"), "v2")];
    let mut table = table(replicas);
    deployment(&mut table).canary = share(percent);
    table.ingress.as_mut().unwrap().http_request_timeout_s = timeout_s;
    let house = House::start(dir, table).await;
    (house, w1, w2)
}

fn share(percent: u32) -> Option<v1::VersionShare> {
    Some(v1::VersionShare {
        code_version: "v2".to_owned(),
        percent,
    })
}

/// Waits until the head was told of so many answers and errors of v2.
async fn told(house: &House, answers: u64, errors: u64) -> v1::VersionAnswers {
    let of_v2 = |report: &v1::RouterReport| {
        let mut all = report.answers.iter();
        let found = all.find(|version| version.code_version == "v2");
        found.cloned().unwrap_or_default()
    };
    let wanted = |report: &v1::RouterReport| {
        let v2 = of_v2(report);
        v2.answers == answers && v2.errors == errors
    };
    of_v2(&within(house.head.reported(wanted)).await)
}

#[tokio::test]
async fn a_version_gets_its_percent_of_the_requests_and_every_answer_is_told_to_the_head() {
    let (house, w1, w2) = shared(25, |call: Call| async move { call.answer(200, "ok") }).await;
    const REQUESTS: usize = 400;
    for _ in 0..REQUESTS {
        assert_eq!(house.get("/").await.0.status(), 200);
    }
    let (old, new) = (w1.paths().len(), w2.paths().len());
    assert_eq!(old + new, REQUESTS);
    // Seven standard deviations around a hundred.
    assert!((40..=160).contains(&new), "{new} of {REQUESTS} at 25 %");
    let v2 = told(&house, new as u64, 0).await;
    assert_eq!(
        (v2.application.as_str(), v2.deployment.as_str()),
        ("app1", "D")
    );
    assert_eq!(v2.latencies.iter().sum::<u64>(), new as u64);

    house
        .head
        .set(|table| deployment(table).canary = share(0))
        .await;
    for _ in 0..50 {
        assert_eq!(house.get("/").await.0.headers()["x-replica"], "r1");
    }
    house
        .head
        .set(|table| deployment(table).canary = None)
        .await;
    let report = within(house.head.reported(|report| report.answers.is_empty())).await;
    assert!(report.answers.is_empty());
    let mut asked = 0;
    while w2.paths().len() == new {
        asked += 1;
        assert!(
            asked < 200,
            "what is not shared any more is asked as any other"
        );
        assert_eq!(house.get("/").await.0.status(), 200);
    }
}

#[tokio::test]
async fn what_the_version_did_wrong_counts_and_what_the_client_did_does_not() {
    let (house, _w1, _w2) = shared(100, |call: Call| async move {
        match call.call.path.as_str() {
            "/missing" => call.answer(404, "no"),
            "/broken" => call.answer(500, "oh"),
            "/fault" => {
                call.accept();
                call.fault(v1::FaultKind::Exception);
            }
            "/torn" => {
                call.accept();
                call.head(200, "begins", false);
                call.fault(v1::FaultKind::Exception);
            }
            _ => call.answer(200, "ok"),
        }
    })
    .await;
    let (mut answers, mut errors) = (0, 0);
    for (path, status, is_error) in [
        ("/", 200, 0),
        ("/missing", 404, 0),
        ("/broken", 500, 1),
        ("/fault", 500, 1),
    ] {
        assert_eq!(house.get(path).await.0.status(), status, "{path}");
        answers += 1;
        errors += is_error;
        told(&house, answers, errors).await;
    }
    let torn = Request::get(house.url("/torn")).body(Default::default());
    // It may break off before the client saw its beginning.
    if let Ok(response) = within(house.client.request(torn.unwrap())).await {
        let body = within(http_body_util::BodyExt::collect(response.into_body())).await;
        assert!(body.is_err());
    }
    told(&house, answers + 1, errors + 1).await;
}

#[tokio::test]
async fn a_time_out_of_the_config_is_the_versions_fault() {
    let hang = |mut call: Call| async move {
        call.accept();
        call.cancelled().await;
    };
    let (house, _w1, w2) = shared_for(Some(0.5), 100, hang).await;
    // One that times out before the worker is connected counts for nobody.
    while w2.paths().is_empty() {
        assert_eq!(house.get("/").await.0.status(), 408);
    }
    let calls = w2.paths().len() as u64;
    told(&house, calls, calls).await;
}

#[tokio::test]
async fn a_client_that_leaves_is_not_the_versions_fault() {
    let (house, _w1, w2) = shared(100, |mut call: Call| async move {
        match call.call.path.as_str() {
            "/slow" => {
                call.accept();
                call.cancelled().await;
            }
            _ => call.answer(200, "ok"),
        }
    })
    .await;
    let waiting = house.get_later("/slow");
    house.load(0, 1).await;
    waiting.abort();
    house.load(0, 0).await;
    // A client's own time-out is the client's, too.
    let hasty = Request::get(house.url("/slow")).header("x-request-timeout-seconds", "0.05");
    assert_eq!(house.send(hasty, Default::default()).await.0.status(), 408);
    assert_eq!(house.get("/").await.0.status(), 200);
    assert_eq!(w2.paths(), ["/slow", "/slow", "/"]);
    told(&house, 1, 0).await;
}

#[tokio::test]
async fn a_version_whose_worker_is_gone_leaves_the_requests_to_the_other() {
    let (house, _w1, w2) = shared(100, |call: Call| async move { call.answer(200, "ok") }).await;
    assert_eq!(house.get("/").await.0.headers()["x-replica"], "r2");
    w2.kill();
    for _ in 0..50 {
        let (response, _) = house.get("/").await;
        assert_eq!(response.status(), 200);
    }
    assert_eq!(house.get("/").await.0.headers()["x-replica"], "r1");
}

#[tokio::test]
async fn requests_for_a_full_version_are_answered_by_the_other_without_waiting() {
    let (house, _w1, _w2) = shared(100, |mut call: Call| async move {
        call.accept();
        call.cancelled().await;
    })
    .await;
    house
        .head
        .set(|table| deployment(table).replicas[1].max_ongoing_requests = 1)
        .await;
    let _stuck = house.get_later("/");
    house.load(0, 1).await;
    for _ in 0..20 {
        let (response, _) = within(house.get("/")).await;
        assert_eq!(response.headers()["x-replica"], "r1");
    }
}

#[tokio::test]
async fn latencies_are_counted_from_the_slot_to_the_beginning_of_the_answer() {
    let (house, _w1, _w2) = shared(100, |call: Call| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        call.answer(200, "ok");
    })
    .await;
    for _ in 0..5 {
        house.get("/").await;
    }
    let v2 = told(&house, 5, 0).await;
    assert_eq!(mobula_proto::latency::above(&v2.latencies, 10.0), 5.0);
}
