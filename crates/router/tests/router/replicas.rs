//! Replicas that come, go, refuse and die.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use mobula_proto::v1;
use tokio::sync::Semaphore;

use crate::setup::{House, deployment, table, within};
use crate::worker::{Call, Worker};

async fn ok(call: Call) {
    call.answer(200, "ok");
}

/// Two workers with one replica each: w1/r1 does as told, w2/r2 answers.
async fn two<F, R>(first: F) -> (House, Worker, Worker)
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let w1 = Worker::start(dir.path(), "w1", first).await;
    let w2 = Worker::start(dir.path(), "w2", ok).await;
    let table = table(vec![w1.replica("r1"), w2.replica("r2")]);
    let house = House::start(dir, table).await;
    (house, w1, w2)
}

#[tokio::test]
async fn a_replica_that_refuses_is_not_noticed_by_the_client() {
    for reason in [
        v1::RejectReason::Full,
        v1::RejectReason::Draining,
        v1::RejectReason::UnknownReplica,
    ] {
        let (house, w1, _w2) = two(move |call: Call| async move { call.reject(reason) }).await;
        let mut asked = 0;
        while w1.paths().is_empty() {
            asked += 1;
            assert!(asked < 200, "the refusing replica was never asked");
            let (response, _) = house.post("/", "body").await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["x-replica"], "r2");
        }
    }
}

#[tokio::test]
async fn the_only_replica_being_full_elsewhere_makes_requests_wait_and_not_fail() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (house, _worker) = House::with_worker(move |call: Call| {
        let nth = asked.fetch_add(1, Ordering::Relaxed);
        async move {
            if nth < 3 {
                call.reject(v1::RejectReason::Full);
            } else {
                call.answer(200, call.call.body.clone());
            }
        }
    })
    .await;
    let (response, body) = house.post("/", "patient").await;
    assert_eq!(
        (response.status().as_u16(), &body[..]),
        (200, &b"patient"[..])
    );
}

#[tokio::test]
async fn a_worker_lost_before_it_accepted_is_not_noticed_by_the_client() {
    let (house, w1, _w2) = two(|call: Call| async move { call.broken.cancel() }).await;
    let mut asked = 0;
    while w1.paths().is_empty() {
        asked += 1;
        assert!(asked < 200, "the breaking worker was never asked");
        let (response, _) = house.post("/", "body").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-replica"], "r2");
    }
}

#[tokio::test]
async fn a_large_body_of_which_a_part_went_to_a_replica_that_did_not_take_it_goes_elsewhere_whole()
{
    let sent = Bytes::from_iter((0..3_000_000_u32).map(|n| (n % 251) as u8));
    for is_lost in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let refuse = move |mut call: Call| async move {
            call.unasked().await;
            if is_lost {
                call.broken.cancel();
            } else {
                call.reject(v1::RejectReason::Draining);
            }
        };
        let echo = |mut call: Call| async move {
            call.accept();
            let body = call.body().await;
            call.head(200, Bytes::new(), false);
            call.stream(body).await;
        };
        let w1 = Worker::start(dir.path(), "w1", refuse).await;
        let w2 = Worker::start(dir.path(), "w2", echo).await;
        let table = table(vec![w1.replica("r1"), w2.replica("r2")]);
        let house = House::start(dir, table).await;
        let post = || {
            Request::post(house.url("/"))
                .body(sent.clone().into())
                .unwrap()
        };
        let (status, replica, body) = answer_of_w1(&house, &w1, post).await;
        assert_eq!((status, replica.as_str()), (200, "r2"));
        assert!(body == sent, "{} bytes came back", body.len());
        house.load(0, 0).await;
    }
}

/// Sends requests until one of them reached w1, and gives its answer.
async fn answer_of_w1(
    house: &House,
    w1: &Worker,
    request: impl Fn() -> Request<Full<Bytes>>,
) -> (u16, String, Bytes) {
    for _ in 0..200 {
        let answer = within(house.later(request())).await.unwrap();
        if !w1.paths().is_empty() {
            return answer;
        }
    }
    panic!("w1 was never asked");
}

#[tokio::test]
async fn a_worker_lost_after_it_accepted_is_502_unless_repeating_does_no_harm() {
    let break_after_accept = |call: Call| async move {
        call.accept();
        // The frame is on its way before the connection breaks.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        call.broken.cancel();
    };
    let (house, w1, _w2) = two(break_after_accept).await;
    let post = || Request::post(house.url("/")).body("x".into()).unwrap();
    let (status, _, body) = answer_of_w1(&house, &w1, post).await;
    assert_eq!(status, 502);
    assert_eq!(
        &body[..],
        b"The replica of Deployment(name='D', app='app1') was lost with the request in it; the \
          request may have been executed."
    );

    let (house, w1, _w2) = two(break_after_accept).await;
    let get = || Request::get(house.url("/")).body(Full::default()).unwrap();
    let (status, replica, _) = answer_of_w1(&house, &w1, get).await;
    assert_eq!((status, replica.as_str()), (200, "r2"));

    let (house, w1, _w2) = two(break_after_accept).await;
    let keyed = || {
        Request::post(house.url("/"))
            .header("idempotency-key", "k1")
            .body("x".into())
            .unwrap()
    };
    let (status, replica, _) = answer_of_w1(&house, &w1, keyed).await;
    assert_eq!((status, replica.as_str()), (200, "r2"));
}

