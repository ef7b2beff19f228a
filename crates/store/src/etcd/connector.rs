//! Connections over TLS to a member of etcd, each opened with what is in force then: certificates
//! are renewed while the store is in use.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tower::Service;

use super::config::EtcdTls;

/// Where `https` has no port.
const PORT_DEFAULT: u16 = 443;

/// Opens connections over TLS.
#[derive(Clone)]
pub(super) struct Secure(pub EtcdTls);

type Opening<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Service<Uri> for Secure {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Opening<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The endpoint's own limit is how long this may take.
    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            let port = uri.port_u16().unwrap_or(PORT_DEFAULT);
            let socket = TcpStream::connect((host, port)).await?;
            socket.set_nodelay(true)?;
            let connector = TlsConnector::from((tls.config)());
            connector.connect(name, socket).await.map(TokioIo::new)
        })
    }
}

impl EtcdTls {
    /// The same for every connection.
    pub fn fixed(config: tokio_rustls::rustls::ClientConfig) -> EtcdTls {
        let config = Arc::new(config);
        EtcdTls {
            config: Arc::new(move || Arc::clone(&config)),
            server_name: None,
        }
    }
}
