//! A transaction of ours as one of etcd's, and the answer back. Pure.

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};

use super::keys::Keys;
use super::{pb, revision_of, signed, unsigned};
use crate::transaction::{holds, last_writes};
use crate::{Expect, Fence, StoreError, Transaction, Write};
use pb::Response;

/// What became of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Committed { revision: u64 },
    Conflict { key: String },
    Fenced,
}

/// Compares, then writes; if a compare fails, the keys are read to say which.
pub(super) fn request(keys: &Keys, transaction: &Transaction) -> Txn {
    let fence = transaction.fence.iter();
    let fences = fence.map(|fence| created_at(keys.leader(), signed(fence.revision())));
    let checks = transaction.checks.iter();
    let checks = checks.map(|check| expected(keys.state(&check.key), &check.expect));
    let watched = transaction.fence.iter().map(|_| keys.leader());
    let watched = watched.chain(
        transaction
            .checks
            .iter()
            .map(|check| keys.state(&check.key)),
    );
    let writes = last_writes(transaction.writes.clone()).into_iter();
    Txn::new()
        .when(fences.chain(checks).collect::<Vec<_>>())
        .and_then(
            writes
                .map(|write| write_op(keys, write))
                .collect::<Vec<_>>(),
        )
        .or_else(watched.map(read_op).collect::<Vec<_>>())
}

/// Reads etcd's answer.
pub(super) fn outcome(
    keys: &Keys,
    transaction: &Transaction,
    answer: &pb::TxnResponse,
) -> Result<Outcome, StoreError> {
    if answer.succeeded {
        let revision = revision_of(answer.header.as_ref())?;
        return Ok(Outcome::Committed { revision });
    }
    let mut found = answer.responses.iter().map(first_kv);
    if let Some(fence) = &transaction.fence
        && !fence_holds(keys, fence, found.next().flatten())?
    {
        return Ok(Outcome::Fenced);
    }
    for check in &transaction.checks {
        let now = found.next().flatten().map(|kv| unsigned(kv.mod_revision));
        if !holds(&check.expect, now.transpose()?) {
            return Ok(Outcome::Conflict {
                key: check.key.clone(),
            });
        }
    }
    Err(StoreError::Corrupt(
        "etcd refused a transaction whose checks all hold".to_owned(),
    ))
}

/// The key exists since exactly this revision; 0: it does not exist.
pub(super) fn created_at(key: Vec<u8>, revision: i64) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, revision)
}

fn read_op(key: Vec<u8>) -> TxnOp {
    TxnOp::get(key, Some(GetOptions::new().with_keys_only()))
}

fn write_op(keys: &Keys, write: Write) -> TxnOp {
    match write {
        Write::Put { key, value } => TxnOp::put(keys.state(&key), value, None),
        Write::Delete { key } => TxnOp::delete(keys.state(&key), None),
    }
}

fn expected(key: Vec<u8>, expect: &Expect) -> Compare {
    match expect {
        Expect::Absent => created_at(key, 0),
        Expect::Revision(revision) => {
            Compare::mod_revision(key, CompareOp::Equal, signed(*revision))
        }
    }
}

fn fence_holds(
    keys: &Keys,
    fence: &Fence,
    leader: Option<&pb::KeyValue>,
) -> Result<bool, StoreError> {
    let Some(leader) = leader else {
        return Ok(false);
    };
    if leader.key != keys.leader() {
        return Err(StoreError::Corrupt(
            "etcd answered with another key than the leader's".to_owned(),
        ));
    }
    Ok(unsigned(leader.create_revision)? == fence.revision())
}

fn first_kv(response: &pb::ResponseOp) -> Option<&pb::KeyValue> {
    match &response.response {
        Some(Response::ResponseRange(range)) => range.kvs.first(),
        Some(
            Response::ResponsePut(_) | Response::ResponseDeleteRange(_) | Response::ResponseTxn(_),
        )
        | None => None,
    }
}
