//! gRPC calls with a stream of messages on either side, or both. The messages are opaque here:
//! encoding them is up to the application.
//!
//! ```
//! use futures_util::{StreamExt, stream};
//! use mobula_app::{GrpcMessages, Request, Response};
//!
//! /// Bidirectional: each message goes back as it comes.
//! fn chat(request: Request) -> Response {
//!     Response::grpc_stream(GrpcMessages::of(request))
//! }
//! ```

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, StatusCode};

use crate::{Body, End, Ending, GrpcStatus, Request, Response};

/// A message of a stream, in either direction.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;

const CANCELLED: u32 = 1;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;

/// The messages that a client streams. An error is a status to end the call with, and the end.
pub struct GrpcMessages {
    body: Body,
    unread: BytesMut,
    ended: bool,
}

// === impl GrpcMessages ===

impl GrpcMessages {
    /// The messages of a request on a route that streams.
    pub fn of(request: Request) -> GrpcMessages {
        GrpcMessages {
            body: request.body,
            unread: BytesMut::new(),
            ended: false,
        }
    }

    /// The next message; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Bytes, GrpcStatus>> {
        StreamExt::next(self).await
    }

    /// A message that is here whole.
    fn take(&mut self) -> Result<Option<Bytes>, GrpcStatus> {
        let Some(mut prefix) = self.unread.get(..PREFIX_BYTES) else {
            return Ok(None);
        };
        if prefix.get_u8() != 0 {
            let text = "Compressed messages are not supported; send them as identity.";
            return Err(status(UNIMPLEMENTED, text));
        }
        let size = prefix.get_u32() as usize;
        if size > GRPC_MESSAGE_BYTES_MAX {
            let text = format!("A message is larger than {GRPC_MESSAGE_BYTES_MAX} bytes.");
            return Err(status(RESOURCE_EXHAUSTED, text));
        }
        if self.unread.len() < PREFIX_BYTES + size {
            return Ok(None);
        }
        self.unread.advance(PREFIX_BYTES);
        Ok(Some(self.unread.split_to(size).freeze()))
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, GrpcStatus>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(self.body.poll_next(cx)) {
                Some(Ok(piece)) => self.unread.extend_from_slice(&piece),
                Some(Err(error)) => {
                    return Poll::Ready(Err(status(CANCELLED, error.to_string())));
                }
                None if self.unread.is_empty() => return Poll::Ready(Ok(None)),
                None => {
                    let text = "The stream ended inside a message.";
                    return Poll::Ready(Err(status(INTERNAL, text)));
                }
            }
        }
    }
}

fn status(code: u32, message: impl Into<String>) -> GrpcStatus {
    GrpcStatus {
        code,
        message: message.into(),
    }
}

impl Stream for GrpcMessages {
    type Item = Result<Bytes, GrpcStatus>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let next = ready!(this.poll_message(cx)).transpose();
        this.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

// === impl Response ===

impl Response {
    /// The answer to a call on a route that streams: messages as they come, one where only the
    /// client streams. An error among them ends the call with that status. The stream is dropped
    /// when the client goes away.
    pub fn grpc_stream(
        messages: impl Stream<Item = Result<Bytes, GrpcStatus>> + Send + 'static,
    ) -> Response {
        let ending = Ending::default();
        let said = ending.clone();
        let framed = messages.map(framed).scan((), move |(), piece| {
            let piece = piece.map_err(|status| said.set(End::Grpc(status))).ok();
            std::future::ready(piece.map(Ok))
        });
        Response {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Body::stream(framed),
            grpc_status: Some(status(0, "")),
            ending: Some(ending),
        }
    }
}

/// A message in its frame.
fn framed(message: Result<Bytes, GrpcStatus>) -> Result<Bytes, GrpcStatus> {
    let message = message?;
    let size = u32::try_from(message.len())
        .ok()
        .filter(|_| message.len() <= GRPC_MESSAGE_BYTES_MAX)
        .ok_or_else(|| {
            let text = format!("An answer is larger than {GRPC_MESSAGE_BYTES_MAX} bytes.");
            status(RESOURCE_EXHAUSTED, text)
        })?;
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(size);
    framed.extend_from_slice(&message);
    Ok(framed.freeze())
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::Method;

    use super::*;

    fn request(pieces: Vec<Bytes>) -> Request {
        let body = Body::stream(stream::iter(pieces.into_iter().map(Ok)));
        Request::new(Method::POST, "/s.S/M", body)
    }

    async fn read(pieces: Vec<Bytes>) -> Vec<Result<Bytes, u32>> {
        let messages = GrpcMessages::of(request(pieces));
        messages
            .map(|m| m.map_err(|status| status.code))
            .collect()
            .await
    }

    fn frame(message: &'static str) -> Bytes {
        framed(Ok(Bytes::from_static(message.as_bytes()))).unwrap()
    }

    #[tokio::test]
    async fn messages_come_out_as_they_went_in_wherever_the_stream_was_cut() {
        let all = [frame("one"), frame(""), frame("three")].concat();
        for cut in 0..=all.len() {
            let pieces = vec![
                Bytes::copy_from_slice(&all[..cut]),
                Bytes::copy_from_slice(&all[cut..]),
            ];
            let wanted = ["one", "", "three"].map(|text| Ok(Bytes::from(text)));
            assert_eq!(read(pieces).await, wanted, "{cut}");
        }
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_stream_with_a_status() {
        for (bytes, code) in [
            (&b"\x01\0\0\0\x01x"[..], UNIMPLEMENTED),
            (b"\0\xff\xff\xff\xff", RESOURCE_EXHAUSTED),
            (b"\0\0\0\0\x05x", INTERNAL),
            (b"\0\0", INTERNAL),
        ] {
            let read = read(vec![frame("ok"), Bytes::from_static(bytes)]).await;
            assert_eq!(read, [Ok(Bytes::from("ok")), Err(code)]);
        }
    }

    #[tokio::test]
    async fn an_error_among_the_messages_is_how_the_call_ends() {
        let messages = [
            Ok(Bytes::from("a")),
            Err(status(5, "none")),
            Ok(Bytes::new()),
        ];
        let response = Response::grpc_stream(stream::iter(messages));
        let ending = response.ending.clone().unwrap();
        let sent = response.body.collect(100).await.unwrap();
        assert_eq!(sent, frame("a"));
        assert_eq!(ending.get(), Some(End::Grpc(status(5, "none"))));
    }
}
