//! Certificates between the processes: both sides show one, both check.

use std::path::Path;

use crate::authority::{Authority, authority, write};
use crate::client::get;
use crate::house::House;

/// Writes a certificate for `name` and says with which flags it is used, trusting `trusted`.
fn member(
    dir: &Path,
    file: &str,
    name: &str,
    issuer: &Authority,
    trusted: &Authority,
) -> Vec<String> {
    let dir = dir.join(file);
    write(&dir, name, issuer, &[trusted]);
    crate::authority::flags_of(&dir)
}

#[test]
fn the_cluster_serves_with_its_certificates_and_nobody_joins_with_others() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(), authority());
    let name = mobula_process::tls::TLS_NAME;
    let right = member(dir.path(), "right", name, &ours, &ours);
    let strangers = member(dir.path(), "stranger", name, &theirs, &theirs);
    let forged = member(dir.path(), "forged", name, &theirs, &ours);
    let house = House::new(dir, right);
    let _head = house.head("head", &[]);
    house.deploy(2);

    // Not believing the head, not believed by the head, speaking no TLS at all.
    let refused = [
        house.worker_with("stranger-worker", 2, &strangers),
        house.worker_with("forged-worker", 2, &forged),
        house.worker_with("plain-worker", 2, &[]),
        house.router_with("stranger-router", &strangers),
        house.router_with("forged-router", &forged),
    ];
    for role in &refused {
        role.process.wait_for_log("dialling again");
    }
    let worker = house.worker("right-worker", 2);
    let router = house.router("right-router");
    let replicas = house.wait_until_running(2);
    let pid = u64::from(worker.process.pid());
    assert!(replicas.values().all(|r| r.pid == pid), "{replicas:?}");
    router.wait_until_it_serves();
    house.wait_for_routers(1);
    for role in &refused {
        let (status, _) = get(role.admin, "/readyz").unwrap();
        assert_eq!(status, 503, "{}", role.process.log());
    }
}

#[test]
fn a_head_that_is_named_otherwise_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority();
    let name = mobula_process::tls::TLS_NAME;
    let right = member(dir.path(), "right", name, &ours, &ours);
    let other = member(dir.path(), "other", "web.example", &ours, &ours);
    let house = House::new(dir, other);
    let _head = house.head("head", &[]);
    let worker = house.worker_with("worker", 1, &right);
    worker.process.wait_for_log("dialling again");
    assert_eq!(get(worker.admin, "/readyz").unwrap().0, 503);
}
