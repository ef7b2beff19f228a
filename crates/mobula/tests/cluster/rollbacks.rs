//! Rollbacks while heads come and go: each happens once, and the old version goes on serving.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::client::{get, send};
use crate::elected::{Etcd, Head, document, house_of, wait_for_leader};
use crate::house::House;
use crate::load::Load;
use crate::process::wait_for;

/// Two replicas that sleep for so long; a word for a number cannot be slept.
fn config(version: &str, seconds: Value) -> Value {
    json!({
        "http_options": {"host": "127.0.0.1"},
        "applications": [{
            "name": "sleep",
            "route_prefix": "/",
            "import_path": "mobula.apps:sleep",
            "runtime_env": {"env_vars": {"VERSION": version}},
            "deployments": [{
                "name": "Sleep",
                "num_replicas": 2,
                "max_ongoing_requests": 64,
                "user_config": {"seconds": seconds},
            }],
        }],
    })
}

fn put(admin: SocketAddr, config: &Value) {
    let path = "/api/serve/applications/";
    let (status, body) = send(admin, "PUT", path, "", &config.to_string()).unwrap();
    assert_eq!(status, 200, "{body}");
}

/// The ids of the replicas once the deployment is as it shall be, and the application shows
/// that status and message.
fn wait_until(admin: SocketAddr, status: &str, message: &str) -> BTreeSet<String> {
    wait_for(&format!("{status} '{message}'"), || {
        let application = &document(admin)["applications"]["sleep"];
        let deployment = &application["deployments"]["Sleep"];
        let shown = application["status"] == status
            && application["message"].as_str()?.ends_with(message)
            && deployment["status"] == "HEALTHY";
        let replicas = deployment["replicas"].as_array()?;
        let ids = replicas.iter().filter_map(|r| r["replica_id"].as_str());
        shown.then(|| ids.map(str::to_owned).collect())
    })
}

/// (revision, outcome), newest first.
fn history(admin: SocketAddr) -> Vec<(u64, String)> {
    // A head that follows may not have heard of a new leader yet.
    let body = wait_for("the history", || {
        let (status, body) = get(admin, "/api/mobula/history").ok()?;
        (status == 200).then_some(body)
    });
    let history: Value = serde_json::from_str(&body).unwrap();
    let revisions = history["revisions"].as_array().unwrap();
    let record = |r: &Value| Some((r["revision"].as_u64()?, r["outcome"].as_str()?.to_owned()));
    revisions.iter().filter_map(record).collect()
}

fn expected<const N: usize>(records: [(u64, &str); N]) -> Vec<(u64, String)> {
    records.map(|(n, outcome)| (n, outcome.to_owned())).to_vec()
}

/// The address of a head that does not lead, and knows who does.
fn a_follower(heads: &[Head]) -> SocketAddr {
    let leader = wait_for_leader(heads);
    let follower = heads[(leader + 1) % heads.len()].admin;
    history(follower);
    follower
}

#[test]
fn a_rollback_by_itself_and_one_by_hand_outlive_the_leader_that_began_them_and_happen_once() {
    let etcd = Etcd::start();
    let files = House::new(tempfile::tempdir().unwrap(), Vec::new());
    let mut heads: Vec<Head> = (1..=3)
        .map(|n| Head::start(&files, &etcd, &format!("head-{n}")))
        .collect();
    wait_for_leader(&heads);
    let house = house_of(&heads);
    let _workers = [house.worker("worker-1", 4), house.worker("worker-2", 4)];
    let router = house.router("router");
    put(a_follower(&heads), &config("1", json!(0.001)));
    let first = wait_until(a_follower(&heads), "RUNNING", "");
    router.wait_until_it_serves();

    let load = Load::start(router.http);
    put(a_follower(&heads), &config("2", json!("never")));
    heads.remove(wait_for_leader(&heads)).process.kill();
    let taken_back = "rolled back to revision 1, which is serving";
    let leader = heads[wait_for_leader(&heads)].admin;
    let after = wait_until(leader, "DEPLOY_FAILED", taken_back);
    assert_eq!(after, first, "the old replicas never left");
    let records = [(3, "running"), (2, "rolled_back"), (1, "superseded")];
    for head in &heads {
        assert_eq!(history(head.admin), expected(records));
    }

    put(a_follower(&heads), &config("3", json!(0.001)));
    wait_until(a_follower(&heads), "RUNNING", "");
    let (path, body) = ("/api/mobula/rollback", r#"{"revision": 3}"#);
    let (status, body) = send(a_follower(&heads), "POST", path, "", body).unwrap();
    assert_eq!(status, 200, "{body}");
    heads.remove(wait_for_leader(&heads)).process.kill();
    let leader = heads[wait_for_leader(&heads)].admin;
    wait_until(leader, "RUNNING", "");
    let shown = &document(leader)["applications"]["sleep"]["deployed_app_config"];
    assert_eq!(shown["runtime_env"]["env_vars"]["VERSION"], "1");
    wait_for("the history", || {
        let records = [(5, "running"), (4, "rolled_back"), (3, "superseded")];
        (history(leader)[..3] == expected(records)).then_some(())
    });
    load.goes_on();
    load.end_without_failure();
}
