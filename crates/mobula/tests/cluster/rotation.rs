//! Certificates, authorities and tokens that change while the cluster runs: what is open goes on,
//! what is new uses what the files hold now.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mobula_process::tls::TLS_NAME;

use crate::authority::{Authority, authority, bundle, flags_of, leaf, leaf_for_loopback};
use crate::client::{get, send};
use crate::elected::{Etcd, Head};
use crate::house::{House, Role, TOKEN, flags};
use crate::load::Load;
use crate::process::{command, wait_for};

/// The value of a series of the process itself; a head shows those of its workers as well.
fn metric(admin: SocketAddr, name: &str, labels: &[&str]) -> Option<f64> {
    let (_, text) = get(admin, "/metrics").ok()?;
    let is_it = |line: &&str| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    };
    let (of_workers, own): (Vec<&str>, Vec<&str>) = text
        .lines()
        .filter(is_it)
        .partition(|line| line.contains("WorkerId="));
    let line = own.first().or(of_workers.first())?;
    line.rsplit(' ').next()?.parse().ok()
}

fn wait_for_metric(admin: SocketAddr, name: &str, labels: &[&str], value: f64) {
    wait_for(&format!("{name} {labels:?} {value}"), || {
        (metric(admin, name, labels)? == value).then_some(())
    });
}

fn wait_until_taken(admin: SocketAddr, credential: &str, times: u32) {
    let labels = [
        &*format!("credential=\"{credential}\""),
        "outcome=\"taken\"",
    ];
    let name = "mobula_credential_reloads_total";
    wait_for_metric(admin, name, &labels, f64::from(times));
}

/// Files as Kubernetes mounts a Secret: the names point through a link that is swapped.
struct Mounted {
    dir: PathBuf,
    swaps: u32,
}

impl Mounted {
    fn new(dir: PathBuf) -> Mounted {
        fs::create_dir_all(&dir).unwrap();
        Mounted { dir, swaps: 0 }
    }

    fn swap(&mut self, files: &[(&str, &str)]) {
        self.swaps += 1;
        let version = format!("..version-{}", self.swaps);
        fs::create_dir(self.dir.join(&version)).unwrap();
        for (name, text) in files {
            fs::write(self.dir.join(&version).join(name), text).unwrap();
            let link = self.dir.join(name);
            if !link.is_symlink() {
                std::os::unix::fs::symlink(format!("..data/{name}"), link).unwrap();
            }
        }
        let next = self.dir.join("..data_tmp");
        std::os::unix::fs::symlink(&version, &next).unwrap();
        fs::rename(&next, self.dir.join("..data")).unwrap();
    }

    fn swap_certificate(&mut self, (cert, key): &(String, String), ca: &str) {
        self.swap(&[("tls.crt", cert), ("tls.key", key), ("ca.crt", ca)]);
    }
}

/// A head, a worker and a router, each with files of its own.
struct Members {
    head: Mounted,
    worker: Mounted,
    router: Mounted,
}

impl Members {
    fn new(dir: &Path) -> Members {
        let of = |role: &str| Mounted::new(dir.join(format!("files-{role}")));
        Members {
            head: of("head"),
            worker: of("worker"),
            router: of("router"),
        }
    }

    fn all(&mut self) -> [&mut Mounted; 3] {
        [&mut self.head, &mut self.worker, &mut self.router]
    }
}

