//! Many workers and routers that do nothing but speak to a head: for measuring the control
//! plane alone. A replica is running as soon as it is assigned; a table is in force as soon as
//! it arrives. The first router reads all of it, as real ones do; the others, which would do so
//! on machines of their own, only look for its version.
//!
//!     fleet HEAD_ADDR WORKERS CPUS ROUTERS
//!
//! Each line on standard input is answered by one line: `running` with how many replicas run,
//! `tables` with the oldest and the newest version in force and when the last router took it
//! (Unix milliseconds). Ends with its input.

use std::collections::BTreeMap;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Buf;
use futures_util::{Stream, StreamExt};
use http::uri::PathAndQuery;
use mobula_proto::v1;
use mobula_proto::v1::cluster_service_client::ClusterServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstEncoder;

const HEARTBEAT: Duration = Duration::from_secs(1);

/// A table of ten thousand replicas has a few megabytes.
const TABLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one router has in force, and since when.
#[derive(Default)]
struct InForce {
    version: AtomicU64,
    since_ms: AtomicU64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [head, workers, cpus, routers] = arguments.as_slice() else {
        return Err("usage: fleet HEAD_ADDR WORKERS CPUS ROUTERS".into());
    };
    let endpoint = Endpoint::from_shared(format!("http://{head}"))?;
    let cpus: f64 = cpus.parse()?;
    let running: Arc<Vec<AtomicU64>> = Arc::new(many(workers.parse()?));
    for index in 0..running.len() {
        let channel = endpoint.connect().await?;
        tokio::spawn(worker(channel, index, cpus, Arc::clone(&running)));
    }
    let tables: Arc<Vec<InForce>> = Arc::new(many(routers.parse()?));
    for index in 0..tables.len() {
        let channel = endpoint.connect().await?;
        tokio::spawn(router(channel, index, Arc::clone(&tables)));
    }
    println!("joined");
    tokio::task::spawn_blocking(move || answer(&running, &tables)).await?
}

fn answer(running: &[AtomicU64], tables: &[InForce]) -> Result<(), Box<dyn Error + Send + Sync>> {
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "running" => println!("{}", sum(running)),
            "tables" => println!("{}", in_force(tables)),
            other => return Err(format!("'{other}' is not a question").into()),
        }
    }
    Ok(())
}

fn many<T: Default>(count: usize) -> Vec<T> {
    (0..count).map(|_| T::default()).collect()
}

fn sum(counts: &[AtomicU64]) -> u64 {
    counts
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .sum()
}

fn in_force(tables: &[InForce]) -> String {
    let versions = || tables.iter().map(|t| t.version.load(Ordering::Relaxed));
    let last = tables.iter().map(|t| t.since_ms.load(Ordering::Relaxed));
    let number = |found: Option<u64>| found.unwrap_or(0);
    format!(
        "{} {} {}",
        number(versions().min()),
        number(versions().max()),
        number(last.max())
    )
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

async fn worker(channel: Channel, index: usize, cpus: f64, running: Arc<Vec<AtomicU64>>) {
    let (reports, queued) = mpsc::channel(4);
    let mut report = v1::WorkerReport {
        worker_id: format!("{index:056x}"),
        node_id: format!("{:056x}", 1_000_000 + index),
        node_ip: "127.0.0.1".to_owned(),
        pid: index as u32 + 1,
        data_addr: format!("127.0.0.1:{}", 10_000 + index),
        capacity: Some(v1::Resources {
            cpus,
            ..Default::default()
        }),
        ..Default::default()
    };
    if reports.send(report.clone()).await.is_err() {
        return;
    }
    let mut client = ClusterServiceClient::new(channel);
    let mut assignments = match client.worker_session(ReceiverStream::new(queued)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return eprintln!("worker {index}: {status}"),
    };
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            message = assignments.message() => match message {
                Ok(Some(assignment)) => take(&mut report, assignment),
                Ok(None) => return eprintln!("worker {index}: the session ended"),
                Err(status) => return eprintln!("worker {index}: {}", status.message()),
            },
            _ = heartbeat.tick() => {}
        }
        if let Some(count) = running.get(index) {
            count.store(report.replicas.len() as u64, Ordering::Relaxed);
        }
        if reports.send(report.clone()).await.is_err() {
            return;
        }
    }
}

