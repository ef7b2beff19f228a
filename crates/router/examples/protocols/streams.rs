//! What Mobula does: frames of many calls on one bidirectional gRPC stream, all that are ready in
//! one message.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use mobula_process::net::{self, Addr};
use mobula_proto::v1::worker_service_client::WorkerServiceClient;
use mobula_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use mobula_proto::v1::{self, frame::Kind};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{Error, Protocol, answer};

/// Frames in one message, as `mobula_proto::limits` has it.
const FRAMES_MAX: usize = 256;

pub struct Streams(super::raw::Calls);

struct Noop;

/// What a queue of frames becomes on the wire.
pub fn batches(queue: mpsc::UnboundedReceiver<v1::Frame>) -> impl Stream<Item = v1::FrameBatch> {
    stream::unfold(queue, |mut queue| async move {
        let mut frames = Vec::new();
        // Others may be about to put a frame in.
        tokio::task::yield_now().await;
        let count = queue.recv_many(&mut frames, FRAMES_MAX).await;
        (count > 0).then_some((v1::FrameBatch { frames }, queue))
    })
}

/// The answers to the calls of a message.
pub fn answers(batch: v1::FrameBatch, out: &mpsc::UnboundedSender<v1::Frame>) {
    for frame in batch.frames {
        for kind in [Kind::Accepted(v1::Accepted {}), Kind::Reply(answer())] {
            let kind = Some(kind);
            let request = frame.request;
            // A caller that is gone does not want it.
            drop(out.send(v1::Frame { request, kind }));
        }
    }
}

impl Protocol for Streams {
    const NAME: &'static str = "one gRPC stream";

    async fn serve(addr: Addr) -> Result<(), Error> {
        let listener = net::listen(&addr).await?;
        let service = WorkerServiceServer::new(Noop);
        let server = tonic::transport::Server::builder().add_service(service);
        Ok(server.serve_with_incoming(listener.into_incoming()).await?)
    }

    async fn connect(addr: Addr) -> Result<Streams, Error> {
        let (out, queue) = mpsc::unbounded_channel();
        let mut client = WorkerServiceClient::new(net::connect(&addr).await?);
        let mut incoming = client.exchange(batches(queue)).await?.into_inner();
        let calls = super::raw::Calls::new(out);
        let told = calls.clone();
        tokio::spawn(async move {
            while let Ok(Some(batch)) = incoming.message().await {
                told.came(batch);
            }
        });
        Ok(Streams(calls))
    }

    async fn call(&self, call: v1::Call) -> Result<v1::Reply, Error> {
        self.0.call(call).await
    }
}

#[tonic::async_trait]
impl WorkerService for Noop {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<v1::FrameBatch, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::FrameBatch>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (out, queue) = mpsc::unbounded_channel();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(batch)) = incoming.message().await {
                answers(batch, &out);
            }
        });
        Ok(Response::new(Box::pin(batches(queue).map(Ok))))
    }

    async fn metrics(
        &self,
        _: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsReply>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}
