//! Who is let in on a port, and how it closes: those who are in are told to go, those who come
//! meanwhile get one answer, and only then nobody is let in any more.

use std::sync::Arc;

use mobula_process::follow::Current;
use mobula_process::https::Https;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Patience;
use super::listener::Port;
use super::serve::{Connection, Ends};
use crate::limits::{
    ACCEPT_RETRY_DELAY, CLOSING_SECONDS_MAX, CONNECTIONS_MAX, DRAIN_SECONDS_MAX,
    HANDSHAKE_SECONDS_MAX,
};

/// Lets clients in.
pub struct Door<P> {
    service: Arc<P>,
    certificate: Option<Current<Https>>,
    patience: Patience,
    room: Arc<Semaphore>,
    close: CancellationToken,
    /// Cancelled when the time for draining is over.
    cut: CancellationToken,
}

impl<P: Port> Door<P> {
    /// A door that closes when it is told to.
    pub fn new(
        service: P,
        certificate: Option<Current<Https>>,
        patience: Patience,
        close: &CancellationToken,
    ) -> Door<P> {
        Door {
            service: Arc::new(service),
            certificate,
            patience,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            close: close.clone(),
            cut: CancellationToken::new(),
        }
    }

    /// Accepts until told to close; then lets what is in progress end, up to a limit.
    pub async fn serve(self, listener: TcpListener) {
        let connections = TaskTracker::new();
        tokio::select! {
            () = self.let_in(&listener, &connections) => {}
            () = self.close.cancelled() => {}
        }
        let drained_at = Instant::now() + DRAIN_SECONDS_MAX;
        connections.close();
        // A load balancer needs a moment to see that this router goes. Until then refusing its
        // connections would be refusing requests.
        let late = TaskTracker::new();
        let gone = timeout(CLOSING_SECONDS_MAX, connections.wait());
        tokio::select! {
            () = self.let_in(&listener, &late) => {}
            _ = gone => {}
        }
        self.let_in_the_last(listener, &late);
        late.close();
        let all = async { tokio::join!(connections.wait(), late.wait()) };
        if timeout_at(drained_at, all).await.is_err() {
            let left = connections.len() + late.len();
            tracing::warn!(left, "connections cut off after draining");
            self.cut.cancel();
            tokio::join!(connections.wait(), late.wait());
        }
    }

    async fn let_in(&self, listener: &TcpListener, connections: &TaskTracker) {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((socket, _)) => self.admit(socket, permit, connections),
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Those whose connection the kernel has taken, who may have sent a request already: they
    /// would be reset with the listener.
    fn let_in_the_last(&self, listener: TcpListener, connections: &TaskTracker) {
        // Not through the runtime, which learns of a connection later than the kernel.
        let Ok(listener) = listener.into_std() else {
            return;
        };
        while let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            // An error: there is nobody left.
            let Ok((socket, _)) = listener.accept() else {
                return;
            };
            let socket = socket
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(socket));
            match socket {
                Ok(socket) => self.admit(socket, permit, connections),
                Err(error) => tracing::warn!(%error, "connection not accepted"),
            }
        }
    }

    fn admit(&self, socket: TcpStream, permit: OwnedSemaphorePermit, connections: &TaskTracker) {
        // Answers go out whole; waiting for more only adds delay.
        drop(socket.set_nodelay(true));
        let ends = Ends {
            close: self.close.clone(),
            cut: self.cut.clone(),
        };
        let connection = Connection::new(Arc::clone(&self.service), self.patience, ends);
        // Two tasks, so that a connection without TLS does not take the room of one with.
        match self.certificate.clone() {
            None => connections.spawn(async move {
                connection.serve(socket).await;
                drop(permit);
            }),
            Some(certificate) => connections.spawn(async move {
                // On the heap: what a handshake needs is not needed after it.
                let https = certificate.get();
                let accepting = Box::pin(https.accept(socket, HANDSHAKE_SECONDS_MAX));
                let accepted = connection.unless_cut(accepting).await;
                match accepted {
                    Some(Ok(stream)) => connection.serve(stream).await,
                    // The client's doing, and there may be any number of them.
                    Some(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    None => {}
                }
                drop(permit);
            }),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::body::Incoming;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::super::serve::tests::PATIENCE;
    use super::*;
    use crate::core::Listening;

    /// Answers, but `/slow` only when it is told to.
    #[derive(Clone, Default)]
    struct Service {
        begun: Arc<Notify>,
        go: Arc<Notify>,
    }

    impl Port for Service {
        type Body = Full<Bytes>;

        async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
            if request.uri().path() == "/slow" {
                self.begun.notify_one();
                self.go.notified().await;
            }
            Response::new(Full::from("done"))
        }

        fn note(_listening: &mut Listening, _outcome: Result<String, String>) {}
    }

    async fn sends(addr: SocketAddr, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    async fn all_of(mut client: TcpStream) -> String {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn is_the_last_answer(answer: &str) -> bool {
        answer.starts_with("HTTP/1.1 200 OK")
            && answer.contains("connection: close")
            && answer.ends_with("done")
    }

    #[tokio::test]
    async fn who_comes_while_the_port_closes_gets_one_answer_and_who_comes_after_it_none() {
        let (service, close) = (Service::default(), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let door = Door::new(service.clone(), None, PATIENCE, &close);
        let serving = tokio::spawn(door.serve(listener));
        let in_progress = sends(addr, "/slow").await;
        service.begun.notified().await;
        close.cancel();
        for _ in 0..2 {
            let late = all_of(sends(addr, "/").await).await;
            assert!(is_the_last_answer(&late), "{late}");
        }
        service.go.notify_one();
        let answer = all_of(in_progress).await;
        assert!(is_the_last_answer(&answer), "{answer}");
        serving.await.unwrap();
        let refused = TcpStream::connect(addr).await.map(drop);
        assert_eq!(
            refused.map_err(|error| error.kind()),
            Err(std::io::ErrorKind::ConnectionRefused)
        );
    }

    #[tokio::test]
    async fn whom_the_kernel_let_in_before_the_port_closed_is_not_reset() {
        let close = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let early = [sends(addr, "/").await, sends(addr, "/").await];
        close.cancel();
        let door = Door::new(Service::default(), None, PATIENCE, &close);
        let connections = TaskTracker::new();
        door.let_in_the_last(listener, &connections);
        assert_eq!(connections.len(), 2);
        for client in early {
            let answer = all_of(client).await;
            assert!(is_the_last_answer(&answer), "{answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_never_cease_to_come_do_not_keep_the_port_open() {
        let (service, close) = (Service::default(), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let door = Door::new(service.clone(), None, PATIENCE, &close);
        let serving = tokio::spawn(door.serve(listener));
        let _in_progress = sends(addr, "/slow").await;
        service.begun.notified().await;
        close.cancel();
        while let Ok(client) = TcpStream::connect(addr).await {
            drop(client);
            tokio::time::advance(CLOSING_SECONDS_MAX / 10).await;
        }
        service.go.notify_one();
        serving.await.unwrap();
    }
}
