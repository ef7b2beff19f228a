//! A cluster is taken from one release to the next and back, one process after the other, while
//! requests go on. The release before is a real build of it (`scripts/previous.sh`).

use std::path::PathBuf;
use std::process::Command;

use mobula_process::release::PROTOCOL;
use mobula_process::tls::TLS_NAME;
use mobula_proto::v1::WorkerReport;
use mobula_proto::v1::cluster_service_client::ClusterServiceClient;
use serde_json::{Value, json};
use tonic::Request;

use crate::authority::{authority, flags_of, write};
use crate::client::{get, send};
use crate::elected::{Etcd, Head, document, house_of, wait_for_leader};
use crate::house::{House, Role, TOKEN};
use crate::load::Load;
use crate::process::{BINARY, wait_for};

const APPLICATIONS: &str = "/api/serve/applications/";

/// The binary of the release before.
fn previous() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = Command::new(root.join("scripts/previous.sh")).output();
    let built = built.unwrap();
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
    String::from_utf8(built.stdout).unwrap().trim().into()
}

/// Two heads, two workers and two routers with a load of its own on each.
struct Cluster {
    heads: Vec<Head>,
    workers: Vec<Role>,
    routers: Vec<(Role, Load)>,
    etcd: Etcd,
    house: House,
    /// Processes started so far, for their names.
    started: usize,
    /// Configs accepted so far.
    deployed: u64,
}

impl Cluster {
    /// All of one release, with a config that runs.
    fn start(binary: PathBuf) -> Cluster {
        let etcd = Etcd::start();
        let mut files = House::new(tempfile::tempdir().unwrap(), Vec::new());
        files.binary.clone_from(&binary);
        let heads: Vec<Head> = (1..=2)
            .map(|n| Head::start(&files, &etcd, &format!("head-{n}")))
            .collect();
        let mut house = house_of(&heads);
        house.dir = files.dir;
        house.binary = binary;
        wait_for_leader(&heads);
        let mut cluster = Cluster {
            workers: vec![house.worker("worker-1", 4), house.worker("worker-2", 4)],
            house,
            etcd,
            heads,
            routers: Vec::new(),
            started: 0,
            deployed: 0,
        };
        cluster.deploy();
        for _ in 0..2 {
            cluster.add_router();
        }
        cluster
    }

    fn name(&mut self, role: &str) -> String {
        self.started += 1;
        format!("{role}-{}-again", self.started)
    }

    /// Deploys the next config through each of the heads, which must run then and be what every
    /// head says; nothing that was deployed before is forgotten.
    fn deploy(&mut self) {
        for through in 0..self.heads.len() {
            self.deployed += 1;
            let config = config(self.deployed);
            let admin = self.heads[through].admin;
            let answer = send(admin, "PUT", APPLICATIONS, "", &config.to_string()).unwrap();
            assert_eq!(answer.0, 200, "{}", answer.1);
            self.house.admin = admin;
            self.house.wait_until_running(replicas(self.deployed));
            for head in &self.heads {
                let said = &document(head.admin)["applications"]["noop"]["deployed_app_config"];
                assert_eq!(
                    said["runtime_env"],
                    config["applications"][0]["runtime_env"]
                );
                self.check_history(head);
            }
        }
    }

    /// Every accepted config has its record, as many as are kept.
    fn check_history(&self, head: &Head) {
        let (status, text) = get(head.admin, "/api/mobula/history").unwrap();
        assert_eq!(status, 200, "{text}");
        let history: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(history["current"], self.deployed);
        let kept_max = history["kept_max"].as_u64().unwrap();
        let revisions: Vec<_> = history["revisions"].as_array().unwrap().iter().collect();
        let newest = revisions.iter().map(|record| record["revision"].as_u64());
        let wanted = (1..=self.deployed).rev().map(Some);
        assert!(newest.eq(wanted.take(usize::try_from(kept_max).unwrap())));
        assert!(revisions.iter().all(|record| record["ran"] == true));
    }

    /// Goes back to an older config, whichever release wrote it.
    fn roll_back(&mut self, to: u64) {
        let admin = self.heads[0].admin;
        let body = json!({"revision": to}).to_string();
        let (status, text) = send(admin, "POST", "/api/mobula/rollback", "", &body).unwrap();
        assert_eq!(status, 200, "{text}");
        self.deployed += 1;
        let said = &document(admin)["applications"]["noop"]["deployed_app_config"];
        assert_eq!(
            said["runtime_env"],
            config(to)["applications"][0]["runtime_env"]
        );
        self.house.admin = admin;
        self.house.wait_until_running(replicas(to));
    }

    fn load_goes_on(&self) {
        for (_, load) in &self.routers {
            load.goes_on();
        }
    }

    fn replace_head(&mut self, leading: bool) {
        let leader = wait_for_leader(&self.heads);
        let at = if leading { leader } else { 1 - leader };
        let mut old = self.heads.remove(at);
        assert!(old.process.terminate().success(), "{}", old.process.log());
        let name = self.name("head");
        let new = Head::start_in_place_of(&old, &self.house, &self.etcd, &name);
        self.heads.insert(at, new);
        let leader = wait_for_leader(&self.heads);
        assert_ne!(leader, at, "the one that stayed leads");
        wait_for("the head that follows to know its leader", || {
            self.heads.iter().all(Head::is_settled).then_some(())
        });
        self.house.admin = self.heads[leader].admin;
        self.house.wait_for_routers(2);
        self.load_goes_on();
        self.deploy();
    }

