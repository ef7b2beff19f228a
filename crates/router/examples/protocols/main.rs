//! What the hop between a router and a worker costs, for three candidate protocols and both kinds
//! of socket. All carry the same: a `Call` of a no-op there, `Accepted` and a whole `Reply` back.
//! The caller has a thread for each CPU, the answering side one of its own, as router and worker.
//!
//! ```text
//! cargo run --release -p mobula-router --example protocols -- [seconds for each, 2]
//! ```
//!
//! The CPU column is of both ends together and does not depend on what else the machine does;
//! calls per second do.

mod raw;
mod streams;
mod unary;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mobula_process::net::Addr;
use mobula_proto::v1;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// One way to carry calls.
trait Protocol: Send + Sync + Sized + 'static {
    const NAME: &'static str;

    /// Answers at this address for ever.
    fn serve(addr: Addr) -> impl Future<Output = Result<(), Error>> + Send;
    /// Connects to it.
    fn connect(addr: Addr) -> impl Future<Output = Result<Self, Error>> + Send;
    /// One call and its answer.
    fn call(&self, call: v1::Call) -> impl Future<Output = Result<v1::Reply, Error>> + Send;
}

fn main() -> Result<(), Error> {
    let seconds = std::env::args().nth(1).map_or(Ok(2), |text| text.parse())?;
    let each = Duration::from_secs(seconds);
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    println!("| protocol | socket | calls at once | calls/s | CPU µs/call |");
    println!("|---|---|---|---|---|");
    for unix in [true, false] {
        runtime.block_on(async {
            measure::<unary::Unary>(directory.path(), unix, each).await?;
            measure::<streams::Streams>(directory.path(), unix, each).await?;
            measure::<raw::Raw>(directory.path(), unix, each).await
        })?;
    }
    Ok(())
}

async fn measure<P: Protocol>(directory: &Path, unix: bool, each: Duration) -> Result<(), Error> {
    let addr: Addr = if unix {
        format!("unix:{}", directory.join(P::NAME).display()).parse()?
    } else {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        free.to_string().parse()?
    };
    let serving = addr.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        match runtime.map(|runtime| runtime.block_on(P::serve(serving))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("{}: {error}", P::NAME),
            Err(error) => eprintln!("{}: {error}", P::NAME),
        }
    });
    let client = Arc::new(connected::<P>(&addr).await?);
    for concurrency in [1, 8, 32, 100] {
        let (calls, cpu) = load(&client, concurrency, each).await?;
        let per_second = calls as f64 / each.as_secs_f64();
        let socket = if unix { "Unix" } else { "TCP" };
        let cost = cpu.as_secs_f64() * 1e6 / calls as f64;
        let name = P::NAME;
        println!("| {name} | {socket} | {concurrency} | {per_second:.0} | {cost:.1} |");
    }
    Ok(())
}

async fn connected<P: Protocol>(addr: &Addr) -> Result<P, Error> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match P::connect(addr.clone()).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// So many callers, each of which calls again when it is answered.
async fn load<P: Protocol>(
    client: &Arc<P>,
    concurrency: usize,
    each: Duration,
) -> Result<(u64, Duration), Error> {
    let calls = Arc::new(AtomicU64::new(0));
    let before = cpu_time()?;
    let end = Instant::now() + each;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..concurrency {
        let (client, calls) = (Arc::clone(client), Arc::clone(&calls));
        callers.spawn(async move {
            while Instant::now() < end {
                let reply = client.call(noop()).await?;
                if &reply.body[..] != ANSWER || !reply.end {
                    return Err(Error::from("a wrong answer"));
                }
                calls.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok((calls.load(Ordering::Relaxed), cpu_time()? - before))
}

const ANSWER: &[u8] = b"mobula no-op is fine";

/// What a GET of a small client looks like.
fn noop() -> v1::Call {
    let header = |name: &str, value: &'static str| v1::Header {
        name: name.to_owned(),
        value: Bytes::from_static(value.as_bytes()),
    };
    v1::Call {
        replica_id: "default#noop#abcdefgh".to_owned(),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        prefix: "/".to_owned(),
        headers: vec![header("host", "127.0.0.1:8000")],
        request_id: "6e9f6ff0-3f1c-4b33-9b6b-0c8a8c3a3a55".to_owned(),
        end: true,
        ..v1::Call::default()
    }
}

fn answer() -> v1::Reply {
    v1::Reply {
        status: 200,
        headers: vec![v1::Header {
            name: "content-type".to_owned(),
            value: Bytes::from_static(b"text/plain"),
        }],
        body: Bytes::from_static(ANSWER),
        end: true,
        grpc_status: None,
    }
}

/// The process's user and system time (`proc(5)`, fields 14 and 15, in hundredths of a second).
fn cpu_time() -> Result<Duration, Error> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no process name")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || -> Result<u64, Error> { Ok(fields.next().ok_or("too short")?.parse()?) };
    Ok(Duration::from_millis(10 * (ticks()? + ticks()?)))
}
