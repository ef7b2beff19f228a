//! Where etcd is, and as whom to speak to it.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio_rustls::rustls::ClientConfig;
use tonic::transport::Endpoint;

use crate::StoreError;
use crate::election::LEASE_DEFAULT;

/// Members of an etcd cluster: more than seven are not recommended by etcd, and a list of two
/// names each is possible.
pub const ENDPOINTS_MAX: usize = 16;

/// Of a cluster's name: a DNS label.
pub const CLUSTER_BYTES_MAX: usize = 63;

/// Below this etcd raises the time by itself, and a short pause would be an election.
const LEASE_MIN: Duration = Duration::from_secs(2);

/// Above this a dead leader is missed for too long.
const LEASE_MAX: Duration = Duration::from_secs(120);

/// For the TCP connection and TLS together; a member that needs longer is passed over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two HTTP/2 pings while a call is open: etcd closes connections that ping more often
/// than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Without an answer to a ping for this long the connection is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Where etcd is. No `Debug`: it holds a password and a key.
#[derive(Clone)]
pub struct EtcdConfig {
    /// URLs with scheme and port. The first one is asked first.
    pub endpoints: Vec<String>,
    /// The name of our cluster: everything is kept below `/mobula/<cluster>/`.
    pub cluster: String,
    /// For `https` endpoints.
    pub tls: Option<EtcdTls>,
    /// Where etcd's authentication is enabled.
    pub user: Option<EtcdUser>,
    /// Of a leadership, in whole seconds.
    pub lease: Duration,
}

/// Whom to believe and what to show.
#[derive(Clone)]
pub struct EtcdTls {
    /// What a new connection is opened with. Asked for each, so it may change; offers `h2`.
    pub config: Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>,
    /// The name in the members' certificates, where it is not the host in the URL.
    pub server_name: Option<String>,
}

/// A user of etcd.
#[derive(Clone)]
pub struct EtcdUser {
    /// Who.
    pub name: String,
    /// The secret.
    pub password: String,
}

// === impl EtcdConfig ===

impl EtcdConfig {
    /// Plain text, no user, the default lease.
    pub fn plain(endpoints: Vec<String>, cluster: impl Into<String>) -> EtcdConfig {
        EtcdConfig {
            endpoints,
            cluster: cluster.into(),
            tls: None,
            user: None,
            lease: LEASE_DEFAULT,
        }
    }

    pub(super) fn validate(&self) -> Result<(), StoreError> {
        let count = self.endpoints.len();
        if count == 0 || count > ENDPOINTS_MAX {
            return invalid(format!(
                "etcd.endpoints has {count} entries, 1 to {ENDPOINTS_MAX} are allowed"
            ));
        }
        let cluster = &self.cluster;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if cluster.is_empty() || cluster.len() > CLUSTER_BYTES_MAX || !cluster.chars().all(allowed)
        {
            return invalid(format!(
                "etcd.cluster is '{cluster}', allowed are 1 to {CLUSTER_BYTES_MAX} letters, digits, '-', '_' and '.'"
            ));
        }
        if !(LEASE_MIN..=LEASE_MAX).contains(&self.lease) || self.lease.subsec_nanos() != 0 {
            return invalid(format!(
                "etcd.lease is {:?}, allowed are whole seconds from {LEASE_MIN:?} to {LEASE_MAX:?}",
                self.lease
            ));
        }
        Ok(())
    }

    /// One per member, not connected yet.
    pub(super) fn tonic_endpoints(&self) -> Result<Vec<Endpoint>, StoreError> {
        let endpoints = self.endpoints.iter();
        endpoints.map(|url| self.tonic_endpoint(url)).collect()
    }

    fn tonic_endpoint(&self, url: &str) -> Result<Endpoint, StoreError> {
        let wrong = |why: &dyn std::fmt::Display| {
            StoreError::Invalid(format!("etcd.endpoints has '{url}': {why}"))
        };
        let secure = url.starts_with("https://");
        if !secure && !url.starts_with("http://") {
            return Err(wrong(&"http:// or https:// is allowed"));
        }
        if secure != self.tls.is_some() {
            return Err(wrong(&"etcd.tls goes with https:// and only with it"));
        }
        let origin: Uri = url.parse().map_err(|error| wrong(&error))?;
        // TLS is the connector's business (`Secure`), and tonic insists on its own for https.
        let plain = url.replacen("https://", "http://", 1);
        let endpoint = Endpoint::from_shared(plain).map_err(|error| wrong(&error))?;
        Ok(endpoint
            .origin(origin)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            // etcd takes pings on idle connections for abuse.
            .keep_alive_while_idle(false)
            .tcp_nodelay(true))
    }
}

fn invalid<T>(message: String) -> Result<T, StoreError> {
    Err(StoreError::Invalid(message))
}
