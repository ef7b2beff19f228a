//! WebSockets on the HTTP ingress. The router checks the request for one and sends it to a
//! replica like any other; when that answers 101, the bytes of both directions pass through
//! unread. Frames and close codes are the SDK's.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::{Body, Frame};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use mobula_proto::status::ErrorKind;
use mobula_proto::v1::{self, frame::Kind};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::headers;
use super::http::{Deadline, HttpIngress, call, explain, problem_response, reply_response};
use super::problem::Problem;
use super::reply::ReplyBody;
use super::tally::Tally;
use crate::core::RouteEntry;
use crate::dispatch::{CallHandle, Upload, UploadError};
use crate::exchange::{Answer, Ask};
use crate::limits::{
    DRAIN_SECONDS_MAX, WEBSOCKET_LEAVE_SECONDS_MAX, WEBSOCKET_READ_BYTES, WRITE_STALL_SECONDS_MAX,
};
use crate::metrics::{Ingress, WEBSOCKET_BROKEN, WEBSOCKET_GOING_AWAY};
use crate::queue::Affinity;

/// Passes bytes both ways once the connection is no longer HTTP; the connection runs it.
pub struct Tunnel(Mutex<Option<Running>>);

type Running =
    Box<dyn FnOnce(CancellationToken) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;
type Io = TokioIo<Upgraded>;

/// What the client sends after the answer, as the body of the request.
struct FromClient {
    /// Until the connection is no longer HTTP; never, when the replica refuses.
    waiting: Option<oneshot::Receiver<ReadHalf<Io>>>,
    io: Option<ReadHalf<Io>>,
    buffer: BytesMut,
    left: CancellationToken,
}

/// The other ends of a [`FromClient`].
struct Sides {
    io: oneshot::Sender<ReadHalf<Io>>,
    /// Fires when the client sends nothing any more.
    left: CancellationToken,
}

/// The upgrade to WebSocket that a request asks for. hyper gives one to requests with `Upgrade`
/// alone, so all others cost a look at an empty map.
pub fn wanted(parts: &mut Parts) -> Option<OnUpgrade> {
    let upgrade = parts.extensions.remove::<OnUpgrade>()?;
    let protocol = parts.headers.get(UPGRADE)?.as_bytes();
    let is_websocket = protocol.eq_ignore_ascii_case(b"websocket")
        && parts.version == Version::HTTP_11
        && parts.method == Method::GET;
    is_websocket.then_some(upgrade)
}

/// What is wrong with the handshake, if anything. The SDK makes the answer of the key.
pub(super) fn refusal(headers: &HeaderMap) -> Option<Response<ReplyBody>> {
    const KEY_CHARS: usize = 24;
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        let text = "sec-websocket-version: only 13 is spoken here.";
        let mut response = problem_response(&Problem::new(ErrorKind::InvalidRequest, text));
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        let version = HeaderValue::from_static("13");
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_VERSION, version);
        return Some(response);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    if key.is_some_and(|key| key.len() == KEY_CHARS && key.ends_with(b"==")) {
        return None;
    }
    let text = "sec-websocket-key: must be 16 bytes in base64.";
    Some(problem_response(&Problem::new(
        ErrorKind::InvalidRequest,
        text,
    )))
}

impl HttpIngress {
    /// Answers a request for a WebSocket. The time-out is for the handshake alone.
    pub(super) async fn websocket(
        &self,
        parts: &Parts,
        upgrade: OnUpgrade,
        id: &str,
    ) -> Response<ReplyBody> {
        let mut tally = Tally::begin(self.core(), Ingress::Http, parts.method.clone());
        let path = parts.uri.path();
        let Some(route) = self.route(path) else {
            return told(problem_response(&Problem::no_path(path)), tally);
        };
        tally.set_route(&route);
        if let Some(response) = refusal(&parts.headers) {
            return told(response, tally);
        }
        let deadline = self.deadline(parts, &tally);
        let (body, sides) = FromClient::new();
        let asking = self.ask_for_websocket(parts, body, id, &route, deadline);
        let answer = match deadline {
            None => asking.await,
            Some(deadline) => match tokio::time::timeout_at(deadline.at.into(), asking).await {
                Ok(answer) => answer,
                Err(_) => Err(Problem::timed_out(id, deadline.seconds)),
            },
        };
        match answer {
            Ok(Answer {
                reply,
                rest: Some(call),
            }) if reply.status == u32::from(StatusCode::SWITCHING_PROTOCOLS.as_u16()) => {
                switch(reply, call, upgrade, sides, tally)
            }
            Ok(answer) => {
                // Not a WebSocket after all: what the client would send is over.
                drop(sides);
                reply_response(answer, &parts.method, deadline, tally)
            }
            Err(problem) => told(problem_response(&problem), tally),
        }
    }

    async fn ask_for_websocket(
        &self,
        parts: &Parts,
        body: FromClient,
        id: &str,
        route: &RouteEntry,
        deadline: Option<Deadline>,
    ) -> Result<Answer, Problem> {
        let model_id = headers::model_id(&parts.headers);
        let session_id = headers::session_id(&parts.headers);
        let mut ask = Ask {
            wish: route.wish(Affinity::of(session_id, &model_id), &parts.headers),
            call: |replica_id: &str| v1::Call {
                replica_id: replica_id.to_owned(),
                protocol: v1::Protocol::Websocket.into(),
                ..call(parts, route, id, &model_id)
            },
            upload: Upload::later(body),
            timeout_at: deadline.and_then(|deadline| self.of_config(deadline)),
            repeatable: false,
        };
        ask.answer(route)
            .await
            .map_err(|failure| explain(&failure, route))
    }
}

