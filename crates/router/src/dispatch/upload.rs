//! The body of a request on its way to a worker: what goes with the call, and the rest, piece by
//! piece: at once what the first window has room for, then as fast as the replica reads.
//!
//! What was sent is kept until the worker has taken the call, for it may go elsewhere: no more than
//! the first window.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body::Body;
use http_body_util::BodyExt as _;
use mobula_proto::limits::BODY_CHUNK_BYTES_MAX;
use mobula_proto::v1::{self, frame::Kind};
use thiserror::Error;

use super::CallHandle;
use crate::limits::{BODY_IDLE_SECONDS_MAX, OFFERED_PIECES_MAX};

/// Why a request's body did not arrive whole.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UploadError {
    /// More than the ingress takes.
    #[error("the body is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: u64,
    },
    /// The client sent nothing for too long.
    #[error("the client stopped sending the body")]
    Idle,
    /// The client broke off, or what it sends is no body.
    #[error("the body broke off: {0}")]
    Broken(String),
}

/// A body: its first piece, and the rest if there is more.
pub struct Upload {
    /// Goes with the call, and again if the call goes elsewhere.
    pub first: Bytes,
    /// None when `first` is the whole body.
    pub rest: Option<Rest>,
}

/// What follows the call. Sent to the end by the replica that took the call.
pub struct Rest {
    /// Sent to a replica that has not taken the call yet.
    kept: Vec<v1::Data>,
    /// Read already, but too large for the last frame.
    ready: Bytes,
    body: Pin<Box<dyn Body<Data = Bytes, Error = UploadError> + Send>>,
    /// Bytes read so far.
    read: u64,
    max: u64,
    /// How long the client may send nothing.
    idle: Duration,
}

// === impl Upload ===

impl Upload {
    /// Nothing.
    pub fn empty() -> Upload {
        Upload {
            first: Bytes::new(),
            rest: None,
        }
    }

    /// A body that is read once the call is taken, of any length, at the client's leisure: of
    /// streams that live as long as both sides want.
    pub fn later<B>(body: B) -> Upload
    where
        B: Body<Data = Bytes, Error = UploadError> + Send + 'static,
    {
        Upload {
            first: Bytes::new(),
            rest: Some(Rest {
                kept: Vec::new(),
                ready: Bytes::new(),
                body: Box::pin(body),
                read: 0,
                max: u64::MAX,
                idle: Duration::MAX,
            }),
        }
    }

    /// Reads the first piece: a small body whole, of a large one what is there.
    pub async fn begin<B>(mut body: B, size: Option<u64>, max: u64) -> Result<Upload, UploadError>
    where
        B: Body<Data = Bytes, Error = UploadError> + Send + Unpin + 'static,
    {
        if size.is_some_and(|size| size > max) {
            return Err(UploadError::TooLarge { max });
        }
        let is_small = size.is_some_and(|size| size <= BODY_CHUNK_BYTES_MAX as u64);
        let mut first = Pieces::default();
        while !body.is_end_stream() && first.len() < BODY_CHUNK_BYTES_MAX {
            let next = if first.is_empty() || is_small {
                Some(next_piece(&mut body, BODY_IDLE_SECONDS_MAX).await?)
            } else {
                // A client that sends slowly may wait for the answer to what it sent so far.
                next_piece(&mut body, BODY_IDLE_SECONDS_MAX)
                    .now_or_never()
                    .transpose()?
            };
            match next {
                Some(Some(piece)) => first.push(piece),
                Some(None) => return Ok(Upload::whole(first.join())),
                None => break,
            }
        }
        let mut first = first.join();
        let read = first.len() as u64;
        if read > max {
            return Err(UploadError::TooLarge { max });
        }
        if body.is_end_stream() && first.len() <= BODY_CHUNK_BYTES_MAX {
            return Ok(Upload::whole(first));
        }
        let ready = first.split_off(first.len().min(BODY_CHUNK_BYTES_MAX));
        let rest = Some(Rest {
            kept: Vec::new(),
            ready,
            body: Box::pin(body),
            read,
            max,
            idle: BODY_IDLE_SECONDS_MAX,
        });
        Ok(Upload { first, rest })
    }

    /// Sends what follows the call, and returns when the replica has taken it. False when the call
    /// is over: then it may be sent again, whole.
    pub async fn follow(&mut self, handle: &mut CallHandle) -> Result<bool, UploadError> {
        let Some(rest) = &mut self.rest else {
            return Ok(false);
        };
        if !rest.offer(handle).await? {
            return Ok(false);
        }
        // From here on the body belongs to this replica.
        if let Some(mut rest) = self.rest.take()
            && !rest.is_offered_whole()
        {
            rest.kept = Vec::new();
            rest.send(handle);
        }
        Ok(true)
    }

