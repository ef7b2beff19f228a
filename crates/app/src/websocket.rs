//! WebSockets: a replica answers the request that asks for one with [`Response::websocket`] and
//! speaks on it in messages. Handshake, frames, pings and close codes are done here.
//!
//! ```
//! use mobula_app::{Request, Response, WebSocket};
//!
//! fn echo(request: Request) -> Response {
//!     Response::websocket(request, |mut socket: WebSocket| async move {
//!         while let Some(message) = socket.recv().await? {
//!             socket.send(message).await?;
//!         }
//!         Ok(())
//!     })
//! }
//! ```
//!
//! Not here: the way of the bytes between client and replica, which are opaque to the router.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::{HeaderMap, StatusCode};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error as WireError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message as WireMessage, Utf8Bytes};

use crate::wire::Wire;
use crate::{Body, BodyError, CallError, End, Ending, Leave, Leaving, Protocol, Request, Response};

/// A message, all its frames together; uvicorn's figure. One that is longer ends the WebSocket
/// with 1009.
pub const WEBSOCKET_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A client that says nothing for so long is asked whether it is there, and is gone when it
/// says nothing for as long again.
pub const WEBSOCKET_PING_SECONDS: Duration = Duration::from_secs(20);

/// How long a client may take to say that it closes too.
pub const WEBSOCKET_CLOSE_SECONDS_MAX: Duration = Duration::from_secs(5);

/// Pieces that wait for the router to take them.
const PIECES_MAX: usize = 8;

/// Closed, as both sides agreed.
pub const CLOSE_NORMAL: u16 = 1000;
/// A close frame without a code.
const CLOSE_NO_CODE: u16 = 1005;
/// The client vanished without a close frame.
const CLOSE_ABNORMAL: u16 = 1006;
/// The application failed.
const CLOSE_INTERNAL: u16 = 1011;

const VERSION: HeaderName = http::header::SEC_WEBSOCKET_VERSION;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8.
    Text(String),
    /// Anything.
    Binary(Bytes),
}

/// Why a WebSocket cannot be used any more.
#[derive(Debug, Error)]
pub enum WebSocketError {
    /// The client is gone, or has closed it.
    #[error("the WebSocket is closed")]
    Closed,
    /// The client broke a rule or a limit; it was told so by the close code.
    #[error("the client broke the WebSocket off with {code}: {why}")]
    Refused {
        /// The close code that it was sent.
        code: u16,
        /// What it did.
        why: String,
    },
}

/// A WebSocket, seen by the replica.
pub struct WebSocket {
    /// Present until it is dropped.
    open: Option<Box<Open>>,
    /// Takes it back to be closed.
    back: Option<oneshot::Sender<Box<Open>>>,
}

struct Open {
    stream: WebSocketStream<Wire>,
    ending: Ending,
    leaving: Arc<Leaving>,
    closed: bool,
}

// === impl WebSocket ===

impl WebSocket {
    /// The next message; `None` when the client closed the WebSocket or is gone.
    ///
    /// # Errors
    /// When the client broke a rule or a limit.
    pub async fn recv(&mut self) -> Result<Option<Message>, WebSocketError> {
        match &mut self.open {
            Some(open) => open.recv().await,
            None => Ok(None),
        }
    }

    /// Sends a message; waits while the client is behind.
    ///
    /// # Errors
    /// When the WebSocket is closed.
    pub async fn send(&mut self, message: Message) -> Result<(), WebSocketError> {
        let open = self.open.as_mut().ok_or(WebSocketError::Closed)?;
        open.write(match message {
            Message::Text(text) => WireMessage::Text(text.into()),
            Message::Binary(bytes) => WireMessage::Binary(bytes),
        })
        .await
    }

    /// Closes with a code and a reason of at most 123 bytes (more is cut off), and waits until
    /// the client does too. Whoever does not call it closes with 1000.
    pub async fn close(&mut self, code: u16, reason: &str) {
        if let Some(open) = &mut self.open {
            open.close(code, reason).await;
        }
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        if let (Some(open), Some(back)) = (self.open.take(), self.back.take()) {
            // Nobody takes it when the request is cancelled.
            drop(back.send(open));
        }
    }
}

// === impl Open ===

