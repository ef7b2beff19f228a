//! From the world to the route table that every router shall serve from. Pure.

use mobula_proto::v1;
use mobula_spec::Queueing;

use crate::world::canary::Canary;
use crate::world::deployment_status::State;
use crate::world::health::is_out_of_reach;
use crate::world::intent::{Application, Deployment, Phase, Replica};
use crate::world::spec::Ingress;
use crate::world::{ReplicaId, World};

/// The whole table, without a version.
pub fn route_table(world: &World) -> v1::RouteTable {
    let serving = world.serving.as_ref();
    let applications: Vec<_> = world
        .applications
        .iter()
        .filter_map(|(name, application)| table_application(world, name, application))
        .collect();
    let mut deployments = applications.iter().flat_map(|app| &app.deployments);
    // Where nothing is shared, a router that comes or goes is not worth a new table.
    let shares = deployments.any(|deployment| deployment.max_queued_requests >= 0);
    let routers = if shares {
        world.routers.keys().cloned().collect()
    } else {
        Vec::new()
    };
    v1::RouteTable {
        version: 0,
        ingress: serving
            .and_then(|serving| serving.ingress.as_ref())
            .map(ingress),
        applications,
        routers,
    }
}

fn ingress(ingress: &Ingress) -> v1::Ingress {
    v1::Ingress {
        http_host: ingress.http_host.clone(),
        http_port: ingress.http_port.into(),
        root_path: ingress.root_path.clone(),
        http_request_timeout_s: ingress.http_request_timeout_s,
        keep_alive_timeout_s: ingress.keep_alive_timeout_s,
        grpc_port: ingress.grpc_port.into(),
        grpc_request_timeout_s: ingress.grpc_request_timeout_s,
        grpc_reflection: ingress.grpc_reflection,
        http_tls: ingress.http_tls.as_ref().map(|tls| v1::TlsFiles {
            certfile: tls.certfile.clone(),
            keyfile: tls.keyfile.clone(),
            keyfile_password: tls
                .keyfile_password
                .as_ref()
                .map(|secret| secret.reveal().to_owned()),
            ca_certs: tls.ca_certs.clone(),
        }),
    }
}

/// None: no version of the application ever fitted its code, or it is being deleted.
fn table_application(
    world: &World,
    name: &str,
    application: &Application,
) -> Option<v1::TableApplication> {
    let built = application
        .built
        .as_ref()
        .filter(|_| !application.deleting)?;
    let routes = built.routes.iter().map(|(path, deployment)| v1::PathRoute {
        path: path.clone(),
        deployment: deployment.clone(),
    });
    let grpc_routes = built.grpc_routes.iter().map(|route| v1::GrpcRoute {
        service: route.service.clone(),
        method: route.method.clone(),
        deployment: route.deployment.clone(),
        streaming: route.streaming,
    });
    Some(v1::TableApplication {
        name: name.to_owned(),
        route_prefix: built.route_prefix.clone(),
        ingress_deployment: built.ingress.clone(),
        routes: routes.collect(),
        grpc_routes: grpc_routes.collect(),
        running: application.serves(world),
        deployments: application
            .deployments
            .values()
            .filter(|deployment| !deployment.deleting)
            .map(|deployment| table_deployment(world, deployment))
            .collect(),
    })
}

fn table_deployment(world: &World, deployment: &Deployment) -> v1::TableDeployment {
    let spec = &deployment.spec;
    let canary = deployment
        .canary
        .as_ref()
        .filter(|canary| canary.is_shared());
    let replicas = match canary {
        None => ready_replicas(world, deployment, |_| true),
        // Each version has its own: what is not well answers before the other version takes over.
        Some(canary) => {
            let mut all = ready_replicas(world, deployment, |replica| !canary.is_of(replica));
            all.extend(ready_replicas(world, deployment, |replica| {
                canary.is_of(replica)
            }));
            all
        }
    };
    v1::TableDeployment {
        name: spec.name.clone(),
        max_ongoing_requests: spec.replica.max_ongoing_requests,
        max_queued_requests: spec.max_queued_requests,
        backpressure_status_code: spec.backpressure_status_code.into(),
        backpressure_retry_after_s: spec.backpressure_retry_after_s,
        failed: replicas.is_empty() && deployment.status.state == State::DeployFailed,
        replicas,
        canary: canary.map(|canary| v1::VersionShare {
            code_version: canary.version.clone(),
            percent: deployment.canary_percent(canary),
        }),
        queueing: spec.queueing.as_ref().map(queueing),
    }
}

fn queueing(spec: &Queueing) -> v1::Queueing {
    v1::Queueing {
        priority_header: spec.priority_header.clone(),
        priorities: spec.priorities.clone(),
        default_priority: u32::try_from(spec.default_class()).unwrap_or(0),
        tenant_header: spec.tenant_header.clone().unwrap_or_default(),
        tenant_weights: spec.tenant_weights.clone().into_iter().collect(),
    }
}

/// Running ones, without those that are out of reach when there are enough others; where there
/// are none, those that are not well: an answer that may fail beats none at all.
fn ready_replicas(
    world: &World,
    deployment: &Deployment,
    which: impl Fn(&Replica) -> bool,
) -> Vec<v1::TableReplica> {
    let in_phase = |phase: Phase| -> Vec<(&ReplicaId, &Replica)> {
        let replicas = deployment.replicas.iter();
        replicas
            .filter(|(_, r)| r.phase == phase && which(r))
            .collect()
    };
    let running = in_phase(Phase::Running);
    if running.is_empty() {
        return entries(world, deployment, in_phase(Phase::Unhealthy));
    }
    let (away, near): (Vec<_>, Vec<_>) = running
        .iter()
        .partition(|(_, replica)| is_out_of_reach(world, replica));
    let replaced = !away.is_empty() && near.len() >= deployment.target as usize;
    entries(world, deployment, if replaced { near } else { running })
}

fn entries(
    world: &World,
    deployment: &Deployment,
    replicas: Vec<(&ReplicaId, &Replica)>,
) -> Vec<v1::TableReplica> {
    let is_shared = deployment.canary.as_ref().is_some_and(Canary::is_shared);
    let limit = deployment.spec.replica.max_ongoing_requests;
    let entry = |(id, replica): (&ReplicaId, &Replica)| {
        let worker = world.workers.get(&replica.worker)?;
        let own_limit = replica.spec.max_ongoing_requests;
        Some(v1::TableReplica {
            replica_id: id.clone(),
            worker_id: worker.id.clone(),
            node_id: worker.node_id.clone(),
            data_addr: worker.data_addr.clone(),
            code_version: if is_shared {
                replica.spec.code_version.clone()
            } else {
                String::new()
            },
            max_ongoing_requests: if is_shared && own_limit != limit {
                own_limit
            } else {
                0
            },
        })
    };
    replicas.into_iter().filter_map(entry).collect()
}
