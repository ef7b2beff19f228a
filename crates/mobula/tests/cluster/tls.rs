//! Certificates between the processes: both sides show one, both check.

use std::path::Path;

use mobula_process::tls::TLS_NAME;

use crate::authority::{Authority, authority, flags_of, write};
use crate::client::get;
use crate::house::{House, flags, free_addr};
use crate::process::{Process, command, wait_for};

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
    flags_of(&dir)
}

#[test]
fn the_cluster_serves_with_its_certificates_and_nobody_joins_with_others() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(), authority());
    let right = member(dir.path(), "right", TLS_NAME, &ours, &ours);
    let strangers = member(dir.path(), "stranger", TLS_NAME, &theirs, &theirs);
    let forged = member(dir.path(), "forged", TLS_NAME, &theirs, &ours);
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
    let right = member(dir.path(), "right", TLS_NAME, &ours, &ours);
    let other = member(dir.path(), "other", "web.example", &ours, &ours);
    let house = House::new(dir, other);
    let _head = house.head("head", &[]);
    let worker = house.worker_with("worker", 1, &right);
    worker.process.wait_for_log("dialling again");
    assert_eq!(get(worker.admin, "/readyz").unwrap().0, 503);
}

#[test]
fn certificates_that_cannot_be_used_end_a_process_at_once_by_flag_file_and_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority();
    let (good, other) = (dir.path().join("good"), dir.path().join("other"));
    for dir in [&good, &other] {
        write(dir, TLS_NAME, &ours, &[&ours]);
    }
    let file = |dir: &Path, name: &str| dir.join(name).display().to_string();
    let (ca, cert) = (file(&good, "ca.crt"), file(&good, "tls.crt"));
    let (key, others) = (file(&good, "tls.key"), file(&other, "tls.key"));
    let missing = file(&good, "missing");
    for (ca, cert, key, why) in [
        (
            &ca,
            &missing,
            &key,
            format!("-cert: {missing}: No such file"),
        ),
        (
            &ca,
            &key,
            &key,
            format!("-cert: {key}: holds no certificate in PEM"),
        ),
        (
            &ca,
            &cert,
            &others,
            format!("-key: {others}: is not the key of the certificate"),
        ),
        (
            &key,
            &cert,
            &key,
            format!("-ca: {key}: holds no certificate in PEM"),
        ),
    ] {
        let etcd = ["head", "--etcd", "https://127.0.0.1:1"];
        let join = ["worker", "--join", "127.0.0.1:1"];
        for (args, prefix) in [(etcd, "--etcd"), (join, "--tls")] {
            let mut process = command();
            process.args(args).arg(format!("{prefix}-ca")).arg(ca);
            process.arg(format!("{prefix}-cert")).arg(cert);
            let output = process
                .arg(format!("{prefix}-key"))
                .arg(key)
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{said}");
            assert!(said.contains(&format!("error: {prefix}{why}")), "{said}");
        }
    }
}

#[test]
fn an_etcd_that_is_away_is_waited_for_when_the_certificates_for_it_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority();
    write(dir.path(), "head", &ours, &[&ours]);
    let (admin, cluster, etcd) = (free_addr(), free_addr(), free_addr());
    let mut args = vec!["head".to_owned(), format!("--etcd=https://{etcd}")];
    args.extend([
        format!("--admin-addr={admin}"),
        format!("--cluster-addr={cluster}"),
    ]);
    args.extend(flags(&[
        ("--etcd-ca", &dir.path().join("ca.crt")),
        ("--etcd-cert", &dir.path().join("tls.crt")),
        ("--etcd-key", &dir.path().join("tls.key")),
    ]));
    let mut head = Process::start(dir.path(), "head", &args);
    let ready = wait_for("an answer", || get(admin, "/readyz").ok());
    assert_eq!((ready.0, get(admin, "/livez").unwrap().0), (503, 200));
    assert!(head.is_running());
}
