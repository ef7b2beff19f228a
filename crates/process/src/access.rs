//! Who may join: what one of our processes shows to another, and what it asks of those that
//! come to it. A token, a certificate, both, or nothing where the socket is private anyway.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::Stream;
use futures_util::future::Either;
use thiserror::Error;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::follow::Current;
use crate::io::Io;
use crate::net::{self, Addr, Listener, NetError};
use crate::refusals::Refusals;
use crate::release::{self, PROTOCOL, PROTOCOL_KEY};
use crate::tls::Tls;
use crate::token::{Token, offered};

const AUTHORIZATION: &str = "authorization";

/// What a process shows, and asks of others. What is in force may change: it counts for what is
/// opened afterwards.
#[derive(Clone, Default)]
pub struct Credentials {
    token: Option<Current<Token>>,
    tls: Option<Current<Tls>>,
}

/// A connection that shows what it has to with every call.
pub type Connection = InterceptedService<Channel, Bearer>;

/// Puts the token and the release's protocol on every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

/// Lets only those in who know the token and are of a release that fits.
#[derive(Clone)]
pub struct Guard {
    token: Option<Current<Token>>,
    refusals: Arc<Mutex<Refusals>>,
}

/// Where a connection comes from; none for a Unix socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer(pub Option<SocketAddr>);

/// An address that everybody can reach while nobody is asked for anything.
#[derive(Debug, Error)]
#[error(
    "{what} {addr} can be reached from other machines and nothing says who may use it; \
     give --join-token-file (or --tls-cert, --tls-key and --tls-ca), or allow it with --insecure"
)]
pub struct Unprotected {
    /// Which of the addresses: "--cluster-addr".
    pub what: &'static str,
    /// The address.
    pub addr: Addr,
}

// === impl Credentials ===

impl Credentials {
    /// A token that calls must carry, certificates that connections over TCP must have.
    pub fn new(token: Option<Current<Token>>, tls: Option<Current<Tls>>) -> Credentials {
        Credentials { token, tls }
    }

    /// Connects, or says why not.
    ///
    /// # Errors
    /// When nobody answers there, or not as one of the cluster.
    pub async fn connect(&self, addr: &Addr) -> Result<Connection, NetError> {
        let channel = net::dial(addr, self.tls.as_ref()).await?;
        let bearer = self.token.as_ref().and_then(|token| {
            let mut value: MetadataValue<Ascii> = token.get().bearer().parse().ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(InterceptedService::new(channel, Bearer(bearer)))
    }

    /// The connections that come in, for tonic's `serve_with_incoming_shutdown`: over TLS if that
    /// is asked for and the listener is not a private socket.
    pub fn incoming(
        &self,
        listener: Listener,
    ) -> impl Stream<Item = io::Result<Io>> + Send + 'static {
        match (&self.tls, &listener) {
            (Some(tls), Listener::Tcp(_)) => Either::Left(listener.into_incoming_tls(tls.clone())),
            (Some(_), Listener::Unix(..)) | (None, _) => Either::Right(listener.into_incoming()),
        }
    }

    /// The service, for those who know the token.
    pub fn guard<S>(&self, service: S) -> InterceptedService<S, Guard> {
        let guard = Guard {
            token: self.token.clone(),
            refusals: Arc::default(),
        };
        InterceptedService::new(service, guard)
    }

    /// Refuses an address that other machines can reach when nothing would be asked of them.
    ///
    /// # Errors
    /// When it is such an address.
    pub fn allow(&self, what: &'static str, addr: &Addr) -> Result<(), Unprotected> {
        let protected = self.token.is_some() || self.tls.is_some();
        if protected || is_private(addr) {
            return Ok(());
        }
        let addr = addr.clone();
        Err(Unprotected { what, addr })
    }
}

/// Why a call was refused, in few words: a status as it is prints all of its metadata.
pub fn reason(status: &Status) -> String {
    match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    }
}

