//! Custom resources, bundles and gangs, from the flag of a worker to the status document.

use std::collections::BTreeSet;

use serde_json::json;

use crate::house::{House, Role};
use crate::load::Load;
use crate::process::wait_for;

fn message(house: &House) -> String {
    let state = house.state();
    let noop = &state["applications"]["noop"]["deployments"]["Noop"];
    noop["message"].as_str().unwrap_or_default().to_owned()
}

fn wait_for_message(house: &House, says: &str) {
    wait_for(&format!("a message with '{says}'"), || {
        message(house).contains(says).then_some(())
    });
}

fn pid(worker: &Role) -> u64 {
    u64::from(worker.process.pid())
}

#[test]
fn replicas_go_where_their_custom_resources_are_and_wait_with_a_message_where_there_are_none() {
    let house = House::with_token();
    let _head = house.head("head", &[]);
    let _plain = house.worker("worker-1", 8);
    house.deploy_with(json!({
        "num_replicas": 3,
        "ray_actor_options": {"num_cpus": 1, "resources": {"ssd": 0.5}},
    }));
    wait_for_message(
        &house,
        "needs 1 CPU, 0.5 ssd, 8 CPU free on the nearest of 1 worker(s), 0.5 ssd short",
    );
    let fast = house.worker_offering("worker-2", 8, "ssd=1,license=1");
    wait_for_message(&house, "waiting: 2 of 3 replicas placed");
    let other = house.worker_offering("worker-3", 8, "ssd=1");
    let replicas = house.wait_until_running(3);
    let hosts = replicas.values().filter(|r| r.pid == pid(&fast)).count();
    assert_eq!(hosts, 2, "{replicas:?}");
    assert!(
        replicas
            .values()
            .all(|r| [pid(&fast), pid(&other)].contains(&r.pid))
    );
}

#[test]
fn a_replica_keeps_the_room_of_its_bundles_through_the_loss_of_a_head_and_of_a_worker() {
    let house = House::with_token();
    let mut head = house.head("head", &[]);
    let mut workers = vec![house.worker("worker-1", 2), house.worker("worker-2", 2)];
    for worker in &workers {
        worker.wait_until_ready();
    }
    let router = house.router("router");
    house.deploy_with(json!({
        "num_replicas": 1,
        "ray_actor_options": {"num_cpus": 1},
        "placement_group_bundles": [{"CPU": 1}, {"CPU": 2}],
    }));
    let before = house.wait_until_running(1);
    router.wait_until_it_serves();
    let load = Load::start(router.http);

    head.kill();
    drop(head);
    let _head = house.head("head", &[]);
    assert_eq!(
        house.wait_until_running(1),
        before,
        "nothing healthy restarts"
    );
    // One CPU is left, and the worker with the second bundle runs nothing.
    house.deploy_with(json!({
        "num_replicas": 2,
        "ray_actor_options": {"num_cpus": 1},
        "placement_group_bundles": [{"CPU": 1}, {"CPU": 2}],
    }));
    wait_for_message(
        &house,
        "1 of 2 replicas placed; needs 1 CPU + 2 CPU at once (PACK), 1 of 2 bundles fit",
    );

    workers.push(house.worker("worker-3", 4));
    house.wait_until_running(2);
    let host = before.values().next().unwrap().pid;
    let holder = workers
        .iter()
        .position(|worker| pid(worker) != host)
        .unwrap();
    workers[holder].process.kill();
    wait_for_message(&house, "it held a bundle of replica");
    load.goes_on();
    load.end_without_failure();
}

#[test]
fn a_gang_is_started_whole_and_started_again_whole() {
    let house = House::with_token();
    let _head = house.head("head", &[]);
    let mut workers = [house.worker("worker-1", 2), house.worker("worker-2", 2)];
    for worker in &workers {
        worker.wait_until_ready();
    }
    house.deploy_with(json!({
        "num_replicas": 4,
        "ray_actor_options": {"num_cpus": 1},
        "gang_scheduling_config": {"gang_size": 4, "gang_placement_strategy": "SPREAD"},
    }));
    let before: BTreeSet<String> = house.wait_until_running(4).into_keys().collect();
    workers[0].process.kill();
    wait_for_message(&house, "Reason: its worker was not heard of any more");
    let _third = house.worker("worker-3", 2);
    let after: BTreeSet<String> = wait_for("another gang", || {
        let after = house
            .wait_until_running(4)
            .into_keys()
            .collect::<BTreeSet<_>>();
        after.is_disjoint(&before).then_some(after)
    });
    assert_eq!(after.len(), 4);
}