    fn whole(first: Bytes) -> Upload {
        // The last piece may have gone above what fits one frame.
        let mut upload = Upload { first, rest: None };
        if upload.first.len() > BODY_CHUNK_BYTES_MAX {
            let ready = upload.first.split_off(BODY_CHUNK_BYTES_MAX);
            let size = ready.len() as u64;
            upload.rest = Some(Rest {
                kept: Vec::new(),
                ready,
                body: Box::pin(http_body_util::Empty::new().map_err(|never| match never {})),
                read: size,
                max: u64::MAX,
                idle: BODY_IDLE_SECONDS_MAX,
            });
        }
        upload
    }
}

/// Pieces of a body; joining one piece costs nothing.
#[derive(Default)]
struct Pieces {
    only: Bytes,
    joined: BytesMut,
}

impl Pieces {
    fn len(&self) -> usize {
        self.only.len() + self.joined.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&mut self, piece: Bytes) {
        if self.is_empty() {
            self.only = piece;
        } else {
            if self.joined.is_empty() {
                self.joined
                    .extend_from_slice(&std::mem::take(&mut self.only));
            }
            self.joined.extend_from_slice(&piece);
        }
    }

    fn join(self) -> Bytes {
        if self.joined.is_empty() {
            self.only
        } else {
            self.joined.freeze()
        }
    }
}

/// The next piece with something in it; `None` at the end. Trailers are dropped: no replica asks
/// for them.
async fn next_piece<B>(body: &mut B, idle: Duration) -> Result<Option<Bytes>, UploadError>
where
    B: Body<Data = Bytes, Error = UploadError> + Unpin + ?Sized,
{
    loop {
        // The timer is only set when there is nothing to read now.
        let frame = tokio::time::timeout(idle, body.frame());
        let Some(frame) = frame.await.map_err(|_| UploadError::Idle)? else {
            return Ok(None);
        };
        if let Ok(piece) = frame?.into_data()
            && !piece.is_empty()
        {
            return Ok(Some(piece));
        }
    }
}

// === impl Rest ===

impl Rest {
    /// Sends what the first window has room for, from the beginning, until the call is taken (true)
    /// or over (false).
    async fn offer(&mut self, handle: &CallHandle) -> Result<bool, UploadError> {
        let call = handle.call();
        let (link, request) = handle.link();
        // What went to one replica fits the first window of the next one as well.
        let mut room = call.room();
        let mut offered = 0;
        loop {
            if offered == self.kept.len() {
                if room == 0 || offered >= OFFERED_PIECES_MAX || self.is_offered_whole() {
                    return Ok(call.taken().await);
                }
                tokio::select! {
                    biased;
                    taken = call.taken() => return Ok(taken),
                    data = self.next(room.min(BODY_CHUNK_BYTES_MAX)) => self.kept.push(data?),
                }
            }
            let Some(data) = self.kept.get(offered).cloned() else {
                return Ok(call.taken().await);
            };
            offered += 1;
            room = room.saturating_sub(data.bytes.len());
            call.spend(data.bytes.len());
            if link.send(request, Kind::Data(data)).await.is_err() {
                // The call hears of it from the link.
                return Ok(call.taken().await);
            }
        }
    }

    fn is_offered_whole(&self) -> bool {
        self.kept.last().is_some_and(|data| data.end)
    }

    /// Sends the rest in a task of its own, because the answer may begin before the body ends.
    fn send(self, handle: &mut CallHandle) {
        let call = Arc::clone(handle.call());
        let (link, request) = handle.link();
        let link = Arc::clone(link);
        let task = tokio::spawn(async move {
            let mut rest = self;
            loop {
                // None: the answer is complete or the call failed; nobody wants the rest.
                let Some(credit) = call.credit().await else {
                    return;
                };
                let data = match rest.next(credit.min(BODY_CHUNK_BYTES_MAX)).await {
                    Ok(data) => data,
                    Err(error) => return call.fail_upload(error),
                };
                let end = data.end;
                call.spend(data.bytes.len());
                // Closed: the call hears of it from the link.
                if link.send(request, Kind::Data(data)).await.is_err() || end {
                    return;
                }
            }
        });
        handle.set_uploader(task.abort_handle());
    }

