//! What travels between processes.

use mobula_proto::v1;

/// A request of a client.
pub type RequestId = u64;

#[derive(Clone, Debug)]
pub enum Message {
    // sessions with the head
    WorkerReport(Box<v1::WorkerReport>),
    RouterReport(Box<v1::RouterReport>),
    Assignment(Box<v1::WorkerAssignment>),
    Table(Box<v1::RouteTable>),
    // data plane; the number is the call's on its connection
    Call {
        call: u64,
        replica: String,
        request: RequestId,
    },
    Cancel(u64),
    Accepted(u64),
    Rejected(u64),
    Reply {
        call: u64,
        /// It says that the replica's code failed.
        failed: bool,
    },
    Died(u64),
}
