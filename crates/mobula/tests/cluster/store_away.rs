//! etcd is away: heads wait, say why, and go on when it is back.

use crate::client::{get, send};
use crate::elected::{Etcd, Head, house_of, wait_for_leader};
use crate::house::{House, flags, free_addr};
use crate::load::Load;
use crate::process::wait_for;

const APPLICATIONS: &str = "/api/serve/applications/";
const SCALE: &str = "/api/v1/applications/noop/deployments/Noop/scale";
const AWAY: &str = "the state store is not available";

/// The head lives, is not ready, and refuses changes, each time with the reason.
fn says_that_the_store_is_away(head: &Head) {
    wait_for("the reason", || {
        let (status, text) = get(head.admin, "/readyz").ok()?;
        (status == 503 && text.contains(AWAY)).then_some(())
    });
    assert_eq!(get(head.admin, "/livez").unwrap().0, 200);
    let (status, text) = send(head.admin, "PUT", APPLICATIONS, "", "{}").unwrap();
    assert_eq!(status, 503, "{text}");
    assert!(text.contains(AWAY), "{text}");
    let two = r#"{"target_num_replicas": 2}"#;
    let (status, body) = send(head.admin, "POST", SCALE, "", two).unwrap();
    assert_eq!(status, 503, "{body}");
    // As Ray's, which clients read as JSON.
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(body["error"].as_str().unwrap().contains(AWAY), "{body}");
}

#[test]
fn a_head_that_starts_before_etcd_waits_for_it_and_then_leads() {
    let addr = free_addr();
    let files = House::new(tempfile::tempdir().unwrap(), Vec::new());
    let mut head = Head::launch(&files, &format!("http://{addr}"), "head", &[]);
    wait_for("the head", || get(head.admin, "/livez").ok());
    says_that_the_store_is_away(&head);
    let told = || {
        head.process
            .log()
            .matches("waiting for the state store")
            .count()
    };
    wait_for("a second line in the log", || (told() >= 2).then_some(()));
    assert!(head.process.is_running(), "{}", head.process.log());

    let _etcd = Etcd::start_at(addr);
    let heads = [head];
    wait_for_leader(&heads);
    let house = house_of(&heads);
    let _worker = house.worker("worker", 1);
    house.deploy(1);
    house.wait_until_running(1);
}

#[test]
fn heads_outlive_an_etcd_that_is_away_for_long_and_requests_go_on() {
    let mut etcd = Etcd::start();
    let files = House::new(tempfile::tempdir().unwrap(), Vec::new());
    let mut heads = [
        Head::start(&files, &etcd, "head-1"),
        Head::start(&files, &etcd, "head-2"),
    ];
    wait_for_leader(&heads);
    let mut house = house_of(&heads);
    let _worker = house.worker("worker", 2);
    let router = house.router("router");
    house.deploy(2);
    let before = house.wait_until_running(2);
    router.wait_until_it_serves();
    let load = Load::start(router.http);
    etcd.kill();
    for head in &heads {
        says_that_the_store_is_away(head);
    }
    load.goes_on();
    for head in &mut heads {
        assert!(head.process.is_running(), "{}", head.process.log());
    }
    etcd.start_again();
    let leader = wait_for_leader(&heads);
    house.admin = heads[leader].admin;
    assert_eq!(house.wait_until_running(2), before, "nothing was restarted");
    house.deploy(1);
    house.wait_until_running(1);
    load.goes_on();
    load.end_without_failure();
}

#[test]
fn an_etcd_that_refuses_the_password_is_an_error_and_not_waited_for() {
    let etcd = Etcd::start();
    let files = House::new(tempfile::tempdir().unwrap(), Vec::new());
    let file = files.dir.path().join("password");
    std::fs::write(&file, "of-the-test").unwrap();
    let mut more = flags(&[("--etcd-password-file", &file)]);
    more.extend(["--etcd-user".to_owned(), "head".to_owned()]);
    // This etcd asks nobody for a password, and says so to whoever shows one.
    let mut head = Head::launch(&files, &etcd.url, "head", &more);
    wait_for("its end", || (!head.process.is_running()).then_some(()));
    let log = head.process.log();
    assert!(log.contains("etcd refused the request"), "{log}");
    assert!(log.contains("authentication is not enabled"), "{log}");
    assert!(!log.contains("of-the-test"), "{log}");
}
