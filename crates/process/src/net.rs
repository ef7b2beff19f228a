//! Addresses between our own processes, and how to connect to and listen on them.
//!
//! On one machine the processes talk over Unix sockets in a directory that only their user may
//! enter, so the file system is the access control; in a cluster over TCP, where `access` says who
//! may come.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tonic::transport::{Channel, Endpoint};

use crate::follow::Current;
use crate::io::Io;
use crate::prompt::Prompt;
use crate::tls::Tls;

/// How long a connection may take to come up.
pub const CONNECT_SECONDS_MAX: Duration = Duration::from_secs(5);

/// HTTP/2 pings on idle connections: a peer that vanished without a word is noticed after
/// interval + time-out.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a ping may stay unanswered.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that one listener has at once. Every worker dials the head once and every router
/// dials the head and every worker once; the rest are strangers, who shall not use up all
/// descriptors before they have shown what they know.
pub const CONNECTIONS_MAX: usize = 4096;

/// The pause after an accept that failed, usually for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// HTTP/2 window of one stream and of one connection. Bodies have their own credit per request
/// (`mobula_proto::limits`), so this only has to be large enough never to be what limits.
pub const HTTP2_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// HTTP/2's smallest unit on a stream: a message of many bodies goes out as one, with one system
/// call, instead of as one for each 16 KiB.
pub const HTTP2_FRAME_BYTES_MAX: u32 = 512 * 1024;

/// Where a process of ours listens: `unix:/path/to.sock` or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Addr {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// An address that does not work.
#[derive(Debug, Error)]
pub enum NetError {
    /// The text is no address.
    #[error("'{0}' is no address; write host:port or unix:/path")]
    Invalid(String),
    /// Nothing listens there, or it may not be used.
    #[error("cannot {action} {addr}: {cause}")]
    Io {
        /// "connect to" or "listen on".
        action: &'static str,
        /// Where.
        addr: Addr,
        /// What the system said.
        cause: String,
    },
}

/// A listening socket of either kind.
pub enum Listener {
    /// Unix.
    Unix(UnixListener, PathBuf),
    /// TCP.
    Tcp(TcpListener),
}

// === impl Addr ===

impl FromStr for Addr {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Addr, NetError> {
        let invalid = || NetError::Invalid(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(invalid())
            } else {
                Ok(Addr::Unix(path.into()))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(invalid());
        }
        Ok(Addr::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Unix(path) => write!(f, "unix:{}", path.display()),
            Addr::Tcp(text) => f.write_str(text),
        }
    }
}

// === connect and listen ===

/// Connects with nothing to show, or says why not. The channel reconnects by itself when it is
/// used again after the connection broke.
///
/// # Errors
/// When nobody answers there.
pub async fn connect(addr: &Addr) -> Result<Channel, NetError> {
    dial(addr, None).await
}

