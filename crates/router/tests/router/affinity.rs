//! Requests that would rather stay with one replica.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Request;

use crate::setup::{House, table};
use crate::worker::{Call, Worker};

async fn ok(call: Call) {
    call.answer(200, "ok");
}

/// Three workers with one replica each: r0, r1, r2.
async fn three() -> (House, Vec<Worker>) {
    let dir = tempfile::tempdir().unwrap();
    let mut workers = Vec::new();
    for n in 0..3 {
        workers.push(Worker::start(dir.path(), &format!("w{n}"), ok).await);
    }
    let replicas = workers.iter().enumerate();
    let replicas = replicas.map(|(n, worker)| worker.replica(&format!("r{n}")));
    let house = House::start(dir, table(replicas.collect())).await;
    // Until all of them are connected a session may move.
    let mut used = BTreeSet::new();
    while used.len() < 3 {
        used.insert(replica_of(&house, "accept", "*/*").await);
    }
    (house, workers)
}

async fn replica_of(house: &House, header: &str, value: &str) -> String {
    let request = Request::post(house.url("/")).header(header, value);
    let (response, _) = house.send(request, Bytes::new()).await;
    assert_eq!(response.status(), 200);
    response.headers()["x-replica"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_and_a_model_stay_with_one_replica_and_all_replicas_have_some() {
    let (house, _workers) = three().await;
    let names = [
        "x-session-id",
        "serve_multiplexed_model_id",
        "Serve-Multiplexed-Model-Id",
    ];
    for header in names {
        let mut homes = BTreeSet::new();
        for key in 0..20 {
            let key = format!("key-{key}");
            let home = replica_of(&house, header, &key).await;
            for _ in 0..3 {
                assert_eq!(
                    replica_of(&house, header, &key).await,
                    home,
                    "{header} {key}"
                );
            }
            homes.insert(home);
        }
        assert_eq!(homes.len(), 3, "{header}");
    }
}

#[tokio::test]
async fn a_session_whose_worker_is_gone_goes_on_elsewhere() {
    let (house, mut workers) = three().await;
    let home = replica_of(&house, "x-session-id", "s").await;
    let number: usize = home[1..].parse().unwrap();
    workers.remove(number).kill();
    // The first one may find out that the worker is gone, and goes wherever there is room.
    replica_of(&house, "x-session-id", "s").await;
    let next = replica_of(&house, "x-session-id", "s").await;
    assert_ne!(next, home);
    assert_eq!(replica_of(&house, "x-session-id", "s").await, next);
}
