//! The applications that are built in, and their import paths.
//!
//! | import path | deployments |
//! |---|---|
//! | `mobula.apps:embedder` | `Embedder` |
//! | `mobula.apps:reranker` | `Reranker` |
//! | `mobula.apps:classifier` | `Classifier` |
//! | `mobula.apps:rag` | all three, each path straight to its deployment |
//! | `mobula.apps:noop`, `:echo`, `:sleep` | `Noop`, `Echo`, `Sleep` |

mod echo;
mod options;
mod plain;
mod text;

use mobula_app::{Application, BuildContext, BuildError, PathRoute, Registry};
use serde_json::{Map, Value};

use self::options::{Role, Wishes};
use crate::{api, grpc};

/// Adds every built-in application, and the descriptors of their gRPC service.
pub fn register(registry: &mut Registry) {
    registry.register("mobula.apps:embedder", |context| {
        single(Role::Embedder, context)
    });
    registry.register("mobula.apps:reranker", |context| {
        single(Role::Reranker, context)
    });
    registry.register("mobula.apps:classifier", |context| {
        single(Role::Classifier, context)
    });
    registry.register("mobula.apps:rag", rag);
    registry.register("mobula.apps:noop", plain::noop);
    registry.register("mobula.apps:echo", echo::echo);
    registry.register("mobula.apps:sleep", plain::sleep);
    registry.register_descriptors(grpc::DESCRIPTORS);
}

/// One model behind one prefix.
fn single(role: Role, context: &BuildContext) -> Result<Application, BuildError> {
    let args = Value::Object(context.args.clone());
    check(role, "args", &args)?;
    let mut application = Application::single(text::deployment(role, None));
    application.grpc_routes = vec![grpc::route(role.task(), role.name())];
    Ok(application)
}

/// Three deployments behind one prefix. `args` holds one object for each: `embedder`, `reranker`,
/// `classifier`.
fn rag(context: &BuildContext) -> Result<Application, BuildError> {
    for (key, value) in &context.args {
        let Some(role) = Role::ALL.into_iter().find(|role| role.key() == key) else {
            let keys = Role::ALL.map(Role::key).join(", ");
            return Err(BuildError::Invalid(format!(
                "args: '{key}' is not one of {keys}"
            )));
        };
        check(role, &format!("args.{key}"), value)?;
    }
    let mut application = Application {
        ingress: Role::Embedder.name().to_owned(),
        deployments: Vec::new(),
        routes: Vec::new(),
        grpc_routes: Vec::new(),
    };
    for role in Role::ALL {
        application
            .deployments
            .push(text::deployment(role, Some(role.key())));
        application
            .grpc_routes
            .push(grpc::route(role.task(), role.name()));
        let paths = api::paths_of(role.task()).into_iter();
        application.routes.extend(paths.map(|path| PathRoute {
            path: path.to_owned(),
            deployment: role.name().to_owned(),
        }));
    }
    Ok(application)
}

fn check(role: Role, at: &str, value: &Value) -> Result<(), BuildError> {
    let empty = Value::Object(Map::new());
    let value = if value.is_null() { &empty } else { value };
    Wishes::read(value)
        .and_then(|wishes| wishes.check())
        .map_err(|reason| BuildError::Invalid(format!("{at} of {}: {reason}", role.name())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        register(&mut registry);
        registry
    }

    fn context(args: Value) -> BuildContext {
        let args = args.as_object().cloned().unwrap_or_default();
        BuildContext {
            args,
            ..BuildContext::default()
        }
    }

    #[test]
    fn every_import_path_builds_with_its_deployments() {
        for (path, deployments) in [
            ("mobula.apps:embedder", vec!["Embedder"]),
            ("mobula.apps:reranker", vec!["Reranker"]),
            ("mobula.apps:classifier", vec!["Classifier"]),
            (
                "mobula.apps:rag",
                vec!["Embedder", "Reranker", "Classifier"],
            ),
            ("mobula.apps:noop", vec!["Noop"]),
            ("mobula.apps:echo", vec!["Echo"]),
            ("mobula.apps:sleep", vec!["Sleep"]),
        ] {
            let application = registry().build(path, &BuildContext::default()).unwrap();
            let names: Vec<&str> = application
                .deployments
                .iter()
                .map(|deployment| deployment.name.as_str())
                .collect();
            assert_eq!(names, deployments, "{path}");
        }
    }

    #[test]
    fn rag_sends_each_path_and_method_to_its_deployment() {
        let rag = registry()
            .build("mobula.apps:rag", &BuildContext::default())
            .unwrap();
        assert_eq!(rag.ingress, "Embedder");
        for (path, deployment) in [
            ("/embed", "Embedder"),
            ("/v1/embeddings", "Embedder"),
            ("/rerank", "Reranker"),
            ("/v2/rerank", "Reranker"),
            ("/predict", "Classifier"),
            ("/infer", "Classifier"),
        ] {
            let route = rag.routes.iter().find(|route| route.path == path);
            assert_eq!(
                route.map(|route| route.deployment.as_str()),
                Some(deployment),
                "{path}"
            );
        }
        assert_eq!(rag.grpc_routes.len(), 3);
    }

    #[test]
    fn args_that_are_not_taken_are_named_with_what_is() {
        for (path, args, expected) in [
            (
                "mobula.apps:rag",
                json!({"embeder": {}}),
                "'embeder' is not one of embedder",
            ),
            (
                "mobula.apps:rag",
                json!({"embedder": {"modell": "x"}}),
                "unknown field `modell`",
            ),
            (
                "mobula.apps:embedder",
                json!({"max_batch_size": 0}),
                "max_batch_size: 0 is not",
            ),
            (
                "mobula.apps:embedder",
                json!({"max_batch_size": "8"}),
                "invalid type",
            ),
            (
                "mobula.apps:embedder",
                json!({"batch_wait_timeout_s": -1.0}),
                "batch_wait_timeout_s",
            ),
            ("mobula.apps:noop", json!({"x": 1}), "takes no args"),
            ("mobula.apps:sleep", json!({"seconds": -1}), "seconds"),
        ] {
            let error = registry()
                .build(path, &context(args))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_descriptors_name_the_service_and_its_package() {
        let registry = registry();
        let sets = registry.descriptor_sets();
        let bytes = sets.concat();
        for name in ["mobula.inference.v1", "Inference", "Rerank"] {
            let found = bytes
                .windows(name.len())
                .any(|window| window == name.as_bytes());
            assert!(found, "{name}");
        }
    }
}
