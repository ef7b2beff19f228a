//! etcd servers on free loopback ports, ended with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mobula_store::{EtcdConfig, EtcdStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ports::free_port;

/// Starts that failed because somebody else took a port in between.
const START_ATTEMPTS_MAX: usize = 3;

/// An etcd on a busy machine; each attempt to connect takes up to five seconds itself.
const READY_ATTEMPTS_MAX: usize = 12;

/// How to start a server.
#[derive(Clone, Default)]
pub struct Setup {
    pub version: Option<&'static str>,
    pub more_args: Vec<String>,
    pub secure: bool,
}

impl Setup {
    pub fn version(version: Option<&'static str>) -> Setup {
        Setup {
            version,
            ..Setup::default()
        }
    }
}

/// A running server with its own data.
pub struct Etcd {
    pub url: String,
    command: Vec<String>,
    child: Child,
    dir: TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Etcd {
    /// One server alone, ready.
    pub async fn start(setup: Setup) -> Etcd {
        let scheme = if setup.secure { "https" } else { "http" };
        for _ in 0..START_ATTEMPTS_MAX {
            let [client, peer] = free_ports();
            let url = format!("{scheme}://127.0.0.1:{client}");
            let peer = format!("http://127.0.0.1:{peer}");
            let members = format!("m0={peer}");
            let mut etcd = Etcd::spawn(&setup, "m0", &url, &peer, &members);
            if etcd.listens(client).await {
                return etcd;
            }
        }
        panic!("etcd did not start; its log is above");
    }

    /// Three servers that are one cluster, ready.
    pub async fn start_three(setup: Setup) -> Vec<Etcd> {
        for _ in 0..START_ATTEMPTS_MAX {
            let ports: [u16; 6] = free_ports();
            let peers: Vec<_> = ports[3..]
                .iter()
                .map(|p| format!("http://127.0.0.1:{p}"))
                .collect();
            let members: Vec<_> = peers
                .iter()
                .enumerate()
                .map(|(n, p)| format!("m{n}={p}"))
                .collect();
            let members = members.join(",");
            let mut all = Vec::new();
            for n in 0..3 {
                let url = format!("http://127.0.0.1:{}", ports[n]);
                all.push(Etcd::spawn(
                    &setup,
                    &format!("m{n}"),
                    &url,
                    &peers[n],
                    &members,
                ));
            }
            let mut ready = true;
            for n in 0..3 {
                ready &= all[n].listens(ports[n]).await;
            }
            if ready {
                return all;
            }
        }
        panic!("the etcd cluster did not start; its log is above");
    }

    fn spawn(setup: &Setup, name: &str, url: &str, peer: &str, members: &str) -> Etcd {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data").display().to_string();
        let log = dir.path().join("log").display().to_string();
        let binary = binary(setup.version);
        let args = [
            binary.to_str().unwrap(),
            "--name",
            name,
            "--data-dir",
            &data,
            "--listen-client-urls",
            url,
            "--advertise-client-urls",
            url,
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
            "--initial-cluster",
            members,
            "--logger",
            "zap",
            "--log-outputs",
            &log,
        ];
        let mut command: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        command.extend(setup.more_args.iter().cloned());
        Etcd {
            url: url.to_owned(),
            child: run(&command),
            command,
            dir,
        }
    }

    /// Whether it accepts connections before it ends by itself.
    async fn listens(&mut self, port: u16) -> bool {
        for _ in 0..600 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
            {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        eprintln!("etcd did not start: {:?}\n{log}", self.command);
        false
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _already_dead = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same data and ports.
    pub fn start_again(&mut self) {
        self.child = run(&self.command);
    }

    /// A store on this server alone.
    pub async fn store(&self, cluster: &str) -> EtcdStore {
        connect(EtcdConfig::plain(vec![self.url.clone()], cluster)).await
    }

    /// etcd's own JSON API, for what the store has no call for.
    pub async fn post(&self, path: &str, body: &str) -> String {
        let address = self.url.trim_start_matches("http://");
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        answer
    }

    /// Forgets all revisions before this one.
    pub async fn compact(&self, revision: u64) {
        let body = format!(r#"{{"revision": "{revision}", "physical": true}}"#);
        self.post("/v3/kv/compaction", &body).await;
    }
}

/// Connects as soon as etcd has elected its own leader.
pub async fn connect(config: EtcdConfig) -> EtcdStore {
    let mut last = None;
    for _ in 0..READY_ATTEMPTS_MAX {
        match EtcdStore::connect(config.clone()).await {
            Ok(store) => return store,
            Err(error) => last = Some(error),
        }
    }
    panic!("etcd is not ready: {}", last.unwrap());
}

fn run(command: &[String]) -> Child {
    // The variables of etcd itself would change what is tested.
    let own = std::env::vars_os().map(|(name, _)| name);
    let mut etcd = Command::new(&command[0]);
    for name in own.filter(|name| name.to_string_lossy().starts_with("ETCD_")) {
        etcd.env_remove(name);
    }
    etcd.args(&command[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn binary(version: Option<&str>) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/fetch_etcd.sh");
    let output = Command::new(script).args(version).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn free_ports<const N: usize>() -> [u16; N] {
    [(); N].map(|()| free_port())
}
