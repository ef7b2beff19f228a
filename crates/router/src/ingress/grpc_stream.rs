//! gRPC calls that stream: the messages of both directions pass through in their frames, unread,
//! as they come. Unary calls, whose messages are unwrapped, are in `grpc`.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mobula_proto::v1;
use tokio::time::Sleep;
use tonic::{Code, Status};

use super::grpc::{status, status_of, trailers};
use super::headers;
use super::http::Deadline;
use super::problem::Problem;
use super::tally::Tally;
use crate::dispatch::{CallHandle, Upload, UploadError};
use crate::exchange::Answer;

/// The body of an answer: messages in their frames, then trailers with the status.
pub struct Streamed {
    id: String,
    first: Bytes,
    /// None once the status is known.
    call: Option<CallHandle>,
    /// None once the trailers are out.
    status: Option<Status>,
    deadline: Option<(Pin<Box<Sleep>>, Deadline)>,
    /// Counted when the status is known; dropped before, the client left.
    tally: Option<Tally>,
}

/// The client's messages, sent on as they come: between two of them any time may pass.
pub fn upload(body: Incoming) -> Upload {
    Upload::later(body.map_err(|error| UploadError::Broken(error.to_string())))
}

/// The metadata of an answer that has begun, and its body.
pub fn answer(
    answer: Answer,
    id: &str,
    deadline: Option<Deadline>,
    tally: Tally,
) -> (HeaderMap, Streamed) {
    let Answer { reply, rest } = answer;
    let mut metadata = HeaderMap::new();
    headers::to_client(reply.headers, &mut metadata);
    // Content type and length are the ingress' own.
    metadata.remove(CONTENT_TYPE);
    metadata.remove(CONTENT_LENGTH);
    let said = status_of(reply.grpc_status.unwrap_or_default());
    let mut streamed = Streamed {
        id: id.to_owned(),
        first: reply.body,
        call: rest,
        status: None,
        deadline: deadline.map(|deadline| {
            let sleep = Box::pin(tokio::time::sleep_until(deadline.at.into()));
            (sleep, deadline)
        }),
        tally: Some(tally),
    };
    if streamed.call.is_none() {
        streamed.end(said);
    }
    (metadata, streamed)
}

impl Streamed {
    /// The status is known. The call is over, or nobody waits for it any more.
    fn end(&mut self, status: Status) {
        if let Some(tally) = self.tally.take() {
            let code = i32::from(status.code());
            tally.end(u16::try_from(code).unwrap_or(0));
        }
        self.call = None;
        self.deadline = None;
        self.status = Some(status);
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut self.first)));
        }
        if let Some((sleep, deadline)) = &mut self.deadline
            && sleep.as_mut().poll(cx).is_ready()
        {
            let late = status(&Problem::timed_out(&self.id, deadline.seconds));
            self.end(late);
        }
        let Some(call) = &mut self.call else {
            return Poll::Ready(None);
        };
        match call.poll_chunk(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(piece))) => Poll::Ready(Some(piece)),
            Poll::Ready(None) => {
                let end: v1::End = call.take_end().unwrap_or_default();
                self.end(status_of(end.grpc_status.unwrap_or_default()));
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => {
                self.end(Status::new(Code::Internal, "The answer broke off."));
                Poll::Ready(None)
            }
        }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        match this.poll_data(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            Poll::Ready(None) => {
                let status = this.status.take();
                let last = status.map(|status| Ok(Frame::trailers(trailers(&status, &this.id))));
                Poll::Ready(last)
            }
        }
    }
}
