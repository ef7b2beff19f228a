//! What is counted, as a scrape sees it.

use std::sync::OnceLock;

use mobula_process::metrics::{MetricsHandle, install};

use crate::setup::{House, table};
use crate::worker::{Call, Worker};

/// One recorder for the whole test process; the tests tell their series apart by application.
pub fn recorder() -> &'static MetricsHandle {
    static RECORDER: OnceLock<MetricsHandle> = OnceLock::new();
    RECORDER.get_or_init(|| install(&[]).unwrap())
}

/// The value of the only series of that name with all these labels.
pub fn value(name: &str, labels: &[(&str, &str)]) -> f64 {
    let text = recorder().render();
    let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
    let found: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")))
        .filter(|line| wanted.iter().all(|label| line.contains(label.as_str())))
        .collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0].rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn requests_are_counted_under_rays_names() {
    recorder();
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::start(dir.path(), "w1", |call: Call| async move {
        let status = if call.call.path == "/metered/bad" {
            500
        } else {
            200
        };
        call.answer(status, "ok");
    })
    .await;
    let mut table = table(vec![worker.replica("r1")]);
    table.applications[0].name = "metered".to_owned();
    table.applications[0].route_prefix = Some("/metered".to_owned());
    let house = House::start(dir, table).await;
    house.get("/metered/a").await;
    house.get("/metered/b").await;
    house.get("/metered/bad").await;
    assert_eq!(house.get("/elsewhere").await.0.status(), 404);

    let app = ("application", "metered");
    let get = [app, ("route", "/metered"), ("method", "GET")];
    let with = |more: (&'static str, &'static str)| [&get[..], &[more]].concat();
    let requests = "ray_serve_num_http_requests_total";
    assert_eq!(value(requests, &with(("status_code", "200"))), 2.0);
    assert_eq!(value(requests, &with(("status_code", "500"))), 1.0);
    let code = ("error_code", "500");
    assert_eq!(
        value("ray_serve_num_http_error_requests_total", &with(code)),
        1.0
    );
    assert_eq!(
        value(
            "ray_serve_num_deployment_http_error_requests_total",
            &[&with(code)[..], &[("deployment", "D")]].concat()
        ),
        1.0
    );
    assert_eq!(
        value(
            "ray_serve_http_request_latency_ms_count",
            &with(("status_code", "200"))
        ),
        2.0
    );
    let here = [app, ("deployment", "D")];
    let on_route = [app, ("deployment", "D"), ("route", "/metered")];
    assert_eq!(
        value("ray_serve_handle_request_counter_total", &on_route),
        3.0
    );
    assert_eq!(value("ray_serve_num_router_requests_total", &on_route), 3.0);
    assert_eq!(
        value("ray_serve_request_router_fulfillment_time_ms_count", &here),
        3.0
    );
    assert_eq!(value("mobula_router_queued_requests_max", &here), 10_000.0);
    assert_eq!(
        value("mobula_router_limit", &[("limit", "queued_requests_max")]),
        10_000.0
    );
    // Paths that lead nowhere, of which there are any number, share one series.
    let nowhere = [("route", ""), ("application", ""), ("status_code", "404")];
    assert!(value(requests, &nowhere) >= 1.0);
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted_as_499() {
    recorder();
    let (came, mut arrival) = tokio::sync::mpsc::unbounded_channel();
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::start(dir.path(), "w1", move |mut call: Call| {
        let came = came.clone();
        async move {
            call.accept();
            came.send(()).unwrap();
            call.cancelled().await;
        }
    })
    .await;
    let mut table = table(vec![worker.replica("r1")]);
    table.applications[0].name = "left".to_owned();
    let house = House::start(dir, table).await;
    let request = house.get_later("/");
    crate::setup::within(arrival.recv()).await.unwrap();
    house.load(0, 1).await;
    request.abort();
    // Hanging up the only connection of the client's pool.
    drop(request.await);
    house.load(0, 0).await;
    let labels = [("application", "left"), ("status_code", "499")];
    let requests = "ray_serve_num_http_requests_total";
    assert_eq!(value(requests, &labels), 1.0);
}
