//! A cluster on loopback: one head, and as many routers and workers as a test starts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{get, send};
use crate::ports::free_port;
use crate::process::{BINARY, Process, wait_for};

pub const TOKEN: &str = "a-join-token-of-the-test";
const APPLICATIONS: &str = "/api/serve/applications/";

pub struct House {
    pub dir: TempDir,
    pub admin: SocketAddr,
    pub cluster: SocketAddr,
    /// What workers and routers are told to join; several heads are separated by commas.
    pub join: String,
    /// What its processes are started from.
    pub binary: PathBuf,
    /// Flags that every role gets.
    access: Vec<String>,
}

/// A role with its ports.
pub struct Role {
    pub process: Process,
    pub admin: SocketAddr,
    /// Of a router.
    pub http: SocketAddr,
}

/// A replica as the status document has it.
#[derive(Debug, PartialEq)]
pub struct Replica {
    pub pid: u64,
    pub worker: String,
    pub start_time: String,
}

impl House {
    /// A house whose processes show each other the token.
    pub fn with_token() -> House {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("join-token");
        std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
        let access = flags(&[("--join-token-file", &file)]);
        House::new(dir, access)
    }

    pub fn new(dir: TempDir, access: Vec<String>) -> House {
        let cluster = free_addr();
        House {
            dir,
            admin: free_addr(),
            cluster,
            join: cluster.to_string(),
            binary: BINARY.into(),
            access,
        }
    }

    /// Starts the head; again on the same state and addresses when it was started before.
    pub fn head(&self, name: &str, more: &[&str]) -> Process {
        let state = self.dir.path().join("state");
        let mut args = vec!["head".to_owned()];
        args.extend(flags(&[("--state-dir", &state)]));
        args.extend(["--admin-addr".to_owned(), self.admin.to_string()]);
        args.extend(["--cluster-addr".to_owned(), self.cluster.to_string()]);
        args.extend(more.iter().map(|flag| (*flag).to_owned()));
        let head = self.start(name, args, &self.access);
        wait_for("the head", || get(self.admin, "/livez").ok());
        head
    }

    pub fn router(&self, name: &str) -> Role {
        self.router_with(name, &self.access)
    }

    pub fn router_with(&self, name: &str, access: &[String]) -> Role {
        let (admin, http, grpc) = (free_addr(), free_addr(), free_addr());
        let mut args = vec!["router".to_owned()];
        args.extend(["--join".to_owned(), self.join.clone()]);
        for (flag, addr) in [
            ("--admin-addr", admin),
            ("--http-addr", http),
            ("--grpc-addr", grpc),
        ] {
            args.extend([flag.to_owned(), addr.to_string()]);
        }
        let process = self.start(name, args, access);
        Role {
            process,
            admin,
            http,
        }
    }

    pub fn worker(&self, name: &str, cpus: u32) -> Role {
        self.worker_with(name, cpus, &self.access)
    }

    /// A worker that offers custom resources as well.
    pub fn worker_offering(&self, name: &str, cpus: u32, resources: &str) -> Role {
        let mut flags = self.access.clone();
        flags.extend(["--resources".to_owned(), resources.to_owned()]);
        self.worker_with(name, cpus, &flags)
    }

    pub fn worker_with(&self, name: &str, cpus: u32, access: &[String]) -> Role {
        let admin = free_addr();
        let mut args = vec!["worker".to_owned()];
        args.extend(["--join".to_owned(), self.join.clone()]);
        args.extend(["--admin-addr".to_owned(), admin.to_string()]);
        args.extend(["--cpus".to_owned(), cpus.to_string()]);
        let process = self.start(name, args, access);
        Role {
            process,
            admin,
            http: admin,
        }
    }

    fn start(&self, name: &str, mut args: Vec<String>, access: &[String]) -> Process {
        args.extend(access.iter().cloned());
        Process::start_of(&self.binary, self.dir.path(), name, &args)
    }

    /// Deploys the no-op application with so many replicas of one CPU each.
    pub fn deploy(&self, replicas: u32) {
        self.deploy_with(json!({
            "num_replicas": replicas,
            "ray_actor_options": {"num_cpus": 1},
        }));
    }

    /// Deploys the no-op application with these options.
    pub fn deploy_with(&self, options: Value) {
        let mut deployment = options;
        deployment["name"] = "Noop".into();
        deployment["max_ongoing_requests"] = 64.into();
        let config = json!({
            "http_options": {"host": "127.0.0.1"},
            "applications": [{
                "name": "noop",
                "route_prefix": "/",
                "import_path": "mobula.apps:noop",
                "deployments": [deployment],
            }],
        });
        let answer = send(self.admin, "PUT", APPLICATIONS, "", &config.to_string()).unwrap();
        assert_eq!(answer.0, 200, "{}", answer.1);
    }

    pub fn state(&self) -> Value {
        let (status, body) = get(self.admin, APPLICATIONS).unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The replicas by id, when the application is RUNNING with so many of them.
    pub fn wait_until_running(&self, replicas: usize) -> BTreeMap<String, Replica> {
        wait_for(&format!("{replicas} running replicas"), || {
            let state = self.state();
            let application = &state["applications"]["noop"];
            let found = running(application);
            (application["status"] == "RUNNING" && found.len() == replicas).then_some(found)
        })
    }

    /// How many routers the head knows.
    pub fn wait_for_routers(&self, wanted: usize) {
        wait_for(&format!("{wanted} routers"), || {
            let state = self.state();
            (state["proxies"].as_object()?.len() == wanted).then_some(())
        });
    }
}

impl Role {
    pub fn wait_until_ready(&self) {
        wait_for("readiness", || {
            (get(self.admin, "/readyz").ok()?.0 == 200).then_some(())
        });
    }

    pub fn wait_until_it_serves(&self) {
        wait_for("an answer through the router", || {
            (get(self.http, "/").ok()?.0 == 200).then_some(())
        });
    }
}

fn running(application: &Value) -> BTreeMap<String, Replica> {
    let replicas = application["deployments"]["Noop"]["replicas"].as_array();
    let all = replicas.into_iter().flatten();
    all.filter(|replica| replica["state"] == "RUNNING")
        .map(|replica| {
            let id = replica["replica_id"].as_str().unwrap().to_owned();
            let replica = Replica {
                pid: replica["pid"].as_u64().unwrap(),
                worker: replica["worker_id"].as_str().unwrap().to_owned(),
                start_time: replica["start_time_s"].to_string(),
            };
            (id, replica)
        })
        .collect()
}

pub fn flags(pairs: &[(&str, &Path)]) -> Vec<String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let both = |(flag, path): &(&str, &Path)| [(*flag).to_owned(), text(path)];
    pairs.iter().flat_map(both).collect()
}

/// A port that nobody used a moment ago.
pub fn free_addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}
