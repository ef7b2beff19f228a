//! Requests that go on when their client leaves.

use bytes::Bytes;
use mobula_proto::limits::BODY_WINDOW_BYTES_INITIAL;
use mobula_proto::v1;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::setup::{House, deployment, table, within};
use crate::worker::{Call, Worker};

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nx-request-disconnect-disabled: ?1\r\n\r\n";

async fn ask(house: &House) -> TcpStream {
    let mut socket = TcpStream::connect(house.addr()).await.unwrap();
    socket.write_all(HEAD).await.unwrap();
    socket
}

/// The client leaves, and the router has had something else to do since.
async fn leave(house: &House, socket: TcpStream) {
    drop(socket);
    let (response, _) = house.get("/-/routes").await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_request_is_finished_although_its_client_left() {
    let (heard, mut events) = mpsc::unbounded_channel();
    let go_on = CancellationToken::new();
    let gate = go_on.clone();
    let (house, _worker) = House::with_worker(move |mut call: Call| {
        let (heard, gate) = (heard.clone(), gate.clone());
        async move {
            call.accept();
            heard.send("came").unwrap();
            tokio::select! {
                () = call.cancelled() => heard.send("cancelled").unwrap(),
                () = gate.cancelled() => {
                    call.head(200, Bytes::new(), false);
                    // More than the router takes unasked: somebody has to read it.
                    let body = vec![0; 3 * BODY_WINDOW_BYTES_INITIAL];
                    let whole = call.stream(body.into()).await;
                    heard.send(if whole { "finished" } else { "cancelled" }).unwrap();
                }
            }
        }
    })
    .await;
    let socket = ask(&house).await;
    assert_eq!(within(events.recv()).await, Some("came"));
    leave(&house, socket).await;
    house.load(0, 1).await;
    go_on.cancel();
    assert_eq!(within(events.recv()).await, Some("finished"));
    house.load(0, 0).await;
}

#[tokio::test]
async fn an_answer_that_has_begun_is_read_to_its_end_although_the_client_left() {
    let (heard, mut events) = mpsc::unbounded_channel();
    let go_on = CancellationToken::new();
    let gate = go_on.clone();
    let (house, _worker) = House::with_worker(move |mut call: Call| {
        let (heard, gate) = (heard.clone(), gate.clone());
        async move {
            call.accept();
            call.head(200, "begun", false);
            gate.cancelled().await;
            let body = vec![0; 3 * BODY_WINDOW_BYTES_INITIAL];
            let whole = call.stream(body.into()).await;
            heard
                .send(if whole { "finished" } else { "cancelled" })
                .unwrap();
        }
    })
    .await;
    let mut socket = ask(&house).await;
    let mut begun = [0; 12];
    within(tokio::io::AsyncReadExt::read_exact(&mut socket, &mut begun))
        .await
        .unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    leave(&house, socket).await;
    go_on.cancel();
    assert_eq!(within(events.recv()).await, Some("finished"));
    house.load(0, 0).await;
}

#[tokio::test]
async fn a_request_whose_client_left_keeps_its_place_in_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::start(dir.path(), "w1", |call: Call| async move {
        call.answer(200, "")
    });
    let worker = worker.await;
    let house = House::start(dir, table(Vec::new())).await;
    let socket = ask(&house).await;
    house.load(1, 0).await;
    leave(&house, socket).await;
    let replica = worker.replica("r1");
    let set = house
        .head
        .set(|table| deployment(table).replicas = vec![replica]);
    within(set).await;
    house.load(0, 0).await;
    assert_eq!(worker.paths(), ["/"]);
}

#[tokio::test]
async fn a_router_that_is_told_to_stop_finishes_what_nobody_waits_for() {
    let (heard, mut events) = mpsc::unbounded_channel();
    let go_on = CancellationToken::new();
    let gate = go_on.clone();
    let (house, _worker) = House::with_worker(move |mut call: Call| {
        let (heard, gate) = (heard.clone(), gate.clone());
        async move {
            call.accept();
            heard.send("came").unwrap();
            tokio::select! {
                () = call.cancelled() => heard.send("cancelled").unwrap(),
                () = gate.cancelled() => {
                    call.head(200, "", true);
                    heard.send("finished").unwrap();
                }
            }
        }
    })
    .await;
    let socket = ask(&house).await;
    assert_eq!(within(events.recv()).await, Some("came"));
    drop(socket);
    house.shutdown.cancel();
    // It has heard of both, and lives on.
    let mut heartbeats = 0;
    let going_on = house.head.reported(|report: &v1::RouterReport| {
        heartbeats += usize::from(report.draining);
        heartbeats == 3
    });
    within(going_on).await;
    go_on.cancel();
    assert_eq!(within(events.recv()).await, Some("finished"));
    within(house.router).await.unwrap().unwrap();
}
