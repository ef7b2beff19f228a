//! An application: deployments, and which paths lead to which of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{Replica, ReplicaContext, StartError};

type ReplicaFuture = Pin<Box<dyn Future<Output = Result<Box<dyn Replica>, StartError>> + Send>>;

/// Makes a replica. Heavy work (loading a model) belongs on `tokio::task::spawn_blocking`.
pub type ReplicaFactory = Arc<dyn Fn(ReplicaContext) -> ReplicaFuture + Send + Sync>;

/// One deployment: a name, its options as the code says them, and how to make a replica.
#[derive(Clone)]
pub struct Deployment {
    /// The name that the config's `deployments` entries refer to.
    pub name: String,
    /// The code's options in the words of a config's deployment entry
    /// (`{"max_ongoing_requests": 64}`); the config is laid over them.
    pub options: Map<String, Value>,
    /// Makes a replica.
    pub factory: ReplicaFactory,
}

/// A path below the application's prefix that one deployment answers without another hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRoute {
    /// `/v1/rerank`: matches itself and what lies below it. The longest match wins.
    pub path: String,
    /// The deployment's name.
    pub deployment: String,
}

/// A gRPC method that one deployment answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcRoute {
    /// `package.Service`.
    pub service: String,
    /// The method's name.
    pub method: String,
    /// The deployment's name.
    pub deployment: String,
    /// Whether the client, the replica or both send a stream of messages.
    pub streaming: bool,
}

/// A graph of deployments behind one route prefix.
#[derive(Clone)]
pub struct Application {
    /// The deployment that answers every path that no route names.
    pub ingress: String,
    /// All deployments; names are unique.
    pub deployments: Vec<Deployment>,
    /// Paths that lead elsewhere than to the ingress.
    pub routes: Vec<PathRoute>,
    /// gRPC methods.
    pub grpc_routes: Vec<GrpcRoute>,
}

impl Deployment {
    /// A deployment whose replicas `factory` makes.
    pub fn new<F, R, Fut>(name: impl Into<String>, factory: F) -> Deployment
    where
        F: Fn(ReplicaContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, StartError>> + Send + 'static,
        R: Replica,
    {
        let factory: ReplicaFactory = Arc::new(move |context| {
            let replica = factory(context);
            Box::pin(async move { Ok(Box::new(replica.await?) as Box<dyn Replica>) })
        });
        Deployment {
            name: name.into(),
            options: Map::new(),
            factory,
        }
    }

    /// A deployment whose replicas never start: for tests of what reads an application and runs
    /// none of it.
    pub fn without_code(name: impl Into<String>) -> Deployment {
        Deployment {
            name: name.into(),
            options: Map::new(),
            factory: Arc::new(|_| {
                let error = StartError("the deployment has no code".to_owned());
                Box::pin(async { Err(error) })
            }),
        }
    }

    /// Sets an option as the code's default, in the words of the Serve config.
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Deployment {
        self.options.insert(name.to_owned(), value.into());
        self
    }
}

impl Application {
    /// An application of one deployment.
    pub fn single(deployment: Deployment) -> Application {
        Application {
            ingress: deployment.name.clone(),
            deployments: vec![deployment],
            routes: Vec::new(),
            grpc_routes: Vec::new(),
        }
    }

    /// The deployment of that name.
    pub fn deployment(&self, name: &str) -> Option<&Deployment> {
        self.deployments
            .iter()
            .find(|deployment| deployment.name == name)
    }
}

impl std::fmt::Debug for Deployment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployment")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Application")
            .field("deployments", &self.deployments)
            .finish_non_exhaustive()
    }
}
