//! The session with the head, ports that open and close, the end.

use std::sync::Arc;

use mobula_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::head::Head;
use crate::setup::{House, ingress, table, within};
use crate::worker::Call;

async fn ok(call: Call) {
    call.answer(200, "ok");
}

/// A worker whose answers wait for permits.
fn gated(
    gate: &Arc<Semaphore>,
) -> impl Fn(Call) -> futures_util::future::BoxFuture<'static, ()> + Send + Sync + 'static {
    let gate = Arc::clone(gate);
    move |call: Call| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            call.accept();
            gate.acquire().await.unwrap().forget();
            call.head(200, "done", true);
        })
    }
}

#[tokio::test]
async fn the_router_serves_on_while_the_head_is_away_and_finds_it_again() {
    let (house, _worker) = House::with_worker(ok).await;
    house.head.kill();
    for _ in 0..20 {
        assert_eq!(house.get("/").await.0.status(), 200);
    }
    let mut next = table(Vec::new());
    next.version = 9;
    let dir = house.dir.path().to_owned();
    let reborn = loop {
        // The old socket may still be closing.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        if std::os::unix::net::UnixStream::connect(dir.join("head.sock")).is_err() {
            break Head::start(&dir, next).await;
        }
    };
    let report = within(reborn.reported(|report| report.table_version == 9)).await;
    assert_eq!(report.http_addr, house.addr());
}

#[tokio::test]
async fn load_is_reported_and_so_is_the_machine() {
    let gate = Arc::new(Semaphore::new(0));
    let (house, _worker) = House::with_worker(gated(&gate)).await;
    let requests: Vec<_> = (0..3).map(|_| house.get_later("/")).collect();
    house.load(0, 3).await;
    let report = house.head.reported(|_| true).await;
    assert_eq!(report.pid, std::process::id());
    assert_eq!(report.router_id.len(), 56);
    assert_eq!(report.loads[0].application, "app1");
    assert_eq!(report.loads[0].deployment, "D");
    gate.add_permits(3);
    let flow = report.loads[0].flow.unwrap();
    assert_eq!((flow.arrivals, flow.served, flow.service_us), (3, 0, 0));
    for request in requests {
        assert_eq!(within(request).await.unwrap().0, 200);
    }
    house.load(0, 0).await;
    let report = house.head.reported(|_| true).await;
    let flow = report.loads[0].flow.unwrap();
    assert_eq!((flow.arrivals, flow.served), (3, 3));
    assert!(flow.service_us > 0);
}

#[tokio::test]
async fn ports_close_with_the_ingress_and_open_again() {
    let (house, _worker) = House::with_worker(ok).await;
    let addr = house.addr().to_owned();
    house.head.set(|table| table.ingress = None).await;
    within(
        house
            .head
            .reported(|r| r.http_addr.is_empty() && r.grpc_addr.is_empty()),
    )
    .await;
    assert!(TcpStream::connect(&addr).await.is_err());
    house
        .head
        .set(|table| table.ingress = Some(ingress()))
        .await;
    let report = within(house.head.reported(|r| !r.http_addr.is_empty())).await;
    assert!(TcpStream::connect(&report.http_addr).await.is_ok());
}

#[tokio::test]
async fn a_port_that_is_taken_is_reported_and_tried_again() {
    let (house, _worker) = House::with_worker(ok).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = u32::from(taken.local_addr().unwrap().port());
    house.head.set(|table| table.ingress = None).await;
    within(house.head.reported(|r| r.http_addr.is_empty())).await;
    house
        .head
        .set(|table| {
            table.ingress = Some(v1::Ingress {
                http_port: port,
                ..ingress()
            });
        })
        .await;
    let report = within(house.head.reported(|r| !r.error.is_empty())).await;
    assert!(report.error.contains(&port.to_string()), "{}", report.error);
    drop(taken);
    let report = within(house.head.reported(|r| !r.http_addr.is_empty())).await;
    assert_eq!(
        (report.error.as_str(), report.http_addr),
        ("", format!("127.0.0.1:{port}"))
    );
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_progress_and_takes_nothing_new() {
    let gate = Arc::new(Semaphore::new(0));
    let (house, _worker) = House::with_worker(gated(&gate)).await;
    let running = house.get_later("/");
    house.load(0, 1).await;
    house.shutdown.cancel();
    within(house.head.reported(|report| report.draining)).await;
    while TcpStream::connect(house.addr()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!house.router.is_finished());
    gate.add_permits(1);
    assert_eq!(within(running).await.unwrap().0, 200);
    within(house.router).await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_end_and_are_closed_when_idle_for_too_long() {
    let (house, _worker) = House::with_worker(ok).await;
    let mut idle = TcpStream::connect(house.addr()).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut some = [0; 12];
    within(idle.read_exact(&mut some)).await.unwrap();
    house.shutdown.cancel();
    within(house.router).await.unwrap().unwrap();
    let mut rest = Vec::new();
    within(idle.read_to_end(&mut rest)).await.unwrap();

    let (house, _worker) = House::with_worker(ok).await;
    house.head.set(|table| table.ingress = None).await;
    within(house.head.reported(|r| r.http_addr.is_empty())).await;
    house
        .head
        .set(|table| {
            table.ingress = Some(v1::Ingress {
                keep_alive_timeout_s: 0.2,
                ..ingress()
            });
        })
        .await;
    let report = within(house.head.reported(|r| !r.http_addr.is_empty())).await;
    let mut idle = TcpStream::connect(&report.http_addr).await.unwrap();
    let mut rest = Vec::new();
    within(idle.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}
