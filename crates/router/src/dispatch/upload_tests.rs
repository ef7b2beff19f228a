//! Bodies on their way to replicas that refuse, and to one that takes them.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, Stream as _};
use http_body_util::StreamBody;
use mobula_proto::limits::BODY_WINDOW_BYTES_INITIAL;
use mobula_proto::v1::{self, frame::Kind};
use proptest::prelude::*;

use super::fuzzing::deployment;
use super::link::Outgoing;
use super::{CallHandle, First, Link, Upload, UploadError};
use crate::limits::OFFERED_PIECES_MAX;

const MAX: u64 = 10_000_000;

/// Turns in which a body arrives, or does not: three for each portion of credit, and to spare.
const TURNS_MAX: usize = 20_000;

/// The worker's end of a link with one call.
struct Far {
    link: Arc<Link>,
    /// Of the body, in order.
    got: BytesMut,
    pieces: usize,
    ended: bool,
}

// === impl Far ===

impl Far {
    fn begin(upload: &Upload) -> (Far, CallHandle) {
        let link = Arc::new(Link::default());
        let call = v1::Call {
            body: upload.first.clone(),
            end: upload.rest.is_none(),
            ..Default::default()
        };
        let (_, permit) = deployment();
        let Ok((handle, _)) = link.begin(call, permit) else {
            panic!("a new link is open");
        };
        let far = Far {
            link,
            got: BytesMut::new(),
            pieces: 0,
            ended: false,
        };
        (far, handle)
    }

    fn say(&self, kind: Kind) {
        let frame = v1::Frame {
            request: 0,
            kind: Some(kind),
        };
        let frames = vec![frame];
        self.link.on_batch(v1::FrameBatch { frames });
    }

    /// Takes what was sent up to now; whether the call was cancelled.
    fn read(&mut self) -> bool {
        let mut outgoing = Outgoing(Arc::clone(&self.link));
        let mut cx = Context::from_waker(Waker::noop());
        let mut is_cancelled = false;
        while let Poll::Ready(Some(batch)) = Pin::new(&mut outgoing).poll_next(&mut cx) {
            for frame in batch.frames {
                let (bytes, end) = match frame.kind.unwrap() {
                    Kind::Call(call) => (call.body, call.end),
                    Kind::Data(data) => (data.bytes, data.end),
                    Kind::Cancel(_) => {
                        is_cancelled = true;
                        continue;
                    }
                    other => panic!("{other:?} from a router"),
                };
                assert!(!self.ended, "something follows the end");
                self.pieces += 1;
                self.got.extend_from_slice(&bytes);
                self.ended = end;
            }
        }
        is_cancelled
    }
}

fn pieces_of(body: &Bytes, sizes: &[usize]) -> Vec<Result<http_body::Frame<Bytes>, UploadError>> {
    let mut left = body.clone();
    let mut size = sizes.iter().cycle();
    let piece = || {
        let size = size.next().copied()?.min(left.len());
        (size > 0).then(|| Ok(http_body::Frame::data(left.split_to(size))))
    };
    std::iter::from_fn(piece).collect()
}

/// A replica refuses the call once it got what comes unasked.
async fn refused(upload: &mut Upload) -> Bytes {
    let (mut far, mut handle) = Far::begin(upload);
    {
        let mut following = pin!(upload.follow(&mut handle));
        let early = following.as_mut().now_or_never();
        far.read();
        far.say(Kind::Rejected(v1::Rejected::default()));
        let followed = match early {
            Some(followed) => followed,
            None => following.await,
        };
        assert_eq!(followed, Ok(false), "it may go elsewhere");
    }
    assert!(matches!(handle.first().await, First::NotTaken(_)));
    far.got.freeze()
}