#[tokio::test]
async fn a_request_that_kills_its_replica_is_repeated_only_once() {
    let (house, worker) = House::with_worker(|call: Call| async move {
        call.accept();
        call.fault(v1::FaultKind::ReplicaDied);
    })
    .await;
    let (response, _) = house.get("/").await;
    assert_eq!(response.status(), 502);
    assert_eq!(worker.paths().len(), 2);
}

#[tokio::test]
async fn a_withdrawn_replica_gets_nothing_more_once_the_table_is_acknowledged() {
    let (house, w1, w2) = two(ok).await;
    house
        .head
        .set(|table| {
            deployment(table).replicas.retain(|r| r.replica_id == "r2");
        })
        .await;
    let before = w1.paths().len();
    for _ in 0..50 {
        assert_eq!(house.get("/").await.0.headers()["x-replica"], "r2");
    }
    assert_eq!(w1.paths().len(), before);
    assert_eq!(w2.paths().len(), 50);
}

#[tokio::test]
async fn a_request_on_a_withdrawn_replica_is_still_answered() {
    let go = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&go);
    let (house, _worker) = House::with_worker(move |call: Call| {
        let gate = Arc::clone(&gate);
        async move {
            call.accept();
            gate.acquire().await.unwrap().forget();
            call.head(200, "late", true);
        }
    })
    .await;
    let waiting = house.get_later("/");
    house.load(0, 1).await;
    house
        .head
        .set(|table| deployment(table).replicas.clear())
        .await;
    go.add_permits(1);
    let (status, _, body) = within(waiting).await.unwrap();
    assert_eq!((status, &body[..]), (200, &b"late"[..]));
}

#[tokio::test]
async fn requests_that_came_before_any_replica_wait_for_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::start(dir, table(Vec::new())).await;
    let mut waiting = Vec::new();
    for n in 0..5 {
        waiting.push(house.get_later(&format!("/{n}")));
        house.load(n + 1, 0).await;
    }
    let worker = Worker::start(house.dir.path(), "w1", ok).await;
    let replica = worker.replica("r1");
    house
        .head
        .set(|table| {
            deployment(table).max_ongoing_requests = 1;
            deployment(table).replicas = vec![replica];
        })
        .await;
    for request in waiting {
        assert_eq!(within(request).await.unwrap().0, 200);
    }
    assert_eq!(worker.paths(), ["/0", "/1", "/2", "/3", "/4"]);
}

#[tokio::test]
async fn a_replica_never_has_more_than_max_ongoing_requests() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = Arc::clone(&most);
    let (house, _worker) = House::with_worker(move |call: Call| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            call.accept();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            call.head(200, "ok", true);
        }
    })
    .await;
    house
        .head
        .set(|table| deployment(table).max_ongoing_requests = 3)
        .await;
    let all: Vec<_> = (0..40).map(|_| house.get_later("/")).collect();
    for request in all {
        assert_eq!(within(request).await.unwrap().0, 200);
    }
    assert_eq!(peak.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_worker_that_comes_back_is_used_again() {
    let (house, worker) = House::with_worker(ok).await;
    assert_eq!(house.get("/").await.0.status(), 200);
    worker.kill();
    let waiting = loop {
        // Until the router has noticed, a request may still find the old connection.
        let waiting = house.get_later("/again");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        if !waiting.is_finished() {
            break waiting;
        }
    };
    let reborn = Worker::start(house.dir.path(), "w1", ok).await;
    assert_eq!(within(waiting).await.unwrap().0, 200);
    assert!(reborn.paths().contains(&"/again".to_owned()));
}

/// Refuses and breaks its connection before it accepts, now and then; answers each accepted call
/// with its own path.
async fn moody(call: Call) {
    match fastrand::u8(..) {
        0..=3 => call.broken.cancel(),
        4..=63 => call.reject(v1::RejectReason::Full),
        64..=79 => call.reject(v1::RejectReason::Draining),
        _ => {
            tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(0..3))).await;
            call.answer(200, call.call.path.clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_before_acceptance_each_request_gets_its_own_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut workers = Vec::new();
    for id in ["w1", "w2", "w3"] {
        workers.push(Worker::start(dir.path(), id, moody).await);
    }
    let replicas: Vec<_> = workers
        .iter()
        .map(|w| w.replica(&format!("r-{}", w.id)))
        .collect();
    let house = House::start(dir, table(replicas.clone())).await;
    house
        .head
        .set(|table| deployment(table).max_ongoing_requests = 4)
        .await;
    let clients: Vec<_> = (0..20)
        .map(|client| {
            let http = house.client.clone();
            let url = house.url("");
            tokio::spawn(async move {
                for n in 0..20 {
                    let path = format!("/{client}/{n}");
                    let request = Request::post(format!("{url}{path}"))
                        .body("x".into())
                        .unwrap();
                    let response = http.request(request).await.unwrap();
                    assert_eq!(response.status(), 200);
                    let body = http_body_util::BodyExt::collect(response.into_body()).await;
                    assert_eq!(body.unwrap().to_bytes(), path);
                }
            })
        })
        .collect();
    let churn = async {
        for turn in 0.. {
            house
                .head
                .set(|table| {
                    let mut now = replicas.clone();
                    now.remove(turn % replicas.len());
                    deployment(table).replicas = now;
                })
                .await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let all = async {
        for client in clients {
            client.await.unwrap();
        }
    };
    tokio::select! {
        () = within(all) => {}
        () = churn => {}
    }
    house.load(0, 0).await;
}
