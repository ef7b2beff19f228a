//! Requests to etcd: which member, with which token, for how long, and again when that is safe.
//!
//! One member is preferred until it fails. What was surely not executed is asked of the next
//! member, and so is what only reads; a write that may have been executed is never sent twice.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::config::{EtcdConfig, EtcdUser};
use super::failure::Failure;
use super::pb;
use crate::StoreError;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;

/// For one request with all its attempts: an election inside etcd takes one to two seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// For one member to answer a read, before the next one is asked.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The same for keeping a lease: two members can be asked before the shortest lease is over.
const RENEWAL_TIMEOUT: Duration = Duration::from_millis(500);

/// After every member has been asked once in vain.
const ROUND_DELAY: Duration = Duration::from_millis(100);

/// A page of the largest values, or the largest part of a watch's history, with room.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Asks a member to refuse when it is cut off from the others, instead of being silent.
const REQUIRE_LEADER: (&str, &str) = ("hasleader", "true");

type Token = MetadataValue<Ascii>;

/// etcd, whichever member answers.
pub(super) struct Client {
    members: Vec<Channel>,
    preferred: AtomicUsize,
    user: Option<EtcdUser>,
    token: Mutex<Option<Token>>,
    /// One authentication at a time: it costs etcd a tenth of a second of hashing.
    authenticating: tokio::sync::Mutex<()>,
}

/// How a request may be treated.
#[derive(Clone, Copy)]
struct Manner {
    writes: bool,
    attempt: Duration,
    with_token: bool,
}

const READ: Manner = Manner {
    writes: false,
    attempt: READ_TIMEOUT,
    with_token: true,
};

/// A write has all the time there is: giving up early makes its outcome unknown.
const WRITE: Manner = Manner {
    writes: true,
    attempt: REQUEST_TIMEOUT,
    with_token: true,
};

const RENEWAL: Manner = Manner {
    writes: false,
    attempt: RENEWAL_TIMEOUT,
    with_token: true,
};

const AUTHENTICATION: Manner = Manner {
    writes: false,
    attempt: READ_TIMEOUT,
    with_token: false,
};

// === impl Client ===

impl Client {
    /// Connects when first used.
    pub(super) fn new(config: EtcdConfig) -> Result<Client, StoreError> {
        let endpoints = config.tonic_endpoints()?;
        Ok(Client {
            members: endpoints
                .iter()
                .map(|endpoint| endpoint.connect_lazy())
                .collect(),
            preferred: AtomicUsize::new(0),
            user: config.user,
            token: Mutex::default(),
            authenticating: tokio::sync::Mutex::default(),
        })
    }

    pub(super) async fn range(
        &self,
        range: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, StoreError> {
        self.try_range(range).await.map_err(Failure::of_read)
    }

    /// `None` if the revision asked for was compacted.
    pub(super) async fn range_at(
        &self,
        range: pb::RangeRequest,
    ) -> Result<Option<pb::RangeResponse>, StoreError> {
        match self.try_range(range).await {
            Ok(page) => Ok(Some(page)),
            Err(Failure::Compacted) => Ok(None),
            Err(failure) => Err(failure.of_read()),
        }
    }

    async fn try_range(&self, range: pb::RangeRequest) -> Result<pb::RangeResponse, Failure> {
        self.call(READ, range, |channel, request| async move {
            let mut client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            client.range(request).await
        })
        .await
    }

    pub(super) async fn transact(
        &self,
        transaction: pb::TxnRequest,
    ) -> Result<pb::TxnResponse, StoreError> {
        let done = self.call(WRITE, transaction, |channel, request| async move {
            KvClient::new(channel).txn(request).await
        });
        done.await.map_err(Failure::of_write)
    }

    pub(super) async fn grant(&self, seconds: i64) -> Result<pb::LeaseGrantResponse, StoreError> {
        let grant = pb::LeaseGrantRequest {
            ttl: seconds,
            id: 0,
        };
        // A lease nobody knows of is empty and runs out: as harmless as a read.
        let done = self.call(READ, grant, |channel, request| async move {
            LeaseClient::new(channel).lease_grant(request).await
        });
        done.await.map_err(Failure::of_read)
    }

    pub(super) async fn revoke(&self, lease: i64) -> Result<(), StoreError> {
        let revoke = pb::LeaseRevokeRequest { id: lease };
        // Twice is the same as once: it may be repeated like a read.
        let done = self.call(READ, revoke, |channel, request| async move {
            LeaseClient::new(channel).lease_revoke(request).await
        });
        match done.await {
            Ok(_) | Err(Failure::NoLease(_)) => Ok(()),
            Err(failure) => Err(failure.of_write()),
        }
    }

    /// The lease's time from now on in seconds; 0 if there is no such lease.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<i64, StoreError> {
        let keep_alive = pb::LeaseKeepAliveRequest { id: lease };
        // One question a stream: a stream that stays open would have to be opened again anyway
        // when it breaks, and a renewal every second or two is no load.
        let done = self.call(RENEWAL, keep_alive, |channel, request| async move {
            let request = request.map(|question| stream::iter([question]));
            let answers = LeaseClient::new(channel).lease_keep_alive(request).await?;
            let answer = answers.into_inner().message().await?;
            answer
                .map(Response::new)
                .ok_or_else(|| Status::unknown("the stream ended without an answer"))
        });
        done.await
            .map(|answer| answer.ttl)
            .map_err(Failure::of_read)
    }

