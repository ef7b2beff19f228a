//! The SDK: what a user writes to serve a model. The built-in models are written against it.
//!
//! An [`Application`] is a set of deployments behind one route prefix; a [`Deployment`] knows how
//! to make a [`Replica`]; a [`Replica`] answers a [`Request`] with a [`Response`]. A [`Registry`]
//! maps the `import_path` of a Serve config to the function that builds the application.
//!
//! ```
//! use mobula_app::{Application, BuildContext, Deployment, Registry, Replica, Request, Response};
//!
//! struct Hello;
//!
//! #[mobula_app::async_trait]
//! impl Replica for Hello {
//!     async fn call(&self, request: Request) -> Result<Response, mobula_app::CallError> {
//!         Ok(Response::text(format!("hello from {}", request.path)))
//!     }
//! }
//!
//! let mut registry = Registry::default();
//! registry.register("my.apps:hello", |_: &BuildContext| {
//!     Ok(Application::single(Deployment::new("Hello", |_| async { Ok(Hello) })))
//! });
//! assert!(registry.build("my.apps:hello", &BuildContext::default()).is_ok());
//! ```
//!
//! Not here: processes, networks, state stores. A replica sees requests and its own config.

mod application;
mod body;
mod error;
mod grpc;
mod leaving;
mod registry;
mod replica;
mod request;
mod response;
mod websocket;
mod wire;

pub use application::{Application, Deployment, GrpcRoute, PathRoute, ReplicaFactory};
pub use async_trait::async_trait;
pub use body::{Body, BodyError, BodySender};
pub use error::{BuildError, CallError, ConfigError, HealthError, StartError};
pub use grpc::{GRPC_MESSAGE_BYTES_MAX, GrpcMessages};
pub use leaving::{Leave, Leaving};
pub use registry::{BuildContext, Registry};
pub use replica::{GpuShare, Replica, ReplicaContext};
pub use request::{Protocol, Request, RequestContext};
pub use response::{End, Ending, GrpcStatus, Response};
pub use websocket::{
    CLOSE_NORMAL, Message, WEBSOCKET_CLOSE_SECONDS_MAX, WEBSOCKET_MESSAGE_BYTES_MAX,
    WEBSOCKET_PING_SECONDS, WebSocket, WebSocketError,
};
