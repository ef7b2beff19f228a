//! Requests at a constant rate. Each is due at its time whether or not the ones before it were
//! answered: where its connection is still busy then, its latency counts from when it was due, so
//! that a stalled server cannot hide its stall (coordinated omission). Where the connection was
//! idle it counts from when it was sent: timers here fire up to a millisecond late, which is not
//! the server's doing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Error;

pub async fn load(url: &str, rate: u32, seconds: u32, connections: u32) -> Result<(), Error> {
    let url: Uri = url.parse()?;
    // Each connection has its part of the rate, shifted against the others.
    let pause = Duration::from_secs_f64(f64::from(connections) / f64::from(rate));
    let count = rate * seconds / connections;
    let begin = Instant::now() + Duration::from_millis(200);
    let mut clients = JoinSet::new();
    for n in 0..connections {
        let (client, url) = (connect(&url).await?, url.clone());
        let begin = begin + pause * n / connections;
        clients.spawn(async move { send(client, url, begin, pause, count).await });
    }
    let (mut latencies, mut failed) = (Vec::new(), 0);
    while let Some(done) = clients.join_next().await {
        let (took, bad) = done??;
        latencies.extend(took);
        failed += bad;
    }
    latencies.sort_unstable();
    let at = |q: f64| {
        let index = (q * latencies.len() as f64) as usize;
        let took = latencies.get(index.min(latencies.len().saturating_sub(1)));
        took.map_or(f64::NAN, |took| took.as_secs_f64() * 1000.0)
    };
    println!("requests {} failed {failed} rate {rate}", latencies.len());
    println!(
        "p50 {:.3} p90 {:.3} p99 {:.3} p99.9 {:.3} max {:.3} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    Ok(())
}

async fn connect(url: &Uri) -> Result<SendRequest<Empty<Bytes>>, Error> {
    let authority = url.authority().ok_or("the URL names no host")?;
    let socket = TcpStream::connect(authority.as_str()).await?;
    socket.set_nodelay(true)?;
    let (client, connection) = handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn send(
    mut client: SendRequest<Empty<Bytes>>,
    url: Uri,
    begin: Instant,
    pause: Duration,
    count: u32,
) -> Result<(Vec<Duration>, u32), Error> {
    let host = url
        .authority()
        .map_or("", |authority| authority.as_str())
        .to_owned();
    let mut took = Vec::with_capacity(count as usize);
    let mut failed = 0;
    for n in 0..count {
        let due = begin + pause * n;
        let mut from = due;
        if Instant::now() < due {
            tokio::time::sleep_until(due.into()).await;
            from = Instant::now();
        }
        client.ready().await?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header("host", &host)
            .body(Empty::new())?;
        let response = client.send_request(request).await?;
        failed += u32::from(!response.status().is_success());
        response.into_body().collect().await?;
        took.push(from.elapsed());
    }
    Ok((took, failed))
}
