//! Roles join, leave and die; requests go on.

use std::collections::BTreeSet;

use crate::client::get;
use crate::house::House;
use crate::load::Load;
use crate::process::wait_for;

#[test]
fn a_worker_that_joins_later_gets_replicas_and_the_cluster_outlives_any_one_process() {
    let house = House::with_token();
    let _head = house.head("head", &[]);
    let mut worker_1 = house.worker("worker-1", 2);
    let _worker_2 = house.worker("worker-2", 2);
    let router_1 = house.router("router-1");
    let mut router_2 = house.router("router-2");
    house.deploy(2);
    house.wait_until_running(2);
    for router in [&router_1, &router_2] {
        router.wait_until_ready();
        router.wait_until_it_serves();
    }

    let load = Load::start(router_1.http);
    let worker_3 = house.worker("worker-3", 2);
    worker_3.wait_until_ready();
    house.deploy(6);
    let replicas = house.wait_until_running(6);
    let hosts = |pid: u32| {
        replicas
            .values()
            .filter(|r| r.pid == u64::from(pid))
            .count()
    };
    assert_eq!(hosts(worker_3.process.pid()), 2, "{replicas:?}");

    worker_1.process.kill();
    let worker_4 = house.worker("worker-4", 2);
    let replicas = wait_for("replicas in the place of those that died", || {
        let replicas = house.wait_until_running(6);
        let moved = |r: &crate::house::Replica| r.pid == u64::from(worker_4.process.pid());
        (replicas.values().filter(|r| moved(r)).count() == 2).then_some(replicas)
    });
    let died = u64::from(worker_1.process.pid());
    assert!(replicas.values().all(|r| r.pid != died), "{replicas:?}");

    house.wait_for_routers(2);
    router_2.process.kill();
    house.wait_for_routers(1);
    load.goes_on();
    load.end_without_failure();
}

#[test]
fn a_killed_worker_never_had_all_replicas_and_what_it_had_is_replaced() {
    let house = House::with_token();
    let _head = house.head("head", &[]);
    let mut workers = [house.worker("worker-1", 4), house.worker("worker-2", 4)];
    for worker in &workers {
        worker.wait_until_ready();
    }
    let router = house.router("router");
    house.deploy(2);
    let before = house.wait_until_running(2);
    let hosts: BTreeSet<u64> = before.values().map(|replica| replica.pid).collect();
    assert_eq!(hosts.len(), 2, "{before:?}");
    router.wait_until_it_serves();

    let load = Load::start(router.http);
    workers[0].process.kill();
    load.goes_on();
    let stays = u64::from(workers[1].process.pid());
    wait_for("a replacement on the other worker", || {
        let replicas = house.wait_until_running(2);
        replicas.values().all(|r| r.pid == stays).then_some(())
    });
    load.goes_on();
    load.end_without_failure();
}

#[test]
fn requests_go_on_without_a_head_and_a_new_one_adopts_what_runs() {
    let house = House::with_token();
    let mut head = house.head("head", &[]);
    let worker = house.worker("worker", 2);
    let router = house.router("router");
    house.deploy(2);
    let before = house.wait_until_running(2);
    router.wait_until_it_serves();

    let load = Load::start(router.http);
    head.kill();
    load.goes_on();
    for role in [&worker, &router] {
        assert_eq!(get(role.admin, "/readyz").unwrap().0, 200);
    }
    let _head = house.head("head-again", &[]);
    wait_for("the new head to know everything", || {
        (get(house.admin, "/readyz").ok()?.0 == 200).then_some(())
    });
    assert_eq!(house.wait_until_running(2), before, "nothing was restarted");
    house.wait_for_routers(1);
    house.deploy(1);
    house.wait_until_running(1);
    load.goes_on();
    load.end_without_failure();
}

#[test]
fn a_worker_and_a_router_that_are_told_to_end_leave_without_losing_a_request() {
    let house = House::with_token();
    let _head = house.head("head", &[]);
    let mut first = house.worker("first", 1);
    let second = house.worker("second", 1);
    let mut leaving = house.router("leaving");
    let staying = house.router("staying");
    house.deploy(1);
    house.wait_until_running(1);
    for router in [&leaving, &staying] {
        router.wait_until_it_serves();
    }
    let load = Load::start(staying.http);
    let status = first.process.terminate();
    assert!(status.success(), "{status}");
    let replicas = house.wait_until_running(1);
    let host = replicas.values().next().unwrap();
    assert_eq!(host.pid, u64::from(second.process.pid()));
    let status = leaving.process.terminate();
    assert!(status.success(), "{status}");
    house.wait_for_routers(1);
    load.goes_on();
    load.end_without_failure();
}

#[test]
fn routers_and_workers_answer_for_their_health_and_metrics() {
    let house = House::with_token();
    let worker = house.worker("worker", 1);
    let router = house.router("router");
    for role in [&worker, &router] {
        let alive = || (get(role.admin, "/livez").ok()?.0 == 200).then_some(());
        wait_for("the admin port", alive);
        assert_eq!(get(role.admin, "/readyz").unwrap().0, 503, "no head yet");
    }
    let _head = house.head("head", &[]);
    house.deploy(1);
    house.wait_until_running(1);
    for role in [&worker, &router] {
        role.wait_until_ready();
    }
    router.wait_until_it_serves();
    for (role, series) in [
        (&worker, "ray_serve_deployment_request_counter"),
        (&router, "ray_serve_num_http_requests"),
    ] {
        let (status, text) = get(role.admin, "/metrics").unwrap();
        assert!(status == 200 && text.contains(series), "{series}: {text}");
    }
    let (status, text) = get(house.admin, "/metrics").unwrap();
    let of_worker = text.contains("ray_serve_deployment_request_counter");
    assert!(
        status == 200 && of_worker,
        "the head asks the workers: {text}"
    );
}
