//! `mobula head --kubernetes-groups`: reads the groups of worker pods.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use mobula_head::NewProvisioner;
use mobula_head::provision::kubernetes::groups::{is_dns_label, parse};
use mobula_head::provision::kubernetes::{KubernetesProvisioner, Settings};

use crate::args::KubernetesArgs;

/// The name becomes a label and a part of the names of pods and budgets.
const CLUSTER_NAME_CHARS_MAX: usize = 40;

/// What makes the provisioner of each leadership.
///
/// # Errors
/// When the file cannot be read, or something in it or in the names is not allowed.
pub fn provisioners(args: &KubernetesArgs, file: &Path) -> Result<NewProvisioner> {
    let cluster = args.kubernetes_cluster.clone();
    if !is_dns_label(&cluster, CLUSTER_NAME_CHARS_MAX) {
        bail!(
            "--kubernetes-cluster '{cluster}': must be a DNS label of at most \
             {CLUSTER_NAME_CHARS_MAX} characters (a-z, 0-9, -, a letter first)"
        );
    }
    let place = || format!("--kubernetes-groups {}", file.display());
    let text = std::fs::read_to_string(file).with_context(place)?;
    let settings = Settings {
        groups: parse(&text).with_context(place)?,
        cluster,
        namespace: args.kubernetes_namespace.clone(),
    };
    Ok(Arc::new(move || {
        Box::new(KubernetesProvisioner::new(settings.clone()))
    }))
}
