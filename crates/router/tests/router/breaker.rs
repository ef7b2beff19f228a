//! A replica whose calls fail is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mobula_proto::v1;
use mobula_router::limits::FAILURES_IN_A_ROW_MAX;
use mobula_router::metrics::TIMES_LEFT_OUT;

use crate::metrics::{recorder, value};
use crate::setup::{House, table, within};
use crate::worker::{Call, Worker};

/// How r1 answers, and r2 is well.
async fn two(
    application: &str,
    broken: Arc<AtomicBool>,
    fails: fn(&Call),
) -> (House, Worker, Worker) {
    let dir = tempfile::tempdir().unwrap();
    let first = move |call: Call| {
        let broken = broken.load(Ordering::Relaxed);
        async move {
            if broken {
                fails(&call);
            } else {
                call.answer(200, "ok");
            }
        }
    };
    let w1 = Worker::start(dir.path(), "w1", first).await;
    let w2 = Worker::start(dir.path(), "w2", |call: Call| async move {
        call.answer(200, "ok")
    })
    .await;
    let mut table = table(vec![w1.replica("r1"), w2.replica("r2")]);
    table.applications[0].name = application.to_owned();
    let house = House::start(dir, table).await;
    (house, w1, w2)
}

fn raise(call: &Call) {
    call.accept();
    call.fault(v1::FaultKind::Exception);
}

#[tokio::test]
async fn a_replica_that_fails_is_left_out_and_comes_back_when_it_is_well() {
    recorder();
    let broken = Arc::new(AtomicBool::new(true));
    let (house, w1, _w2) = two("raising", Arc::clone(&broken), raise).await;
    let max = FAILURES_IN_A_ROW_MAX as usize;
    let mut failures = 0;
    while failures < max {
        let (response, _) = house.post("/", "x").await;
        failures += usize::from(response.status() == 500);
    }
    // It may be tried meanwhile, once per pause, which is a second at least.
    for _ in 0..50 {
        house.post("/", "x").await;
    }
    let asked = w1.paths().len();
    assert!(asked < max + 10, "it is asked on: {asked}");
    let labels = [("application", "raising"), ("deployment", "D")];
    assert!(value(TIMES_LEFT_OUT, &labels) >= 1.0);
    broken.store(false, Ordering::Relaxed);
    within(async {
        // Two at once: what is on trial gets one request at a time.
        while w1.paths().len() < asked + 2 {
            let (response, _) = house.post("/", "x").await;
            assert_eq!(response.status(), 200);
        }
    })
    .await;
}

#[tokio::test]
async fn a_status_that_the_users_code_chooses_is_an_answer_and_no_failure() {
    recorder();
    let broken = Arc::new(AtomicBool::new(true));
    let (house, w1, _w2) = two("answering", broken, |call| call.answer(500, "as I like it")).await;
    while w1.paths().len() < 5 * FAILURES_IN_A_ROW_MAX as usize {
        house.post("/", "x").await;
    }
    assert_eq!(value(TIMES_LEFT_OUT, &[("application", "answering")]), 0.0);
}

/// r1 takes calls and never answers, r2 is well; the config's time-out is short.
async fn one_hangs(application: &str) -> (House, Worker, Worker) {
    let dir = tempfile::tempdir().unwrap();
    let w1 = Worker::start(dir.path(), "w1", |mut call: Call| async move {
        call.accept();
        call.cancelled().await;
    })
    .await;
    let w2 = Worker::start(dir.path(), "w2", |call: Call| async move {
        call.answer(200, "ok")
    })
    .await;
    let mut table = table(vec![w1.replica("r1"), w2.replica("r2")]);
    table.applications[0].name = application.to_owned();
    table.ingress.as_mut().unwrap().http_request_timeout_s = Some(0.05);
    let house = House::start(dir, table).await;
    (house, w1, w2)
}

#[tokio::test]
async fn a_replica_that_hangs_is_left_out_while_others_answer() {
    recorder();
    let (house, w1, _w2) = one_hangs("hanging").await;
    let labels = [("application", "hanging"), ("deployment", "D")];
    within(async {
        while value(TIMES_LEFT_OUT, &labels) < 1.0 {
            house.get("/").await;
        }
    })
    .await;
    assert!(w1.paths().len() >= FAILURES_IN_A_ROW_MAX as usize);
}

#[tokio::test]
async fn a_time_out_that_the_client_brings_says_nothing_about_the_replica() {
    recorder();
    let (house, w1, _w2) = one_hangs("hurried").await;
    while w1.paths().len() < 3 * FAILURES_IN_A_ROW_MAX as usize {
        let request = http::Request::get(house.url("/"))
            .header("x-request-timeout-seconds", "0.02")
            .body(Default::default())
            .unwrap();
        within(house.client.request(request)).await.unwrap();
    }
    assert_eq!(value(TIMES_LEFT_OUT, &[("application", "hurried")]), 0.0);
}
