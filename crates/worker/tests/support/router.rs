//! A router's end of the data plane: sends frames, sorts what comes back by request, and counts
//! body bytes against the credit given.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use mobula_process::net::{self, Addr};
use mobula_proto::limits::BODY_WINDOW_BYTES_INITIAL;
use mobula_proto::v1::worker_service_client::WorkerServiceClient;
use mobula_proto::v1::{
    Call, Cancel, Credit, Data, Fault, Frame, FrameBatch, Rejected, Reply, frame,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

type Pending = Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<frame::Kind>>>>;

pub struct Router {
    outgoing: mpsc::Sender<FrameBatch>,
    pending: Pending,
    next: AtomicU64,
    pub client: WorkerServiceClient<tonic::transport::Channel>,
    reader: tokio::task::JoinHandle<()>,
}

/// One request as its router sees it.
pub struct Exchange {
    pub request: u64,
    frames: mpsc::UnboundedReceiver<frame::Kind>,
    outgoing: mpsc::Sender<FrameBatch>,
}

#[derive(Debug)]
pub enum Answer {
    Rejected(Rejected),
    /// Not whole unless `end` is set; `body` is all there was.
    Replied(Reply),
    Fault(Fault),
}

impl Router {
    pub async fn connect(addr: &Addr) -> Router {
        let connecting = async {
            loop {
                match net::connect(addr).await {
                    Ok(channel) => return channel,
                    // The worker is still coming up.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        };
        let channel = super::soon("a connection to the worker", connecting).await;
        let mut client = WorkerServiceClient::new(channel);
        let (outgoing, queue) = mpsc::channel(64);
        let replies = client.exchange(ReceiverStream::new(queue)).await.unwrap();
        let mut replies = replies.into_inner();
        let pending = Pending::default();
        let reader = tokio::spawn({
            let pending = pending.clone();
            async move {
                while let Ok(Some(batch)) = replies.message().await {
                    let pending = pending.lock().unwrap();
                    for frame in batch.frames {
                        if let Some(waiting) = pending.get(&frame.request) {
                            let _ = waiting.send(frame.kind.expect("known kinds only"));
                        }
                    }
                }
                pending.lock().unwrap().clear();
            }
        });
        Router {
            outgoing,
            pending,
            next: AtomicU64::new(1),
            client,
            reader,
        }
    }

    /// Sends a call without a body.
    pub async fn get(&self, replica_id: &str, path: &str) -> Exchange {
        self.send(call(replica_id, path)).await
    }

    pub async fn send(&self, call: Call) -> Exchange {
        let request = self.next.fetch_add(1, Ordering::SeqCst);
        let (sender, frames) = mpsc::unbounded_channel();
        self.pending.lock().unwrap().insert(request, sender);
        let exchange = Exchange {
            request,
            frames,
            outgoing: self.outgoing.clone(),
        };
        exchange.send(frame::Kind::Call(call)).await;
        exchange
    }

    /// The connection breaks.
    pub async fn kill(self) {
        self.reader.abort();
        let _ = self.reader.await;
    }
}

impl Exchange {
    pub async fn send(&self, kind: frame::Kind) {
        let frame = Frame {
            request: self.request,
            kind: Some(kind),
        };
        let batch = FrameBatch {
            frames: vec![frame],
        };
        self.outgoing.send(batch).await.unwrap();
    }

    pub async fn cancel(&self) {
        self.send(frame::Kind::Cancel(Cancel {})).await;
    }

    /// The next frame; `None` when the stream ended.
    pub async fn frame(&mut self) -> Option<frame::Kind> {
        super::soon("a frame", self.frames.recv()).await
    }

    pub async fn accepted(&mut self) {
        let frame = self.frame().await;
        assert!(matches!(frame, Some(frame::Kind::Accepted(_))), "{frame:?}");
    }

    /// Whatever has come without waiting.
    pub fn arrived(&mut self) -> Vec<frame::Kind> {
        std::iter::from_fn(|| self.frames.try_recv().ok()).collect()
    }

    /// Reads the whole answer, giving credit for every byte.
    pub async fn answer(mut self) -> Answer {
        let mut reply: Option<Reply> = None;
        let mut body = BytesMut::new();
        loop {
            let frame = self
                .frame()
                .await
                .expect("an answer before the stream ends");
            match frame {
                frame::Kind::Accepted(_) | frame::Kind::Credit(_) => {}
                frame::Kind::Rejected(rejected) => return Answer::Rejected(rejected),
                frame::Kind::Fault(fault) => return Answer::Fault(fault),
                frame::Kind::Reply(head) if head.end => return Answer::Replied(head),
                frame::Kind::Reply(head) => {
                    body.extend_from_slice(&head.body);
                    reply = Some(head);
                }
                frame::Kind::Data(data) => {
                    body.extend_from_slice(&data.bytes);
                    self.credit(data.bytes.len()).await;
                    if data.end {
                        let mut reply = reply.expect("a head before the body");
                        reply.body = body.freeze();
                        return Answer::Replied(reply);
                    }
                }
                frame::Kind::Call(_)
                | frame::Kind::Cancel(_)
                | frame::Kind::Leave(_)
                | frame::Kind::End(_) => panic!("{frame:?}"),
            }
        }
    }

    pub async fn credit(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap();
        self.send(frame::Kind::Credit(Credit { bytes })).await;
    }

    pub async fn data(&self, bytes: Bytes, end: bool) {
        self.send(frame::Kind::Data(Data { bytes, end })).await;
    }
}

impl Answer {
    pub fn text(&self) -> String {
        match self {
            Answer::Replied(reply) => String::from_utf8_lossy(&reply.body).into_owned(),
            Answer::Rejected(_) | Answer::Fault(_) => panic!("no reply but {self:?}"),
        }
    }

    pub fn fault(self) -> Fault {
        match self {
            Answer::Fault(fault) => fault,
            Answer::Rejected(_) | Answer::Replied(_) => panic!("no fault but {self:?}"),
        }
    }

    pub fn rejected(self) -> Rejected {
        match self {
            Answer::Rejected(rejected) => rejected,
            Answer::Replied(_) | Answer::Fault(_) => panic!("not rejected but {self:?}"),
        }
    }
}

pub fn call(replica_id: &str, path: &str) -> Call {
    Call {
        replica_id: replica_id.to_owned(),
        method: "GET".to_owned(),
        path: path.to_owned(),
        prefix: "/".to_owned(),
        request_id: "test".to_owned(),
        end: true,
        ..Call::default()
    }
}

pub const WINDOW: usize = BODY_WINDOW_BYTES_INITIAL;
