//! Requests at a constant rate. Each is due at its time whether or not the ones before it were
//! answered: where its connection is still busy then, its latency counts from when it was due, so
//! that a stalled server cannot hide its stall (coordinated omission). Where the connection was
//! idle it counts from when it was sent: timers here fire up to a millisecond late, which is not
//! the server's doing.
//!
//! At rate 0 each connection sends its next request as soon as the last one was answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Error;

/// Failures that are printed; the rest is only counted.
const FAILURES_TOLD_MAX: usize = 1000;
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// One kind of request.
pub struct Kind {
    pub method: Method,
    pub path: String,
    pub body: Bytes,
    /// Whether the body has to come back.
    pub is_echo: bool,
}

/// How much, and for how long.
#[derive(Clone, Copy)]
pub struct Pace {
    pub rate: u32,
    pub seconds: u32,
    pub connections: u32,
}

/// When the requests of one connection are due.
#[derive(Clone, Copy)]
struct Schedule {
    begin: Instant,
    pause: Duration,
    end: Instant,
}

struct Client {
    url: Uri,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What came of the requests of one connection.
#[derive(Default)]
struct Tally {
    micros: Vec<u32>,
    /// By kind and outcome: a status, `garbled`, or `none`.
    outcomes: BTreeMap<(usize, String), u64>,
}

/// Sends the kinds in turn, and prints what came of them.
pub async fn load(url: &str, kinds: &'static [Kind], pace: Pace) -> Result<(), Error> {
    let url: Uri = url.parse()?;
    // Each connection has its part of the rate, shifted against the others.
    let pause = match pace.rate {
        0 => Duration::ZERO,
        rate => Duration::from_secs_f64(f64::from(pace.connections) / f64::from(rate)),
    };
    let begin = Instant::now() + Duration::from_millis(200);
    let end = begin + Duration::from_secs(u64::from(pace.seconds));
    let mut clients = JoinSet::new();
    for n in 0..pace.connections {
        let mut client = Client {
            url: url.clone(),
            sender: None,
        };
        client.connect().await?;
        let begin = begin + pause * n / pace.connections;
        let schedule = Schedule { begin, pause, end };
        clients.spawn(send(client, kinds, n as usize, schedule));
    }
    let mut all = Tally::default();
    while let Some(done) = clients.join_next().await {
        let tally = done?;
        all.micros.extend(tally.micros);
        for (key, count) in tally.outcomes {
            *all.outcomes.entry(key).or_default() += count;
        }
    }
    report(all, kinds, pace.rate);
    Ok(())
}

fn report(mut all: Tally, kinds: &[Kind], rate: u32) {
    let mut failed = 0;
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for ((kind, outcome), count) in &all.outcomes {
        let Kind { method, path, .. } = &kinds[*kind];
        *lines
            .entry(format!("{method} {path} {outcome}"))
            .or_default() += count;
        failed += if outcome.starts_with('2') { 0 } else { *count };
    }
    for (line, count) in lines {
        println!("{line} {count}");
    }
    println!("requests {} failed {failed} rate {rate}", all.micros.len());
    all.micros.sort_unstable();
    let at = |q: f64| {
        let index = (q * all.micros.len() as f64) as usize;
        let took = all
            .micros
            .get(index.min(all.micros.len().saturating_sub(1)));
        took.map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    };
    println!(
        "p50 {:.3} p90 {:.3} p99 {:.3} p99.9 {:.3} max {:.3} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

async fn send(mut client: Client, kinds: &'static [Kind], first: usize, when: Schedule) -> Tally {
    let mut tally = Tally::default();
    let mut due = when.begin;
    for n in first.. {
        let mut from = Instant::now();
        if when.end <= if when.pause.is_zero() { from } else { due } {
            break;
        }
        if from < due {
            tokio::time::sleep_until(due.into()).await;
            from = Instant::now();
        } else if !when.pause.is_zero() {
            from = due;
        }
        let kind = n % kinds.len();
        let outcome = client.ask(&kinds[kind]).await;
        let micros = from.elapsed().as_micros();
        tally.micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
        *tally.outcomes.entry((kind, outcome)).or_default() += 1;
        due += when.pause;
    }
    tally
}

// === impl Client ===

impl Client {
    async fn connect(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Error> {
        let authority = self.url.authority().ok_or("the URL names no host")?;
        let socket = TcpStream::connect(authority.as_str()).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(self.sender.insert(sender))
    }

    /// Asks, and tells what came of it.
    async fn ask(&mut self, kind: &Kind) -> String {
        let (outcome, text) = match self.answer(kind).await {
            Ok((status, body)) if (200..300).contains(&status) => {
                if !kind.is_echo || body == kind.body {
                    return status.to_string();
                }
                ("garbled".to_owned(), format!("{} bytes", body.len()))
            }
            Ok((status, body)) => (
                status.to_string(),
                String::from_utf8_lossy(&body).into_owned(),
            ),
            Err(error) => {
                self.sender = None;
                ("none".to_owned(), error.to_string())
            }
        };
        tell(kind, &outcome, &text);
        outcome
    }

    async fn answer(&mut self, kind: &Kind) -> Result<(u16, Bytes), Error> {
        let authority = self.url.authority().ok_or("the URL names no host")?;
        let request = Request::builder()
            .method(&kind.method)
            .uri(&kind.path)
            .header("host", authority.as_str())
            .body(Full::new(kind.body.clone()))?;
        let usable = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.sender = None;
        }
        let sender = match &mut self.sender {
            Some(sender) => sender,
            None => match self.connect().await {
                Ok(sender) => sender,
                Err(error) => {
                    // The pause is for a server that is away.
                    tokio::time::sleep(CONNECT_PAUSE).await;
                    return Err(error);
                }
            },
        };
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, body))
    }
}

/// One line for a request that failed: when, which, how.
fn tell(kind: &Kind, outcome: &str, text: &str) {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    if TOLD.fetch_add(1, Ordering::Relaxed) < FAILURES_TOLD_MAX {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.unwrap_or_default().as_secs_f64();
        let text: String = text.chars().take(200).collect();
        let text = text.replace('\n', " ");
        println!(
            "failed {seconds:.3} {} {} {outcome} {text}",
            kind.method, kind.path
        );
    }
}
