//! The gRPC service that routers call, and its server.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use mobula_process::access::Credentials;
use mobula_process::metrics::MetricsHandle;
use mobula_process::net::{
    HTTP2_FRAME_BYTES_MAX, HTTP2_WINDOW_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, Listener,
};
use mobula_proto::limits::{MESSAGE_BYTES_MAX, STREAM_FRAMES_QUEUED_MAX};
use mobula_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use mobula_proto::v1::{FrameBatch, MetricsReply, MetricsRequest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::batches::Batches;
use super::stream::Exchange;
use crate::WorkerError;
use crate::board::Board;

/// How long the connections may take to close once every answer is written.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(2);

pub(crate) struct DataPlane {
    pub board: Arc<Board>,
    pub metrics: MetricsHandle,
    /// What routers and the head have to show.
    pub credentials: Credentials,
    pub closing: CancellationToken,
}

#[tonic::async_trait]
impl WorkerService for DataPlane {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<FrameBatch, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<FrameBatch>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (outgoing, queue) = mpsc::channel(STREAM_FRAMES_QUEUED_MAX);
        let exchange = Exchange::new(self.board.directory(), outgoing);
        // Ends with its stream: the connection owns both.
        tokio::spawn(exchange.run(request.into_inner()));
        let batches = Batches::new(queue, self.closing.clone().cancelled_owned());
        Ok(Response::new(Box::pin(batches)))
    }

    async fn metrics(
        &self,
        _request: Request<MetricsRequest>,
    ) -> Result<Response<MetricsReply>, Status> {
        let text = self.metrics.render();
        Ok(Response::new(MetricsReply { text }))
    }
}

/// Serves until `closing`; then what is queued is written, and the connections close.
pub(crate) async fn serve(listener: Listener, data_plane: DataPlane) -> Result<(), WorkerError> {
    let closing = data_plane.closing.clone();
    let credentials = data_plane.credentials.clone();
    let service = WorkerServiceServer::new(data_plane)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .add_service(credentials.guard(service))
        .serve_with_incoming_shutdown(
            credentials.incoming(listener),
            closing.clone().cancelled_owned(),
        );
    let overdue = async {
        closing.cancelled().await;
        tokio::time::sleep(CLOSE_WAIT_MAX).await;
    };
    tokio::select! {
        served = server => served.map_err(|error| WorkerError::Serve(error.to_string())),
        () = overdue => Ok(()),
    }
}
