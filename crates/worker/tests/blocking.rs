//! Code that blocks its thread: what it holds up, and what it does not. The replicas of a worker
//! share one thread here, and what blocks goes on only when the others were answered.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use mobula_proto::v1::{AssignedReplica, ReplicaState};
use support::{Exchange, House, Router, one_thread, replica, soon};

/// With two replicas: "r1", and "r2" that shall not be held up.
async fn house(r1: AssignedReplica) -> House {
    let mut house = House::start_on(one_thread()).await;
    house.assign(vec![r1, replica("r2", "Echo")]).await;
    house.reaches("r1", ReplicaState::Running).await;
    house.reaches("r2", ReplicaState::Running).await;
    house
}

/// "r1", which blocks in that method as soon as it has this config.
fn blocks_in(method: &str, config_version: &str) -> AssignedReplica {
    AssignedReplica {
        config_version: config_version.to_owned(),
        user_config_json: Some(format!(r#"{{"blocks":"{method}"}}"#)),
        ..replica("r1", "Echo")
    }
}

async fn is_blocked(house: &House, times: usize) {
    let probe = &house.probe;
    probe.reaches("it blocks", |p| &p.blocked, times).await;
}

async fn answers(router: &Router, id: &str) {
    let answer = soon("an answer", router.get(id, "/x")).await.answer().await;
    assert_eq!(answer.text(), "GET /x");
}

/// A call of "r1" that keeps the only thread for so long that it is seen. The head hears of the
/// worker all the same.
async fn seen_to_block(house: &House, router: &Router) -> Exchange {
    let call = router.get("r1", "/block").await;
    is_blocked(house, 1).await;
    let so_far = house.head.reports().len();
    let more = async {
        while house.head.reports().len() < so_far + 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("reports while the thread is blocked", more).await;
    call
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_blocks_holds_up_no_report_and_others_only_until_it_was_seen() {
    let mut house = house(replica("r1", "Echo")).await;
    let router = house.router().await;
    let first = seen_to_block(&house, &router).await;
    // What it kept waiting is not blocked by the next call of the same replica.
    let second = router.get("r1", "/block").await;
    house.probe.unblock(1);
    assert_eq!(first.answer().await.text(), "blocked");
    let probe = &house.probe;
    probe.reaches("the next", |p| &p.blocked_ever, 2).await;
    answers(&router, "r2").await;
    // The pool has no other thread. What is not a call needs none of it.
    let again = |config_version: &str| AssignedReplica {
        config_version: config_version.to_owned(),
        user_config_json: Some("{}".to_owned()),
        ..replica("r3", "Echo")
    };
    let r1 = replica("r1", "Echo");
    for config_version in ["c1", "c2"] {
        let wanted = vec![r1.clone(), again(config_version)];
        house.assign(wanted).await;
        let in_force = house.head.report_where(|report| {
            let mut replicas = report.replicas.iter();
            let r3 = replicas.find(|replica| replica.replica_id == "r3")?;
            let running = r3.state() == ReplicaState::Running;
            (running && r3.config_version == config_version).then_some(())
        });
        soon("the config is in force", in_force).await;
    }
    house.assign(vec![r1]).await;
    house.reaches("r3", ReplicaState::Stopped).await;
    house.probe.unblock(1);
    assert_eq!(second.answer().await.text(), "blocked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_check_that_blocks_holds_up_nobody_is_a_failed_one_and_keeps_one_thread() {
    let often = AssignedReplica {
        health_check_period_s: 0.01,
        ..replica("r1", "Echo")
    };
    let mut house = house(often).await;
    let router = house.router().await;
    let checked = AssignedReplica {
        health_check_period_s: 0.01,
        health_check_timeout_s: 0.05,
        ..blocks_in("check_health", "c2")
    };
    house.assign(vec![checked, replica("r2", "Echo")]).await;
    is_blocked(&house, 1).await;
    answers(&router, "r2").await;
    house.reaches("r1", ReplicaState::Unhealthy).await;
    // Neither its calls nor the next config wait for it.
    answers(&router, "r1").await;
    let mended = AssignedReplica {
        health_check_period_s: 0.01,
        ..blocks_in("nothing", "c3")
    };
    house.assign(vec![mended, replica("r2", "Echo")]).await;
    let in_force = house
        .head
        .newest_is(|report| report.replicas[0].config_version == "c3");
    soon("the next config is in force", in_force).await;
    assert_eq!(house.probe.blocked_ever.load(Ordering::SeqCst), 1);
    house.probe.unblock(1);
    let well = house
        .head
        .newest_is(|report| report.replicas[0].state() == ReplicaState::Running);
    soon("the replica is well again", well).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_health_check_that_never_comes_back_is_a_failed_start() {
    let mut house = House::start_on(one_thread()).await;
    let checked = AssignedReplica {
        health_check_timeout_s: 0.05,
        ..blocks_in("check_health", "c1")
    };
    house.assign(vec![checked, replica("r2", "Echo")]).await;
    let failed = house.reaches("r1", ReplicaState::Failed).await;
    let text = "took longer than health_check_timeout_s (0.05 s)";
    assert!(failed.message.contains(text), "{}", failed.message);
    house.reaches("r2", ReplicaState::Running).await;
    house.probe.unblock(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconfigure_that_blocks_holds_up_neither_others_nor_its_own_calls() {
    let mut house = house(replica("r1", "Echo")).await;
    let router = house.router().await;
    let blocks = blocks_in("reconfigure", "c2");
    house.assign(vec![blocks, replica("r2", "Echo")]).await;
    is_blocked(&house, 1).await;
    answers(&router, "r2").await;
    answers(&router, "r1").await;
    house.reaches("r1", ReplicaState::Updating).await;
    // One at a time: the next one waits.
    let next = blocks_in("nothing", "c3");
    let version = house.assign(vec![next, replica("r2", "Echo")]).await;
    let taken = house.head.report_where(|report| {
        let is_taken = report.assignment_version == version;
        is_taken.then(|| report.replicas[0].config_version.clone())
    });
    assert_eq!(soon("the next is taken", taken).await, "c1");
    answers(&router, "r2").await;
    house.probe.unblock(1);
    let in_force = house.head.newest_is(|report| {
        let replica = &report.replicas[0];
        replica.config_version == "c3" && replica.state() == ReplicaState::Running
    });
    soon("the last config is in force", in_force).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_blocks_holds_up_nobody() {
    let mut house = house(blocks_in("shutdown", "c1")).await;
    let router = house.router().await;
    house.assign(vec![replica("r2", "Echo")]).await;
    is_blocked(&house, 1).await;
    answers(&router, "r2").await;
    house.reaches("r1", ReplicaState::Draining).await;
    house.probe.unblock(1);
    let stopped = house.reaches("r1", ReplicaState::Stopped).await;
    assert_eq!(stopped.message, "");
    assert_eq!(house.probe.shut_down.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_never_comes_back_is_left_behind_in_its_time_and_so_is_its_thread() {
    let impatient = AssignedReplica {
        graceful_shutdown_timeout_s: 0.05,
        ..blocks_in("shutdown", "c1")
    };
    let mut house = house(impatient).await;
    let router = house.router().await;
    house.assign(vec![replica("r2", "Echo")]).await;
    let stopped = house.reaches("r1", ReplicaState::Stopped).await;
    let text = "killed: graceful_shutdown_timeout_s passed before shutdown came back";
    assert_eq!(stopped.message, text);
    answers(&router, "r2").await;
    house.retire().await;
    let probe = house.probe.clone();
    assert!(house.ends().await.is_ok());
    probe.unblock(1);
}