impl Open {
    async fn recv(&mut self) -> Result<Option<Message>, WebSocketError> {
        let mut asked = false;
        while !self.closed {
            let next = tokio::time::timeout(WEBSOCKET_PING_SECONDS, self.stream.next());
            // What has come is still answered.
            let next = tokio::select! {
                biased;
                next = next => next,
                leave = self.leaving.told() => {
                    self.leave(leave).await;
                    continue;
                }
            };
            let Ok(next) = next else {
                if std::mem::replace(&mut asked, true) {
                    self.end(CLOSE_ABNORMAL);
                } else {
                    self.write(WireMessage::Ping(Bytes::new())).await?;
                }
                continue;
            };
            asked = false;
            match next {
                Some(Ok(WireMessage::Text(text))) => {
                    return Ok(Some(Message::Text(text.as_str().to_owned())));
                }
                Some(Ok(WireMessage::Binary(bytes))) => return Ok(Some(Message::Binary(bytes))),
                // The answer to the close frame is sent by reading on.
                Some(Ok(WireMessage::Close(frame))) => {
                    let code = frame.map_or(CLOSE_NO_CODE, |frame| frame.code.into());
                    self.ending.set(End::Closed(code));
                }
                // Pings are answered by reading on.
                Some(Ok(_)) => {}
                Some(Err(error)) => return self.failed(error).await,
                None => self.end(CLOSE_ABNORMAL),
            }
        }
        Ok(None)
    }

    async fn close(&mut self, code: u16, reason: &str) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.ending.set(End::Closed(code));
        let frame = CloseFrame {
            code: code.into(),
            reason: Utf8Bytes::from(cut(reason)),
        };
        let closing = async {
            if self.stream.close(Some(frame)).await.is_ok() {
                // What the client sent before it read the frame is not wanted any more.
                while let Some(Ok(_)) = self.stream.next().await {}
            }
        };
        drop(tokio::time::timeout(WEBSOCKET_CLOSE_SECONDS_MAX, closing).await);
    }

    /// The router or the replica stops: the client is told so.
    async fn leave(&mut self, leave: Leave) {
        let reason = match leave.code {
            Leave::RESTART => "service restart",
            _ => "going away",
        };
        self.close(leave.code, reason).await;
    }

    async fn write(&mut self, message: WireMessage) -> Result<(), WebSocketError> {
        if self.closed {
            return Err(WebSocketError::Closed);
        }
        self.stream.send(message).await.map_err(|_| {
            self.end(CLOSE_ABNORMAL);
            WebSocketError::Closed
        })
    }

    async fn failed(&mut self, error: WireError) -> Result<Option<Message>, WebSocketError> {
        let code = match error {
            WireError::Capacity(_) => 1009,
            WireError::Utf8(_) => 1007,
            WireError::Protocol(ProtocolError::ResetWithoutClosingHandshake)
            | WireError::ConnectionClosed
            | WireError::AlreadyClosed
            | WireError::Io(_) => {
                self.end(CLOSE_ABNORMAL);
                return Ok(None);
            }
            _ => 1002,
        };
        let why = error.to_string();
        self.close(code, &why).await;
        Err(WebSocketError::Refused { code, why })
    }

    /// Over; how it was closed was perhaps said before.
    fn end(&mut self, code: u16) {
        self.ending.set(End::Closed(code));
        self.closed = true;
    }
}

/// What fits a close frame.
fn cut(reason: &str) -> String {
    const BYTES_MAX: usize = 123;
    let fits = (0..=BYTES_MAX.min(reason.len())).rev();
    let end = fits.into_iter().find(|end| reason.is_char_boundary(*end));
    reason
        .get(..end.unwrap_or(0))
        .unwrap_or_default()
        .to_owned()
}

impl From<WebSocketError> for CallError {
    fn from(error: WebSocketError) -> CallError {
        CallError(error.to_string())
    }
}

// === impl Response ===

impl Response {
    /// Opens the WebSocket that the request asks for, and speaks on it until `speak` ends: then
    /// it is closed with 1000, or with 1011 after an error that is not the client's. When the
    /// client goes away and nothing is read, the future is dropped. When the router (1001) or the
    /// replica (1012) has to stop, [`WebSocket::recv`] closes it as soon as nothing more has come
    /// and gives `None`; a future that goes on all the same is dropped shortly before the time
    /// for that is over, and the WebSocket closed. A request that asks for none is answered with
    /// 426.
    pub fn websocket<F, Fut>(request: Request, speak: F) -> Response
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), CallError>> + Send + 'static,
    {
        let key = request.headers.get(SEC_WEBSOCKET_KEY).cloned();
        let Some(key) = key.filter(|_| request.protocol == Protocol::WebSocket) else {
            return upgrade_required();
        };
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
        let mut headers = HeaderMap::new();
        headers.extend(accept.ok().map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
        let ending = Ending::default();
        let (pieces, taken) = mpsc::channel(PIECES_MAX);
        let wire = Wire::new(request.body, pieces);
        let leaving = request.context.leaving.unwrap_or_default();
        let speaking = speak_on(wire, ending.clone(), leaving, speak);
        Response {
            status: StatusCode::SWITCHING_PROTOCOLS,
            headers,
            body: driven(speaking, taken),
            grpc_status: None,
            ending: Some(ending),
        }
    }
}

