//! A transaction of ours as one of etcd's, and the answer back. Pure.

use super::keys::Keys;
use super::{pb, revision_of, signed, unsigned};
use crate::transaction::{holds, last_writes};
use crate::{Expect, Fence, StoreError, Transaction, Write};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;

/// What became of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Committed { revision: u64 },
    Conflict { key: String },
    Fenced,
}

/// Compares, then writes; if a compare fails, the keys are read to say which.
pub(super) fn request(keys: &Keys, transaction: &Transaction) -> pb::TxnRequest {
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
    pb::TxnRequest {
        compare: fences.chain(checks).collect(),
        success: last_writes(transaction.writes.clone())
            .into_iter()
            .map(|write| write_op(keys, write))
            .collect(),
        failure: watched.map(read_op).collect(),
    }
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
pub(super) fn created_at(key: Vec<u8>, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

pub(super) fn read_op(key: Vec<u8>) -> pb::RequestOp {
    let range = pb::RangeRequest {
        key,
        keys_only: true,
        ..pb::RangeRequest::default()
    };
    pb::RequestOp {
        request: Some(Request::RequestRange(range)),
    }
}

pub(super) fn put_op(key: Vec<u8>, value: Vec<u8>, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest { key, value, lease };
    pb::RequestOp {
        request: Some(Request::RequestPut(put)),
    }
}

fn write_op(keys: &Keys, write: Write) -> pb::RequestOp {
    match write {
        Write::Put { key, value } => put_op(keys.state(&key), value, 0),
        Write::Delete { key } => {
            let delete = pb::DeleteRangeRequest {
                key: keys.state(&key),
            };
            pb::RequestOp {
                request: Some(Request::RequestDeleteRange(delete)),
            }
        }
    }
}

fn expected(key: Vec<u8>, expect: &Expect) -> pb::Compare {
    match expect {
        Expect::Absent => created_at(key, 0),
        Expect::Revision(revision) => pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key,
            target_union: Some(TargetUnion::ModRevision(signed(*revision))),
        },
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
        Some(Response::ResponsePut(_) | Response::ResponseDeleteRange(_)) | None => None,
    }
}
