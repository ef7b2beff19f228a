//! Several heads with their state in etcd: one leads, another takes over, nothing restarts.

use crate::client::send;
use crate::elected::{Etcd, Head, document, house_of, wait_for_leader};
use crate::house::House;
use crate::load::Load;

#[test]
fn a_head_takes_over_from_one_that_was_killed_and_from_one_that_stops_and_nothing_restarts() {
    let etcd = Etcd::start();
    let files = House::new(tempfile::tempdir().unwrap(), Vec::new());
    let mut heads: Vec<Head> = (1..=3)
        .map(|n| Head::start(&files, &etcd, &format!("head-{n}")))
        .collect();
    wait_for_leader(&heads);
    let mut house = house_of(&heads);
    let _workers = [house.worker("worker-1", 2), house.worker("worker-2", 2)];
    let router = house.router("router");
    house.deploy(3);
    let before = house.wait_until_running(3);
    router.wait_until_it_serves();
    for head in &heads {
        assert_eq!(
            document(head.admin)["applications"]["noop"]["status"],
            "RUNNING",
            "a following head answers for the leader"
        );
    }

    let load = Load::start(router.http);
    for graceful in [false, true] {
        let mut leader = heads.remove(wait_for_leader(&heads));
        if graceful {
            assert!(leader.process.terminate().success());
        } else {
            leader.process.kill();
        }
        load.goes_on();
        let next = wait_for_leader(&heads);
        house.admin = heads[next].admin;
        assert_eq!(house.wait_until_running(3), before, "nothing was restarted");
        house.wait_for_routers(1);
    }
    // The last head still takes a config and acts on it.
    house.deploy(4);
    let after = house.wait_until_running(4);
    assert!(before.keys().all(|id| after.contains_key(id)), "{after:?}");
    load.goes_on();
    load.end_without_failure();
}

#[test]
fn a_config_put_to_a_following_head_is_the_clusters() {
    let etcd = Etcd::start();
    let files = House::new(tempfile::tempdir().unwrap(), Vec::new());
    let heads = [
        Head::start(&files, &etcd, "head-1"),
        Head::start(&files, &etcd, "head-2"),
    ];
    let leader = wait_for_leader(&heads);
    let mut house = house_of(&heads);
    let _worker = house.worker("worker", 2);
    house.admin = heads[1 - leader].admin;
    house.deploy(2);
    let seen_by_follower = house.wait_until_running(2);
    house.admin = heads[leader].admin;
    assert_eq!(house.wait_until_running(2), seen_by_follower);
    let follower = heads[1 - leader].admin;
    let overview = "/api/mobula/overview";
    let (status, body) = send(follower, "GET", overview, "", "").unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("1 of 1 applications run"), "{body}");
    let (status, page) = send(follower, "GET", "/", "accept: text/html\r\n", "").unwrap();
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("/dashboard/app.js"), "{page}");
    let (status, body) = send(
        heads[1 - leader].admin,
        "PUT",
        "/api/serve/applications/",
        "",
        "{}",
    )
    .unwrap();
    assert_eq!(status, 400, "the leader's refusal comes back: {body}");
}