/// Connects, over TLS where that is asked for and the socket is not private anyway. Each
/// connection of the channel is opened with the certificate that is in force then.
pub(crate) async fn dial(addr: &Addr, tls: Option<&Current<Tls>>) -> Result<Channel, NetError> {
    let (target, tls) = (addr.clone(), tls.cloned());
    let connector = tower::service_fn(move |_| {
        let (target, tls) = (target.clone(), tls.clone());
        async move {
            let io = Io::open(&target).await?;
            let secured = match tls {
                Some(tls) => io.connect(&tls.get()).await?,
                None => io,
            };
            Ok::<_, io::Error>(TokioIo::new(secured))
        }
    });
    // The URI only fills HTTP/2's :authority; the connector knows where to go, and how.
    Endpoint::from_static("http://mobula.internal")
        .connect_timeout(CONNECT_SECONDS_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .executor(Prompt)
        .connect_with_connector(connector)
        .await
        .map_err(|error| io_error("connect to", addr, root_cause(&error)))
}

/// Listens. A Unix socket file that a dead process left behind is replaced.
pub async fn listen(addr: &Addr) -> Result<Listener, NetError> {
    let bound = match addr {
        Addr::Unix(path) => {
            remove_stale_socket(path).await;
            UnixListener::bind(path).map(|listener| Listener::Unix(listener, path.clone()))
        }
        Addr::Tcp(text) => TcpListener::bind(text).await.map(Listener::Tcp),
    };
    bound.map_err(|error| io_error("listen on", addr, error.to_string()))
}

/// A socket file on which nobody answers belongs to a process that died.
async fn remove_stale_socket(path: &PathBuf) {
    if path.exists() && UnixStream::connect(path).await.is_err() {
        // If this fails, bind says so with the better message.
        let _ = tokio::fs::remove_file(path).await;
    }
}

fn io_error(action: &'static str, addr: &Addr, cause: String) -> NetError {
    NetError::Io {
        action,
        addr: addr.clone(),
        cause,
    }
}

/// What lies at the bottom of an error: what is above it only says "error".
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

// === impl Listener ===

impl Listener {
    /// Where it listens; with the real port if it was asked for port 0.
    pub fn local_addr(&self) -> Result<Addr, NetError> {
        match self {
            Listener::Unix(_, path) => Ok(Addr::Unix(path.clone())),
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(addr) => Ok(Addr::Tcp(addr.to_string())),
                Err(error) => Err(NetError::Invalid(error.to_string())),
            },
        }
    }

    /// Another handle of the same socket: one can be closed while the other goes on accepting.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn try_clone(&self) -> Result<Listener, NetError> {
        let descriptor = match self {
            Listener::Unix(listener, _) => listener.as_fd().try_clone_to_owned(),
            Listener::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
        };
        let cloned = descriptor.and_then(|descriptor| match self {
            Listener::Unix(_, path) => UnixListener::from_std(descriptor.into())
                .map(|listener| Listener::Unix(listener, path.clone())),
            Listener::Tcp(_) => TcpListener::from_std(descriptor.into()).map(Listener::Tcp),
        });
        match cloned {
            Ok(listener) => Ok(listener),
            Err(error) => Err(io_error(
                "listen on",
                &self.local_addr()?,
                error.to_string(),
            )),
        }
    }

    /// The connections that come in, for tonic's `serve_with_incoming_shutdown`.
    pub fn into_incoming(self) -> impl Stream<Item = io::Result<Io>> + Send + 'static {
        self.incoming(CONNECTIONS_MAX)
    }

    /// The same over TLS: each connection is opened in its own time, so that a peer that says
    /// nothing holds up no other, and one that cannot be opened is left out.
    pub(crate) fn into_incoming_tls(
        self,
        tls: Current<Tls>,
    ) -> impl Stream<Item = io::Result<Io>> + Send + 'static {
        let opening = self.into_incoming().map(move |accepted| {
            let tls = tls.get();
            tokio::spawn(async move { accepted?.accept(&tls).await })
        });
        // Each has one of the places, so there are never more.
        opening
            .buffer_unordered(CONNECTIONS_MAX)
            .filter_map(async |opened| match opened {
                Ok(Ok(io)) => Some(Ok(io)),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a connection could not be opened");
                    None
                }
                Err(_) => None,
            })
    }

    fn incoming(self, most: usize) -> impl Stream<Item = io::Result<Io>> + Send + 'static {
        let places = Arc::new(Semaphore::new(most));
        futures_util::stream::unfold((self, places), |(listener, places)| async move {
            // Accepting only with a place leaves the rest to the kernel's queue. The semaphore
            // is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            let accepted = match &listener {
                Listener::Unix(unix, _) => match unix.accept().await {
                    Ok((io, _)) => Io::unix(io, place),
                    Err(error) => Err(error),
                },
                Listener::Tcp(tcp) => tcp.accept().await.map(|(io, _)| Io::tcp(io, place)),
            };
            if accepted.is_err() {
                // The server asks for the next one at once.
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
            Some((accepted, (listener, places)))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::tls::tests::{authority, member};

    #[test]
    fn addresses_read_back_as_they_were_written() {
        for text in [
            "unix:/run/mobula/head.sock",
            "127.0.0.1:6379",
            "[::1]:80",
            "head:1",
        ] {
            let addr: Addr = text.parse().unwrap();
            assert_eq!(addr.to_string(), text);
        }
        for text in ["", "unix:", "host", "host:", ":80", "host:99999"] {
            assert!(text.parse::<Addr>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_file_of_a_dead_process_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let addr = Addr::Unix(dir.path().join("a.sock"));
        let first = listen(&addr).await.unwrap();
        assert!(listen(&addr).await.is_err(), "somebody listens there");
        drop(first);
        assert!(listen(&addr).await.is_ok());
    }

    #[tokio::test]
    async fn no_more_connections_are_accepted_than_have_a_place() {
        let listener = listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut incoming = Box::pin(listener.incoming(1));
        let _first = Io::open(&addr).await.unwrap();
        let accepted = incoming.next().await.unwrap().unwrap();
        let _second = Io::open(&addr).await.unwrap();
        let mut next = incoming.next();
        assert!((&mut next).now_or_never().is_none(), "the place is taken");
        drop(accepted);
        assert!(next.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_or_nonsense_holds_up_no_other_that_comes_over_tls() {
        let ours = authority();
        let tls = Current::fixed(member(&ours, &[&ours]));
        let listener = listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut incoming = Box::pin(listener.into_incoming_tls(tls.clone()));
        let _silent = Io::open(&addr).await.unwrap();
        let mut nonsense = Io::open(&addr).await.unwrap();
        nonsense.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let current = tls.get();
        let dialled = async { Io::open(&addr).await.unwrap().connect(&current).await };
        let (dialled, accepted) = tokio::join!(dialled, incoming.next());
        assert!(matches!(dialled.unwrap(), Io::Tls(..)));
        assert!(matches!(accepted.unwrap().unwrap(), Io::Tls(..)));
    }

    #[tokio::test]
    async fn connecting_where_nobody_listens_names_the_address_and_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let addr = Addr::Unix(dir.path().join("none.sock"));
        let error = connect(&addr).await.unwrap_err().to_string();
        assert!(
            error.contains("none.sock") && error.contains("No such file"),
            "{error}"
        );
    }
}
