//! A worker that does to each call what the test says, speaking the real protocol over a real
//! Unix socket.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use mobula_process::net::{self, Addr};
use mobula_proto::limits::{BODY_CHUNK_BYTES_MAX, BODY_WINDOW_BYTES_INITIAL, MESSAGE_BYTES_MAX};
use mobula_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use mobula_proto::v1::{self, frame::Kind};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

type Handler =
    Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static>;

/// A running worker.
pub struct Worker {
    pub id: String,
    pub addr: Addr,
    /// What came, in order.
    pub calls: Arc<Mutex<Vec<v1::Call>>>,
    stop: CancellationToken,
}

/// One call, in the hands of the test.
pub struct Call {
    pub call: v1::Call,
    request: u64,
    frames: mpsc::UnboundedReceiver<Kind>,
    out: mpsc::UnboundedSender<v1::FrameBatch>,
    window: usize,
    body_over: bool,
    /// Breaks the connection.
    pub broken: CancellationToken,
}

impl Worker {
    /// Starts a worker in a directory.
    pub async fn start<F, R>(dir: &std::path::Path, id: &str, handler: F) -> Worker
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let addr = Addr::Unix(dir.join(format!("{id}.sock")));
        let listener = net::listen(&addr).await.unwrap();
        let stop = CancellationToken::new();
        let calls = Arc::default();
        let service = Service {
            handler: Arc::new(move |call| Box::pin(handler(call))),
            calls: Arc::clone(&calls),
            stop: stop.clone(),
        };
        let server = tonic::transport::Server::builder()
            .add_service(
                WorkerServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX),
            )
            .serve_with_incoming_shutdown(listener.into_incoming(), stop.clone().cancelled_owned());
        tokio::spawn(server);
        Worker {
            id: id.to_owned(),
            addr,
            calls,
            stop,
        }
    }

    /// Breaks every connection and listens no more.
    pub fn kill(&self) {
        self.stop.cancel();
    }

    /// A replica on this worker, for the table.
    pub fn replica(&self, replica_id: &str) -> v1::TableReplica {
        v1::TableReplica {
            replica_id: replica_id.to_owned(),
            worker_id: self.id.clone(),
            node_id: "node".to_owned(),
            data_addr: self.addr.to_string(),
            ..Default::default()
        }
    }

    pub fn paths(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| call.path.clone()).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Service {
    handler: Handler,
    calls: Arc<Mutex<Vec<v1::Call>>>,
    stop: CancellationToken,
}

type Outgoing = Pin<Box<dyn Stream<Item = Result<v1::FrameBatch, Status>> + Send>>;

