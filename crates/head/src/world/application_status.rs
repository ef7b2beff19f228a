//! The status of an application, from the worst of its deployments (Ray's rules).

use super::deployment_status::{State, Trigger};
use super::intent::Application;

/// Ray's `ApplicationStatus`, those that can happen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppState {
    Deploying,
    DeployFailed,
    Running,
    Unhealthy,
    Deleting,
}

/// The state and its message.
pub fn status(application: &Application) -> (AppState, String) {
    // What runs is the config before; that the newest failed is said until another one comes.
    match &application.declared.taken_back {
        Some(failure) if !application.deleting && application.failure.is_none() => {
            (AppState::DeployFailed, failure.clone())
        }
        Some(_) | None => status_of_what_counts(application),
    }
}

/// The same of the config that counts, whatever failed before it.
pub fn status_of_what_counts(application: &Application) -> (AppState, String) {
    if application.deleting {
        return (AppState::Deleting, String::new());
    }
    if let Some(failure) = &application.failure {
        return (AppState::DeployFailed, failure.clone());
    }
    let named = |state: State| {
        let names: Vec<String> = application
            .deployments
            .iter()
            .filter(|(_, deployment)| deployment.status.state == state)
            .map(|(name, _)| format!("'{name}'"))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = named(State::DeployFailed) {
        return (
            AppState::DeployFailed,
            format!("Failed to update the deployments [{names}]."),
        );
    }
    if let Some(names) = named(State::Unhealthy) {
        return (
            AppState::Unhealthy,
            format!("The deployments [{names}] are UNHEALTHY."),
        );
    }
    let deploying =
        application
            .deployments
            .values()
            .any(|deployment| match deployment.status.state {
                State::Updating => true,
                State::Upscaling | State::Downscaling => {
                    deployment.status.trigger == Trigger::ConfigUpdateStarted
                }
                State::Healthy | State::Unhealthy | State::DeployFailed => false,
            });
    let state = if deploying {
        AppState::Deploying
    } else {
        AppState::Running
    };
    (state, String::new())
}

// === impl AppState ===

impl AppState {
    /// The word of the status document.
    pub fn name(self) -> &'static str {
        match self {
            AppState::Deploying => "DEPLOYING",
            AppState::DeployFailed => "DEPLOY_FAILED",
            AppState::Running => "RUNNING",
            AppState::Unhealthy => "UNHEALTHY",
            AppState::Deleting => "DELETING",
        }
    }

    /// The number of the metric `serve_application_status`.
    pub fn number(self) -> u8 {
        match self {
            AppState::DeployFailed => 1,
            AppState::Unhealthy => 2,
            AppState::Deleting => 4,
            AppState::Deploying => 5,
            AppState::Running => 6,
        }
    }
}