#[test]
fn leaf_and_authority_are_replaced_under_running_sessions_and_whoever_joins_uses_the_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (authority(), authority());
    let (of_old, of_both, of_new) = (bundle(&[&old]), bundle(&[&old, &new]), bundle(&[&new]));
    let mut members = Members::new(dir.path());
    for files in members.all() {
        files.swap_certificate(&leaf(TLS_NAME, &old, 2040), &of_old);
    }
    let worker_flags = flags_of(&members.worker.dir);
    let router_flags = flags_of(&members.router.dir);
    let house = House::new(dir, flags_of(&members.head.dir));
    let head = house.head("head", &[]);
    let worker = house.worker_with("worker", 2, &worker_flags);
    let router = house.router_with("router", &router_flags);
    let admins = [house.admin, worker.admin, router.admin];
    house.deploy(2);
    let before = house.wait_until_running(2);
    router.wait_until_it_serves();
    let load = Load::start(router.http);

    // Step by step, as docs/certificates.md says.
    for files in members.all() {
        files.swap_certificate(&leaf(TLS_NAME, &old, 2041), &of_both);
    }
    for admin in admins {
        wait_until_taken(admin, "cluster_certificate", 1);
    }
    load.goes_on();
    members
        .head
        .swap_certificate(&leaf(TLS_NAME, &new, 2042), &of_both);
    wait_until_taken(house.admin, "cluster_certificate", 2);
    // Between the steps: one that was not renewed yet, and one that was.
    let late = house.worker_with("late-worker", 1, &worker_flags);
    late.wait_until_ready();
    let mut renewed = Mounted::new(house.dir.path().join("files-renewed"));
    renewed.swap_certificate(&leaf(TLS_NAME, &new, 2042), &of_both);
    let early = house.router_with("early-router", &flags_of(&renewed.dir));
    early.wait_until_it_serves();
    for files in [&mut members.worker, &mut members.router] {
        files.swap_certificate(&leaf(TLS_NAME, &new, 2043), &of_both);
    }
    for admin in [worker.admin, router.admin] {
        wait_until_taken(admin, "cluster_certificate", 2);
    }
    for files in members.all() {
        files.swap_certificate(&leaf(TLS_NAME, &new, 2044), &of_new);
    }
    for admin in admins {
        wait_until_taken(admin, "cluster_certificate", 3);
    }
    load.goes_on();

    let mut expired = Mounted::new(house.dir.path().join("files-expired"));
    expired.swap_certificate(&leaf(TLS_NAME, &old, 2040), &of_both);
    let stale = house.worker_with("stale-worker", 1, &flags_of(&expired.dir));
    stale.process.wait_for_log("dialling again");
    // Dials the head as well as both workers.
    let last = house.router_with("last-router", &router_flags);
    last.wait_until_it_serves();
    load.end_without_failure();
    assert_eq!(get(stale.admin, "/readyz").unwrap().0, 503);
    assert_eq!(house.wait_until_running(2), before, "nothing was restarted");
    for role in [&worker, &router] {
        let log = role.process.log();
        let sessions = log.matches("session with the head").count();
        assert_eq!(sessions, 1, "a session that is open goes on: {log}");
    }
    for log in [head.log(), worker.process.log(), router.process.log()] {
        assert!(!log.contains("PRIVATE KEY"), "{log}");
    }
}

