//! A router that serves nothing, and takes every table it is given.

use std::time::Duration;

use mobula_process::net::connect;
use mobula_proto::v1;
use mobula_proto::v1::cluster_service_client::ClusterServiceClient;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

pub struct FakeRouter {
    pub table: watch::Receiver<v1::RouteTable>,
    /// While true, tables are taken and not acknowledged.
    pub silent: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl FakeRouter {
    pub async fn start(head: &super::Head) -> FakeRouter {
        let id = mobula_process::ids::hex56();
        let channel = connect(&head.cluster).await.unwrap();
        let mut client = ClusterServiceClient::new(channel);
        let (reports, outgoing) = mpsc::channel(4);
        reports.send(report(&id, 0)).await.unwrap();
        let mut tables = client
            .router_session(ReceiverStream::new(outgoing))
            .await
            .unwrap()
            .into_inner();
        let held = watch::Sender::new(v1::RouteTable::default());
        let table = held.subscribe();
        let silent = watch::Sender::new(false);
        let silenced = silent.subscribe();
        let task = tokio::spawn(async move {
            let mut heartbeat = tokio::time::interval(Duration::from_millis(200));
            let mut acknowledged = 0;
            loop {
                tokio::select! {
                    table = tables.message() => match table {
                        Ok(Some(table)) => {
                            assert!(table.version > held.borrow().version, "versions only grow");
                            held.send_replace(table);
                        }
                        Ok(None) | Err(_) => return,
                    },
                    _ = heartbeat.tick() => {}
                }
                if !*silenced.borrow() {
                    acknowledged = held.borrow().version;
                }
                let _ = reports.send(report(&id, acknowledged)).await;
            }
        });
        FakeRouter {
            table,
            silent,
            task,
        }
    }

    pub async fn table_when(
        &mut self,
        wanted: impl FnMut(&v1::RouteTable) -> bool,
    ) -> v1::RouteTable {
        let table = tokio::time::timeout(super::PATIENCE, self.table.wait_for(wanted)).await;
        table.expect("the table comes in time").unwrap().clone()
    }
}

impl Drop for FakeRouter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Replica ids of `app`'s first deployment.
pub fn routed(table: &v1::RouteTable, app: &str) -> Vec<String> {
    let mut ids: Vec<String> = table
        .applications
        .iter()
        .filter(|application| application.name == app)
        .flat_map(|application| &application.deployments)
        .flat_map(|deployment| &deployment.replicas)
        .map(|replica| replica.replica_id.clone())
        .collect();
    ids.sort();
    ids
}

fn report(id: &str, table_version: u64) -> v1::RouterReport {
    v1::RouterReport {
        router_id: id.to_owned(),
        node_id: "a".repeat(56),
        node_ip: "127.0.0.1".to_owned(),
        pid: std::process::id(),
        http_addr: "127.0.0.1:8000".to_owned(),
        table_version,
        ..v1::RouterReport::default()
    }
}
