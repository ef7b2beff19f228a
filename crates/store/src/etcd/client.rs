//! Requests to etcd: which member, with which token, for how long, and again when that is safe.
//!
//! One member is preferred until it fails. What was surely not executed is asked of the next
//! member, and so is what only reads; a write that may have been executed is never sent twice.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Channel, Client as EtcdClient, ConnectOptions, Error, GetOptions, Txn, WatchOptions,
    WatchStream,
};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Endpoint;

use super::config::{EtcdConfig, EtcdTls};
use super::connector::Secure;
use super::failure::Failure;
use super::pb;
use crate::StoreError;

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

/// etcd, whichever member answers.
pub(super) struct Client {
    members: Vec<Member>,
    preferred: AtomicUsize,
    /// Whether a token that is refused can be replaced.
    has_user: bool,
}

/// One client per member: the balancing of `etcd-client` neither says over which member a
/// request went nor lets the next one be asked.
struct Member {
    endpoint: Endpoint,
    tls: Option<EtcdTls>,
    options: ConnectOptions,
    /// Made when first used, because making it authenticates.
    client: OnceCell<EtcdClient>,
}

/// A lease as etcd granted it.
pub(super) struct Granted {
    pub(super) id: i64,
    pub(super) time_to_live: Duration,
}

/// How a request may be treated.
#[derive(Clone, Copy)]
struct Manner {
    writes: bool,
    attempt: Duration,
}

const READ: Manner = Manner {
    writes: false,
    attempt: READ_TIMEOUT,
};

/// A write has all the time there is: giving up early makes its outcome unknown.
const WRITE: Manner = Manner {
    writes: true,
    attempt: REQUEST_TIMEOUT,
};

const RENEWAL: Manner = Manner {
    writes: false,
    attempt: RENEWAL_TIMEOUT,
};

// === impl Client ===

impl Client {
    /// Connects when first used.
    pub(super) fn new(config: EtcdConfig) -> Result<Client, StoreError> {
        // A member that is cut off from the others is to refuse instead of being silent.
        let mut options = ConnectOptions::new()
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(user) = &config.user {
            options = options.with_user(&user.name, &user.password);
        }
        let endpoints = config.tonic_endpoints()?.into_iter();
        Ok(Client {
            members: endpoints
                .map(|endpoint| Member {
                    endpoint,
                    tls: config.tls.clone(),
                    options: options.clone(),
                    client: OnceCell::new(),
                })
                .collect(),
            preferred: AtomicUsize::new(0),
            has_user: config.user.is_some(),
        })
    }

    pub(super) async fn range(
        &self,
        key: Vec<u8>,
        options: GetOptions,
    ) -> Result<pb::RangeResponse, StoreError> {
        self.try_range(key, options).await.map_err(Failure::of_read)
    }

    /// `None` if the revision asked for was compacted.
    pub(super) async fn range_at(
        &self,
        key: Vec<u8>,
        options: GetOptions,
    ) -> Result<Option<pb::RangeResponse>, StoreError> {
        match self.try_range(key, options).await {
            Ok(page) => Ok(Some(page)),
            Err(Failure::Compacted) => Ok(None),
            Err(failure) => Err(failure.of_read()),
        }
    }

