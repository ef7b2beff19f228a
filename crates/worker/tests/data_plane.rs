//! The data plane of a whole worker, through a real connection.

mod support;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use mobula_proto::v1::{AssignedReplica, Call, FaultKind, RejectReason, ReplicaState, frame};
use mobula_worker::metrics::{
    ERRORS_TOTAL, PROCESSING_LATENCY_MS, PROCESSING_QUERIES, REPLICA_STARTS_TOTAL, REQUESTS_TOTAL,
};
use support::{Answer, House, WINDOW, call, replica, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_reaches_the_replica_with_its_context_and_is_answered() {
    let house = House::with_echo(10).await;
    let router = house.router().await;
    let answer = router.get("r1", "/context").await.answer().await;
    assert_eq!(answer.text(), r#"{"size":3} config r1"#);
    let unknown = router.get("nobody", "/x").await.answer().await.rejected();
    assert_eq!(unknown.reason(), RejectReason::UnknownReplica);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_routers_share_one_strict_limit() {
    let house = House::with_echo(3).await;
    let routers = [house.router().await, house.router().await];
    let mut held = Vec::new();
    for n in 0..3 {
        let mut exchange = routers[n % 2].get("r1", "/hold").await;
        exchange.accepted().await;
        held.push(exchange);
    }
    // Accepted is said before the code runs; all three are let go together.
    house.probe.reaches("three are held", |p| &p.held, 3).await;
    for router in &routers {
        let full = router.get("r1", "/hold").await.answer().await.rejected();
        assert_eq!(
            (full.reason(), full.ongoing_requests),
            (RejectReason::Full, 3)
        );
    }
    house.probe.release.add_permits(3);
    for exchange in held {
        assert_eq!(exchange.answer().await.text(), "held");
    }
    assert_eq!(
        routers[0].get("r1", "/x").await.answer().await.text(),
        "GET /x"
    );
    assert_eq!(house.probe.held_max.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_an_answered_call_is_free_when_the_answer_arrives() {
    let house = House::with_echo(1).await;
    let router = house.router().await;
    for n in 0..500 {
        let answer = router.get("r1", "/x").await.answer().await;
        assert_eq!(answer.text(), "GET /x", "call {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_limit_holds_for_the_next_call() {
    let mut house = House::with_echo(1).await;
    let router = house.router().await;
    let mut first = router.get("r1", "/hold").await;
    first.accepted().await;
    let wider = AssignedReplica {
        max_ongoing_requests: 2,
        ..replica("r1", "Echo")
    };
    let version = house.assign(vec![wider]).await;
    let applied = house.head.newest_is(|r| r.assignment_version == version);
    soon("the limit is applied", applied).await;
    assert_eq!(router.get("r1", "/x").await.answer().await.text(), "GET /x");
    assert_eq!(house.probe.constructed.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_drops_the_calls_future_and_fires_its_token() {
    let house = House::with_echo(1).await;
    let router = house.router().await;
    let mut exchange = router.get("r1", "/hold").await;
    exchange.accepted().await;
    house
        .probe
        .reaches("the call is held", |p| &p.held, 1)
        .await;
    exchange.cancel().await;
    house
        .probe
        .reaches("the future is dropped", |p| &p.dropped, 1)
        .await;
    house
        .probe
        .reaches("the token fires", |p| &p.fired, 1)
        .await;
    // Its slot is free, and nothing more was sent of it.
    let next = router.get("r1", "/x").await.answer().await;
    assert_eq!(next.text(), "GET /x");
    assert!(exchange.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_stream_cancels_its_calls_and_no_others() {
    let house = House::with_echo(2).await;
    let (lost, other) = (house.router().await, house.router().await);
    for router in [&lost, &other] {
        router.get("r1", "/hold").await.accepted().await;
    }
    house.probe.reaches("both are held", |p| &p.held, 2).await;
    lost.kill().await;
    house
        .probe
        .reaches("one is dropped", |p| &p.dropped, 1)
        .await;
    assert_eq!(other.get("r1", "/x").await.answer().await.text(), "GET /x");
    assert_eq!(house.probe.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_at_its_deadline() {
    let house = House::with_echo(1).await;
    let router = house.router().await;
    let late = Call {
        remaining_ms: Some(30),
        ..call("r1", "/hold")
    };
    let fault = router.send(late).await.answer().await.fault();
    assert_eq!(fault.kind(), FaultKind::Exception);
    assert_eq!(fault.message, "the deadline passed");
    house
        .probe
        .reaches("the future is dropped", |p| &p.dropped, 1)
        .await;
    house
        .probe
        .reaches("the token fires", |p| &p.fired, 1)
        .await;
    assert_eq!(router.get("r1", "/x").await.answer().await.text(), "GET /x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_one_fault_and_the_replica_lives_on() {
    let house = House::with_echo(2).await;
    let router = house.router().await;
    let mut held = router.get("r1", "/hold").await;
    held.accepted().await;
    let fault = router.get("r1", "/panic").await.answer().await.fault();
    assert_eq!(fault.kind(), FaultKind::Exception);
    assert_eq!(fault.message, "panicked: index out of bounds");
    let fault = router.get("r1", "/error").await.answer().await.fault();
    assert_eq!(fault.message, "tensor has the wrong shape");
    house.probe.release.add_permits(1);
    assert_eq!(held.answer().await.text(), "held");
    let report = house.reaches("r1", ReplicaState::Running).await;
    assert_eq!(
        (report.message.as_str(), report.replica_id.as_str()),
        ("", "r1")
    );
    assert_eq!(house.probe.constructed.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_no_request_is_a_fault_and_frees_its_slot() {
    let house = House::with_echo(1).await;
    let router = house.router().await;
    let bad = Call {
        method: "GE T".to_owned(),
        ..call("r1", "/x")
    };
    let fault = router.send(bad).await.answer().await.fault();
    assert!(fault.message.contains("GE T"), "{}", fault.message);
    assert_eq!(router.get("r1", "/x").await.answer().await.text(), "GET /x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_is_told_as_such() {
    let house = House::with_echo(1).await;
    let router = house.router().await;
    let fault = router.get("r1", "/breaks").await.answer().await.fault();
    assert_eq!(fault.kind(), FaultKind::Body);
    assert!(fault.message.contains("engine died"), "{}", fault.message);
}

/// 10 MB through the worker and back. Both directions are counted: neither side ever has more
/// bytes on the way than the first window and the credit given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_are_echoed_with_a_bounded_number_of_bytes_in_flight() {
    const TOTAL: usize = 10 * 1024 * 1024;
    const CHUNK: usize = 64 * 1024;
    let house = House::with_echo(1).await;
    let router = house.router().await;
    let start = Call {
        end: false,
        ..call("r1", "/echo")
    };
    let mut exchange = router.send(start).await;
    let pattern = |at: usize| {
        Bytes::from(
            (at..at + CHUNK)
                .map(|n| (n % 251) as u8)
                .collect::<Vec<_>>(),
        )
    };
    let (mut sent, mut allowed, mut received, mut ended) = (0, WINDOW, 0, false);
    let mut inside_max = 0;
    while !ended {
        while sent < TOTAL && sent + CHUNK <= allowed {
            exchange.data(pattern(sent), sent + CHUNK == TOTAL).await;
            sent += CHUNK;
        }
        inside_max = inside_max.max(sent - received);
        match exchange.frame().await.unwrap() {
            frame::Kind::Accepted(_) => {}
            frame::Kind::Reply(reply) => assert!(!reply.end),
            frame::Kind::Credit(credit) => allowed += credit.bytes as usize,
            frame::Kind::Data(data) => {
                let expected = pattern(received / CHUNK * CHUNK);
                let offset = received % CHUNK;
                assert!(data.bytes.len() <= CHUNK);
                assert_eq!(
                    data.bytes,
                    expected.slice(offset..offset + data.bytes.len())
                );
                received += data.bytes.len();
                exchange.credit(data.bytes.len()).await;
                ended = data.end;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((sent, received), (TOTAL, TOTAL));
    // One window on the way in, one on the way out, one piece between them.
    assert!(
        inside_max <= 2 * WINDOW + CHUNK,
        "{inside_max} bytes inside"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_gives_no_credit_gets_one_window_and_stalls_nobody_else() {
    let house = House::with_echo(2).await;
    let router = house.router().await;
    let big = Call {
        body: Bytes::from(vec![1; 1024 * 1024]),
        ..call("r1", "/echo")
    };
    let mut slow = router.send(big).await;
    let mut received = 0;
    while received < WINDOW {
        if let Some(frame::Kind::Data(data)) = slow.frame().await {
            received += data.bytes.len();
        }
    }
    assert_eq!(received, WINDOW);
    for _ in 0..20 {
        assert_eq!(router.get("r1", "/x").await.answer().await.text(), "GET /x");
    }
    assert!(slow.arrived().is_empty(), "more than the window was sent");
    slow.credit(1024 * 1024).await;
    let mut rest = 0;
    loop {
        if let Some(frame::Kind::Data(data)) = slow.frame().await {
            rest += data.bytes.len();
            if data.end {
                break;
            }
        }
    }
    assert_eq!(received + rest, 1024 * 1024);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_does_not_read_gives_no_credit() {
    let house = House::with_echo(2).await;
    let router = house.router().await;
    let start = Call {
        end: false,
        ..call("r1", "/hold")
    };
    let mut unread = router.send(start).await;
    unread.accepted().await;
    unread.data(Bytes::from(vec![1; WINDOW]), false).await;
    // A later call was answered, so the data before it was taken in as well.
    assert_eq!(router.get("r1", "/x").await.answer().await.text(), "GET /x");
    assert!(unread.arrived().is_empty());

    let start = Call {
        end: false,
        body: Bytes::from(vec![1; 64 * 1024]),
        ..call("r1", "/swallow")
    };
    let mut read = router.send(start).await;
    read.accepted().await;
    let Some(frame::Kind::Credit(credit)) = read.frame().await else {
        panic!("credit for what was read");
    };
    assert_eq!(credit.bytes, 64 * 1024);
    read.data(Bytes::new(), true).await;
    assert_eq!(read.answer().await.text(), "swallowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_show_in_the_metrics_that_the_worker_serves() {
    let mut house = House::start().await;
    house.assign(vec![replica("metered1", "Echo")]).await;
    house.reaches("metered1", ReplicaState::Running).await;
    let mut router = house.router().await;
    for path in ["/x", "/y", "/panic"] {
        router.get("metered1", path).await.answer().await;
    }
    let mut held = router.get("metered1", "/hold").await;
    held.accepted().await;
    let request = mobula_proto::v1::MetricsRequest {};
    let reply = router.client.metrics(request).await.unwrap().into_inner();
    let place = r#"application="app",deployment="Echo",replica="metered1""#;
    for line in [
        format!("{REQUESTS_TOTAL}{{{place},route=\"/\"}} 3"),
        format!("{ERRORS_TOTAL}{{{place},route=\"/\",exception_type=\"panic\"}} 1"),
        format!("{PROCESSING_LATENCY_MS}_count{{{place},route=\"/\"}} 3"),
        format!("{PROCESSING_QUERIES}{{{place}}} 1"),
        format!("{REPLICA_STARTS_TOTAL}{{{place}}} 1"),
    ] {
        assert!(
            reply.text.lines().any(|l| l == line),
            "no {line} in\n{}",
            reply.text
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_killed_at_its_time_limit_faults_what_it_had() {
    let mut house = House::start().await;
    let impatient = AssignedReplica {
        graceful_shutdown_timeout_s: 0.1,
        ..replica("r1", "Echo")
    };
    house.assign(vec![impatient]).await;
    house.reaches("r1", ReplicaState::Running).await;
    let router = house.router().await;
    let mut exchange = router.get("r1", "/hold").await;
    exchange.accepted().await;
    house.assign(vec![]).await;
    let Answer::Fault(fault) = exchange.answer().await else {
        panic!("killed");
    };
    assert_eq!(fault.kind(), FaultKind::ReplicaDied);
    let stopped = house.reaches("r1", ReplicaState::Stopped).await;
    assert!(
        stopped.message.contains("graceful_shutdown_timeout_s"),
        "{}",
        stopped.message
    );
    assert_eq!(house.probe.shut_down.load(Ordering::SeqCst), 0);
}
