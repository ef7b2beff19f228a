//! The server behind the proxies: hyper and nothing else.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::Error;

pub async fn serve(addr: &str) -> Result<(), Error> {
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(async move {
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service_fn(answer));
            // A client that leaves is no error.
            drop(serving.await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    let whole =
        |body: &'static [u8]| Full::new(Bytes::from_static(body)).map_err(|never| match never {});
    let body = match request.uri().path() {
        "/" => whole(b"twenty bytes of text").boxed(),
        "/echo" => request.into_body().boxed(),
        _ => Empty::new().map_err(|never| match never {}).boxed(),
    };
    Ok(Response::new(body))
}
