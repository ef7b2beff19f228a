//! A network that can fail: a TCP proxy before one server.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Works,
    /// Nothing is forwarded; connections stay open, as when a machine is paused.
    Stalled,
    /// Requests arrive, answers do not.
    AnswersStalled,
    /// Connections are broken, and new ones at once.
    Broken,
}

pub struct Proxy {
    pub address: SocketAddr,
    network: watch::Sender<Network>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// Before the server with this URL.
    pub async fn before(url: &str) -> Proxy {
        let server = url.rsplit('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = watch::Sender::new(Network::Works);
        let seen = network.subscribe();
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *seen.borrow() != Network::Broken {
                    tokio::spawn(forward(client, server.clone(), seen.clone()));
                }
            }
        });
        Proxy {
            address,
            network,
            accepting,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn forward(client: TcpStream, server: String, network: watch::Receiver<Network>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut broken = network.clone();
    let requests = copy(from_client, to_server, network.clone(), |network| {
        network != Network::Stalled
    });
    let answers = copy(from_server, to_client, network, |network| {
        !matches!(network, Network::Stalled | Network::AnswersStalled)
    });
    // Both halves are dropped with the first that ends.
    tokio::select! {
        () = requests => {}
        () = answers => {}
        _ = broken.wait_for(|network| *network == Network::Broken) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
    passes: fn(Network) -> bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if network.wait_for(|network| passes(*network)).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
