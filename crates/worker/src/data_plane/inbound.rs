//! A request body that arrives in pieces: the reader of the stream pushes, the replica pulls, and
//! what it pulled is given back to the router as credit. What waits unread is at most a window.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mobula_app::{Body, BodyError};
use mobula_proto::limits::BODY_WINDOW_BYTES_INITIAL;
use mobula_proto::v1::{Credit, Frame, frame};
use tokio::sync::mpsc;

/// Credit goes back in portions of this size, so that it costs a frame per chunk at most and the
/// router still has most of its window.
const CREDIT_BYTES_MIN: usize = BODY_WINDOW_BYTES_INITIAL / 4;

enum Piece {
    Bytes(Bytes),
    End,
    Overrun,
}

/// The pushing end. Dropping it before the end breaks the body off.
pub(crate) struct InboundSender {
    // Unbounded in pieces, bounded in bytes by the window.
    pieces: mpsc::UnboundedSender<Piece>,
    unread: Arc<AtomicUsize>,
}

struct Inbound {
    pieces: mpsc::UnboundedReceiver<Piece>,
    unread: Arc<AtomicUsize>,
    credit_owed: usize,
    request: u64,
    outgoing: mpsc::Sender<Frame>,
    ended: bool,
}

/// A body that is read piece by piece; `first` came with the call.
pub(crate) fn inbound(
    request: u64,
    first: Bytes,
    outgoing: mpsc::Sender<Frame>,
) -> (InboundSender, Body) {
    let (sender, pieces) = mpsc::unbounded_channel();
    let unread = Arc::new(AtomicUsize::new(0));
    let inbound = Inbound {
        pieces,
        unread: unread.clone(),
        credit_owed: 0,
        request,
        outgoing,
        ended: false,
    };
    let sender = InboundSender {
        pieces: sender,
        unread,
    };
    sender.push(first, false);
    let body = futures_util::stream::unfold(inbound, |mut inbound| async move {
        let piece = inbound.next().await?;
        Some((piece, inbound))
    });
    (sender, Body::stream(body))
}

impl InboundSender {
    /// Hands on a piece. A router that sends more than it has credit for breaks its own body off.
    pub(crate) fn push(&self, bytes: Bytes, end: bool) {
        if !bytes.is_empty() {
            let before = self.unread.fetch_add(bytes.len(), Ordering::AcqRel);
            let fits = before + bytes.len() <= BODY_WINDOW_BYTES_INITIAL;
            let piece = if fits {
                Piece::Bytes(bytes)
            } else {
                Piece::Overrun
            };
            // A replica that dropped the body does not want the rest.
            let _ = self.pieces.send(piece);
        }
        if end {
            let _ = self.pieces.send(Piece::End);
        }
    }
}

impl Inbound {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.ended {
            return None;
        }
        let aborted = |text: &str| Some(Err(BodyError::Aborted(text.to_owned())));
        match self.pieces.recv().await {
            Some(Piece::Bytes(bytes)) => {
                self.read(bytes.len()).await;
                Some(Ok(bytes))
            }
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            Some(Piece::Overrun) => {
                self.ended = true;
                aborted("more was sent than there was credit for")
            }
            None => {
                self.ended = true;
                aborted("the request was cancelled")
            }
        }
    }

    async fn read(&mut self, bytes: usize) {
        self.unread.fetch_sub(bytes, Ordering::AcqRel);
        self.credit_owed += bytes;
        if self.credit_owed < CREDIT_BYTES_MIN {
            return;
        }
        let credit = Credit {
            bytes: u32::try_from(self.credit_owed).unwrap_or(u32::MAX),
        };
        self.credit_owed = 0;
        let frame = Frame {
            request: self.request,
            kind: Some(frame::Kind::Credit(credit)),
        };
        // A stream that is gone ends the body with its next piece.
        let _ = self.outgoing.send(frame).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    #[tokio::test]
    async fn credit_given_is_exactly_what_was_read() {
        let (outgoing, mut frames) = mpsc::channel(64);
        let (sender, mut body) = inbound(9, piece(1000), outgoing);
        let (mut sent, mut credit, mut read) = (1000, 0, 0);
        for _ in 0..40 {
            while sent + 65_536 <= credit + BODY_WINDOW_BYTES_INITIAL {
                sender.push(piece(65_536), false);
                sent += 65_536;
            }
            read += body.next().await.unwrap().unwrap().len();
            while let Ok(frame) = frames.try_recv() {
                assert_eq!(frame.request, 9);
                let Some(frame::Kind::Credit(given)) = frame.kind else {
                    panic!("only credit is sent: {frame:?}");
                };
                credit += given.bytes as usize;
            }
            assert!(credit <= read && read - credit < CREDIT_BYTES_MIN);
        }
        assert!(sent > 2_000_000, "the sender never stalled: {sent}");
    }

    #[tokio::test]
    async fn a_body_ends_once_it_was_read_and_breaks_off_when_its_sender_goes() {
        let (outgoing, _frames) = mpsc::channel(4);
        let (sender, body) = inbound(1, Bytes::new(), outgoing.clone());
        sender.push(piece(5), true);
        assert_eq!(body.collect(100).await.unwrap().len(), 5);

        let (sender, body) = inbound(1, piece(5), outgoing);
        drop(sender);
        assert!(body.collect(100).await.is_err());
    }

    #[tokio::test]
    async fn a_router_that_overruns_its_window_breaks_its_body_off() {
        let (outgoing, _frames) = mpsc::channel(4);
        let (sender, body) = inbound(1, Bytes::new(), outgoing);
        sender.push(piece(BODY_WINDOW_BYTES_INITIAL), false);
        sender.push(piece(1), true);
        let error = body.collect(usize::MAX).await.unwrap_err();
        assert!(error.to_string().contains("credit"), "{error}");
    }
}