/// Whether only this machine can reach it. A name other than `localhost` may be anything.
pub fn is_private(addr: &Addr) -> bool {
    match addr {
        Addr::Unix(_) => true,
        Addr::Tcp(text) => {
            let host = text
                .rsplit_once(':')
                .map_or(text.as_str(), |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
    }
}

// === impl Interceptor ===

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert(AUTHORIZATION, value.clone());
        }
        let protocol = MetadataValue::from(PROTOCOL);
        request.metadata_mut().insert(PROTOCOL_KEY, protocol);
        Ok(request)
    }
}

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(refusal) = self.refusal(&request) else {
            return Ok(request);
        };
        let peer = peer(&request);
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.note(peer.map(|addr| addr.ip()), Instant::now()) {
            let peer = peer.map_or_else(|| "local".to_owned(), |addr| addr.to_string());
            tracing::warn!(peer, reason = refusal.message(), "a peer may not join");
        }
        Err(refusal)
    }
}

impl Guard {
    /// Why the call may not come in. Strangers are told nothing about the release.
    fn refusal(&self, request: &Request<()>) -> Option<Status> {
        if let Some(token) = &self.token {
            let header = request.metadata().get(AUTHORIZATION);
            match header.and_then(|value| offered(value.as_bytes())) {
                Some(offered) if token.get().is(offered) => {}
                Some(_) => return Some(Status::unauthenticated("the join token is wrong")),
                None => return Some(Status::unauthenticated("the join token is missing")),
            }
        }
        let shown = request.metadata().get(PROTOCOL_KEY);
        release::refusal(shown.map(MetadataValue::as_bytes)).map(Status::failed_precondition)
    }
}

fn peer(request: &Request<()>) -> Option<SocketAddr> {
    request.extensions().get::<Peer>()?.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Credentials {
        let token = Current::fixed(Token::new(text).unwrap());
        Credentials::new(Some(token), None)
    }

    fn guard(credentials: &Credentials) -> Guard {
        Guard {
            token: credentials.token.clone(),
            refusals: Arc::default(),
        }
    }

    fn request(header: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(header) = header {
            let value = header.parse().unwrap();
            request.metadata_mut().insert(AUTHORIZATION, value);
        }
        request
    }

    #[test]
    fn only_who_knows_the_token_gets_in() {
        let mut guard = guard(&token("0123456789abcdef"));
        assert!(guard.call(request(Some("Bearer 0123456789abcdef"))).is_ok());
        for (header, says) in [
            (None, "the join token is missing"),
            (Some("Basic 0123456789abcdef"), "the join token is missing"),
            (Some("Bearer 0123456789abcdeF"), "the join token is wrong"),
        ] {
            let status = guard.call(request(header)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
            assert_eq!(status.message(), says);
        }
    }

    #[test]
    fn without_a_token_nothing_is_asked() {
        assert!(guard(&Credentials::default()).call(request(None)).is_ok());
    }

    #[test]
    fn a_process_shows_its_release_and_a_release_that_is_too_far_away_is_refused() {
        let mut guard = guard(&Credentials::default());
        let ours = Bearer(None).call(request(None)).unwrap();
        assert!(guard.call(ours).is_ok());
        let mut far = request(None);
        let number = MetadataValue::from(PROTOCOL + 2);
        far.metadata_mut().insert(PROTOCOL_KEY, number);
        let status = guard.call(far).unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(status.message().contains("one release at a time"));
    }

    #[test]
    fn addresses_of_the_network_need_a_token_and_private_ones_do_not() {
        let open = Credentials::default();
        for private in [
            "unix:/run/h.sock",
            "127.0.0.1:1",
            "[::1]:1",
            "localhost:1",
            "127.9.9.9:1",
        ] {
            let addr: Addr = private.parse().unwrap();
            assert!(open.allow("--join", &addr).is_ok(), "{private}");
        }
        for public in [
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.1:1",
            "head:1",
            "localhost.example:1",
        ] {
            let addr: Addr = public.parse().unwrap();
            let error = open.allow("--join", &addr).unwrap_err().to_string();
            assert!(
                error.contains(public) && error.contains("--join"),
                "{error}"
            );
            assert!(token("0123456789abcdef").allow("--join", &addr).is_ok());
        }
    }
}
