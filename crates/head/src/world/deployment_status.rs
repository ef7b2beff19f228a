//! The status of a deployment: one exhaustive table of what each event does to it.
//!
//! States, triggers and transitions are Ray's; clients match on them, so none is invented.

use serde::{Deserialize, Serialize};

/// Ray's `DeploymentStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Updating,
    Healthy,
    Unhealthy,
    DeployFailed,
    Upscaling,
    Downscaling,
}

/// Ray's `DeploymentStatusTrigger`, those that can happen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Unspecified,
    ConfigUpdateStarted,
    ConfigUpdateCompleted,
    UpscaleCompleted,
    DownscaleCompleted,
    Autoscaling,
    ReplicaStartupFailed,
    HealthCheckFailed,
    InternalError,
    Deleting,
}

/// What happens to a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusEvent {
    InternalError,
    Delete,
    RolloutGaveUp,
    AllReplicasRight,
    NewConfig,
    Autoscale(Direction),
    CountChanged(Direction),
    HealthCheckFailed,
    StartFailed,
}

/// Which way a count went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Up,
    Down,
}

/// State, trigger and message as the status document shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    pub trigger: Trigger,
    pub message: String,
}

// === impl Status ===

impl Status {
    /// A deployment that was just declared.
    pub fn new() -> Status {
        Status {
            state: State::Updating,
            trigger: Trigger::ConfigUpdateStarted,
            message: String::new(),
        }
    }

    /// Folds an event in. The message is replaced only when the event means something here.
    pub fn on(&mut self, event: StatusEvent, message: impl Into<String>) {
        if let Some((state, trigger)) = next(self.state, self.trigger, event) {
            self.state = state;
            self.trigger = trigger;
            self.message = message.into();
        }
    }
}

impl Default for Status {
    fn default() -> Self {
        Status::new()
    }
}

/// The transition table; None: the event is ignored in this state.
pub fn next(state: State, trigger: Trigger, event: StatusEvent) -> Option<(State, Trigger)> {
    use State::{DeployFailed, Downscaling, Healthy, Unhealthy, Updating, Upscaling};
    use StatusEvent as E;
    let towards = |direction| match direction {
        Direction::Up => Upscaling,
        Direction::Down => Downscaling,
    };
    let by_config = trigger == Trigger::ConfigUpdateStarted;
    match (event, state) {
        (E::InternalError, _) => Some((Unhealthy, Trigger::InternalError)),
        (E::Delete, _) => Some((Updating, Trigger::Deleting)),
        (E::RolloutGaveUp, _) => Some((DeployFailed, Trigger::ReplicaStartupFailed)),
        // What is being deleted hears nothing else but a new config.
        (E::NewConfig, _) => Some((Updating, Trigger::ConfigUpdateStarted)),
        (_, _) if trigger == Trigger::Deleting => None,

        (E::AllReplicasRight, Updating) => Some((Healthy, Trigger::ConfigUpdateCompleted)),
        (E::AllReplicasRight, Upscaling) => Some((Healthy, Trigger::UpscaleCompleted)),
        (E::AllReplicasRight, Downscaling) => Some((Healthy, Trigger::DownscaleCompleted)),
        (E::AllReplicasRight, Unhealthy | DeployFailed) => Some((Healthy, Trigger::Unspecified)),
        (E::AllReplicasRight, Healthy) => None,

        (E::Autoscale(to), Updating | Healthy) => Some((towards(to), Trigger::Autoscaling)),
        (E::Autoscale(to), Upscaling | Downscaling) => {
            if by_config {
                None
            } else {
                Some((towards(to), trigger))
            }
        }
        (E::Autoscale(_), Unhealthy | DeployFailed) => None,

        (E::CountChanged(to), Healthy | Upscaling | Downscaling) => {
            Some((towards(to), Trigger::ConfigUpdateStarted))
        }
        // Asking for another count is asking for another try.
        (E::CountChanged(_), Unhealthy | DeployFailed) => {
            Some((Updating, Trigger::ConfigUpdateStarted))
        }
        (E::CountChanged(_), Updating) => None,

        (E::HealthCheckFailed, Updating) => Some((DeployFailed, Trigger::HealthCheckFailed)),
        (E::HealthCheckFailed, Healthy | Upscaling | Downscaling | Unhealthy) => {
            Some((Unhealthy, Trigger::HealthCheckFailed))
        }
        (E::HealthCheckFailed, DeployFailed) => Some((DeployFailed, Trigger::HealthCheckFailed)),

        (E::StartFailed, Updating | DeployFailed) => {
            Some((DeployFailed, Trigger::ReplicaStartupFailed))
        }
        (E::StartFailed, Upscaling | Downscaling | Unhealthy) => {
            Some((Unhealthy, Trigger::ReplicaStartupFailed))
        }
        (E::StartFailed, Healthy) => None,
    }
}

// === impl State, Trigger ===

impl State {
    /// The word of the status document.
    pub fn name(self) -> &'static str {
        match self {
            State::Updating => "UPDATING",
            State::Healthy => "HEALTHY",
            State::Unhealthy => "UNHEALTHY",
            State::DeployFailed => "DEPLOY_FAILED",
            State::Upscaling => "UPSCALING",
            State::Downscaling => "DOWNSCALING",
        }
    }

    /// The number of the metric `serve_deployment_status`.
    pub fn number(self) -> u8 {
        match self {
            State::DeployFailed => 1,
            State::Unhealthy => 2,
            State::Updating => 3,
            State::Upscaling => 4,
            State::Downscaling => 5,
            State::Healthy => 6,
        }
    }
}

impl Trigger {
    /// The word of the status document.
    pub fn name(self) -> &'static str {
        match self {
            Trigger::Unspecified => "UNSPECIFIED",
            Trigger::ConfigUpdateStarted => "CONFIG_UPDATE_STARTED",
            Trigger::ConfigUpdateCompleted => "CONFIG_UPDATE_COMPLETED",
            Trigger::UpscaleCompleted => "UPSCALE_COMPLETED",
            Trigger::DownscaleCompleted => "DOWNSCALE_COMPLETED",
            Trigger::Autoscaling => "AUTOSCALING",
            Trigger::ReplicaStartupFailed => "REPLICA_STARTUP_FAILED",
            Trigger::HealthCheckFailed => "HEALTH_CHECK_FAILED",
            Trigger::InternalError => "INTERNAL_ERROR",
            Trigger::Deleting => "DELETING",
        }
    }
}
