//! Heads that share an etcd.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::client::get;
use crate::house::{House, free_addr};
use crate::process::{Process, wait_for};

/// An etcd of one member with its own data, ended with the test.
pub struct Etcd {
    child: Child,
    command: Vec<String>,
    /// Where it says whether it is healthy.
    health: SocketAddr,
    pub url: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    pub fn start() -> Etcd {
        Etcd::start_at(free_addr())
    }

    pub fn start_at(client: SocketAddr) -> Etcd {
        Etcd::launch(&format!("http://{client}"), client, &[])
    }

    /// One that shows the certificate of a directory, and asks clients for one that its authority
    /// signed.
    pub fn start_secured(files: &Path) -> Etcd {
        let (client, health) = (free_addr(), free_addr());
        let flag = |name: &str, file: &str| format!("--{name}={}", files.join(file).display());
        let more = [
            flag("cert-file", "tls.crt"),
            flag("key-file", "tls.key"),
            flag("trusted-ca-file", "ca.crt"),
            "--client-cert-auth".to_owned(),
            format!("--listen-metrics-urls=http://{health}"),
        ];
        Etcd::launch(&format!("https://{client}"), health, &more)
    }

    fn launch(url: &str, health: SocketAddr, more: &[String]) -> Etcd {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let fetched = Command::new(root.join("scripts/fetch_etcd.sh"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&fetched.stderr);
        assert!(fetched.status.success(), "etcd cannot be had: {errors}");
        let binary = String::from_utf8(fetched.stdout).unwrap();
        let data = tempfile::tempdir().unwrap();
        let peer = format!("http://{}", free_addr());
        let command = [
            binary.trim().lines().last().unwrap(),
            "--data-dir",
            data.path().to_str().unwrap(),
            "--listen-client-urls",
            url,
            "--advertise-client-urls",
            url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("default={peer}"),
        ];
        let mut command = command.map(str::to_owned).to_vec();
        command.extend_from_slice(more);
        let etcd = Etcd {
            child: spawn(&command),
            command,
            health,
            url: url.to_owned(),
            _data: data,
        };
        etcd.wait_until_it_answers();
        etcd
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same again, with what it had stored.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.command);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        wait_for("etcd", || {
            (get(self.health, "/health").ok()?.0 == 200).then_some(())
        });
    }
}

fn spawn(command: &[String]) -> Child {
    Command::new(&command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of several heads.
pub struct Head {
    pub process: Process,
    pub admin: SocketAddr,
    pub cluster: SocketAddr,
}

impl Head {
    pub fn start(house: &House, etcd: &Etcd, name: &str) -> Head {
        let head = Head::launch(house, &etcd.url, name, &[]);
        wait_for("the head", || get(head.admin, "/livez").ok());
        head
    }

    /// Again at the addresses of a head that ended.
    pub fn start_in_place_of(old: &Head, house: &House, etcd: &Etcd, name: &str) -> Head {
        let head = Head::launch_at((old.admin, old.cluster), house, &etcd.url, name, &[]);
        wait_for("the head", || get(head.admin, "/livez").ok());
        head
    }

    /// Without waiting for it to be up.
    pub fn launch(house: &House, etcd: &str, name: &str, more: &[String]) -> Head {
        Head::launch_at((free_addr(), free_addr()), house, etcd, name, more)
    }

    fn launch_at(
        (admin, cluster): (SocketAddr, SocketAddr),
        house: &House,
        etcd: &str,
        name: &str,
        more: &[String],
    ) -> Head {
        let flags = [
            ("--etcd", etcd.to_owned()),
            ("--cluster", "test".to_owned()),
            ("--lease-seconds", "2".to_owned()),
            ("--admin-addr", admin.to_string()),
            ("--cluster-addr", cluster.to_string()),
        ];
        let args = flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        let args = std::iter::once("head".to_owned()).chain(args);
        let args: Vec<_> = args.chain(more.iter().cloned()).collect();
        let process = Process::start_of(&house.binary, house.dir.path(), name, &args);
        Head {
            process,
            admin,
            cluster,
        }
    }

    /// A head that follows says so in its log only; a leader says that it leads.
    pub fn leads(&self) -> bool {
        let log = self.process.log();
        let since = |text: &str| log.rfind(text);
        since("this head leads now") > since("the lead was lost, following")
    }

    pub fn is_settled(&self) -> bool {
        get(self.admin, "/readyz").is_ok_and(|answer| answer.0 == 200)
    }
}

pub fn document(admin: SocketAddr) -> Value {
    let (status, body) = get(admin, "/api/serve/applications/").unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The one head that leads, out of those that live.
pub fn wait_for_leader(heads: &[Head]) -> usize {
    wait_for("a leader", || {
        heads
            .iter()
            .position(|head| head.leads() && head.is_settled())
    })
}

/// The house as its processes see it through one of the heads.
pub fn house_of(heads: &[Head]) -> House {
    let joined = heads
        .iter()
        .map(|head| head.cluster.to_string())
        .collect::<Vec<_>>();
    let mut house = House::new(tempfile::tempdir().unwrap(), Vec::new());
    house.admin = heads[0].admin;
    house.join = joined.join(",");
    house
}