fn upgrade_required() -> Response {
    let text = "This path is a WebSocket.";
    let mut response = Response::text(text);
    response.status = StatusCode::UPGRADE_REQUIRED;
    response
        .headers
        .insert(VERSION, HeaderValue::from_static("13"));
    response
}

async fn speak_on<F, Fut>(
    wire: Wire,
    ending: Ending,
    leaving: Arc<Leaving>,
    speak: F,
) -> Result<(), CallError>
where
    F: FnOnce(WebSocket) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), CallError>> + Send + 'static,
{
    let limits = WebSocketConfig::default()
        .max_message_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX));
    let stream = WebSocketStream::from_raw_socket(wire, Role::Server, Some(limits)).await;
    let (back, returned) = oneshot::channel();
    let open = Box::new(Open {
        stream,
        ending: ending.clone(),
        leaving: Arc::clone(&leaving),
        closed: false,
    });
    let speaking = speak(WebSocket {
        open: Some(open),
        back: Some(back),
    });
    let outcome = tokio::select! {
        outcome = speaking => Spoke::Ended(outcome),
        leave = overdue(&leaving) => Spoke::Overdue(leave),
    };
    // After that the code's error is about a WebSocket that was closed or left.
    let was_over = ending.get().is_some();
    let mut open = returned.await.ok();
    match (outcome, &mut open) {
        (Spoke::Overdue(leave), Some(open)) => open.leave(leave).await,
        (Spoke::Ended(Err(error)), open) if !was_over => {
            if let Some(open) = open {
                open.close(CLOSE_INTERNAL, "Internal Server Error").await;
            }
            return Err(error);
        }
        (Spoke::Ended(_), Some(open)) => open.close(CLOSE_NORMAL, "").await,
        (_, None) => {}
    }
    Ok(())
}

/// How the code's part of a WebSocket ended.
enum Spoke {
    Ended(Result<(), CallError>),
    Overdue(Leave),
}

/// Returns when the WebSocket had to be over.
async fn overdue(leaving: &Leaving) -> Leave {
    let leave = leaving.told().await;
    tokio::time::sleep_until(leave.by.into()).await;
    leave
}