fn take(report: &mut v1::WorkerReport, assignment: v1::WorkerAssignment) {
    let before: BTreeMap<String, v1::ReplicaReport> = std::mem::take(&mut report.replicas)
        .into_iter()
        .map(|replica| (replica.replica_id.clone(), replica))
        .collect();
    report.assignment_version = assignment.version;
    report.replicas = assignment
        .replicas
        .into_iter()
        .map(|assigned| {
            let known = before.get(&assigned.replica_id);
            v1::ReplicaReport {
                start_time_s: known.map_or_else(|| unix_ms() as f64 / 1000.0, |k| k.start_time_s),
                replica_id: assigned.replica_id,
                application: assigned.application,
                deployment: assigned.deployment,
                code_version: assigned.code_version,
                config_version: assigned.config_version,
                state: v1::ReplicaState::Running.into(),
                ..Default::default()
            }
        })
        .collect();
}

async fn router(channel: Channel, index: usize, tables: Arc<Vec<InForce>>) {
    let (reports, queued) = mpsc::channel(4);
    let mut report = v1::RouterReport {
        router_id: format!("{:056x}", 2_000_000 + index),
        node_id: format!("{:056x}", 1_000_000 + index),
        node_ip: "127.0.0.1".to_owned(),
        pid: index as u32 + 1,
        http_addr: format!("127.0.0.1:{}", 20_000 + index),
        ..Default::default()
    };
    if reports.send(report.clone()).await.is_err() {
        return;
    }
    let opened = if index == 0 {
        whole_tables(channel, queued).await
    } else {
        versions(channel, queued).await
    };
    let mut updates = match opened {
        Ok(updates) => updates,
        Err(status) => return eprintln!("router {index}: {status}"),
    };
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            next = updates.next() => match next {
                Some(Ok(version)) => {
                    report.table_version = version;
                    if let Some(held) = tables.get(index) {
                        held.since_ms.store(unix_ms(), Ordering::Relaxed);
                        held.version.store(version, Ordering::Relaxed);
                    }
                }
                None => return eprintln!("router {index}: the session ended"),
                Some(Err(status)) => return eprintln!("router {index}: {}", status.message()),
            },
            _ = heartbeat.tick() => {}
        }
        if reports.send(report.clone()).await.is_err() {
            return;
        }
    }
}

type Versions = Pin<Box<dyn Stream<Item = Result<u64, Status>> + Send>>;

async fn whole_tables(
    channel: Channel,
    reports: mpsc::Receiver<v1::RouterReport>,
) -> Result<Versions, Status> {
    let client = ClusterServiceClient::new(channel);
    let mut client = client.max_decoding_message_size(TABLE_BYTES_MAX);
    let tables = client.router_session(ReceiverStream::new(reports)).await?;
    let tables = tables.into_inner();
    Ok(Box::pin(
        tables.map(|table| table.map(|table| table.version)),
    ))
}

async fn versions(
    channel: Channel,
    reports: mpsc::Receiver<v1::RouterReport>,
) -> Result<Versions, Status> {
    let mut client = Grpc::new(channel).max_decoding_message_size(TABLE_BYTES_MAX);
    let ready = client.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/mobula.cluster.v1.ClusterService/RouterSession");
    let reports = Request::new(ReceiverStream::new(reports));
    let versions = client.streaming(reports, path, VersionCodec).await?;
    Ok(Box::pin(versions.into_inner()))
}

/// Reports out, and of each table that comes its version alone.
struct VersionCodec;

struct VersionDecoder;

impl Codec for VersionCodec {
    type Encode = v1::RouterReport;
    type Decode = u64;
    type Encoder = ProstEncoder<v1::RouterReport>;
    type Decoder = VersionDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        VersionDecoder
    }
}

impl Decoder for VersionDecoder {
    type Item = u64;
    type Error = Status;

    /// The version is the first field of a table: tag 1, a variable-length integer.
    fn decode(&mut self, table: &mut DecodeBuf<'_>) -> Result<Option<u64>, Status> {
        let mut version = 0;
        if table.has_remaining() && table.get_u8() == 0x08 {
            for shift in (0..64).step_by(7) {
                let byte = if table.has_remaining() {
                    table.get_u8()
                } else {
                    0
                };
                version |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
        }
        table.advance(table.remaining());
        Ok(Some(version))
    }
}
