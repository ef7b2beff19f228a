//! One gRPC message inside its five-byte frame, unwrapped for the replica and wrapped again for
//! the client. Unary calls only: one message each way.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::dispatch::UploadError;
use crate::limits::GRPC_MESSAGE_BYTES_MAX;

/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;

/// Why a request holds no message that can be passed on.
#[derive(Debug, PartialEq, Eq)]
pub enum NoMessage {
    /// It is compressed, which was not offered.
    Compressed,
    /// It did not arrive, or is too large.
    Upload(UploadError),
}

/// The body of a call without its frame: the bare message.
pub struct Message<B> {
    body: B,
    /// Came with the prefix.
    ready: Bytes,
    left: usize,
    /// The body had its end or something after the message.
    ended: bool,
}

// === impl Message ===

impl<B: Body<Data = Bytes, Error = UploadError> + Unpin> Message<B> {
    /// Reads the prefix. Gives the message's size as well.
    pub async fn open(mut body: B) -> Result<(Message<B>, u64), NoMessage> {
        let mut head = BytesMut::with_capacity(PREFIX_BYTES);
        while head.len() < PREFIX_BYTES {
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        head.extend_from_slice(&piece);
                    }
                }
                Some(Err(error)) => return Err(NoMessage::Upload(error)),
                None => return Err(broken("it ended before a message")),
            }
        }
        let compressed = head.get_u8() != 0;
        let size = head.get_u32() as usize;
        if compressed {
            return Err(NoMessage::Compressed);
        }
        if size > GRPC_MESSAGE_BYTES_MAX {
            let max = GRPC_MESSAGE_BYTES_MAX as u64;
            return Err(NoMessage::Upload(UploadError::TooLarge { max }));
        }
        let message = Message {
            body,
            ready: head.freeze(),
            left: size,
            ended: false,
        };
        Ok((message, size as u64))
    }

    fn take(&mut self, piece: Bytes) -> Result<Frame<Bytes>, UploadError> {
        if piece.len() > self.left {
            self.ended = true;
            return Err(UploadError::Broken(
                "a unary call has one message".to_owned(),
            ));
        }
        self.left -= piece.len();
        Ok(Frame::data(piece))
    }
}

fn broken(why: &str) -> NoMessage {
    NoMessage::Upload(UploadError::Broken(why.to_owned()))
}

impl<B: Body<Data = Bytes, Error = UploadError> + Unpin> Body for Message<B> {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.get_mut();
        if !this.ready.is_empty() {
            let ready = std::mem::take(&mut this.ready);
            return Poll::Ready(Some(this.take(ready)));
        }
        while !this.is_end_stream() {
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(frame) => frame,
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Poll::Ready(Some(this.take(piece)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.ended = true;
                    if this.left == 0 {
                        break;
                    }
                    let error = UploadError::Broken("it ended inside the message".to_owned());
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
    }

    /// Not with the message's last byte: what comes after it is wrong, wherever the pieces were
    /// cut.
    fn is_end_stream(&self) -> bool {
        self.ended || (self.left == 0 && self.ready.is_empty() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

/// Puts a message that came in pieces into its frame.
pub fn wrap(pieces: &[Bytes]) -> Bytes {
    let size = pieces.iter().map(Bytes::len).sum::<usize>();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + size);
    framed.put_u8(0);
    // At most GRPC_MESSAGE_BYTES_MAX.
    framed.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
    for piece in pieces {
        framed.extend_from_slice(piece);
    }
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn body(
        pieces: Vec<Bytes>,
    ) -> impl Body<Data = Bytes, Error = UploadError> + Unpin + Send + 'static {
        let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
        StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>()))
    }

    #[tokio::test]
    async fn a_message_comes_out_as_it_went_in_wherever_it_was_cut() {
        let framed = wrap(&[Bytes::from_static(b"hel"), Bytes::from_static(b"lo")]);
        for cut in 0..=framed.len() {
            let pieces = vec![framed.slice(..cut), framed.slice(cut..)];
            let (message, size) = Message::open(body(pieces)).await.unwrap();
            assert_eq!(size, 5);
            assert_eq!(
                message.collect().await.unwrap().to_bytes(),
                "hello",
                "{cut}"
            );
        }
    }

    #[tokio::test]
    async fn what_comes_after_the_message_is_refused_wherever_it_was_cut() {
        for message in [&b"hello"[..], b""] {
            let framed = [&wrap(&[Bytes::copy_from_slice(message)])[..], b"\0"].concat();
            let framed = Bytes::from(framed);
            for cut in 0..=framed.len() {
                let pieces = vec![framed.slice(..cut), framed.slice(cut..)];
                let (message, _) = Message::open(body(pieces)).await.unwrap();
                let refused = message.collect().await.err();
                assert!(matches!(refused, Some(UploadError::Broken(_))), "{cut}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_one_plain_message_is_refused() {
        let open = |bytes: &'static [u8]| {
            Message::open(Full::new(Bytes::from_static(bytes)).map_err(|never| match never {}))
        };
        assert_eq!(
            open(b"\x01\0\0\0\x01x").await.err(),
            Some(NoMessage::Compressed)
        );
        assert!(matches!(
            open(b"\0\0").await.err(),
            Some(NoMessage::Upload(UploadError::Broken(_)))
        ));
        assert!(matches!(
            open(b"\0\xff\xff\xff\xff").await.err(),
            Some(NoMessage::Upload(UploadError::TooLarge { .. }))
        ));
        let (two, _) = open(b"\0\0\0\0\x01x\0\0\0\0\x01y").await.unwrap();
        assert!(two.collect().await.is_err());
        let (short, _) = open(b"\0\0\0\0\x05x").await.unwrap();
        assert!(short.collect().await.is_err());
    }
}
