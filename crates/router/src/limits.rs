//! Every limit of the router, with its reason. Limits that both ends of the data plane share
//! are in `mobula_proto::limits`.

use std::time::Duration;

// ---- ingress ----

/// Connections open at once per ingress port. Beyond that they wait in the kernel's backlog. One in
/// use costs some 30 KiB, an idle one 2 (12 with TLS), so this is 500 MiB at the worst.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Requests in progress at once on one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 1024;

/// Header fields of one request.
pub const HEADERS_MAX: usize = 128;

/// Request line and headers of one request. nginx and most proxies stop at 32 KiB.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// A client has this long to finish the headers it began to send (slow loris).
pub const HEADER_READ_SECONDS_MAX: Duration = Duration::from_secs(15);

/// How often a connection that is ready for requests is looked at: one that has had none between
/// two looks is taken apart, which frees some 28 KiB, and costs its next request microseconds.
pub const IDLE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two looks at a connection, whatever the time-outs are.
pub const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// A client has this long for the TLS handshake.
pub const HANDSHAKE_SECONDS_MAX: Duration = Duration::from_secs(10);

/// A client has this long between two pieces of a body that it sends.
pub const BODY_IDLE_SECONDS_MAX: Duration = Duration::from_secs(60);

/// A client may leave an answer unread this long before its connection is cut.
pub const WRITE_STALL_SECONDS_MAX: Duration = Duration::from_secs(120);

/// What is read of a WebSocket at once.
pub const WEBSOCKET_READ_BYTES: usize = 16 * 1024;

/// How long a replica may still answer on a WebSocket whose client sends nothing any more.
pub const WEBSOCKET_LEAVE_SECONDS_MAX: Duration = Duration::from_secs(5);

/// A request body over HTTP. Generous: images and documents, not disks.
pub const BODY_BYTES_MAX: u64 = 100 * 1024 * 1024;

/// A gRPC message in either direction. It is held whole in memory, other than an HTTP body.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A gRPC status message; longer ones are cut, as Ray does with status details.
pub const GRPC_STATUS_CHARS_MAX: usize = 4096;

/// A request id that a client sends; longer ones are replaced by one of ours.
pub const REQUEST_ID_BYTES_MAX: usize = 256;

/// Requests in progress that go on when their client leaves. Without it the limit on connections
/// would not bound them; a request beyond it ends with its client.
pub const LASTING_MAX: usize = 4_096;

/// How long such a request, or the rest of its answer, is waited for once the client has left.
pub const LASTING_SECONDS_MAX: Duration = Duration::from_secs(3600);

/// Pause after `accept` failed, which is nearly always for want of file descriptors.
pub const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Pause before a port that is taken is tried again.
pub const BIND_RETRY_DELAY: Duration = Duration::from_secs(1);

// ---- queue ----

/// Requests waiting per deployment in this router, when `max_queued_requests` sets no lower
/// limit. Each holds at most one body chunk (64 KiB), or one window (256 KiB) when a replica has
/// refused it; most hold a few KiB.
pub const QUEUED_REQUESTS_MAX: usize = 10_000;

/// Where requests have classes: how often one that waits is passed over in a row.
pub const PASSED_OVER_MAX: u32 = 8;

/// How long a replica that refused a call as full is left alone: doubled on each refusal in a
/// row. Ray's figures. A request of ours that ends there ends the pause.
pub const FULL_PAUSE_MIN: Duration = Duration::from_millis(25);
/// The longest such pause.
pub const FULL_PAUSE_MAX: Duration = Duration::from_millis(500);

/// A replica whose calls fail so many times in a row is left out. Envoy's figure.
pub const FAILURES_IN_A_ROW_MAX: u32 = 5;

/// How long it is left out: doubled each time in a row. What failed in passing is back soon.
pub const LEFT_OUT_MIN: Duration = Duration::from_secs(1);
/// The longest such pause: about what the head's health checks take to replace a replica.
pub const LEFT_OUT_MAX: Duration = Duration::from_secs(30);

/// At most this share of a deployment's replicas is left out at once: one part in so many. What
/// makes half of them fail is more likely in the requests than in the replicas.
pub const LEFT_OUT_PART: usize = 2;

// ---- dispatch ----

/// First pause before a lost worker is dialled again.
pub const WORKER_RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
/// The longest such pause: a worker that comes back is in use within this time.
pub const WORKER_RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// A worker that was not reached so many times in a row is worth a warning.
pub const WORKER_FAILURES_TOLD_MIN: u32 = 5;

/// How long a connection to a worker that has left the table waits for its last answers.
pub const RETIRED_LINK_SECONDS_MAX: Duration = Duration::from_secs(600);

/// Pieces of a body that follow a call before the replica has taken it. They are kept until it
/// has, for the request may go elsewhere, and each may hold up to 64 KiB of what its client sent; a
/// first window of whole chunks is three of them.
pub const OFFERED_PIECES_MAX: usize = 16;

/// How often an accepted request that is safe to repeat is sent again after its replica was
/// lost. Once: what killed one replica may kill the next.
pub const REPEATS_MAX: u32 = 1;

// ---- session ----

/// A router reports at least this often, so that the head knows it lives.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Load is reported when it changed, at most this often.
pub const LOAD_REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// First pause before the head is dialled again.
pub const HEAD_RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
/// The longest such pause.
pub const HEAD_RETRY_DELAY_MAX: Duration = Duration::from_millis(500);

/// Reports waiting for the wire. Each is whole, so one in flight and one next are enough.
pub const REPORTS_QUEUED_MAX: usize = 2;

/// A route table may be larger than a data-plane message: thousands of replicas.
pub const TABLE_BYTES_MAX: usize = 64 * 1024 * 1024;

// ---- shutdown ----

/// How long an HTTP/1 connection without a request stays open at least when its port closes, for
/// the request that its client may just be sending.
pub const LAST_REQUEST_WAIT: Duration = Duration::from_secs(1);

/// A connection that is in use is told with an answer that it goes: it stays open until this long
/// after its last request. To close it earlier would be to meet, now and then, a request that is on
/// its way, which a client must not send again if it may not be repeated.
pub const LAST_REQUEST_IDLE: Duration = Duration::from_secs(5);

/// For how long a port that closes lets new clients in at most, for one answer each: until those
/// that were there have gone.
pub const CLOSING_SECONDS_MAX: Duration = LAST_REQUEST_IDLE;

/// How long requests in progress may still take when the router is told to stop or its ingress
/// closes. What is left then is cut off.
pub const DRAIN_SECONDS_MAX: Duration = Duration::from_secs(60);
