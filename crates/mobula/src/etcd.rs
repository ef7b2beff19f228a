//! How `mobula head` reaches etcd.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use mobula_process::client_tls::{ClientFiles, ClientIdentity};
use mobula_process::follow::Credential;
use mobula_process::ids;
use mobula_store::{Candidate, EtcdConfig, EtcdStore, EtcdTls, EtcdUser};

use crate::access::Following;
use crate::args::EtcdArgs;

/// A store that connects when it is first used, or what is wrong with the flags.
pub fn store(args: &EtcdArgs, following: &mut Following) -> Result<EtcdStore> {
    let config = EtcdConfig {
        endpoints: args.etcd.clone(),
        cluster: args.cluster.clone(),
        tls: tls(args, following)?,
        user: user(args)?,
        lease: Duration::from_secs(args.lease_seconds),
    };
    EtcdStore::new(config).with_context(|| format!("--etcd {}", args.etcd.join(",")))
}

/// This head as the others see it.
pub fn candidate(args: &EtcdArgs, admin: SocketAddr, scheme: &str) -> Candidate {
    let address = args.advertise_admin_url.clone().unwrap_or_else(|| {
        let host = if admin.ip().is_unspecified() {
            ids::node_ip()
        } else {
            admin.ip().to_string()
        };
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        format!("{scheme}://{host}:{}", admin.port())
    });
    Candidate {
        name: format!("head-{}", ids::replica_id()),
        address,
    }
}

/// Certificates that cannot be used are a mistake here and end the head; an etcd that is away, or
/// does not believe them, is waited for.
fn tls(args: &EtcdArgs, following: &mut Following) -> Result<Option<EtcdTls>> {
    let Some(ca) = &args.etcd_ca else {
        return Ok(None);
    };
    let identity = args.etcd_cert.clone().zip(args.etcd_key.clone());
    let files = ClientFiles {
        ca_flag: "--etcd-ca",
        ca: Some(ca.clone()),
        identity: identity.map(|(cert, key)| ClientIdentity {
            cert_flag: "--etcd-cert",
            cert,
            key_flag: "--etcd-key",
            key,
        }),
        protocols: &[b"h2"],
    };
    let current = following.current(Credential::EtcdCertificate, files)?;
    Ok(Some(EtcdTls {
        config: current.trust(),
        server_name: None,
    }))
}

fn user(args: &EtcdArgs) -> Result<Option<EtcdUser>> {
    let (Some(name), Some(file)) = (&args.etcd_user, &args.etcd_password_file) else {
        return Ok(None);
    };
    let password = String::from_utf8(read(file)?)
        .with_context(|| format!("{} is not text", file.display()))?;
    Ok(Some(EtcdUser {
        name: name.clone(),
        password: password.trim_end().to_owned(),
    }))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
