//! Every outcome of a request over HTTP, as a client sees it.

use bytes::Bytes;
use http::Request;
use mobula_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::setup::{House, deployment, table, within};
use crate::worker::Call;

async fn echo(mut call: Call) {
    call.accept();
    let body = call.body().await;
    call.head(200, body, true);
}

fn text(body: &Bytes) -> &str {
    std::str::from_utf8(body).unwrap()
}

#[tokio::test]
async fn a_request_reaches_a_replica_as_it_came_and_its_answer_comes_back() {
    let (house, worker) = House::with_worker(echo).await;
    let request = Request::post(house.url("/a%20b?x=1&y"))
        .header("x-request-id", "my-id")
        .header("serve_multiplexed_model_id", "m7")
        .header("x-request-timeout-seconds", "30")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("accept", "text/html");
    let (response, body) = house.send(request, "hello".into()).await;
    assert_eq!((response.status().as_u16(), text(&body)), (200, "hello"));
    assert_eq!(response.headers()["x-request-id"], "my-id");
    assert_eq!(response.headers()["x-replica"], "r1");

    let call = worker.calls.lock().unwrap()[0].clone();
    assert_eq!(
        (call.method.as_str(), call.path.as_str()),
        ("POST", "/a%20b")
    );
    assert_eq!(call.query.as_deref(), Some("x=1&y"));
    assert_eq!(
        (call.prefix.as_str(), call.replica_id.as_str()),
        ("/", "r1")
    );
    assert_eq!(
        (call.request_id.as_str(), call.model_id.as_str()),
        ("my-id", "m7")
    );
    assert!(
        call.remaining_ms
            .is_some_and(|ms| ms > 20_000 && ms <= 30_000)
    );
    assert!(call.end, "a small body goes with the call");
    let names: Vec<&str> = call.headers.iter().map(|h| h.name.as_str()).collect();
    assert!(names.contains(&"accept") && names.contains(&"content-length"));
    assert!(
        !names.contains(&"x-hop") && !names.contains(&"connection"),
        "{names:?}"
    );
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let (house, _worker) = House::with_worker(echo).await;
    for path in ["/", "/-/healthz", "/-/routes", "/healthz"] {
        let (response, _) = house.get(path).await;
        let id = response.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(id.len(), 36, "{path}");
    }
}

#[tokio::test]
async fn a_path_without_an_application_is_404_in_rays_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = table(Vec::new());
    table.applications[0].route_prefix = Some("/a".to_owned());
    let house = House::start(dir, table).await;
    let (response, body) = house.get("/x?q=1").await;
    assert_eq!(response.status(), 404);
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; charset=utf-8"
    );
    assert_eq!(
        text(&body),
        "Path '/x' not found. Ping http://.../-/routes for available routes."
    );
    let (_, routes) = house.get("/-/routes").await;
    assert_eq!(text(&routes), r#"{"/a":"app1"}"#);
}

#[tokio::test]
async fn ready_follows_the_applications_status() {
    let (house, _worker) = House::with_worker(echo).await;
    assert_eq!(house.get("/healthz").await.0.status(), 200);
    house
        .head
        .set(|table| table.applications[0].running = false)
        .await;
    let (response, body) = house.get("/healthz").await;
    assert_eq!(response.status(), 503);
    assert_eq!(text(&body), "Applications not RUNNING yet: app1.");
    assert_eq!(house.get("/-/healthz").await.1, "success");
}

#[tokio::test]
async fn a_full_queue_is_refused_with_the_users_status_and_rays_words() {
    let (house, _worker) = House::with_worker(|mut call: Call| async move {
        call.accept();
        call.cancelled().await;
    })
    .await;
    house
        .head
        .set(|table| {
            deployment(table).max_ongoing_requests = 1;
            deployment(table).max_queued_requests = 1;
        })
        .await;
    let _running = house.get_later("/");
    house.load(0, 1).await;
    let _waiting = house.get_later("/");
    house.load(1, 1).await;
    let (response, body) = house.get("/").await;
    assert_eq!(response.status(), 503);
    assert!(!response.headers().contains_key("retry-after"));
    assert_eq!(
        text(&body),
        "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=1)."
    );
    house
        .head
        .set(|table| {
            deployment(table).backpressure_status_code = 429;
            deployment(table).backpressure_retry_after_s = Some(1.5);
        })
        .await;
    let (response, _) = house.get("/").await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "2");
}

#[tokio::test]
async fn a_deployment_that_failed_to_deploy_is_503_in_rays_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = table(Vec::new());
    deployment(&mut table).failed = true;
    let house = House::start(dir, table).await;
    let (response, body) = house.get("/").await;
    assert_eq!(response.status(), 503);
    assert_eq!(
        text(&body),
        "Deployment(name='D', app='app1') is unavailable because it failed to deploy."
    );
}

