//! What the gRPC ingress answers by itself: Ray Serve's own service, the standard health service
//! and server reflection.

use std::collections::HashSet;
use std::sync::Arc;

use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use super::builtin;
use crate::core::Core;
use crate::error::RouterError;

/// Generated from `proto/ray/serve/`.
pub mod pb {
    #![allow(clippy::all, clippy::pedantic, missing_docs)]
    tonic::include_proto!("ray.serve");
}

use pb::ray_serve_api_service_server::{RayServeApiService, RayServeApiServiceServer};

const RAY_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ray_serve.bin"));

/// Paths that begin so are answered here.
const PREFIXES: [&str; 3] = [
    "/grpc.health.v1.",
    "/grpc.reflection.",
    "/ray.serve.RayServeAPIService/",
];

/// Whether the ingress answers a path by itself.
pub fn is_own(path: &str) -> bool {
    PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

/// The services. Health follows the table for as long as the ingress is open.
pub fn routes(
    core: &Arc<Core>,
    reflection: Option<&Vec<&'static [u8]>>,
) -> Result<(Routes, HealthReporter), RouterError> {
    let reporter = HealthReporter::new();
    let health = HealthService::from_health_reporter(reporter.clone());
    let api = Api {
        core: Arc::clone(core),
    };
    let mut routes = Routes::new(RayServeApiServiceServer::new(api))
        .add_service(tonic_health::pb::health_server::HealthServer::new(health));
    if let Some(sets) = reflection {
        let failed =
            |error: tonic_reflection::server::Error| RouterError::Descriptors(error.to_string());
        routes = routes
            .add_service(describe(sets).build_v1().map_err(failed)?)
            .add_service(describe(sets).build_v1alpha().map_err(failed)?);
    }
    Ok((routes.prepare(), reporter))
}

fn describe<'a>(sets: &[&'a [u8]]) -> tonic_reflection::server::Builder<'a> {
    let own: [&'a [u8]; 2] = [RAY_DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let all = own.into_iter().chain(sets.iter().copied());
    all.fold(
        tonic_reflection::server::Builder::configure(),
        tonic_reflection::server::Builder::register_encoded_file_descriptor_set,
    )
}

/// Keeps the health service in step with the table, for ever.
pub async fn follow_health(core: Arc<Core>, mut reporter: HealthReporter) {
    let mut tables = core.version.subscribe();
    let mut known: HashSet<String> = HashSet::new();
    loop {
        let now = statuses(&core);
        for gone in known
            .iter()
            .filter(|name| !now.iter().any(|(n, _)| n == *name))
        {
            reporter.clear_service_status(gone).await;
        }
        known = now.iter().map(|(name, _)| name.clone()).collect();
        for (name, serving) in now {
            let status = if serving {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            reporter.set_service_status(name, status).await;
        }
        // The sender lives in `core`.
        drop(tables.changed().await);
    }
}

/// The whole (empty name) serves when `/healthz` says 200, a service when an application that is
/// RUNNING answers it.
fn statuses(core: &Core) -> Vec<(String, bool)> {
    let snapshot = core.snapshot.load();
    let up = !core.is_draining();
    let whole = (String::new(), up && snapshot.table.not_ready().is_none());
    let services = snapshot.table.grpc_services().into_iter();
    let services = services.map(|(name, running)| (name.to_owned(), up && running));
    std::iter::once(whole).chain(services).collect()
}

/// Ray Serve's own service.
struct Api {
    core: Arc<Core>,
}

impl Api {
    fn check(&self) -> Result<(), Status> {
        let snapshot = self.core.snapshot.load();
        match builtin::not_alive(&snapshot.table, self.core.is_draining()) {
            None => Ok(()),
            Some(reason) => Err(Status::unavailable(reason)),
        }
    }
}

#[tonic::async_trait]
impl RayServeApiService for Api {
    async fn list_applications(
        &self,
        _: Request<pb::ListApplicationsRequest>,
    ) -> Result<Response<pb::ListApplicationsResponse>, Status> {
        self.check()?;
        let snapshot = self.core.snapshot.load();
        let names = snapshot.table.applications.iter().map(|a| a.name.clone());
        Ok(Response::new(pb::ListApplicationsResponse {
            application_names: names.collect(),
        }))
    }

    async fn healthz(
        &self,
        _: Request<pb::HealthzRequest>,
    ) -> Result<Response<pb::HealthzResponse>, Status> {
        self.check()?;
        Ok(Response::new(pb::HealthzResponse {
            message: "success".to_owned(),
        }))
    }
}