    async fn try_range(
        &self,
        key: Vec<u8>,
        options: GetOptions,
    ) -> Result<pb::RangeResponse, Failure> {
        self.call(READ, |etcd| {
            let mut kv = etcd.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX);
            let (key, options) = (key.clone(), options.clone());
            async move { Ok(kv.get(key, Some(options)).await?.0) }
        })
        .await
    }

    pub(super) async fn transact(&self, transaction: Txn) -> Result<pb::TxnResponse, StoreError> {
        let done = self.call(WRITE, |etcd| {
            let mut kv = etcd.kv_client();
            let transaction = transaction.clone();
            async move { Ok(kv.txn(transaction).await?.0) }
        });
        done.await.map_err(Failure::of_write)
    }

    pub(super) async fn grant(&self, lease: Duration) -> Result<Granted, StoreError> {
        // The configuration allows whole seconds up to minutes.
        let seconds = i64::try_from(lease.as_secs()).unwrap_or(i64::MAX);
        // A lease nobody knows of is empty and runs out: as harmless as a read.
        let done = self.call(READ, |etcd| {
            let mut leases = etcd.lease_client();
            async move { leases.grant(seconds, None).await }
        });
        let granted = done.await.map_err(Failure::of_read)?;
        Ok(Granted {
            id: granted.id(),
            time_to_live: Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0)),
        })
    }

    pub(super) async fn revoke(&self, lease: i64) -> Result<(), StoreError> {
        // Twice is the same as once: it may be repeated like a read.
        let done = self.call(READ, |etcd| {
            let mut leases = etcd.lease_client();
            async move { leases.revoke(lease).await }
        });
        match done.await {
            Ok(_) | Err(Failure::NoLease(_)) => Ok(()),
            Err(failure) => Err(failure.of_write()),
        }
    }

    /// Whether the lease lives, for its whole time from now on.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<bool, StoreError> {
        // One question a stream: a stream that stays open would have to be opened again anyway
        // when it breaks, and a renewal every second or two is no load.
        let done = self.call(RENEWAL, |etcd| {
            let mut leases = etcd.lease_client();
            async move { leases.keep_alive(lease).await.map(drop) }
        });
        match done.await {
            Ok(()) => Ok(true),
            Err(Failure::NoLease(_)) => Ok(false),
            Err(failure) => Err(failure.of_read()),
        }
    }

    pub(super) async fn open_watch(
        &self,
        key: Vec<u8>,
        options: WatchOptions,
    ) -> Result<WatchStream, StoreError> {
        let done = self.call(READ, |etcd| {
            let mut watches = etcd
                .watch_client()
                .max_decoding_message_size(ANSWER_BYTES_MAX);
            let (key, options) = (key.clone(), options.clone());
            async move { watches.watch(key, Some(options)).await }
        });
        done.await.map_err(Failure::of_read)
    }

    async fn call<A, F>(
        &self,
        manner: Manner,
        ask: impl Fn(EtcdClient) -> F + Send + Sync,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<A, Error>> + Send,
    {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut token_was_refused = false;
        let mut attempts = 0;
        loop {
            let member = self.preferred.load(Ordering::Relaxed) % self.members.len();
            let attempt_ends = deadline.min(Instant::now() + manner.attempt);
            let etcd = self.members[member]
                .client(attempt_ends, token_was_refused)
                .await;
            let failure = match etcd {
                Ok(etcd) => match timeout_at(attempt_ends, ask(etcd)).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => Failure::of(&error),
                    Err(_) => Failure::Unknown(format!("no answer within {:?}", manner.attempt)),
                },
                Err(failure) => failure,
            };
            attempts += 1;
            match &failure {
                Failure::NotExecuted(_) => self.pass_over(member),
                Failure::Unknown(_) if manner.writes => {
                    self.pass_over(member);
                    return Err(failure);
                }
                Failure::Unknown(_) => self.pass_over(member),
                Failure::TokenRefused(_) if !token_was_refused && self.has_user => {
                    token_was_refused = true;
                }
                Failure::TokenRefused(_)
                | Failure::Invalid(_)
                | Failure::Compacted
                | Failure::NoLease(_) => return Err(failure),
            }
            let all_asked = attempts % self.members.len() == 0;
            if all_asked && !matches!(failure, Failure::TokenRefused(_)) {
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
}

// === impl Member ===

impl Member {
    /// A client with a token, if we are a user; with a new one on demand. What goes wrong here
    /// has executed nothing.
    async fn client(&self, until: Instant, new_token: bool) -> Result<EtcdClient, Failure> {
        let made = async {
            let making = || {
                let channel = match self.tls.clone() {
                    Some(tls) => self.endpoint.connect_with_connector_lazy(Secure(tls)),
                    None => self.endpoint.connect_lazy(),
                };
                EtcdClient::from_channel(Channel::Tonic(channel), Some(self.options.clone()))
            };
            let client = self.client.get_or_try_init(making).await?;
            if new_token {
                client.refresh_token().await?;
            }
            Ok(client.clone())
        };
        match timeout_at(until, made).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(Failure::of(&error).before_asking()),
            Err(_) => Err(Failure::NotExecuted("no token in time".to_owned())),
        }
    }
}