#[tokio::test]
async fn a_deployment_that_fails_while_requests_wait_answers_them() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::start(dir, table(Vec::new())).await;
    let waiting = house.get_later("/");
    house.load(1, 0).await;
    house
        .head
        .set(|table| deployment(table).failed = true)
        .await;
    assert_eq!(within(waiting).await.unwrap().0, 503);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_408_and_cancelled_in_the_replica() {
    let (cancelled, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (house, _worker) = House::with_worker(move |mut call: Call| {
        let cancelled = cancelled.clone();
        async move {
            call.accept();
            call.cancelled().await;
            cancelled.send(()).unwrap();
        }
    })
    .await;
    let request = Request::get(house.url("/"))
        .header("x-request-id", "slow-one")
        .header("x-request-timeout-seconds", "0.3");
    let (response, body) = house.send(request, Bytes::new()).await;
    assert_eq!(response.status(), 408);
    assert_eq!(text(&body), "Request slow-one timed out after 0.3s.");
    within(told.recv()).await.unwrap();
    house.load(0, 0).await;
}

#[tokio::test]
async fn a_request_that_waits_for_a_replica_times_out_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = table(Vec::new());
    table.ingress.as_mut().unwrap().http_request_timeout_s = Some(0.2);
    let house = House::start(dir, table).await;
    let (response, _) = house.get("/").await;
    assert_eq!(response.status(), 408);
    house.load(0, 0).await;
}

#[tokio::test]
async fn an_exception_in_a_replica_is_500_without_its_text() {
    let (house, _worker) = House::with_worker(|call: Call| async move {
        call.accept();
        call.fault(v1::FaultKind::Exception);
    })
    .await;
    let (response, body) = house.get("/").await;
    assert_eq!(
        (response.status().as_u16(), text(&body)),
        (500, "Internal Server Error")
    );
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request() {
    let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
    let (house, _worker) = House::with_worker(move |mut call: Call| {
        let heard = heard.clone();
        async move {
            call.accept();
            heard.send("came").unwrap();
            call.cancelled().await;
            heard.send("cancelled").unwrap();
        }
    })
    .await;
    let mut socket = TcpStream::connect(house.addr()).await.unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(within(events.recv()).await, Some("came"));
    drop(socket);
    assert_eq!(within(events.recv()).await, Some("cancelled"));
    house.load(0, 0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_leaves_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::start(dir, table(Vec::new())).await;
    let mut socket = TcpStream::connect(house.addr()).await.unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    house.load(1, 0).await;
    drop(socket);
    house.load(0, 0).await;
}

#[tokio::test]
async fn head_requests_and_absolute_urls_work() {
    let (house, worker) = House::with_worker(|call: Call| async move {
        call.answer(200, "body");
    })
    .await;
    let (response, body) = house
        .send(Request::head(house.url("/h")), Bytes::new())
        .await;
    assert_eq!((response.status().as_u16(), body.len()), (200, 0));

    let mut socket = TcpStream::connect(house.addr()).await.unwrap();
    let request = b"GET http://elsewhere.example/abs?q HTTP/1.1\r\nhost: elsewhere.example\r\nconnection: close\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut answer = String::new();
    within(socket.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("body"), "{answer}");
    assert_eq!(worker.paths(), ["/h", "/abs"]);
}

#[tokio::test]
async fn http2_without_tls_works_on_the_same_port() {
    let (house, _worker) = House::with_worker(echo).await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http::<http_body_util::Full<Bytes>>();
    let request = Request::post(house.url("/"))
        .body("over two".into())
        .unwrap();
    let response = within(client.request(request)).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap();
    assert_eq!(body.to_bytes(), "over two");
}

#[tokio::test]
async fn headers_above_the_limits_are_431() {
    let (house, worker) = House::with_worker(echo).await;
    let large = "x".repeat(mobula_router::limits::HEADER_BYTES_MAX);
    let many = mobula_router::limits::HEADERS_MAX + 1;
    let many: String = (0..many).map(|n| format!("h{n}: 1\r\n")).collect();
    for headers in [format!("x-large: {large}\r\n"), many] {
        let mut socket = TcpStream::connect(house.addr()).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        // The router may have refused and closed before all was written.
        drop(socket.write_all(head.as_bytes()).await);
        let mut answer = [0; 12];
        within(socket.read_exact(&mut answer)).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), "HTTP/1.1 431");
    }
    assert!(worker.paths().is_empty());
}