#[tonic::async_trait]
impl WorkerService for Service {
    type ExchangeStream = Outgoing;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::FrameBatch>>,
    ) -> Result<Response<Outgoing>, Status> {
        let (out, frames) = mpsc::unbounded_channel();
        let broken = self.stop.child_token();
        let reader = read(
            request.into_inner(),
            Arc::clone(&self.handler),
            Arc::clone(&self.calls),
            out,
            broken.clone(),
        );
        tokio::spawn(broken.clone().run_until_cancelled_owned(reader));
        let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(frames);
        let batches = frames.map(Ok);
        let until = futures_util::StreamExt::take_until(batches, broken.cancelled_owned());
        Ok(Response::new(Box::pin(until)))
    }

    async fn metrics(
        &self,
        _: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsReply>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

async fn read(
    mut incoming: Streaming<v1::FrameBatch>,
    handler: Handler,
    calls: Arc<Mutex<Vec<v1::Call>>>,
    out: mpsc::UnboundedSender<v1::FrameBatch>,
    broken: CancellationToken,
) {
    let mut open: HashMap<u64, mpsc::UnboundedSender<Kind>> = HashMap::new();
    while let Ok(Some(batch)) = incoming.message().await {
        for frame in batch.frames {
            match frame.kind.unwrap() {
                Kind::Call(call) => {
                    calls.lock().unwrap().push(call.clone());
                    let (sender, frames) = mpsc::unbounded_channel();
                    assert!(open.insert(frame.request, sender).is_none(), "used twice");
                    let call = Call {
                        body_over: call.end,
                        call,
                        request: frame.request,
                        frames,
                        out: out.clone(),
                        window: BODY_WINDOW_BYTES_INITIAL,
                        broken: broken.clone(),
                    };
                    let call = handler(call);
                    tokio::spawn(broken.clone().run_until_cancelled_owned(call));
                }
                kind => {
                    if let Some(call) = open.get(&frame.request) {
                        drop(call.send(kind));
                    }
                }
            }
        }
    }
}

impl Call {
    fn send(&self, kind: Kind) {
        self.send_at_once(vec![kind]);
    }

    /// Either all of it arrives or nothing.
    fn send_at_once(&self, kinds: Vec<Kind>) {
        let frame = |kind| v1::Frame {
            request: self.request,
            kind: Some(kind),
        };
        let frames = kinds.into_iter().map(frame).collect();
        drop(self.out.send(v1::FrameBatch { frames }));
    }

    pub fn accept(&self) {
        self.send(Kind::Accepted(v1::Accepted {}));
    }

    pub fn reject(&self, reason: v1::RejectReason) {
        self.send(Kind::Rejected(v1::Rejected {
            reason: reason.into(),
            ongoing_requests: 0,
        }));
    }

    pub fn fault(&self, kind: v1::FaultKind) {
        self.send(Kind::Fault(v1::Fault {
            kind: kind.into(),
            message: "as the test says".to_owned(),
        }));
    }

    /// Accepts and answers at once: no connection breaks between the two.
    pub fn answer(&self, status: u32, body: impl Into<Bytes>) {
        let reply = self.reply(status, body, true);
        self.send_at_once(vec![Kind::Accepted(v1::Accepted {}), reply]);
    }

    pub fn head(&self, status: u32, body: impl Into<Bytes>, end: bool) {
        self.send(self.reply(status, body, end));
    }

    fn reply(&self, status: u32, body: impl Into<Bytes>, end: bool) -> Kind {
        let header = v1::Header {
            name: "x-replica".to_owned(),
            value: Bytes::from(self.call.replica_id.clone()),
        };
        Kind::Reply(v1::Reply {
            status,
            headers: vec![header],
            body: body.into(),
            end,
            grpc_status: None,
        })
    }

    pub fn grpc(&self, code: u32, message: &str, body: impl Into<Bytes>) {
        self.accept();
        self.send(Kind::Reply(v1::Reply {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
            end: true,
            grpc_status: Some(v1::GrpcStatus {
                code,
                message: message.to_owned(),
            }),
        }));
    }

    /// Reads the whole body, giving credit for each piece.
    pub async fn body(&mut self) -> Bytes {
        let mut all = BytesMut::from(&self.call.body[..]);
        while !self.body_over {
            match self.frames.recv().await.unwrap() {
                Kind::Data(data) => {
                    all.extend_from_slice(&data.bytes);
                    self.body_over = data.end;
                    self.send(Kind::Credit(v1::Credit {
                        bytes: data.bytes.len() as u32,
                    }));
                }
                Kind::Credit(credit) => self.window += credit.bytes as usize,
                other => panic!("{other:?} inside a body"),
            }
        }
        all.freeze()
    }

    /// Waits for a piece of the body that comes unasked; whether it is the last.
    pub async fn unasked(&mut self) -> bool {
        match self.frames.recv().await.unwrap() {
            Kind::Data(data) => data.end,
            other => panic!("{other:?} inside a body"),
        }
    }

    /// Sends a body within the window that the router gives; whether it wanted all of it.
    pub async fn stream(&mut self, mut bytes: Bytes) -> bool {
        while !bytes.is_empty() {
            while self.window == 0 {
                match self.frames.recv().await {
                    Some(Kind::Credit(credit)) => self.window += credit.bytes as usize,
                    Some(Kind::Cancel(_)) | None => return false,
                    Some(other) => panic!("{other:?} inside an answer"),
                }
            }
            let size = bytes.len().min(BODY_CHUNK_BYTES_MAX).min(self.window);
            self.window -= size;
            self.data(bytes.split_to(size), false);
        }
        self.data(Bytes::new(), true);
        true
    }

    pub fn data(&self, bytes: Bytes, end: bool) {
        self.send(Kind::Data(v1::Data { bytes, end }));
    }

    /// Waits until the router cancels the call.
    pub async fn cancelled(&mut self) {
        while let Some(kind) = self.frames.recv().await {
            if matches!(kind, Kind::Cancel(_)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}
