//! Which keys a Ray version knows.

use std::str::FromStr;

/// The Ray version that the document is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RayVersion {
    major: u32,
    minor: u32,
}

// === impl RayVersion ===

impl RayVersion {
    const fn new(major: u32, minor: u32) -> RayVersion {
        RayVersion { major, minor }
    }

    /// The status DEPLOY_FAILED of deployments; applications have always had it.
    pub fn has_failed_deployments(self) -> bool {
        self >= RayVersion::new(2, 41)
    }

    /// `target_groups`, and `required_resources` of deployments.
    pub fn has_target_groups(self) -> bool {
        self >= RayVersion::new(2, 46)
    }

    /// `external_scaler_enabled` and `deployment_topology` of applications.
    pub fn has_topology(self) -> bool {
        self >= RayVersion::new(2, 53)
    }

    /// The newest set.
    pub fn is_at_least_2_60(self) -> bool {
        self >= RayVersion::new(2, 60)
    }
}

impl FromStr for RayVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<RayVersion, ()> {
        let mut parts = text.split('.').map(|part| part.parse::<u32>());
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(RayVersion { major, minor }),
            (_, _) => Err(()),
        }
    }
}
