use std::time::Duration;

use mobula_app::{
    Application, CallError, Deployment, Registry, Replica, Request, Response, async_trait,
};
use mobula_proto::v1::{FaultKind, Frame, frame};
use tokio::sync::mpsc;

use super::*;
use crate::data_plane::Job;
use crate::replica::Threads;

struct Stuck;

#[async_trait]
impl Replica for Stuck {
    async fn call(&self, _request: Request) -> Result<Response, CallError> {
        std::future::pending().await
    }
}

fn assignment(version: u64, ids: &[&str]) -> WorkerAssignment {
    let replica = |id: &&str| AssignedReplica {
        replica_id: (*id).to_owned(),
        deployment: "Stuck".to_owned(),
        import_path: "test:stuck".to_owned(),
        max_ongoing_requests: 2,
        graceful_shutdown_timeout_s: 0.05,
        health_check_period_s: 10.0,
        health_check_timeout_s: 1.0,
        ..AssignedReplica::default()
    };
    WorkerAssignment {
        version,
        replicas: ids.iter().map(replica).collect(),
        retire: false,
    }
}

async fn host() -> (Arc<Board>, ActorRef<HostMsg>) {
    let mut registry = Registry::default();
    registry.register("test:stuck", |_| {
        let stuck = Deployment::new("Stuck", |_| async { Ok(Stuck) });
        Ok(Application::single(stuck))
    });
    let board = Board::new();
    let args = HostArgs {
        board: board.clone(),
        builder: Arc::new(Builder {
            registry,
            env: BTreeMap::new(),
            threads: Threads::default(),
        }),
        gpus: Gpus::of(1.0),
    };
    let (host, _) = Actor::spawn(None, Host, args).await.unwrap();
    (board, host)
}

async fn apply(host: &ActorRef<HostMsg>, assignment: WorkerAssignment) {
    let order = Order {
        session: 1,
        version: assignment.version,
    };
    ractor::call!(host, |reply| HostMsg::Apply(order, assignment, reply)).unwrap();
}

async fn reaches(board: &Board, id: &str, phase: Phase) {
    let reached = board.all(|hosted| hosted.cell.replica_id != id || hosted.cell.phase() == phase);
    let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
    assert!(reached.is_ok(), "{id} never reached {phase:?}");
}

fn job(hosted: &Hosted) -> (Box<Job>, mpsc::Receiver<Frame>) {
    let (outgoing, frames) = mpsc::channel(8);
    let permit = hosted.cell.gate.enter().ok().unwrap();
    (Job::for_tests(permit, outgoing), frames)
}

async fn next(frames: &mut mpsc::Receiver<Frame>) -> frame::Kind {
    let frame = tokio::time::timeout(Duration::from_secs(10), frames.recv()).await;
    frame.unwrap().unwrap().kind.unwrap()
}

#[tokio::test]
async fn a_replica_actor_that_dies_takes_its_calls_with_it_but_not_the_host() {
    let (board, host) = host().await;
    apply(&host, assignment(1, &["a", "b"])).await;
    for id in ["a", "b"] {
        reaches(&board, id, Phase::Running).await;
    }
    let hosted = board.replicas()["a"].clone();
    let (job, mut frames) = job(&hosted);
    hosted.actor.cast(ReplicaMsg::Call(job)).unwrap();
    assert!(matches!(next(&mut frames).await, frame::Kind::Accepted(_)));

    hosted.actor.kill();
    reaches(&board, "a", Phase::Failed).await;
    let frame::Kind::Fault(fault) = next(&mut frames).await else {
        panic!("a fault");
    };
    assert_eq!(fault.kind(), FaultKind::ReplicaDied);
    assert!(hosted.cell.status().message.contains("actor"));
    assert_eq!(board.replicas()["b"].cell.phase(), Phase::Running);

    // The head drops it and assigns another one.
    apply(&host, assignment(2, &["b", "c"])).await;
    reaches(&board, "a", Phase::Stopped).await;
    reaches(&board, "c", Phase::Running).await;
}

#[tokio::test]
async fn an_older_assignment_of_the_same_session_is_ignored() {
    let (board, host) = host().await;
    apply(&host, assignment(2, &["a"])).await;
    apply(&host, assignment(1, &["b"])).await;
    apply(&host, assignment(2, &[])).await;
    assert_eq!(board.replicas().keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(board.applied_version(), 2);
}

#[tokio::test]
async fn a_retiring_host_starts_nothing_any_more() {
    let (board, host) = host().await;
    apply(&host, assignment(1, &["a"])).await;
    reaches(&board, "a", Phase::Running).await;
    ractor::call!(host, HostMsg::Retire).unwrap();
    apply(&host, assignment(2, &["b"])).await;
    assert_eq!(board.replicas().keys().collect::<Vec<_>>(), ["a"]);
    reaches(&board, "a", Phase::Stopped).await;
    ractor::call!(host, |reply| HostMsg::Forget(vec!["a".to_owned()], reply)).unwrap();
    assert!(board.replicas().is_empty());
}
