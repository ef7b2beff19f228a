//! `--ray-version`: the Ray release whose command line reads the admin API's answers.
//!
//! Ray's own clients refuse documents with keys that are newer than they are, so a head speaks
//! as one release. Which keys that release knows is the head's business, not ours.

use clap::Args;

/// The oldest and newest minor release of Ray 2 whose keys are known.
const MINOR_MIN: u32 = 40;
const MINOR_MAX: u32 = 60;

#[derive(Clone, Debug, Args)]
pub struct RayVersionArgs {
    /// Speak as this Ray release does: 2.40.0 to 2.60.x. Ray's `serve` command refuses what a
    /// newer release says, so name the oldest one that your clients have
    #[arg(
        long,
        env = "MOBULA_RAY_VERSION",
        value_name = "VERSION",
        default_value = "2.60.0",
        value_parser = ray_version
    )]
    pub ray_version: String,
}

/// Checks that it is a release whose keys are known; the patch level may be any.
fn ray_version(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('.').collect();
    match parts.as_slice() {
        [major, minor, patch] => match (number(major), number(minor), number(patch)) {
            (Some(2), Some(MINOR_MIN..=MINOR_MAX), Some(_)) => Ok(text.to_owned()),
            _ => Err(allowed()),
        },
        _ => Err(allowed()),
    }
}

/// Whether a head can speak as this release.
pub fn is_known(text: &str) -> bool {
    ray_version(text).is_ok()
}

/// A number as releases are written: digits alone, without a sign or leading zeros.
fn number(text: &str) -> Option<u32> {
    text.parse()
        .ok()
        .filter(|number: &u32| number.to_string() == text)
}

fn allowed() -> String {
    format!("allowed are 2.{MINOR_MIN}.0 to 2.{MINOR_MAX}.x, all three numbers written out")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn releases_whose_keys_are_known_are_taken_as_they_are_written() {
        for version in ["2.40.0", "2.53.0", "2.55.1", "2.60.0", "2.60.17"] {
            assert_eq!(ray_version(version).as_deref(), Ok(version));
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_allowed() {
        let wrong = [
            "", "2", "2.53", "2.53.", "2.39.9", "2.61.0", "1.53.0", "3.50.0", "2.53.0.1", "2.53.x",
            "v2.53.0", "2.+53.0", "2.053.0", " 2.53.0", "latest",
        ];
        for version in wrong {
            let told = ray_version(version).unwrap_err();
            assert!(told.contains("2.40.0 to 2.60.x"), "{version}: {told}");
        }
    }

    #[test]
    fn run_and_head_have_the_flag_and_the_same_default() {
        let parse = |line: &[&str]| match Cli::try_parse_from(line).unwrap().command {
            Command::Run(args) => args.ray.ray_version,
            Command::Head(args) => args.ray.ray_version,
            other => unreachable!("{other:?}"),
        };
        for role in ["run", "head"] {
            assert_eq!(parse(&["mobula", role]), "2.60.0");
            let given = ["mobula", role, "--ray-version", "2.53.0"];
            assert_eq!(parse(&given), "2.53.0");
        }
    }
}