/// A replica takes the call and reads it whole, `at_once` bytes at a time.
async fn taken(upload: &mut Upload, at_once: usize) -> Bytes {
    let (mut far, mut handle) = Far::begin(upload);
    if upload.rest.is_some() {
        let mut following = pin!(upload.follow(&mut handle));
        assert!(following.as_mut().now_or_never().is_none(), "not taken yet");
        far.say(Kind::Accepted(v1::Accepted {}));
        assert_eq!(following.await, Ok(true));
    }
    let mut credit = BODY_WINDOW_BYTES_INITIAL;
    for _ in 0..TURNS_MAX {
        far.read();
        assert!(far.got.len() <= credit, "{} of {credit}", far.got.len());
        if far.ended {
            return far.got.freeze();
        }
        if far.got.len() == credit {
            credit += at_once;
            let bytes = u32::try_from(at_once).unwrap();
            far.say(Kind::Credit(v1::Credit { bytes }));
        }
        tokio::task::yield_now().await;
    }
    panic!("the body stalls after {} bytes", far.got.len());
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_body_arrives_whole_and_within_its_credit_however_often_it_is_refused_first(
        size in 0..1_500_000_usize,
        sizes in proptest::collection::vec(1_000..200_000_usize, 1..10),
        refusals in 0..4,
        at_once in 1_000..300_000_usize,
    ) {
        let body: Bytes = (0..size).map(|n| (n % 251) as u8).collect();
        let stream = StreamBody::new(futures_util::stream::iter(pieces_of(&body, &sizes)));
        block_on(async {
            let mut upload = Upload::begin(stream, None, MAX).await.unwrap();
            let mut before = Bytes::new();
            for _ in 0..refusals {
                let is_more = upload.rest.is_some();
                let got = refused(&mut upload).await;
                assert!(body.starts_with(&got) && got.starts_with(&before));
                assert!(got.len() <= BODY_WINDOW_BYTES_INITIAL);
                if is_more && sizes.iter().all(|size| *size >= 20_000) {
                    // The window takes no more than so many of these.
                    assert_eq!(got.len(), size.min(BODY_WINDOW_BYTES_INITIAL));
                }
                before = got;
            }
            let arrived = taken(&mut upload, at_once).await;
            assert!(arrived == body, "{} of {size} bytes", arrived.len());
        });
    }
}

#[tokio::test]
async fn of_a_body_in_crumbs_no_more_is_kept_than_so_many_pieces() {
    let body = Bytes::from(vec![7; 1_000]);
    let crumbs = futures_util::stream::iter(pieces_of(&body, &[1]));
    let mut upload = Upload::later(StreamBody::new(crumbs));
    let (mut far, mut handle) = Far::begin(&upload);
    assert!(upload.follow(&mut handle).now_or_never().is_none());
    far.read();
    assert_eq!(far.pieces, 1 + OFFERED_PIECES_MAX, "with the call's own");
}

#[tokio::test]
async fn who_gives_up_while_nobody_has_taken_the_call_cancels_it() {
    let body = Bytes::from(vec![7; 200_000]);
    let pieces = futures_util::stream::iter(pieces_of(&body, &[50_000]));
    let mut upload = Upload::begin(StreamBody::new(pieces), None, MAX)
        .await
        .unwrap();
    let (mut far, mut handle) = Far::begin(&upload);
    assert!(upload.follow(&mut handle).now_or_never().is_none());
    assert!(!far.read() && far.ended);
    drop(handle);
    assert!(far.read(), "the worker is told");
    assert!(far.link.drained().now_or_never().is_some());
}

#[tokio::test]
async fn a_body_that_breaks_off_before_the_call_is_taken_is_the_clients_failure() {
    let broken = UploadError::Broken("gone".to_owned());
    let piece = Ok(http_body::Frame::data(Bytes::from(vec![7; 100_000])));
    let pieces = futures_util::stream::iter([piece, Err(broken.clone())]);
    let mut upload = Upload::begin(StreamBody::new(pieces), None, MAX)
        .await
        .unwrap();
    let (_far, mut handle) = Far::begin(&upload);
    assert_eq!(upload.follow(&mut handle).await, Err(broken));
}
