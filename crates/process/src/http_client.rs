//! An HTTP/1.1 client of admin APIs, over TLS where the address is `https`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::Scheme;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;
use tower::Service;

use crate::client_tls::Trust;

/// The client.
pub type HttpClient = Client<Connector, Full<Bytes>>;

/// Opens connections, which have to come up within a time.
#[derive(Clone)]
pub struct Connector {
    trust: Option<Trust>,
    within: Duration,
}

/// A connection.
pub struct Stream(Either<TcpStream, Box<TlsStream<TcpStream>>>);

/// A client that believes servers as `trust` says; without it `https` is refused.
pub fn client(trust: Option<Trust>, within: Duration) -> HttpClient {
    Client::builder(TokioExecutor::new()).build(Connector { trust, within })
}

// === impl Connector ===

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (trust, within) = (self.trust.clone(), self.within);
        Box::pin(async move {
            let opened = tokio::time::timeout(within, open(&uri, trust)).await;
            let late = || {
                let message = format!("no connection within {within:?}");
                io::Error::new(io::ErrorKind::TimedOut, message)
            };
            opened.unwrap_or_else(|_| Err(late())).map(TokioIo::new)
        })
    }
}

async fn open(uri: &Uri, trust: Option<Trust>) -> io::Result<Stream> {
    let secure = uri.scheme() == Some(&Scheme::HTTPS);
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let socket = TcpStream::connect((host, port)).await?;
    // A request goes out whole; waiting for more only adds delay.
    socket.set_nodelay(true)?;
    if !secure {
        return Ok(Stream(Either::Left(socket)));
    }
    let none = || io::Error::other("nothing says whom to believe");
    let config = trust.ok_or_else(none)?();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::clone(&config)).connect(name, socket);
    Ok(Stream(Either::Right(Box::new(stream.await?))))
}

// === impl Stream ===

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
