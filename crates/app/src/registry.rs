//! Which `import_path` leads to which application.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{Application, BuildError};

/// What a builder may look at.
#[derive(Clone, Debug, Default)]
pub struct BuildContext {
    /// `args` of the config's application entry.
    pub args: Map<String, Value>,
    /// The environment: the process's, with the config's `runtime_env.env_vars` laid over it.
    pub env: BTreeMap<String, String>,
}

type Builder = Arc<dyn Fn(&BuildContext) -> Result<Application, BuildError> + Send + Sync>;

/// The applications that are compiled into this binary.
///
/// The head builds an application to learn its deployments and routes, a worker to make
/// replicas. Both must come to the same deployments, so a builder may let the environment decide
/// what a replica loads, but not which deployments there are.
#[derive(Clone, Default)]
pub struct Registry {
    builders: BTreeMap<String, Builder>,
    descriptor_sets: Vec<&'static [u8]>,
}

impl Registry {
    /// Adds an application under an import path; the last one of a name wins.
    pub fn register<F>(&mut self, import_path: &str, builder: F)
    where
        F: Fn(&BuildContext) -> Result<Application, BuildError> + Send + Sync + 'static,
    {
        self.builders
            .insert(import_path.to_owned(), Arc::new(builder));
    }

    /// Adds an encoded protobuf `FileDescriptorSet` for gRPC reflection.
    pub fn register_descriptors(&mut self, descriptor_set: &'static [u8]) {
        self.descriptor_sets.push(descriptor_set);
    }

    /// The import paths, sorted.
    pub fn import_paths(&self) -> impl Iterator<Item = &str> {
        self.builders.keys().map(String::as_str)
    }

    /// The descriptor sets of all gRPC services.
    pub fn descriptor_sets(&self) -> &[&'static [u8]] {
        &self.descriptor_sets
    }

    /// Builds the application of an import path.
    pub fn build(
        &self,
        import_path: &str,
        context: &BuildContext,
    ) -> Result<Application, BuildError> {
        let Some(builder) = self.builders.get(import_path) else {
            return Err(BuildError::UnknownImportPath {
                import_path: import_path.to_owned(),
                known: self.import_paths().collect::<Vec<_>>().join(", "),
            });
        };
        builder(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_import_path_names_those_that_exist() {
        let mut registry = Registry::default();
        for path in ["b:two", "a:one"] {
            registry.register(path, |_| Err(BuildError::Invalid("unused".to_owned())));
        }
        let error = registry
            .build("app1:app", &BuildContext::default())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "no application 'app1:app' here; the import paths that exist are: a:one, b:two"
        );
    }
}
