//! The replica of a model: loads it, answers calls, takes a new `user_config` while it runs.

use std::sync::{Arc, PoisonError, RwLock};

use mobula_app::{
    CallError, ConfigError, Deployment, HealthError, Protocol, Replica, ReplicaContext, Request,
    Response, StartError, async_trait,
};
use serde_json::Value;

use super::options::{Place, Plan, Role, Wishes};
use crate::api::{self, Service};
use crate::fetch::Logged;
use crate::grpc;
use crate::metrics::Origin;
use crate::model::{LoadOptions, SharedModel, TextModel};
use crate::settings::Settings;

/// Calls of one replica at once: enough for the batcher to find rows of like length, little
/// enough that a call does not wait behind seconds of others.
const CALLS_MAX_DEFAULT: u32 = 64;

/// One running copy of a model.
struct TextReplica {
    role: Role,
    place: Place,
    settings: Settings,
    origin: Origin,
    /// `args` and the environment; `user_config` is laid over them.
    base: Wishes,
    current: RwLock<Arc<Current>>,
}

/// What answers calls now.
struct Current {
    plan: Plan,
    service: Service,
}

/// The deployment of a role. `part` is the key of its own `args` where several share them.
pub(super) fn deployment(role: Role, part: Option<&'static str>) -> Deployment {
    Deployment::new(role.name(), move |context| {
        TextReplica::start(role, part, context)
    })
    .option("max_ongoing_requests", CALLS_MAX_DEFAULT)
}

// === impl TextReplica ===

impl TextReplica {
    async fn start(
        role: Role,
        part: Option<&'static str>,
        context: ReplicaContext,
    ) -> Result<TextReplica, StartError> {
        // Here and not where the application is registered: then there is a recorder.
        crate::metrics::describe();
        let args = match part {
            Some(key) => context.args.get(key).cloned().unwrap_or(Value::Null),
            None => context.args.clone(),
        };
        let read = || -> Result<(Wishes, Wishes), String> {
            let base = Wishes::read(&args)?.over(Wishes::of_env(role, &context.env)?);
            let user = context.user_config.clone().unwrap_or(Value::Null);
            Ok((base, Wishes::read(&user)?))
        };
        let (base, user) = read().map_err(StartError)?;
        let place = Place {
            num_cpus: context.num_cpus,
            gpus: context.gpus.iter().map(|gpu| gpu.device).collect(),
            machine_cpus: std::thread::available_parallelism().map_or(1, usize::from),
            calls_max: context.max_ongoing_requests,
            siblings: siblings(role, part, &context),
        };
        let origin = Origin {
            application: context.application.clone(),
            deployment: context.deployment.clone(),
            replica: context.replica_id.clone(),
            function: role.function(),
        };
        let settings = Settings::from_env(&context.env);
        let plan = user
            .over(base.clone())
            .plan(role, &place)
            .map_err(StartError)?;
        let current = load(role, plan, settings.clone(), origin.clone())
            .await
            .map_err(StartError)?;
        Ok(TextReplica {
            role,
            place,
            settings,
            origin,
            base,
            current: RwLock::new(Arc::new(current)),
        })
    }

    fn current(&self) -> Arc<Current> {
        // The value is replaced as a whole: a panic elsewhere cannot leave half of one.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
    }
}

#[async_trait]
impl Replica for TextReplica {
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        let current = self.current();
        Ok(match request.protocol {
            Protocol::Http | Protocol::WebSocket => api::answer(&current.service, request).await,
            Protocol::Grpc | Protocol::GrpcStream => grpc::answer(&current.service, request).await,
        })
    }

    /// Limits change at once. Another model is loaded beside the old one, which answers until
    /// the new one is ready.
    async fn reconfigure(&self, user_config: Value) -> Result<(), ConfigError> {
        let user = Wishes::read(&user_config).map_err(ConfigError)?;
        let plan = user
            .over(self.base.clone())
            .plan(self.role, &self.place)
            .map_err(ConfigError)?;
        let before = self.current();
        if before.plan == plan {
            return Ok(());
        }
        let same_model = before.plan.choice == plan.choice && before.plan.threads == plan.threads;
        let current = if same_model {
            let model = before.service.shared_model();
            model.engine().set_limits(plan.limits);
            Current {
                service: Service::new(model, plan.service.clone()),
                plan,
            }
        } else {
            load(self.role, plan, self.settings.clone(), self.origin.clone())
                .await
                .map_err(ConfigError)?
        };
        self.replace(current);
        Ok(())
    }

    async fn shutdown(&self) {
        let model = self.current().service.shared_model();
        let stopping = tokio::task::spawn_blocking(move || model.engine().stop());
        if let Err(error) = stopping.await {
            tracing::warn!(%error, "the engine did not stop");
        }
    }

    async fn check_health(&self) -> Result<(), HealthError> {
        let alive = self.current().service.check_alive();
        alive.map_err(|problem| HealthError(problem.message()))
    }
}

async fn load(
    role: Role,
    plan: Plan,
    settings: Settings,
    origin: Origin,
) -> Result<Current, String> {
    let options = LoadOptions {
        choice: plan.choice.clone(),
        task: role.task(),
        threads: plan.threads,
        devices: plan.devices.clone(),
        limits: plan.limits,
        origin,
    };
    let loading = tokio::task::spawn_blocking(move || {
        TextModel::load(&settings, &options, &Logged).map(SharedModel::new)
    });
    let loaded = loading.await.map_err(|error| error.to_string())?;
    let model = loaded.map_err(|error| error.to_string())?;
    Ok(Current {
        service: Service::new(model, plan.service.clone()),
        plan,
    })
}

/// The models beside this one in `rag`, for `/v1/models`.
fn siblings(role: Role, part: Option<&str>, context: &ReplicaContext) -> Vec<String> {
    if part.is_none() {
        return Vec::new();
    }
    let others = Role::ALL.into_iter().filter(|other| *other != role);
    others
        .map(|other| {
            let args = context
                .args
                .get(other.key())
                .cloned()
                .unwrap_or(Value::Null);
            other.model_name(&context.env, &Wishes::read(&args).unwrap_or_default())
        })
        .collect()
}
