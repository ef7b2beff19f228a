//! Large bodies, slow readers, limits.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, StreamBody};
use mobula_proto::limits::BODY_CHUNK_BYTES_MAX;
use mobula_router::RouterLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::setup::{House, table, within};
use crate::worker::{Call, Worker};

const LARGE: usize = 10 * 1024 * 1024;

/// Bytes in which a lost, repeated or swapped piece shows.
fn pattern(size: usize) -> Bytes {
    let words = (0..size / 8 + 1).flat_map(|n| (n as u64).wrapping_mul(0x9e37_79b9).to_le_bytes());
    let mut bytes: Vec<u8> = words.collect();
    bytes.truncate(size);
    bytes.into()
}

async fn echo_in_pieces(mut call: Call) {
    call.accept();
    let body = call.body().await;
    call.head(200, Bytes::new(), false);
    call.stream(body).await;
}

#[tokio::test]
async fn ten_megabytes_go_up_and_come_down_unchanged() {
    let (house, worker) = House::with_worker(echo_in_pieces).await;
    let sent = pattern(LARGE);
    let (response, body) = house.post("/", sent.clone()).await;
    assert_eq!(response.status(), 200);
    assert!(body == sent, "{} bytes came back", body.len());
    let call = worker.calls.lock().unwrap()[0].clone();
    assert!(call.body.len() <= BODY_CHUNK_BYTES_MAX && !call.end);
    house.load(0, 0).await;
}

#[tokio::test]
async fn a_body_within_the_first_window_waits_for_no_word_of_the_replica() {
    let (house, _worker) = House::with_worker(|mut call: Call| async move {
        assert!(!call.call.end, "it does not fit the call");
        while !call.unasked().await {}
        call.answer(200, "all of it");
    })
    .await;
    let (_, body) = house.post("/", pattern(100_000)).await;
    assert_eq!(body, "all of it");
}

#[tokio::test]
async fn a_body_of_unknown_length_streams_both_ways_at_once() {
    let (house, _worker) = House::with_worker(|mut call: Call| async move {
        call.accept();
        call.head(200, "first", false);
        let body = call.body().await;
        call.data(body, true);
    })
    .await;
    let (pieces, receiver) = tokio::sync::mpsc::channel::<Result<_, std::io::Error>>(1);
    let piece = |text: &'static str| Ok(http_body::Frame::data(Bytes::from(text)));
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http();
    pieces.send(piece("a")).await.unwrap();
    let request = Request::post(house.url("/")).body(body).unwrap();
    let mut response = within(client.request(request)).await.unwrap();
    let first = within(response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    pieces.send(piece("b")).await.unwrap();
    drop(pieces);
    let rest = within(response.into_body().collect()).await.unwrap();
    assert_eq!(rest.to_bytes(), "ab");
}

#[tokio::test]
async fn a_client_that_does_not_read_stalls_nobody_else() {
    let (finished, mut finish) = tokio::sync::mpsc::unbounded_channel();
    let (house, _worker) = House::with_worker(move |mut call: Call| {
        let finished = finished.clone();
        async move {
            call.accept();
            if call.call.path == "/large" {
                call.head(200, Bytes::new(), false);
                call.stream(pattern(LARGE)).await;
                finished.send(()).unwrap();
            } else {
                call.head(200, "small", true);
            }
        }
    })
    .await;
    let mut stalled = TcpStream::connect(house.addr()).await.unwrap();
    let request = b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stalled.write_all(request).await.unwrap();
    within(stalled.readable()).await.unwrap();
    for _ in 0..50 {
        let (_, body) = house.get("/small").await;
        assert_eq!(body, "small");
    }
    assert!(
        finish.try_recv().is_err(),
        "the worker sent more than anybody read"
    );
    let mut all = Vec::new();
    within(stalled.read_to_end(&mut all)).await.unwrap();
    // Chunked: the pieces' sizes stand between them.
    assert!(all.len() > LARGE, "{}", all.len());
    within(finish.recv()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_stops_reading_and_leaves_cancels_the_answer() {
    let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
    let (house, _worker) = House::with_worker(move |mut call: Call| {
        let heard = heard.clone();
        async move {
            call.accept();
            call.head(200, "begin", false);
            call.cancelled().await;
            heard.send(()).unwrap();
        }
    })
    .await;
    let mut socket = TcpStream::connect(house.addr()).await.unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut some = [0; 16];
    within(socket.read_exact(&mut some)).await.unwrap();
    drop(socket);
    within(events.recv()).await.unwrap();
    house.load(0, 0).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_the_clients_connection() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let (house, _worker) = House::with_worker(move |call: Call| {
        let mut gate = gate.clone();
        async move {
            call.accept();
            call.head(200, "begin", false);
            gate.wait_for(|go| *go).await.unwrap();
            call.fault(mobula_proto::v1::FaultKind::Body);
        }
    })
    .await;
    let request = Request::get(house.url("/")).body(Full::default()).unwrap();
    let response = within(house.client.request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    go.send_replace(true);
    assert!(within(response.into_body().collect()).await.is_err());
}

#[tokio::test]
async fn a_body_above_the_limit_is_413_with_or_without_a_length() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::start(dir.path(), "w1", echo_in_pieces).await;
    let limits = RouterLimits {
        body_bytes_max: 200_000,
    };
    let house = House::limited(dir, table(vec![worker.replica("r1")]), limits).await;
    assert_eq!(house.post("/", pattern(200_000)).await.0.status(), 200);

    let (response, body) = house.post("/", pattern(200_001)).await;
    assert_eq!(response.status(), 413);
    assert_eq!(body, "The body is larger than 200000 bytes.");

    let piece = || Ok::<_, std::io::Error>(http_body::Frame::data(pattern(50_000)));
    let body = StreamBody::new(futures_util::stream::iter([
        piece(),
        piece(),
        piece(),
        piece(),
        piece(),
    ]));
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http();
    let request = Request::post(house.url("/")).body(body).unwrap();
    let response = within(client.request(request)).await.unwrap();
    assert_eq!(response.status(), 413);
    house.load(0, 0).await;
}