    fn replace_worker(&mut self) {
        let name = self.name("worker");
        let new = self.house.worker(&name, 4);
        new.wait_until_ready();
        self.workers.push(new);
        let mut old = self.workers.remove(0);
        assert!(old.process.terminate().success(), "{}", old.process.log());
        self.load_goes_on();
        self.deploy();
    }

    /// The clients of a router that is about to stop go to the other one.
    fn replace_router(&mut self) {
        let (mut old, load) = self.routers.remove(0);
        load.end_without_failure();
        assert!(old.process.terminate().success(), "{}", old.process.log());
        self.add_router();
        self.load_goes_on();
        self.deploy();
    }

    fn add_router(&mut self) {
        let name = self.name("router");
        let router = self.house.router(&name);
        router.wait_until_it_serves();
        let load = Load::start(router.http);
        self.routers.push((router, load));
        self.house.wait_for_routers(self.routers.len());
    }

    fn end_without_failure(self) {
        self.load_goes_on();
        for (_, load) in self.routers {
            load.end_without_failure();
        }
    }
}

fn replicas(number: u64) -> usize {
    if number.is_multiple_of(2) { 2 } else { 3 }
}

/// A config that differs from every other one in what its replicas are made from.
fn config(number: u64) -> Value {
    json!({
        "http_options": {"host": "127.0.0.1", "request_timeout_s": 20},
        "applications": [{
            "name": "noop",
            "route_prefix": "/",
            "import_path": "mobula.apps:noop",
            "runtime_env": {"env_vars": {"NUMBER": number.to_string()}},
            "deployments": [{
                "name": "Noop",
                "num_replicas": replicas(number),
                "max_ongoing_requests": 64,
                "ray_actor_options": {"num_cpus": 1},
            }],
        }],
    })
}

#[test]
fn a_cluster_is_upgraded_process_by_process_and_back_and_no_request_notices() {
    let previous = previous();
    let mut cluster = Cluster::start(previous.clone());
    cluster.house.binary = BINARY.into();
    cluster.replace_head(false);
    cluster.replace_head(true);
    for _ in 0..2 {
        cluster.replace_worker();
    }
    for _ in 0..2 {
        cluster.replace_router();
    }
    // Back again: what the new release stored is what the old one reads.
    cluster.house.binary = previous;
    cluster.replace_worker();
    cluster.replace_router();
    cluster.replace_head(false);
    cluster.replace_head(true);
    cluster.roll_back(cluster.deployed - 8);
    cluster.end_without_failure();
}

#[test]
fn every_process_says_which_release_it_is() {
    let house = House::with_token();
    let _head = house.head("head", &[]);
    let worker = house.worker("worker", 1);
    let router = house.router("router");
    house.deploy(1);
    house.wait_for_routers(1);
    for role in [&worker, &router] {
        role.wait_until_ready();
    }
    let version = mobula_process::release::VERSION;
    let says = |admin, series: &str| {
        let (status, text) = get(admin, "/metrics").unwrap();
        assert!(status == 200 && text.contains(series), "{series}: {text}");
    };
    for admin in [house.admin, worker.admin, router.admin] {
        says(admin, "mobula_build_info{");
        says(admin, &format!("version=\"{version}\""));
        says(admin, &format!("protocol=\"{PROTOCOL}\""));
    }
    for role in ["worker", "router"] {
        let series = format!("mobula_head_members{{role=\"{role}\",version=\"{version}\"}} 1");
        says(house.admin, &series);
    }
}

#[tokio::test]
async fn a_process_that_skips_a_release_may_not_join_and_is_told_why() {
    let house = House::with_token();
    let head = house.head("head", &[]);
    let join = async |protocol: u32| {
        let head = format!("http://{}", house.cluster);
        let mut client = ClusterServiceClient::connect(head).await.unwrap();
        let mut reports = Request::new(tokio_stream::pending::<WorkerReport>());
        let shown = reports.metadata_mut();
        shown.insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        shown.insert("mobula-protocol", protocol.into());
        client.worker_session(reports).await
    };
    assert!(
        join(PROTOCOL + 1).await.is_ok(),
        "a newer one, while heads are upgraded"
    );
    let status = join(PROTOCOL + 2).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(
        status.message().contains("upgrade one release at a time"),
        "{status}"
    );
    head.wait_for_log("upgrade one release at a time");
}

#[test]
fn over_tls_either_release_believes_the_other() {
    let previous = previous();
    for (of_head, of_others) in [
        (previous.clone(), PathBuf::from(BINARY)),
        (BINARY.into(), previous),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ours = authority();
        let files = dir.path().join("files");
        write(&files, TLS_NAME, &ours, &[&ours]);
        let mut house = House::new(dir, flags_of(&files));
        house.binary = of_head;
        let _head = house.head("head", &[]);
        house.binary = of_others;
        let _worker = house.worker("worker", 1);
        let router = house.router("router");
        house.deploy(1);
        house.wait_until_running(1);
        router.wait_until_it_serves();
    }
}
