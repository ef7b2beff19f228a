//! The admin APIs of several heads over TLS: each sends requests on to the one that leads.

use std::net::SocketAddr;
use std::path::Path;

use crate::authority::{Authority, authority, leaf_for_loopback};
use crate::elected::{Etcd, Head};
use crate::house::{House, flags};
use crate::process::{command, wait_for};

/// Writes what a head needs to serve as 127.0.0.1, and says with which flags it does.
fn admin_flags(dir: &Path, issuer: &Authority, trusted: &Authority) -> Vec<String> {
    std::fs::create_dir_all(dir).unwrap();
    let (cert, key) = leaf_for_loopback(issuer);
    std::fs::write(dir.join("tls.crt"), cert).unwrap();
    std::fs::write(dir.join("tls.key"), key).unwrap();
    std::fs::write(dir.join("ca.crt"), trusted.pem()).unwrap();
    flags(&[
        ("--admin-tls-cert", &dir.join("tls.crt")),
        ("--admin-tls-key", &dir.join("tls.key")),
        ("--admin-tls-ca", &dir.join("ca.crt")),
    ])
}

/// What `mobula config` says at that head: whether it worked, and its words.
fn config(admin: SocketAddr, ca: &Path) -> (bool, String) {
    let address = format!("https://{admin}");
    let mut asking = command();
    asking.args(["config", "--address", &address, "--ca-file"]);
    let output = asking.arg(ca).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn wait_until_led(heads: &[Head]) -> usize {
    wait_for("a leader", || heads.iter().position(Head::leads))
}

#[test]
fn a_head_that_follows_sends_requests_on_over_tls_and_believes_its_authority_alone() {
    let etcd = Etcd::start();
    let house = House::new(tempfile::tempdir().unwrap(), Vec::new());
    let (ours, theirs) = (authority(), authority());
    let dir = house.dir.path();
    let ca = dir.join("right/ca.crt");
    let right = admin_flags(&dir.join("right"), &ours, &ours);
    let mut heads = vec![Head::launch(&house, &etcd.url, "head-1", &right)];
    wait_until_led(&heads);
    heads.push(Head::launch(&house, &etcd.url, "head-2", &right));
    for head in &heads {
        wait_for("an answer", || config(head.admin, &ca).0.then_some(()));
        let (_, said) = config(head.admin, &ca);
        assert!(said.contains("No configuration was found"), "{said}");
    }

    // Everybody believes it, but it does not believe the one that leads.
    let doubts = admin_flags(&dir.join("doubts"), &ours, &theirs);
    let doubting = Head::launch(&house, &etcd.url, "head-3", &doubts);
    let said = wait_for("a refusal", || {
        let (worked, said) = config(doubting.admin, &ca);
        (!worked && said.contains("status code 503")).then_some(said)
    });
    assert!(said.contains("invalid peer certificate"), "{said}");

    // Its files are corrected while it runs.
    std::fs::copy(&ca, dir.join("doubts/ca.crt")).unwrap();
    wait_for("an answer", || config(doubting.admin, &ca).0.then_some(()));
}
