//! A unary gRPC call per request: a HTTP/2 stream each. `Accepted` cannot be told apart from the
//! answer.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use mobula_process::net::{self, Addr};
use mobula_proto::v1;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Error, Protocol, answer};

const PATH: &str = "/bench.Unary/Call";

pub struct Unary(Channel);

impl Protocol for Unary {
    const NAME: &'static str = "unary gRPC";

    async fn serve(addr: Addr) -> Result<(), Error> {
        let listener = net::listen(&addr).await?;
        let server = tonic::transport::Server::builder().add_service(Noop);
        Ok(server.serve_with_incoming(listener.into_incoming()).await?)
    }

    async fn connect(addr: Addr) -> Result<Unary, Error> {
        Ok(Unary(net::connect(&addr).await?))
    }

    async fn call(&self, call: v1::Call) -> Result<v1::Reply, Error> {
        let mut client = tonic::client::Grpc::new(self.0.clone());
        client.ready().await?;
        let codec = ProstCodec::<v1::Call, v1::Reply>::default();
        let path = PathAndQuery::from_static(PATH);
        Ok(client
            .unary(Request::new(call), path, codec)
            .await?
            .into_inner())
    }
}

#[derive(Clone)]
struct Noop;

impl NamedService for Noop {
    const NAME: &'static str = "bench.Unary";
}

impl UnaryService<v1::Call> for Noop {
    type Response = v1::Reply;
    type Future = Ready<Result<Response<v1::Reply>, Status>>;

    fn call(&mut self, _: Request<v1::Call>) -> Self::Future {
        ready(Ok(Response::new(answer())))
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Noop {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let codec = ProstCodec::<v1::Reply, v1::Call>::default();
            Ok(tonic::server::Grpc::new(codec).unary(Noop, request).await)
        })
    }
}