fn told(response: Response<ReplyBody>, tally: Tally) -> Response<ReplyBody> {
    tally.end(response.status().as_u16());
    response
}

/// The answer that ends HTTP on the connection, with what comes after it.
fn switch(
    reply: v1::Reply,
    call: CallHandle,
    upgrade: OnUpgrade,
    sides: Sides,
    tally: Tally,
) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::whole(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers::to_client(reply.headers, headers);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let first = reply.body;
    let running: Running =
        Box::new(move |closing| Box::pin(pass(first, call, upgrade, sides, tally, closing)));
    let tunnel = Tunnel(Mutex::new(Some(running)));
    response.extensions_mut().insert(Arc::new(tunnel));
    response
}

/// Passes what the replica sends to the client, until either is done. When the port closes, the
/// replica is asked to come to an end.
async fn pass(
    first: Bytes,
    mut call: CallHandle,
    upgrade: OnUpgrade,
    sides: Sides,
    tally: Tally,
    closing: CancellationToken,
) {
    // Dropping the call cancels it, dropping the tally counts a client that left.
    let Ok(upgraded) = upgrade.await else { return };
    let (read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    if sides.io.send(read).is_err() {
        return;
    }
    let gone = async {
        sides.left.cancelled().await;
        // It may have said before that it goes, so the replica gets a moment to do so too.
        tokio::time::sleep(WEBSOCKET_LEAVE_SECONDS_MAX).await;
    };
    let (link, request) = call.link();
    let link = Arc::clone(link);
    let leaving = async {
        closing.cancelled().await;
        link.push(request, Kind::Leave(going_away()));
        std::future::pending::<()>().await;
    };
    let sent = tokio::select! {
        sent = send_all(first, &mut call, &mut write) => sent,
        () = gone => return,
        () = leaving => return,
    };
    match sent {
        Sent::All => {
            let end = call.take_end().unwrap_or_default();
            let code = u16::try_from(end.close_code).unwrap_or(WEBSOCKET_BROKEN);
            tally.end(if code == 0 { WEBSOCKET_BROKEN } else { code });
            drop(tokio::time::timeout(WRITE_STALL_SECONDS_MAX, write.shutdown()).await);
        }
        Sent::Broken => tally.end(WEBSOCKET_BROKEN),
        Sent::Unread => {}
    }
}

fn going_away() -> v1::Leave {
    v1::Leave {
        close_code: WEBSOCKET_GOING_AWAY.into(),
        within_ms: u64::try_from(DRAIN_SECONDS_MAX.as_millis()).unwrap_or(u64::MAX),
    }
}

enum Sent {
    All,
    /// The replica or the way to it failed.
    Broken,
    /// The client does not read, or is gone.
    Unread,
}

async fn send_all(first: Bytes, call: &mut CallHandle, write: &mut WriteHalf<Io>) -> Sent {
    let mut next = Some(Ok(first));
    while let Some(piece) = next {
        let Ok(piece) = piece else {
            return Sent::Broken;
        };
        let writing = async {
            write.write_all(&piece).await?;
            write.flush().await
        };
        match tokio::time::timeout(WRITE_STALL_SECONDS_MAX, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Sent::Unread,
        }
        next = poll_fn(|cx| call.poll_chunk(cx)).await;
    }
    Sent::All
}

// === impl Tunnel ===

impl Tunnel {
    /// Runs it; once. The token says that the port closes.
    pub async fn run(&self, closing: CancellationToken) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running(closing).await;
        }
    }
}

// === impl FromClient ===

impl FromClient {
    fn new() -> (FromClient, Sides) {
        let (io, waiting) = oneshot::channel();
        let left = CancellationToken::new();
        let body = FromClient {
            waiting: Some(waiting),
            io: None,
            buffer: BytesMut::new(),
            left: left.clone(),
        };
        (body, Sides { io, left })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<Bytes>> {
        if let Some(waiting) = &mut self.waiting {
            // Dropped: the replica refused.
            self.io = ready!(Pin::new(waiting).poll(cx)).ok();
            self.waiting = None;
        }
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(Bytes::new()));
        };
        self.buffer.resize(WEBSOCKET_READ_BYTES, 0);
        let mut read = ReadBuf::new(&mut self.buffer);
        let outcome = ready!(Pin::new(io).poll_read(cx, &mut read));
        let size = read.filled().len();
        Poll::Ready(outcome.map(|()| self.buffer.split_to(size).freeze()))
    }
}

impl Body for FromClient {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.get_mut();
        let piece = match ready!(this.poll_read(cx)) {
            Ok(piece) if !piece.is_empty() => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Ok(_) => None,
            Err(error) => Some(Err(UploadError::Broken(error.to_string()))),
        };
        this.io = None;
        this.left.cancel();
        Poll::Ready(piece)
    }
}
