//! A request or response body: nothing, one piece, or a stream of pieces.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Frame, SizeHint};
use thiserror::Error;
use tokio::sync::mpsc;

/// Why a body could not be read to its end.
#[derive(Clone, Debug, Error)]
pub enum BodyError {
    /// Longer than the reader takes.
    #[error("body is larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// The reader's limit.
        limit_bytes: usize,
    },
    /// The other side stopped before the end.
    #[error("body broke off: {0}")]
    Aborted(String),
}

type BoxStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

enum Inner {
    Whole(Bytes),
    Stream(BoxStream),
}

/// A body. Small ones are whole; large ones arrive piece by piece with back-pressure.
pub struct Body(Inner);

/// The writing end of [`Body::channel`].
pub struct BodySender(mpsc::Sender<Result<Bytes, BodyError>>);

impl Body {
    /// No bytes at all.
    pub fn empty() -> Body {
        Body(Inner::Whole(Bytes::new()))
    }

    /// A body that is all there.
    pub fn whole(bytes: impl Into<Bytes>) -> Body {
        Body(Inner::Whole(bytes.into()))
    }

    /// A body made of a stream of pieces.
    pub fn stream(pieces: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
        Body(Inner::Stream(Box::pin(pieces)))
    }

    /// A body that somebody writes while it is read. At most `pieces_max` pieces wait unread.
    pub fn channel(pieces_max: usize) -> (BodySender, Body) {
        let (sender, mut receiver) = mpsc::channel(pieces_max.max(1));
        let pieces = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        (BodySender(sender), Body::stream(pieces))
    }

    /// The bytes, if the body is already whole.
    pub fn as_whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Inner::Whole(bytes) => Some(bytes),
            Inner::Stream(_) => None,
        }
    }

    /// The next piece; `None` at the end. A whole body is one piece.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        match &mut self.0 {
            Inner::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Whole(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Inner::Stream(pieces) => pieces.as_mut().poll_next(cx),
        }
    }

    /// Reads to the end, refusing more than `limit_bytes`.
    pub async fn collect(mut self, limit_bytes: usize) -> Result<Bytes, BodyError> {
        let too_large = BodyError::TooLarge { limit_bytes };
        if let Inner::Whole(bytes) = self.0 {
            return if bytes.len() > limit_bytes {
                Err(too_large)
            } else {
                Ok(bytes)
            };
        }
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await {
            let piece = piece?;
            if all.len() + piece.len() > limit_bytes {
                return Err(too_large);
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

impl BodySender {
    /// Sends a piece; waits while the reader is behind. Fails when nobody reads any more.
    pub async fn send(&self, piece: Bytes) -> Result<(), BodyError> {
        let gone = |_| BodyError::Aborted("the reader went away".to_owned());
        self.0.send(Ok(piece)).await.map_err(gone)
    }

    /// Ends the body with an error, so that the reader does not take it for whole.
    pub async fn abort(self, reason: impl Into<String>) {
        // A reader that is gone does not care why the body ended.
        let _ = self.0.send(Err(BodyError::Aborted(reason.into()))).await;
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_next(cx)
            .map(|piece| piece.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.as_whole().is_some_and(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(_) => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Inner::Whole(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Inner::Stream(_) => write!(f, "Body(stream)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_streamed_body_is_refused_at_its_limit_and_not_after() {
        for (limit, fits) in [(5, false), (6, true)] {
            let (sender, body) = Body::channel(1);
            let writer = tokio::spawn(async move {
                for piece in ["abc", "def"] {
                    if sender.send(Bytes::from(piece)).await.is_err() {
                        return;
                    }
                }
            });
            let read = body.collect(limit).await;
            assert_eq!(read.is_ok(), fits, "limit {limit}: {read:?}");
            assert!(writer.await.is_ok());
        }
    }

    #[tokio::test]
    async fn an_aborted_body_never_looks_whole() {
        let (sender, body) = Body::channel(4);
        sender.send(Bytes::from_static(b"half")).await.unwrap();
        sender.abort("peer reset").await;
        let error = body.collect(1024).await.unwrap_err();
        assert_eq!(error.to_string(), "body broke off: peer reset");
    }
}
