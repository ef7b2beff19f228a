//! The life of replicas and of the worker itself, with a head that tells them what to do.

mod support;

use std::sync::atomic::Ordering;

use mobula_proto::v1::{AssignedReplica, RejectReason, ReplicaState};
use support::{House, replica, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_lives_from_starting_to_stopped_and_is_reported_in_every_state() {
    let mut house = House::start().await;
    let version = house.assign(vec![replica("r1", "Echo")]).await;
    let running = house.reaches("r1", ReplicaState::Running).await;
    assert_eq!(
        (
            running.config_version.as_str(),
            running.code_version.as_str()
        ),
        ("c1", "v1")
    );
    assert!(running.start_time_s > 1.6e9, "{}", running.start_time_s);
    house.assign(vec![]).await;
    house.reaches("r1", ReplicaState::Stopped).await;
    let gone = house.head.newest_is(|report| report.replicas.is_empty());
    soon("the stopped replica leaves the report", gone).await;

    let states: Vec<_> = house
        .head
        .reports()
        .iter()
        .flat_map(|report| report.replicas.iter().map(|replica| replica.state()))
        .collect();
    let stopped = states
        .iter()
        .filter(|s| **s == ReplicaState::Stopped)
        .count();
    assert_eq!(stopped, 1, "reported once: {states:?}");
    assert!(house.head.reports()[0].replicas.is_empty());
    let first = house
        .head
        .report_where(|r| (r.assignment_version == version).then(|| r.clone()));
    let first = soon("the applied version", first).await;
    assert_eq!(first.labels["zone"], "a");
    assert_eq!(house.probe.shut_down.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_is_reported_with_its_text() {
    let mut house = House::start().await;
    house
        .assign(vec![
            replica("r1", "FailsToStart"),
            replica("r2", "PanicsAtStart"),
            replica("r3", "Missing"),
            AssignedReplica {
                import_path: "other:app".to_owned(),
                ..replica("r4", "Echo")
            },
            AssignedReplica {
                user_config_json: Some(r#"{"bad": 1}"#.to_owned()),
                ..replica("r5", "Echo")
            },
            AssignedReplica {
                args_json: "[1]".to_owned(),
                ..replica("r6", "Echo")
            },
            replica("r7", "Echo"),
        ])
        .await;
    for (id, text) in [
        ("r1", "model.onnx is not there"),
        ("r2", "panicked: no memory for the model"),
        ("r3", "has no deployment 'Missing'"),
        ("r4", "the import paths that exist are: test:app"),
        ("r5", "threshold is not a number"),
        ("r6", "args is not a JSON object"),
    ] {
        let failed = house.reaches(id, ReplicaState::Failed).await;
        assert!(failed.message.contains(text), "{id}: {}", failed.message);
    }
    // The others are not disturbed, and a failed one leaves when the assignment drops it.
    house.reaches("r7", ReplicaState::Running).await;
    house.assign(vec![replica("r7", "Echo")]).await;
    let left = house.head.newest_is(|report| report.replicas.len() == 1);
    soon("the failed replicas leave the report", left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unhealthy_first_check_is_a_failed_start() {
    let mut house = House::start().await;
    house.probe.healthy.store(false, Ordering::SeqCst);
    house.assign(vec![replica("r1", "Echo")]).await;
    let failed = house.reaches("r1", ReplicaState::Failed).await;
    assert!(
        failed.message.contains("gpu fell off the bus"),
        "{}",
        failed.message
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_failed_checks_make_a_replica_unhealthy_and_a_good_one_makes_it_well() {
    let mut house = House::start().await;
    let checked = AssignedReplica {
        health_check_period_s: 0.02,
        ..replica("r1", "Echo")
    };
    house.assign(vec![checked]).await;
    house.reaches("r1", ReplicaState::Running).await;
    house.probe.healthy.store(false, Ordering::SeqCst);
    let unhealthy = house.reaches("r1", ReplicaState::Unhealthy).await;
    assert!(
        unhealthy.message.contains("gpu fell off the bus"),
        "{}",
        unhealthy.message
    );
    // Still answering.
    let router = house.router().await;
    assert_eq!(router.get("r1", "/x").await.answer().await.text(), "GET /x");
    house.probe.healthy.store(true, Ordering::SeqCst);
    let well = house
        .head
        .newest_is(|report| report.replicas[0].state() == ReplicaState::Running);
    soon("the replica is well again", well).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_nobody_wants_any_more_is_dropped() {
    let mut house = House::start().await;
    house
        .assign(vec![replica("r1", "NeverReady"), replica("r2", "Echo")])
        .await;
    // It does not hold up the host: the other one comes up.
    house.reaches("r2", ReplicaState::Running).await;
    house.reaches("r1", ReplicaState::Starting).await;
    let router = house.router().await;
    let early = router.get("r1", "/x").await.answer().await.rejected();
    assert_eq!(early.reason(), RejectReason::UnknownReplica);
    house.assign(vec![replica("r2", "Echo")]).await;
    house
        .probe
        .reaches("the start is dropped", |p| &p.starts_dropped, 1)
        .await;
    house.reaches("r1", ReplicaState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_config_reaches_the_same_replica() {
    let configured = |version: &str, json: &str| AssignedReplica {
        config_version: version.to_owned(),
        user_config_json: Some(json.to_owned()),
        ..replica("r1", "Echo")
    };
    let mut house = House::start().await;
    house.assign(vec![configured("c1", r#"{"a":1}"#)]).await;
    house.reaches("r1", ReplicaState::Running).await;
    let router = house.router().await;
    assert_eq!(
        router.get("r1", "/config").await.answer().await.text(),
        r#"{"a":1}"#
    );

    house.assign(vec![configured("c2", r#"{"a":2}"#)]).await;
    let in_force = house.head.newest_is(|report| {
        let replica = &report.replicas[0];
        replica.config_version == "c2" && replica.state() == ReplicaState::Running
    });
    soon("the config is in force", in_force).await;
    assert_eq!(
        router.get("r1", "/config").await.answer().await.text(),
        r#"{"a":2}"#
    );
    assert_eq!(house.probe.constructed.load(Ordering::SeqCst), 1);

    // One that the code refuses ends the replica, with the text; the config before it stays.
    house.assign(vec![configured("c3", r#"{"bad":3}"#)]).await;
    let failed = house.reaches("r1", ReplicaState::Failed).await;
    assert!(
        failed.message.contains("threshold is not a number"),
        "{}",
        failed.message
    );
    assert_eq!(failed.config_version, "c2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_serves_with_its_old_config_while_it_takes_the_new_one() {
    let configured = |version: &str, json: &str| AssignedReplica {
        config_version: version.to_owned(),
        user_config_json: Some(json.to_owned()),
        ..replica("r1", "Echo")
    };
    let mut house = House::start().await;
    house.assign(vec![configured("c1", "{}")]).await;
    house.reaches("r1", ReplicaState::Running).await;
    house.assign(vec![configured("c2", r#"{"slow":2}"#)]).await;
    let updating = house.reaches("r1", ReplicaState::Updating).await;
    assert_eq!(updating.config_version, "c1");
    let router = house.router().await;
    let config = router.get("r1", "/config").await.answer().await;
    assert_eq!(config.text(), "{}");
    // A third one comes while the second is under way: it is applied after it.
    house.assign(vec![configured("c3", r#"{"a":3}"#)]).await;
    house.probe.release.add_permits(1);
    let in_force = house.head.newest_is(|report| {
        let replica = &report.replicas[0];
        replica.config_version == "c3" && replica.state() == ReplicaState::Running
    });
    soon("the last config is in force", in_force).await;
    let config = router.get("r1", "/config").await.answer().await;
    assert_eq!(config.text(), r#"{"a":3}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_replica_finishes_what_it_accepted_and_takes_nothing_new() {
    let mut house = House::with_echo(10).await;
    let router = house.router().await;
    let mut accepted = router.get("r1", "/hold").await;
    accepted.accepted().await;
    house.assign(vec![]).await;
    let draining = house.reaches("r1", ReplicaState::Draining).await;
    assert!(draining.ongoing_requests <= 1);
    let late = router.get("r1", "/x").await.answer().await.rejected();
    assert_eq!(
        (late.reason(), late.ongoing_requests),
        (RejectReason::Draining, 1)
    );
    house.probe.release.add_permits(1);
    assert_eq!(accepted.answer().await.text(), "held");
    house.reaches("r1", ReplicaState::Stopped).await;
    assert_eq!(house.probe.shut_down.load(Ordering::SeqCst), 1);
    assert_eq!(house.probe.dropped.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_keeps_running_while_the_head_is_away_and_is_reported_to_the_next() {
    let mut house = House::with_echo(10).await;
    let router = house.router().await;
    house.head.kill().await;
    for _ in 0..20 {
        assert_eq!(router.get("r1", "/x").await.answer().await.text(), "GET /x");
    }
    house.head.restart().await;
    let adopted = house.reaches("r1", ReplicaState::Running).await;
    assert_eq!(adopted.replica_id, "r1");
    // The next head may count from anywhere.
    house.head.assign(mobula_proto::v1::WorkerAssignment {
        version: 1,
        replicas: vec![replica("r1", "Echo"), replica("r2", "Echo")],
        retire: false,
    });
    house.reaches("r2", ReplicaState::Running).await;
    assert_eq!(house.probe.constructed.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_told_to_end_waits_for_the_head_then_drains_and_returns() {
    let mut house = House::with_echo(10).await;
    let router = house.router().await;
    let mut accepted = router.get("r1", "/hold").await;
    accepted.accepted().await;
    house.shutdown.cancel();
    soon(
        "draining is reported",
        house.head.newest_is(|report| report.draining),
    )
    .await;
    // The head has not withdrawn it yet: it still serves.
    assert_eq!(router.get("r1", "/x").await.answer().await.text(), "GET /x");
    house.retire().await;
    house.reaches("r1", ReplicaState::Draining).await;
    house.probe.release.add_permits(1);
    assert_eq!(accepted.answer().await.text(), "held");
    let probe = house.probe.clone();
    let ended = house.ends().await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(probe.shut_down.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_told_to_end_without_a_head_drains_by_itself() {
    let mut house = House::with_echo(10).await;
    house.head.kill().await;
    house.shutdown.cancel();
    let (probe, data_addr) = (house.probe.clone(), house.data_addr.clone());
    assert!(house.ends().await.is_ok());
    assert_eq!(probe.shut_down.load(Ordering::SeqCst), 1);
    let mobula_process::net::Addr::Unix(path) = data_addr else {
        panic!("a Unix socket");
    };
    assert!(!path.exists(), "its socket is removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_told_to_end_does_not_wait_for_the_head_once_its_replicas_are_withdrawn() {
    let mut house = House::with_echo(10).await;
    house.shutdown.cancel();
    soon(
        "draining is reported",
        house.head.newest_is(|report| report.draining),
    )
    .await;
    house.assign(vec![]).await;
    house.reaches("r1", ReplicaState::Stopped).await;
    assert!(house.ends().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_hear_which_gpus_are_theirs_and_one_without_room_fails_until_there_is() {
    let mut house = House::start().await;
    let asks = |id: &str, num_gpus: f64| AssignedReplica {
        num_gpus,
        ..replica(id, "Echo")
    };
    let mut wanted = vec![asks("a", 0.6), asks("b", 0.6), asks("c", 0.0)];
    house.assign(wanted.clone()).await;
    let router = house.router().await;
    for (id, gpus) in [
        ("a", "[GpuShare { device: 0, share: 0.6 }]"),
        ("b", "[GpuShare { device: 1, share: 0.6 }]"),
        ("c", "[]"),
    ] {
        house.reaches(id, ReplicaState::Running).await;
        let answer = router.get(id, "/gpus").await.answer().await;
        assert_eq!(answer.text(), gpus, "{id}");
    }
    wanted.push(asks("d", 0.6));
    house.assign(wanted.clone()).await;
    let failed = house.reaches("d", ReplicaState::Failed).await;
    assert!(
        failed.message.contains("free are 0.4 of 0, 0.4 of 1"),
        "{}",
        failed.message
    );
    // The device of one that has ended is free at once.
    wanted.retain(|replica| replica.replica_id != "a" && replica.replica_id != "d");
    house.assign(wanted.clone()).await;
    house.reaches("a", ReplicaState::Stopped).await;
    wanted.push(asks("e", 1.0));
    house.assign(wanted).await;
    house.reaches("e", ReplicaState::Running).await;
    let answer = router.get("e", "/gpus").await.answer().await;
    assert_eq!(answer.text(), "[GpuShare { device: 0, share: 1.0 }]");
}
