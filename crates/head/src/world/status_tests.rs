//! The table of deployment statuses, as Ray documents it, line by line.

use super::deployment_status::Direction::{Down, Up};
use super::deployment_status::State::{
    DeployFailed, Downscaling, Healthy, Unhealthy, Updating, Upscaling,
};
use super::deployment_status::StatusEvent as E;
use super::deployment_status::Trigger as T;
use super::deployment_status::next;

#[test]
fn each_line_of_the_table_holds() {
    let config = T::ConfigUpdateStarted;
    let lines = [
        (
            Healthy,
            T::Unspecified,
            E::InternalError,
            Some((Unhealthy, T::InternalError)),
        ),
        (
            Healthy,
            T::Unspecified,
            E::Delete,
            Some((Updating, T::Deleting)),
        ),
        (
            Healthy,
            config,
            E::RolloutGaveUp,
            Some((DeployFailed, T::ReplicaStartupFailed)),
        ),
        (
            Updating,
            config,
            E::AllReplicasRight,
            Some((Healthy, T::ConfigUpdateCompleted)),
        ),
        (Updating, config, E::NewConfig, Some((Updating, config))),
        (
            Updating,
            config,
            E::Autoscale(Up),
            Some((Upscaling, T::Autoscaling)),
        ),
        (
            Updating,
            config,
            E::Autoscale(Down),
            Some((Downscaling, T::Autoscaling)),
        ),
        (Updating, config, E::CountChanged(Up), None),
        (
            Updating,
            config,
            E::HealthCheckFailed,
            Some((DeployFailed, T::HealthCheckFailed)),
        ),
        (
            Updating,
            config,
            E::StartFailed,
            Some((DeployFailed, T::ReplicaStartupFailed)),
        ),
        (
            Upscaling,
            config,
            E::AllReplicasRight,
            Some((Healthy, T::UpscaleCompleted)),
        ),
        (
            Downscaling,
            config,
            E::AllReplicasRight,
            Some((Healthy, T::DownscaleCompleted)),
        ),
        (
            Upscaling,
            config,
            E::HealthCheckFailed,
            Some((Unhealthy, T::HealthCheckFailed)),
        ),
        (
            Downscaling,
            config,
            E::StartFailed,
            Some((Unhealthy, T::ReplicaStartupFailed)),
        ),
        (
            Upscaling,
            T::Autoscaling,
            E::NewConfig,
            Some((Updating, config)),
        ),
        (
            Upscaling,
            T::Autoscaling,
            E::Autoscale(Down),
            Some((Downscaling, T::Autoscaling)),
        ),
        (
            Upscaling,
            T::Autoscaling,
            E::CountChanged(Down),
            Some((Downscaling, config)),
        ),
        (
            Upscaling,
            config,
            E::CountChanged(Down),
            Some((Downscaling, config)),
        ),
        (Upscaling, config, E::Autoscale(Down), None),
        (
            Healthy,
            T::Unspecified,
            E::NewConfig,
            Some((Updating, config)),
        ),
        (
            Healthy,
            T::Unspecified,
            E::CountChanged(Up),
            Some((Upscaling, config)),
        ),
        (
            Healthy,
            T::Unspecified,
            E::Autoscale(Down),
            Some((Downscaling, T::Autoscaling)),
        ),
        (
            Healthy,
            T::Unspecified,
            E::HealthCheckFailed,
            Some((Unhealthy, T::HealthCheckFailed)),
        ),
        (
            Unhealthy,
            T::HealthCheckFailed,
            E::AllReplicasRight,
            Some((Healthy, T::Unspecified)),
        ),
        (
            DeployFailed,
            T::HealthCheckFailed,
            E::AllReplicasRight,
            Some((Healthy, T::Unspecified)),
        ),
        (
            DeployFailed,
            T::HealthCheckFailed,
            E::NewConfig,
            Some((Updating, config)),
        ),
        (
            DeployFailed,
            T::HealthCheckFailed,
            E::StartFailed,
            Some((DeployFailed, T::ReplicaStartupFailed)),
        ),
        (
            Unhealthy,
            T::ReplicaStartupFailed,
            E::HealthCheckFailed,
            Some((Unhealthy, T::HealthCheckFailed)),
        ),
        (Unhealthy, T::HealthCheckFailed, E::Autoscale(Up), None),
        (Healthy, T::Unspecified, E::AllReplicasRight, None),
        (Updating, T::Deleting, E::AllReplicasRight, None),
    ];
    for (state, trigger, event, expected) in lines {
        assert_eq!(
            next(state, trigger, event),
            expected,
            "{state:?} {trigger:?} {event:?}"
        );
    }
}