    async fn next(&mut self, bytes_max: usize) -> Result<v1::Data, UploadError> {
        if self.ready.is_empty()
            && let Some(piece) = next_piece(&mut self.body, self.idle).await?
        {
            self.read += piece.len() as u64;
            if self.read > self.max {
                return Err(UploadError::TooLarge { max: self.max });
            }
            self.ready = piece;
        }
        let bytes = self.ready.split_to(self.ready.len().min(bytes_max));
        let end = self.ready.is_empty() && (bytes.is_empty() || self.body.is_end_stream());
        Ok(v1::Data { bytes, end })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};

    use super::*;

    type Pushed = Result<http_body::Frame<Bytes>, UploadError>;

    fn full(size: usize) -> impl Body<Data = Bytes, Error = UploadError> + Send + Unpin {
        Full::new(Bytes::from(vec![7; size])).map_err(|never| match never {})
    }

    async fn rest_of(upload: Upload) -> (Vec<usize>, bool) {
        let mut sizes = vec![upload.first.len()];
        let Some(mut rest) = upload.rest else {
            return (sizes, true);
        };
        loop {
            let data = rest.next(BODY_CHUNK_BYTES_MAX).await.unwrap();
            sizes.push(data.bytes.len());
            if data.end {
                return (sizes, false);
            }
        }
    }

    #[tokio::test]
    async fn a_body_of_one_chunk_goes_whole_with_the_call_and_a_larger_one_in_pieces() {
        const CHUNK: usize = BODY_CHUNK_BYTES_MAX;
        for (size, pieces) in [
            (0, vec![0]),
            (CHUNK, vec![CHUNK]),
            (CHUNK + 1, vec![CHUNK, 1]),
            (3 * CHUNK, vec![CHUNK, CHUNK, CHUNK]),
        ] {
            let upload = Upload::begin(full(size), Some(size as u64), u64::MAX)
                .await
                .unwrap();
            assert_eq!(rest_of(upload).await.0, pieces, "{size}");
        }
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_refused_whether_or_not_it_said_its_size() {
        for size in [Some(11), None] {
            let refused = Upload::begin(full(11), size, 10).await.err();
            assert_eq!(refused, Some(UploadError::TooLarge { max: 10 }));
        }
        assert!(Upload::begin(full(10), None, 10).await.is_ok());
    }

    #[tokio::test]
    async fn the_limit_also_holds_for_what_comes_later() {
        let piece = || {
            Ok(http_body::Frame::data(Bytes::from(
                vec![0; BODY_CHUNK_BYTES_MAX],
            )))
        };
        let pieces: Vec<Pushed> = vec![piece(), piece(), piece()];
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        let max = 2 * BODY_CHUNK_BYTES_MAX as u64;
        let mut rest = Upload::begin(body, None, max).await.unwrap().rest.unwrap();
        assert!(rest.next(BODY_CHUNK_BYTES_MAX).await.is_ok());
        let refused = rest.next(BODY_CHUNK_BYTES_MAX).await;
        assert_eq!(refused, Err(UploadError::TooLarge { max }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_in_the_middle_of_a_body_is_not_waited_for_for_ever() {
        let piece = || Ok(http_body::Frame::data(Bytes::from_static(b"hello")));
        for pieces in [vec![], vec![piece()]] {
            let stream = futures_util::stream::iter(pieces);
            let stops = futures_util::StreamExt::chain(stream, futures_util::stream::pending());
            let upload = Upload::begin(StreamBody::new(stops), Some(10), 100).await;
            assert_eq!(upload.err(), Some(UploadError::Idle));
        }
        let body = StreamBody::new(futures_util::stream::pending::<Pushed>());
        let mut later = Upload::later(body).rest.unwrap();
        let day = std::time::Duration::from_secs(86_400);
        let waiting = tokio::time::timeout(day, later.next(10)).await;
        assert!(waiting.is_err(), "a stream may say nothing for a day");
    }

    #[tokio::test]
    async fn what_a_slow_client_sent_goes_out_before_the_rest_has_come() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Pushed>(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let piece = http_body::Frame::data(Bytes::from_static(b"hello"));
        sender.send(Ok(piece)).await.unwrap();
        let upload = Upload::begin(StreamBody::new(stream), None, 100)
            .await
            .unwrap();
        assert_eq!(upload.first, "hello");
        drop(sender);
        let last = upload.rest.unwrap().next(10).await.unwrap();
        assert!(last.end && last.bytes.is_empty());
    }
}