#[test]
fn a_pair_that_does_not_fit_is_refused_once_by_file_and_mistake_and_metrics_say_so() {
    const EXPIRY: &str = "mobula_certificate_expiry_timestamp_seconds";
    const SUCCESSFUL: &str = "mobula_credential_last_reload_successful";
    const OF_CLUSTER: &[&str] = &["credential=\"cluster_certificate\""];
    let dir = tempfile::tempdir().unwrap();
    let ours = authority();
    let ca = bundle(&[&ours]);
    let mut files = Mounted::new(dir.path().join("files"));
    let good = leaf(TLS_NAME, &ours, 2040);
    files.swap_certificate(&good, &ca);
    let house = House::new(dir, flags_of(&files.dir));
    let head = house.head("head", &[]);
    assert_eq!(
        metric(house.admin, EXPIRY, OF_CLUSTER),
        Some(2_208_988_800.0)
    );
    assert_eq!(metric(house.admin, SUCCESSFUL, OF_CLUSTER), Some(1.0));

    let other = leaf(TLS_NAME, &ours, 2041);
    let half = &other.0[..other.0.len() / 2];
    for (cert, key, why) in [
        (
            &*other.0,
            &*good.1,
            "is not the key of the certificate in --tls-cert",
        ),
        (half, &other.1, "is not PEM"),
        (&other.0, "", "holds no private key in PEM"),
    ] {
        files.swap(&[("tls.crt", cert), ("tls.key", key), ("ca.crt", &ca)]);
        head.wait_for_log(why);
        wait_for_metric(house.admin, SUCCESSFUL, OF_CLUSTER, 0.0);
        let log = head.log();
        let file = files.dir.display().to_string();
        let told: Vec<&str> = log.lines().filter(|line| line.contains(why)).collect();
        assert_eq!(told.len(), 1, "{log}");
        assert!(
            told[0].contains(&file) && told[0].contains("--tls-"),
            "{log}"
        );
        files.swap_certificate(&good, &ca);
        wait_for_metric(house.admin, SUCCESSFUL, OF_CLUSTER, 1.0);
    }
    assert_eq!(
        metric(house.admin, EXPIRY, OF_CLUSTER),
        Some(2_208_988_800.0)
    );
    let worker = house.worker("worker", 1);
    worker.wait_until_ready();
    files.swap_certificate(&other, &ca);
    wait_for_metric(house.admin, EXPIRY, OF_CLUSTER, 2_240_611_200.0);
    assert_eq!(metric(house.admin, SUCCESSFUL, OF_CLUSTER), Some(1.0));
}

#[test]
fn the_join_token_is_replaced_without_a_refused_process() {
    const NEW: &str = "a-new-join-token-of-the-test";
    let dir = tempfile::tempdir().unwrap();
    let mut members = Members::new(dir.path());
    let both = format!("{TOKEN}\n{NEW}\n");
    for files in members.all() {
        files.swap(&[("token", TOKEN)]);
    }
    let flag = |files: &Mounted| flags(&[("--join-token-file", &files.dir.join("token"))]);
    let house = House::new(dir, flag(&members.head));
    let head = house.head("head", &[]);
    let worker = house.worker_with("worker", 1, &flag(&members.worker));
    let router = house.router_with("router", &flag(&members.router));
    house.deploy(1);
    let before = house.wait_until_running(1);
    router.wait_until_it_serves();
    let load = Load::start(router.http);
    // Each step reaches the processes one after the other, and meanwhile somebody joins who has
    // what was there before, and somebody who has what comes.
    let mut joined: Vec<Role> = Vec::new();
    let steps = [(TOKEN, &*both, "first"), (&both, NEW, "second")];
    for (taken, (was, comes, step)) in (1..).zip(steps) {
        members.head.swap(&[("token", comes)]);
        wait_until_taken(house.admin, "join_token", taken);
        for (kind, text) in [("late", was), ("early", comes)] {
            let mut files = Mounted::new(house.dir.path().join(format!("{step}-{kind}")));
            files.swap(&[("token", text)]);
            let name = format!("{step}-{kind}-router");
            let router = house.router_with(&name, &flag(&files));
            router.wait_until_it_serves();
            joined.push(router);
        }
        for (files, role) in [
            (&mut members.worker, &worker),
            (&mut members.router, &router),
        ] {
            files.swap(&[("token", comes)]);
            wait_until_taken(role.admin, "join_token", taken);
        }
        load.goes_on();
    }
    load.end_without_failure();
    assert_eq!(house.wait_until_running(1), before, "nothing was restarted");

    let mut stale = Mounted::new(house.dir.path().join("stale"));
    stale.swap(&[("token", TOKEN)]);
    let refused = house.worker_with("stale-worker", 1, &flag(&stale));
    refused.process.wait_for_log("the join token is wrong");
    for (text, why) in [
        ("", "1 to 4 tokens separated by white space"),
        ("far-too-short", "a token has at least 16 bytes"),
    ] {
        members.head.swap(&[("token", text)]);
        head.wait_for_log(why);
    }
    let path = members.head.dir.join("token").display().to_string();
    assert!(head.log().contains(&path), "{}", head.log());
    let again = house.worker_with("again-worker", 1, &flag(&members.worker));
    again.wait_until_ready();
    for log in [head.log(), worker.process.log(), refused.process.log()] {
        for secret in [TOKEN, NEW, "far-too-short"] {
            assert!(!log.contains(secret), "{log}");
        }
    }
    for role in &joined {
        let log = role.process.log();
        assert!(!log.contains("the join token is"), "refused once: {log}");
    }
}

