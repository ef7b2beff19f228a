//! The store of a cluster: etcd, by the crate `etcd-client`.
//!
//! One cluster of ours is one prefix in etcd, so that several can share it. A value's revision is
//! the key's `mod_revision`; a fence is a compare with the leader key's `create_revision`.
//!
//! Not here: how requests find a member (`client.rs`), what etcd's errors mean (`failure.rs`).

mod client;
mod config;
mod connector;
mod election;
mod failure;
mod keys;
mod transaction;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::GetOptions;

pub use config::{CLUSTER_BYTES_MAX, ENDPOINTS_MAX, EtcdConfig, EtcdTls, EtcdUser};

use crate::{ChangeStream, StateStore, StoreError, Transaction, Versioned, Watch};
use client::Client;
use keys::Keys;
use transaction::Outcome;

/// etcd's messages by etcd's names.
mod pb {
    pub(super) use etcd_client::proto::{
        PbEvent as Event, PbKeyValue as KeyValue, PbRangeResponse as RangeResponse,
        PbResponseHeader as ResponseHeader, PbResponseOp as ResponseOp,
        PbTxnOpResponse as Response, PbTxnResponse as TxnResponse,
        PbWatchResponse as WatchResponse,
    };
}

/// One page of a list: with the largest values it stays below what one answer may hold.
const PAGE_KEYS_MAX: i64 = 32;

/// Of one list: a million values are no longer a control plane's state.
const PAGES_MAX: usize = 32_768;

/// A list begins anew if its revision is compacted while it is read.
const LIST_ATTEMPTS_MAX: usize = 3;

/// A state store, a watch and an election on etcd.
pub struct EtcdStore {
    client: Arc<Client>,
    keys: Keys,
    lease: Duration,
}

// === impl EtcdStore ===

impl EtcdStore {
    /// Checks the configuration. Connects when first used.
    ///
    /// # Errors
    /// `Invalid` if the configuration is wrong.
    pub fn new(config: EtcdConfig) -> Result<EtcdStore, StoreError> {
        config.validate()?;
        Ok(EtcdStore {
            keys: Keys::of_cluster(&config.cluster),
            lease: config.lease,
            client: Arc::new(Client::new(config)?),
        })
    }

    /// The same, and checks that a member answers.
    ///
    /// # Errors
    /// `Invalid` if the configuration or the credentials are wrong, `Unavailable` if no member
    /// answers in time.
    pub async fn connect(config: EtcdConfig) -> Result<EtcdStore, StoreError> {
        let store = EtcdStore::new(config)?;
        store.get("connect").await?;
        Ok(store)
    }
}

#[async_trait]
impl StateStore for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let key = self.keys.state(key);
        let answer = self.client.range(key, GetOptions::new()).await?;
        answer.kvs.into_iter().next().map(versioned).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let (_, values) = list(&self.client, &self.keys, prefix).await?;
        Ok(values)
    }

    async fn commit(&self, transaction: Transaction) -> Result<u64, StoreError> {
        transaction.validate()?;
        let request = transaction::request(&self.keys, &transaction);
        let answer = self.client.transact(request).await?;
        match transaction::outcome(&self.keys, &transaction, &answer)? {
            Outcome::Committed { revision } => Ok(revision),
            Outcome::Conflict { key } => Err(StoreError::Conflict { key }),
            Outcome::Fenced => Err(StoreError::Fenced),
        }
    }
}

#[async_trait]
impl Watch for EtcdStore {
    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<ChangeStream, StoreError> {
        Ok(watch::watch(
            Arc::clone(&self.client),
            self.keys.clone(),
            prefix,
            from_revision,
        ))
    }
}

/// All keys below a prefix and the one revision as of which they are.
async fn list(
    client: &Client,
    keys: &Keys,
    prefix: &str,
) -> Result<(u64, Vec<(String, Versioned)>), StoreError> {
    for _ in 0..LIST_ATTEMPTS_MAX {
        if let Some(listed) = list_once(client, keys, prefix).await? {
            return Ok(listed);
        }
    }
    Err(StoreError::Unavailable(
        "etcd is compacted faster than it can be read".to_owned(),
    ))
}

/// `None` if the revision of the first page was compacted before the last one.
async fn list_once(
    client: &Client,
    keys: &Keys,
    prefix: &str,
) -> Result<Option<(u64, Vec<(String, Versioned)>)>, StoreError> {
    let mut values = Vec::new();
    let mut from = keys.state(prefix);
    let mut revision = 0;
    for _ in 0..PAGES_MAX {
        let page = GetOptions::new()
            .with_range(keys.state_end(prefix))
            .with_limit(PAGE_KEYS_MAX)
            .with_revision(revision);
        let Some(page) = client.range_at(from, page).await? else {
            return Ok(None);
        };
        if revision == 0 {
            revision = page.header.as_ref().map_or(0, |header| header.revision);
        }
        // The smallest key after the last one of this page.
        from = page.kvs.last().map_or_else(Vec::new, |kv| kv.key.clone());
        from.push(0);
        for kv in page.kvs {
            values.push((keys.state_name(&kv.key)?, versioned(kv)?));
        }
        if !page.more {
            return Ok(Some((unsigned(revision)?, values)));
        }
    }
    Err(StoreError::Unavailable(format!(
        "'{prefix}' has more than {} keys",
        values.len()
    )))
}

fn versioned(kv: pb::KeyValue) -> Result<Versioned, StoreError> {
    Ok(Versioned {
        revision: unsigned(kv.mod_revision)?,
        value: kv.value,
    })
}

/// A revision as etcd counts it, as ours.
fn unsigned(revision: i64) -> Result<u64, StoreError> {
    u64::try_from(revision)
        .map_err(|_| StoreError::Corrupt(format!("etcd answered with revision {revision}")))
}

/// A revision of ours as etcd counts it. One that etcd cannot have is later than all it has.
fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// The revision of an answer.
fn revision_of(header: Option<&pb::ResponseHeader>) -> Result<u64, StoreError> {
    unsigned(header.map_or(0, |header| header.revision))
}