    pub(super) async fn open_watch(
        &self,
        create: pb::WatchCreateRequest,
    ) -> Result<Streaming<pb::WatchResponse>, StoreError> {
        let done = self.call(READ, create, |channel, request| async move {
            let request = request.map(|create| {
                let create = pb::WatchRequest {
                    request_union: Some(RequestUnion::CreateRequest(create)),
                };
                // Open for good: the end of the questions would be the end of the watch.
                stream::iter([create]).chain(stream::pending())
            });
            let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            client.watch(request).await
        });
        done.await.map_err(Failure::of_read)
    }

    async fn call<Q, A, F>(
        &self,
        manner: Manner,
        question: Q,
        ask: impl Fn(Channel, Request<Q>) -> F + Send + Sync,
    ) -> Result<A, Failure>
    where
        Q: Clone + Send,
        F: Future<Output = Result<Response<A>, Status>> + Send,
    {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut token_was_refused = false;
        let mut attempts = 0;
        loop {
            let token = match manner.with_token {
                true => self.token().await?,
                false => None,
            };
            let member = self.preferred.load(Ordering::Relaxed) % self.members.len();
            let request = request(question.clone(), token.clone());
            let attempt_ends = deadline.min(Instant::now() + manner.attempt);
            let asked = ask(self.members[member].clone(), request);
            let failure = match timeout_at(attempt_ends, asked).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => Failure::of(&status),
                Err(_) => Failure::Unknown(format!("no answer within {:?}", manner.attempt)),
            };
            attempts += 1;
            match &failure {
                Failure::NotExecuted(_) => self.pass_over(member),
                Failure::Unknown(_) if manner.writes => {
                    self.pass_over(member);
                    return Err(failure);
                }
                Failure::Unknown(_) => self.pass_over(member),
                Failure::TokenRefused(_) if !token_was_refused && self.user.is_some() => {
                    token_was_refused = true;
                    self.forget_token(token.as_ref());
                }
                Failure::TokenRefused(_)
                | Failure::Invalid(_)
                | Failure::Compacted
                | Failure::NoLease(_) => return Err(failure),
            }
            if attempts % self.members.len() == 0 && !token_was_refused {
                sleep(ROUND_DELAY).await;
            }
            if Instant::now() >= deadline {
                return Err(failure);
            }
        }
    }

    /// The next request goes to the next member, unless another one has seen to that already.
    fn pass_over(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        let _already_passed =
            self.preferred
                .compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The token to be sent, if we are a user at all.
    async fn token(&self) -> Result<Option<Token>, Failure> {
        let Some(user) = &self.user else {
            return Ok(None);
        };
        if let Some(token) = self.known_token() {
            return Ok(Some(token));
        }
        let _one_at_a_time = self.authenticating.lock().await;
        if let Some(token) = self.known_token() {
            return Ok(Some(token));
        }
        let question = pb::AuthenticateRequest {
            name: user.name.clone(),
            password: user.password.clone(),
        };
        let ask = |channel, request: Request<pb::AuthenticateRequest>| async move {
            AuthClient::new(channel).authenticate(request).await
        };
        let answer = Box::pin(self.call(AUTHENTICATION, question, ask)).await?;
        let token: Token = answer
            .token
            .parse()
            .map_err(|_| Failure::Unknown("etcd's token is no header value".to_owned()))?;
        self.lock_token().replace(token.clone());
        Ok(Some(token))
    }

    fn known_token(&self) -> Option<Token> {
        self.lock_token().clone()
    }

    /// Unless it has been replaced in the meantime.
    fn forget_token(&self, refused: Option<&Token>) {
        self.lock_token().take_if(|token| Some(&*token) == refused);
    }

    fn lock_token(&self) -> std::sync::MutexGuard<'_, Option<Token>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request<Q>(question: Q, token: Option<Token>) -> Request<Q> {
    let mut request = Request::new(question);
    let (key, value) = REQUIRE_LEADER;
    request
        .metadata_mut()
        .insert(key, MetadataValue::from_static(value));
    if let Some(token) = token {
        request.metadata_mut().insert("token", token);
    }
    request
}
