//! A connection between our own processes, of whichever kind.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

use crate::access::Peer;
use crate::local::Local;
use crate::net::Addr;
use crate::tls::Tls;

/// A connection.
pub enum Io {
    /// Unix.
    Unix(Local, Option<Place>),
    /// TCP.
    Tcp(TcpStream, Option<Place>),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>, Option<Place>),
}

/// One of the connections that a listener has at once.
pub(crate) type Place = OwnedSemaphorePermit;

// === impl Io ===

impl Io {
    pub(crate) async fn open(addr: &Addr) -> io::Result<Io> {
        match addr {
            Addr::Unix(path) => Io::unix(UnixStream::connect(path).await?, None),
            Addr::Tcp(text) => TcpStream::connect(text).await.map(|io| Io::tcp(io, None)),
        }
    }

    pub(crate) fn unix(stream: UnixStream, place: Option<Place>) -> io::Result<Io> {
        Ok(Io::Unix(Local::new(stream)?, place))
    }

    pub(crate) fn tcp(stream: TcpStream, place: Option<Place>) -> Io {
        // Frames are already batched, waiting for more only adds delay. Failing to set it costs
        // latency, not correctness.
        let _ = stream.set_nodelay(true);
        Io::Tcp(stream, place)
    }

    /// Over TLS from here on, as the one that was dialled. A Unix socket is private as it is.
    pub(crate) async fn accept(self, tls: &Tls) -> io::Result<Io> {
        match self {
            Io::Tcp(socket, place) => {
                let stream = tls.accept(socket).await?;
                Ok(Io::Tls(Box::new(stream), place))
            }
            Io::Unix(..) | Io::Tls(..) => Ok(self),
        }
    }

    /// The same as the one that dialled.
    pub(crate) async fn connect(self, tls: &Tls) -> io::Result<Io> {
        match self {
            Io::Tcp(socket, place) => {
                let stream = tls.connect(socket).await?;
                Ok(Io::Tls(Box::new(stream), place))
            }
            Io::Unix(..) | Io::Tls(..) => Ok(self),
        }
    }
}

impl Connected for Io {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        match self {
            Io::Unix(..) => Peer(None),
            Io::Tcp(stream, _) => Peer(stream.peer_addr().ok()),
            Io::Tls(stream, _) => Peer(stream.get_ref().0.peer_addr().ok()),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Unix(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Io::Tcp(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream, _) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Unix(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Io::Tcp(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream, _) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Unix(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tcp(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Unix(stream, _) => stream.is_write_vectored(),
            Io::Tcp(stream, _) => stream.is_write_vectored(),
            Io::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Unix(stream, _) => Pin::new(stream).poll_flush(cx),
            Io::Tcp(stream, _) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Unix(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Io::Tcp(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
