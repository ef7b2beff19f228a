//! Rules between the fields of one deployment entry that refuse a config, in Ray's words.

use crate::decode::{At, Given};
use crate::error::Findings;
use crate::schema::deployment::{DeploymentOptions, NumReplicas};
use crate::schema::placement::GangSchedulingConfig;

pub(crate) fn check(findings: &mut Findings, at: &At<'_>, options: &DeploymentOptions) {
    let fixed = matches!(options.num_replicas, Given::Value(NumReplicas::Count(_)));
    if fixed && options.autoscaling_config.value().is_some() {
        at.problem(
            findings,
            "Manually setting num_replicas is not allowed when autoscaling_config is provided.",
        );
    }
    check_placement(findings, at, options);
    if let Some(gang) = options.gang_scheduling_config.value() {
        check_gang(findings, at, options, gang);
    }
}

fn check_placement(findings: &mut Findings, at: &At<'_>, options: &DeploymentOptions) {
    let bundles = options.placement_group_bundles.as_ref();
    if options.max_replicas_per_node.is_some() && bundles.is_some() {
        at.problem(
            findings,
            "Setting max_replicas_per_node is not allowed when placement_group_bundles is \
             provided.",
        );
    }
    let Some(selector) = &options.placement_group_bundle_label_selector else {
        return;
    };
    let Some(bundles) = bundles else {
        at.problem(
            findings,
            "Setting bundle_label_selector is not allowed when placement_group_bundles is not \
             provided.",
        );
        return;
    };
    if selector.len() != 1 && selector.len() != bundles.len() {
        let (selectors, bundles) = (selector.len(), bundles.len());
        at.problem(
            findings,
            format!(
                "The `placement_group_bundle_label_selector` list must contain either a single \
                 selector (to apply to all bundles) or match the number of \
                 `placement_group_bundles`. Got {selectors} selectors for {bundles} bundles."
            ),
        );
    }
}

fn check_gang(
    findings: &mut Findings,
    at: &At<'_>,
    options: &DeploymentOptions,
    gang: &GangSchedulingConfig,
) {
    if options.max_replicas_per_node.is_some() {
        at.problem(
            findings,
            "Setting max_replicas_per_node is not allowed when gang_scheduling_config is \
             provided.",
        );
    }
    if options.placement_group_strategy.is_some() {
        at.problem(
            findings,
            "Setting placement_group_strategy is not allowed when gang_scheduling_config is \
             provided. Use gang_scheduling_config.gang_placement_strategy instead.",
        );
    }
    let size = gang.gang_size;
    match options.num_replicas {
        Given::Value(NumReplicas::Count(count)) if count % size != 0 => at.problem(
            findings,
            format!("num_replicas ({count}) must be a multiple of gang_size ({size})."),
        ),
        Given::Value(NumReplicas::Auto) => check_gang_bounds(findings, at, options, size),
        Given::Value(NumReplicas::Count(_)) | Given::Absent | Given::Null => {}
    }
}

/// Only the counts that are written: a default is nobody's mistake.
fn check_gang_bounds(findings: &mut Findings, at: &At<'_>, options: &DeploymentOptions, size: u32) {
    let Some(config) = options.autoscaling_config.value() else {
        return;
    };
    for key in ["min_replicas", "max_replicas", "initial_replicas"] {
        let count = config.get(key).and_then(serde_json::Value::as_u64);
        if let Some(count) = count.filter(|count| count % u64::from(size) != 0) {
            let message = format!(
                "autoscaling_config.{key} ({count}) must be a multiple of gang_size ({size})."
            );
            at.problem(findings, message);
        }
    }
}
