//! A request's body and a response's pieces as one stream of bytes, for protocols that are
//! written for sockets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::Body;

/// Reads the body, writes pieces.
pub(crate) struct Wire {
    body: Body,
    unread: Bytes,
    pieces: PollSender<Bytes>,
}

impl Wire {
    pub(crate) fn new(body: Body, pieces: mpsc::Sender<Bytes>) -> Wire {
        Wire {
            body,
            unread: Bytes::new(),
            pieces: PollSender::new(pieces),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(this.body.poll_next(cx)) {
                Some(Ok(piece)) => this.unread = piece,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let size = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread[..size]);
        this.unread.advance(size);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let this = self.get_mut();
        ready!(this.pieces.poll_reserve(cx)).map_err(gone)?;
        let piece = Bytes::copy_from_slice(buf);
        this.pieces.send_item(piece).map_err(gone)?;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().pieces.close();
        Poll::Ready(Ok(()))
    }
}
