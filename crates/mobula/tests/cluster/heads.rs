//! Several heads with their state in etcd: one leads, another takes over, nothing restarts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::client::{get, send};
use crate::house::{House, free_addr};
use crate::load::Load;
use crate::process::{Process, wait_for};

/// An etcd of one member with its own data, ended with the test.
struct Etcd {
    child: Child,
    url: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Etcd {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let fetched = Command::new(root.join("scripts/fetch_etcd.sh"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&fetched.stderr);
        assert!(fetched.status.success(), "etcd cannot be had: {errors}");
        let binary = String::from_utf8(fetched.stdout).unwrap();
        let data = tempfile::tempdir().unwrap();
        let (client, peer) = (free_addr(), free_addr());
        let (url, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let child = Command::new(binary.trim().lines().last().unwrap())
            .args(["--data-dir", data.path().to_str().unwrap()])
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("etcd", || {
            (get(client, "/health").ok()?.0 == 200).then_some(())
        });
        Etcd {
            child,
            url,
            _data: data,
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of several heads.
struct Head {
    process: Process,
    admin: SocketAddr,
    cluster: SocketAddr,
}

impl Head {
    fn start(house: &House, etcd: &Etcd, name: &str) -> Head {
        let (admin, cluster) = (free_addr(), free_addr());
        let flags = [
            ("--etcd", etcd.url.clone()),
            ("--cluster", "test".to_owned()),
            ("--lease-seconds", "2".to_owned()),
            ("--admin-addr", admin.to_string()),
            ("--cluster-addr", cluster.to_string()),
        ];
        let args = flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        let args: Vec<_> = std::iter::once("head".to_owned()).chain(args).collect();
        let process = Process::start(house.dir.path(), name, &args);
        wait_for("the head", || get(admin, "/livez").ok());
        Head {
            process,
            admin,
            cluster,
        }
    }

    /// A head that follows says so in its log only; a leader says that it leads.
    fn leads(&self) -> bool {
        let log = self.process.log();
        let since = |text: &str| log.rfind(text);
        since("this head leads now") > since("the lead was lost, following")
    }

    fn is_settled(&self) -> bool {
        get(self.admin, "/readyz").is_ok_and(|answer| answer.0 == 200)
    }
}

fn document(admin: SocketAddr) -> Value {
    let (status, body) = get(admin, "/api/serve/applications/").unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The one head that leads, out of those that live.
fn wait_for_leader(heads: &[Head]) -> usize {
    wait_for("a leader", || {
        heads
            .iter()
            .position(|head| head.leads() && head.is_settled())
    })
}

/// The house as its processes see it through one of the heads.
fn house_of(heads: &[Head]) -> House {
    let joined = heads
        .iter()
        .map(|head| head.cluster.to_string())
        .collect::<Vec<_>>();
    let mut house = House::new(tempfile::tempdir().unwrap(), Vec::new());
    house.admin = heads[0].admin;
    house.join = joined.join(",");
    house
}

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