#[test]
fn the_admin_token_is_replaced_while_clients_change_over() {
    const OLD: &str = "the-old-admin-token";
    const NEW: &str = "the-new-admin-token";
    let house = House::with_token();
    let mut files = Mounted::new(house.dir.path().join("admin"));
    files.swap(&[("token", OLD)]);
    let path = files.dir.join("token");
    let path = path.to_str().unwrap();
    let _head = house.head("head", &["--admin-token-file", path]);
    let status = |token: &str| {
        let header = format!("authorization: Bearer {token}\r\n");
        let answer = send(house.admin, "GET", "/api/serve/applications/", &header, "");
        answer.unwrap().0
    };
    assert_eq!((status(OLD), status(NEW)), (200, 403));
    files.swap(&[("token", &format!("{OLD} {NEW}"))]);
    wait_for("the new token", || (status(NEW) == 200).then_some(()));
    assert_eq!((status(OLD), status(&format!("{OLD} {NEW}"))), (200, 200));
    // A client that shares the file shows what is in it.
    let mut config = command();
    let address = format!("http://{}", house.admin);
    config.args(["config", "--address", &address, "--token-file", path]);
    assert!(config.output().unwrap().status.success());
    files.swap(&[("token", NEW)]);
    wait_for("the old token's end", || (status(OLD) == 403).then_some(()));
    assert_eq!(status(NEW), 200);
}

#[test]
fn a_head_reaches_an_etcd_whose_authority_was_replaced_with_files_that_changed_in_service() {
    let house = House::new(tempfile::tempdir().unwrap(), Vec::new());
    let (old, new) = (authority(), authority());
    let of_etcd = house.dir.path().join("etcd");
    let etcds = |issuer: &Authority| {
        let (cert, key) = leaf_for_loopback(issuer);
        fs::create_dir_all(&of_etcd).unwrap();
        for (name, text) in [
            ("tls.crt", cert),
            ("tls.key", key),
            ("ca.crt", issuer.pem()),
        ] {
            fs::write(of_etcd.join(name), text).unwrap();
        }
    };
    etcds(&old);
    let mut etcd = Etcd::start_secured(&of_etcd);
    let mut files = Mounted::new(house.dir.path().join("head"));
    files.swap_certificate(&leaf("head", &old, 2040), &bundle(&[&old]));
    let more = flags(&[
        ("--etcd-ca", &files.dir.join("ca.crt")),
        ("--etcd-cert", &files.dir.join("tls.crt")),
        ("--etcd-key", &files.dir.join("tls.key")),
    ]);
    let head = Head::launch(&house, &etcd.url, "head", &more);
    wait_for("the lead", || {
        (head.leads() && head.is_settled()).then_some(())
    });

    etcd.kill();
    etcds(&new);
    etcd.start_again();
    wait_for("that it does not believe etcd", || {
        let (status, said) = get(head.admin, "/readyz").ok()?;
        (status == 503 && said.contains("certificate")).then_some(())
    });
    files.swap_certificate(&leaf("head", &new, 2041), &bundle(&[&new]));
    wait_for("the lead again", || {
        (head.leads() && head.is_settled()).then_some(())
    });
    wait_until_taken(head.admin, "etcd_certificate", 1);
}