/// A body whose bytes `speaking` makes, which runs while the body is read and is dropped with it.
fn driven(
    speaking: impl Future<Output = Result<(), CallError>> + Send + 'static,
    mut taken: mpsc::Receiver<Bytes>,
) -> Body {
    let mut speaking = Some(Box::pin(speaking));
    let mut failure = None;
    let pieces = futures_util::stream::poll_fn(move |cx: &mut Context<'_>| {
        if let Some(future) = &mut speaking
            && let Poll::Ready(outcome) = Pin::as_mut(future).poll(cx)
        {
            failure = outcome.err();
            // Drops the writing end: what it wrote is still read.
            speaking = None;
        }
        match taken.poll_recv(cx) {
            Poll::Ready(Some(piece)) => Poll::Ready(Some(Ok(piece))),
            Poll::Ready(None) => {
                let broken = |error: CallError| Err(BodyError::Aborted(error.to_string()));
                Poll::Ready(failure.take().map(broken))
            }
            Poll::Pending => Poll::Pending,
        }
    });
    Body::stream(pieces)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    type Client = WebSocketStream<Wire>;

    fn request(body: Body) -> Request {
        let mut request = Request::new(Method::GET, "/", body);
        request.protocol = Protocol::WebSocket;
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        request.headers.insert(SEC_WEBSOCKET_KEY, key);
        request
    }

    /// A client of a replica that speaks so, and how it ended.
    async fn client<F, Fut>(speak: F) -> (Client, Ending)
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), CallError>> + Send + 'static,
    {
        let (client, ending, _) = leaving_client(speak).await;
        (client, ending)
    }

    /// Such a client, and where it is said that the replica stops.
    async fn leaving_client<F, Fut>(speak: F) -> (Client, Ending, Arc<Leaving>)
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), CallError>> + Send + 'static,
    {
        let (pieces, mut sent) = mpsc::channel(PIECES_MAX);
        let body = futures_util::stream::poll_fn(move |cx| sent.poll_recv(cx)).map(Ok);
        let leaving = Arc::<Leaving>::default();
        let mut request = request(Body::stream(body));
        request.context.leaving = Some(Arc::clone(&leaving));
        let response = Response::websocket(request, speak);
        assert_eq!(response.status, StatusCode::SWITCHING_PROTOCOLS);
        let ending = response.ending.clone().unwrap();
        let wire = Wire::new(response.body, pieces);
        let client = WebSocketStream::from_raw_socket(wire, Role::Client, None).await;
        (client, ending, leaving)
    }

    fn restart() -> Leave {
        let limit = Duration::from_secs(20);
        let now = tokio::time::Instant::now().into_std();
        Leave::within(Leave::RESTART, limit, now)
    }

    async fn echo(mut socket: WebSocket) -> Result<(), CallError> {
        while let Some(message) = socket.recv().await? {
            socket.send(message).await?;
        }
        Ok(())
    }

    fn close_code(message: Option<Result<WireMessage, WireError>>) -> u16 {
        let Some(Ok(WireMessage::Close(Some(frame)))) = message else {
            panic!("{message:?} is no close frame");
        };
        frame.code.into()
    }

    #[test]
    fn the_handshake_is_answered_as_the_rfc_shows_it() {
        let response = Response::websocket(request(Body::empty()), echo);
        let accept = response.headers.get(SEC_WEBSOCKET_ACCEPT).unwrap();
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let plain = Request::new(Method::GET, "/", Body::empty());
        let refused = Response::websocket(plain, echo);
        assert_eq!(refused.status, StatusCode::UPGRADE_REQUIRED);
    }

    #[tokio::test]
    async fn messages_go_both_ways_and_the_clients_code_is_how_it_ended() {
        let (mut client, ending) = client(echo).await;
        for message in [
            WireMessage::text("hello"),
            WireMessage::binary(vec![7; 300_000]),
        ] {
            client.send(message.clone()).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap(), message);
        }
        let frame = CloseFrame {
            code: 1001.into(),
            reason: "".into(),
        };
        client.close(Some(frame)).await.unwrap();
        assert_eq!(close_code(client.next().await), 1001);
        assert!(client.next().await.is_none());
        assert_eq!(ending.get(), Some(End::Closed(1001)));
    }

    #[tokio::test]
    async fn a_replica_that_is_done_closes_with_1000_and_one_that_fails_with_1011() {
        let (mut done, ending) = client(|_| async { Ok(()) }).await;
        assert_eq!(close_code(done.next().await), 1000);
        assert_eq!(ending.get(), Some(End::Closed(1000)));
        let (mut failed, ending) = client(|_| async { Err(CallError("x".into())) }).await;
        assert_eq!(close_code(failed.next().await), 1011);
        assert_eq!(ending.get(), Some(End::Closed(1011)));
    }

    #[tokio::test]
    async fn a_message_beyond_the_limit_is_refused_with_1009() {
        let (mut client, ending) = client(echo).await;
        let long = vec![0; WEBSOCKET_MESSAGE_BYTES_MAX + 1];
        // The replica may stop reading before all of it is written.
        drop(client.send(WireMessage::binary(long)).await);
        assert_eq!(close_code(client.next().await), 1009);
        assert_eq!(ending.get(), Some(End::Closed(1009)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_asked_and_then_given_up() {
        let (mut client, ending) = client(echo).await;
        // Reading without answering: the second message is never asked for.
        assert!(client.next().await.unwrap().unwrap().is_ping());
        let mut body = client.into_inner();
        let mut rest = [0; 64];
        while tokio::io::AsyncReadExt::read(&mut body, &mut rest)
            .await
            .unwrap()
            > 0
        {}
        assert_eq!(ending.get(), Some(End::Closed(1006)));
    }

    #[tokio::test]
    async fn a_replica_that_stops_answers_what_has_come_and_says_goodbye() {
        let (mut client, ending, leaving) = leaving_client(echo).await;
        let sent = ["one", "two"].map(WireMessage::text);
        for message in sent.clone() {
            client.send(message).await.unwrap();
        }
        leaving.tell(restart());
        for message in sent {
            assert_eq!(client.next().await.unwrap().unwrap(), message);
        }
        assert_eq!(close_code(client.next().await), 1012);
        assert!(client.next().await.is_none());
        assert_eq!(ending.get(), Some(End::Closed(1012)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_stops_does_not_wait_for_code_that_never_reads() {
        let speak = |mut socket: WebSocket| async move {
            loop {
                socket.send(Message::Text("tick".to_owned())).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let (mut client, ending, leaving) = leaving_client(speak).await;
        assert!(client.next().await.unwrap().unwrap().is_text());
        leaving.tell(restart());
        let mut last = client.next().await;
        while matches!(last, Some(Ok(WireMessage::Text(_)))) {
            last = client.next().await;
        }
        assert_eq!(close_code(last), 1012);
        assert!(client.next().await.is_none());
        assert_eq!(ending.get(), Some(End::Closed(1012)));
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        assert_eq!(cut(&"\u{e9}".repeat(100)).len(), 122);
        assert_eq!(cut("short"), "short");
    }
}
