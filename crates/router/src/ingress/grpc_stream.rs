//! gRPC calls that stream: the messages of both directions pass through in their frames, unread,
//! as they come. Unary calls, whose messages are unwrapped, are in `grpc`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tonic::{Code, Status};

use super::grpc::{metadata, status, status_of, trailers};
use super::http::Deadline;
use super::pieces::{CutOff, Pieces};
use super::problem::Problem;
use super::tally::Tally;
use crate::dispatch::{Upload, UploadError};
use crate::exchange::Answer;

/// The body of an answer: messages in their frames, then trailers with the status.
pub struct Streamed {
    id: String,
    pieces: Pieces,
    /// Of the deadline, for the message.
    timeout_s: f64,
    /// Until the trailers are out.
    status: Option<Status>,
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
    let is_whole = rest.is_none();
    let at = deadline.map(|deadline| deadline.at);
    let mut streamed = Streamed {
        id: id.to_owned(),
        pieces: Pieces::new(reply.body, rest, at),
        timeout_s: deadline.map_or(0.0, |deadline| deadline.seconds),
        status: None,
        tally: Some(tally),
    };
    if is_whole {
        streamed.end(status_of(reply.grpc_status.unwrap_or_default()));
    }
    (metadata(reply.headers), streamed)
}

impl Streamed {
    fn end(&mut self, status: Status) {
        if let Some(tally) = self.tally.take() {
            tally.end(u16::try_from(i32::from(status.code())).unwrap_or(0));
            self.status = Some(status);
        }
    }

    /// The status of an answer whose pieces are over.
    fn outcome(&self, cut_off: Option<CutOff>) -> Status {
        match cut_off {
            None => {
                let end = self.pieces.take_end().unwrap_or_default();
                status_of(end.grpc_status.unwrap_or_default())
            }
            Some(CutOff::TimedOut) => status(&Problem::timed_out(&self.id, self.timeout_s)),
            Some(CutOff::Broken) => Status::new(Code::Internal, "The answer broke off."),
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
        let cut_off = match ready!(this.pieces.poll_next(cx)) {
            Some(Ok(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => None,
            Some(Err(cut_off)) => Some(cut_off),
        };
        if this.tally.is_some() {
            this.end(this.outcome(cut_off));
        }
        let last = this.status.take();
        Poll::Ready(last.map(|status| Ok(Frame::trailers(trailers(&status, &this.id)))))
    }
}
