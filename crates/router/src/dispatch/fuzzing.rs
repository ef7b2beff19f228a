//! Any bytes as what a worker sends. Panics when something is not as it has to be.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt as _;
use mobula_proto::v1;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::{First, Link, Worker};
use crate::deployment::{Deployment, Permit, Target};
use crate::queue::{Share, Side, Wanted, Wish};

/// Messages with a length byte before each, on a link with one call. Whatever they say, the
/// call's slot is given back once, and nothing of it is left.
pub fn frames(bytes: &[u8]) {
    let (deployment, permit) = deployment();
    let link = Arc::new(Link::default());
    let Ok((mut handle, _)) = link.begin(v1::Call::default(), permit) else {
        unreachable!("a new link is open");
    };
    let cx = Context::from_waker(Waker::noop());
    let mut answer = None;
    for message in messages(bytes) {
        let Ok(batch) = v1::FrameBatch::decode(message) else {
            continue;
        };
        link.on_batch(batch);
        let first = answer.is_none().then(|| handle.first().now_or_never());
        match first.flatten() {
            Some(First::Reply(reply)) => answer = Some(reply),
            // What comes after that is for nobody.
            Some(_) => break,
            None => {}
        }
        if answer.is_some() {
            while let Poll::Ready(Some(Ok(_))) = handle.poll_chunk(&cx) {}
        }
    }
    drop(handle);
    let load = deployment.load();
    let left = (load.queued_requests, load.ongoing_requests);
    assert_eq!(left, (0, 0), "the slot is free");
    assert!(link.drained().now_or_never().is_some(), "no call is open");
    link.close();
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let (size, rest) = bytes.split_first()?;
        let (message, rest) = rest.split_at(usize::from(*size).min(rest.len()));
        bytes = rest;
        Some(Bytes::copy_from_slice(message))
    })
}

/// A deployment with one slot, and that slot.
pub(super) fn deployment() -> (Arc<Deployment>, Permit) {
    let deployment = Arc::new(Deployment::new("a", "D", "h", Arc::default()));
    let worker = Worker::new("w", "unix:/nowhere", &CancellationToken::new());
    let target = Target::new("r", Arc::new(worker), &deployment.metrics, None);
    let table = v1::TableDeployment {
        max_ongoing_requests: 1,
        max_queued_requests: -1,
        ..Default::default()
    };
    let replica = Wanted {
        id: "r".to_owned(),
        target: Arc::new(target),
        reachable: true,
        side: Side::Stable,
        ongoing_max: None,
    };
    deployment.update(&table, Share::default(), || vec![replica]);
    let Some(Ok(permit)) = deployment.acquire(Wish::default()).now_or_never() else {
        unreachable!("a replica without requests has a slot");
    };
    (deployment, permit)
}

#[cfg(test)]
mod tests {
    use mobula_proto::v1::frame::Kind;
    use proptest::prelude::*;

    use super::*;

    fn kind() -> impl Strategy<Value = Kind> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let end = any::<bool>();
        prop_oneof![
            Just(Kind::Accepted(v1::Accepted {})),
            any::<i32>().prop_map(|reason| Kind::Rejected(v1::Rejected {
                reason,
                ongoing_requests: 1,
            })),
            any::<u32>().prop_map(|bytes| Kind::Credit(v1::Credit { bytes })),
            (0u32..1000, bytes.clone(), end).prop_map(|(status, body, end)| {
                Kind::Reply(v1::Reply {
                    status,
                    body,
                    end,
                    ..Default::default()
                })
            }),
            (bytes, any::<bool>()).prop_map(|(bytes, end)| Kind::Data(v1::Data { bytes, end })),
            any::<u32>().prop_map(|close_code| Kind::End(v1::End {
                grpc_status: None,
                close_code,
            })),
            (0i32..5).prop_map(|kind| Kind::Fault(v1::Fault {
                kind,
                message: String::new(),
            })),
            Just(Kind::Cancel(v1::Cancel {})),
        ]
    }

    proptest! {
        #[test]
        fn whatever_a_worker_sends_a_slot_is_given_back_once(
            kinds in proptest::collection::vec((0u64..2, kind()), 0..30),
            damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut bytes = Vec::new();
            for (request, kind) in kinds {
                let frame = v1::Frame { request, kind: Some(kind) };
                let message = v1::FrameBatch { frames: vec![frame] }.encode_to_vec();
                bytes.push(u8::try_from(message.len()).unwrap());
                bytes.extend(message);
            }
            if let Some((at, byte)) = damage
                && !bytes.is_empty()
            {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            frames(&bytes);
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_read(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            frames(&bytes);
        }
    }
}
