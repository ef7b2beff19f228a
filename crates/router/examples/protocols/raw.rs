//! The same messages with four bytes of length before each, straight on the socket: what HTTP/2
//! costs, and with it go TLS, tokens and health checks as gRPC has them.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, BytesMut};
use futures_util::StreamExt as _;
use mobula_process::io::Io;
use mobula_process::net::{self, Addr};
use mobula_proto::numbers::NumberMap;
use mobula_proto::v1::{self, frame::Kind};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::streams::{answers, batches};
use super::{Error, Protocol};

pub struct Raw(Calls);

/// Calls that wait for their answers.
#[derive(Clone)]
pub struct Calls {
    out: mpsc::UnboundedSender<v1::Frame>,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    next: u64,
    waiting: NumberMap<oneshot::Sender<v1::Reply>>,
}

impl Calls {
    pub fn new(out: mpsc::UnboundedSender<v1::Frame>) -> Calls {
        Calls {
            out,
            open: Arc::default(),
        }
    }

    pub async fn call(&self, call: v1::Call) -> Result<v1::Reply, Error> {
        let (sender, receiver) = oneshot::channel();
        let request = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.next += 1;
            let request = open.next;
            open.waiting.insert(request, sender);
            request
        };
        let kind = Some(Kind::Call(call));
        self.out.send(v1::Frame { request, kind })?;
        Ok(receiver.await?)
    }

    pub fn came(&self, batch: v1::FrameBatch) {
        for frame in batch.frames {
            if let Some(Kind::Reply(reply)) = frame.kind {
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                let waiting = open.waiting.remove(&frame.request);
                drop(open);
                // Whoever waited may have left.
                waiting.map(|waiting| waiting.send(reply));
            }
        }
    }
}

async fn write(
    mut socket: impl AsyncWrite + Unpin,
    queue: mpsc::UnboundedReceiver<v1::Frame>,
) -> Result<(), Error> {
    let mut batches = pin!(batches(queue));
    let mut buffer = BytesMut::new();
    while let Some(batch) = batches.next().await {
        buffer.clear();
        let size = u32::try_from(batch.encoded_len())?;
        buffer.extend_from_slice(&size.to_be_bytes());
        batch.encode(&mut buffer)?;
        socket.write_all(&buffer).await?;
    }
    Ok(())
}

async fn read(
    mut socket: impl AsyncRead + Unpin,
    mut came: impl FnMut(v1::FrameBatch),
) -> Result<(), Error> {
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    loop {
        while let Some(size) = buffer.first_chunk::<4>() {
            let size = u32::from_be_bytes(*size) as usize;
            if buffer.len() < 4 + size {
                break;
            }
            buffer.advance(4);
            came(v1::FrameBatch::decode(buffer.split_to(size).freeze())?);
        }
        buffer.reserve(16 * 1024);
        if socket.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

impl Protocol for Raw {
    const NAME: &'static str = "bare frames";

    async fn serve(addr: Addr) -> Result<(), Error> {
        let mut incoming = pin!(net::listen(&addr).await?.into_incoming());
        while let Some(socket) = incoming.next().await {
            let socket: Io = socket?;
            let (reader, writer) = tokio::io::split(socket);
            let (out, queue) = mpsc::unbounded_channel();
            tokio::spawn(write(writer, queue));
            tokio::spawn(read(reader, move |batch| answers(batch, &out)));
        }
        Ok(())
    }

    async fn connect(addr: Addr) -> Result<Raw, Error> {
        let (out, queue) = mpsc::unbounded_channel();
        let calls = Calls::new(out);
        let told = calls.clone();
        let came = move |batch| told.came(batch);
        match addr {
            Addr::Unix(path) => {
                let (reader, writer) = UnixStream::connect(path).await?.into_split();
                tokio::spawn(write(writer, queue));
                tokio::spawn(read(reader, came));
            }
            Addr::Tcp(addr) => {
                let socket = TcpStream::connect(addr).await?;
                socket.set_nodelay(true)?;
                let (reader, writer) = socket.into_split();
                tokio::spawn(write(writer, queue));
                tokio::spawn(read(reader, came));
            }
        }
        Ok(Raw(calls))
    }

    async fn call(&self, call: v1::Call) -> Result<v1::Reply, Error> {
        self.0.call(call).await
    }
}
