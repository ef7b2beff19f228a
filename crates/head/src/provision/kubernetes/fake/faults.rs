//! What no real API server can be asked for.

use std::time::Duration;

use serde_json::json;

use super::api_server::Fault;
use super::cluster::{Cluster, groups};

/// A cluster of two full pods.
async fn two_pods(min: u32) -> Cluster {
    let mut cluster = Cluster::new();
    let fields = json!({"min": min, "max": 200, "idle_timeout_s": 1});
    cluster.start_head(groups(&fields, "1")).await;
    cluster.want(4);
    cluster
        .until("two pods", |it| it.is_served() && it.pods().len() == 2)
        .await;
    cluster
}

/// Nothing was done that must not be done, and in the end there is what shall be.
async fn comes_to(cluster: &mut Cluster, replicas: usize) {
    cluster.want(replicas);
    let pods = replicas.div_ceil(2);
    cluster
        .until("all run", |it| it.is_served() && it.pods().len() == pods)
        .await;
    cluster.wait(Duration::from_secs(60)).await;
    assert_eq!(cluster.pods().len(), pods, "and it stays so");
    assert_eq!(cluster.api.unmet(), 0, "all faults were met");
    assert_eq!(cluster.api.state().wrongs, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn refused_throttled_and_broken_creations_are_made_up_for() {
    for fault in [
        Fault::Status(409),
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::Hang,
        Fault::Undone,
        Fault::DoneUnanswered,
    ] {
        let mut cluster = two_pods(0).await;
        let before = cluster.pods();
        cluster.api.fail("POST pods", &[fault, fault]);
        comes_to(&mut cluster, 8).await;
        let pods = cluster.pods();
        assert!(before.iter().all(|pod| pods.contains(pod)), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_without_an_answer_makes_no_second_pod() {
    let mut cluster = two_pods(0).await;
    cluster.api.fail("POST pods", &[Fault::DoneUnanswered]);
    cluster.want(6);
    cluster.until("all run", Cluster::is_served).await;
    cluster.wait(Duration::from_secs(60)).await;
    assert_eq!(cluster.api.count("POST pods"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_behind_makes_no_pod_twice() {
    let mut cluster = Cluster::new();
    cluster.api.fail("WATCH pods", &[Fault::Late; 9]);
    let fields = json!({"max": 200, "idle_timeout_s": 60});
    cluster.start_head(groups(&fields, "1")).await;
    for (replicas, pods) in [(2, 1), (6, 3), (8, 4)] {
        cluster.want(replicas);
        cluster.until("all run", Cluster::is_served).await;
        assert_eq!(cluster.api.count("POST pods"), pods);
    }
}

#[tokio::test(start_paused = true)]
async fn deletions_that_fail_or_do_nothing_are_asked_for_again() {
    for faults in [
        [Fault::Status(409); 2],
        [Fault::Status(429); 2],
        [Fault::Status(500), Fault::Hang],
        [Fault::Hang, Fault::Undone],
        [Fault::Undone, Fault::DoneUnanswered],
    ] {
        let mut cluster = two_pods(0).await;
        cluster.api.fail("DELETE pods", &faults);
        comes_to(&mut cluster, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_hangs_or_is_none_is_never_no_pods() {
    for fault in [
        Fault::Status(500),
        Fault::Status(429),
        Fault::Hang,
        Fault::NoList,
    ] {
        let mut cluster = two_pods(0).await;
        let before = cluster.pods();
        // The watch breaks, and so do the lists that follow.
        cluster.api.fail("WATCH pods", &[Fault::Expired]);
        cluster.api.fail("LIST pods", &[fault; 4]);
        cluster.wait(Duration::from_secs(90)).await;
        assert!(
            cluster.api.count("LIST pods") > 5,
            "{fault:?}: it was listed again"
        );
        assert_eq!(cluster.pods(), before, "{fault:?}");
        assert_eq!(cluster.api.count("POST pods"), 2, "{fault:?}");
        assert_eq!(cluster.trouble(), "", "{fault:?}: it is over");
        comes_to(&mut cluster, 6).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_takes_no_worker_away_that_has_a_session() {
    let mut cluster = two_pods(2).await;
    let before = cluster.pods();
    cluster.api.fail("WATCH pods", &[Fault::Expired]);
    cluster.api.fail("LIST pods", &[Fault::Empty]);
    // Until the next watch fails, and the next list tells the truth.
    cluster.wait(Duration::from_secs(22)).await;
    assert!(cluster.is_served());
    cluster.api.fail("WATCH pods", &[Fault::Expired]);
    cluster.wait(Duration::from_secs(60)).await;
    assert_eq!(cluster.pods(), before);
    assert_eq!(cluster.api.count("POST pods"), 2);
    assert_eq!(cluster.api.state().wrongs, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn watches_that_end_expire_or_tell_twice_miss_nothing() {
    for faults in [
        vec![Fault::Ended; 5],
        vec![Fault::Expired; 5],
        vec![Fault::Status(410); 5],
        vec![Fault::Status(500); 5],
        vec![Fault::Twice; 2],
        vec![Fault::Hang],
    ] {
        let mut cluster = Cluster::new();
        cluster.api.fail("WATCH pods", &faults);
        let fields = json!({"max": 200, "idle_timeout_s": 1});
        cluster.start_head(groups(&fields, "1")).await;
        comes_to(&mut cluster, 6).await;
        comes_to(&mut cluster, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_pods_take_at_most_five_hundred_calls() {
    let mut cluster = two_pods(0).await;
    cluster.api.state().calls.clear();
    cluster.want(400);
    cluster.until("all run", Cluster::is_served).await;
    cluster.wait(Duration::from_secs(5)).await;
    assert_eq!(cluster.pods().len(), 200);
    let calls = cluster.api.state().calls.clone();
    assert!(calls.len() <= 500, "{} calls", calls.len());
    assert_eq!(cluster.api.state().budgets["test-small"], 199);
}

#[tokio::test(start_paused = true)]
async fn a_head_makes_nothing_before_it_knows_what_earlier_ones_gave_up() {
    let mut cluster = Cluster::new();
    let faults = [Fault::Status(500), Fault::Hang, Fault::Status(403)];
    cluster.api.fail("GET configmaps", &faults);
    let fields = json!({"max": 200, "idle_timeout_s": 1});
    cluster.start_head(groups(&fields, "1")).await;
    cluster.want(2);
    cluster
        .until("it is told", |it| {
            it.trouble().contains("the owner of the pods")
        })
        .await;
    assert_eq!(cluster.api.count("POST pods"), 0);
    comes_to(&mut cluster, 6).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_found_of_a_roll_out_is_kept_although_the_api_server_fails() {
    let mut cluster = two_pods(2).await;
    let faults = [Fault::Status(500), Fault::Hang, Fault::Status(403)];
    cluster.api.fail("PATCH configmaps", &faults);
    let fields = json!({"min": 2, "max": 200, "startup_timeout_s": 3});
    cluster.start_head(groups(&fields, "no-image")).await;
    cluster
        .until("it is kept", |it| !it.api.state().annotations.is_empty())
        .await;
    comes_to(&mut cluster, 6).await;
    assert_eq!(cluster.versions(), ["1", "1", "1"]);
    // Another file: nothing is kept of the template that it does not have.
    cluster.start_head(groups(&fields, "2")).await;
    cluster
        .until("the other one took over", |it| {
            it.versions() == ["2", "2", "2"]
        })
        .await;
    assert!(cluster.api.state().annotations.is_empty());
}
