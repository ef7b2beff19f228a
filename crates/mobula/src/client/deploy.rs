//! `mobula deploy` and `mobula validate`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use http::Method;
use mobula_app::BuildContext;

use super::http::{APPLICATIONS, send};
use super::target::Target;
use crate::args::{DeployArgs, ValidateArgs};

/// Checks a config file and sends it.
pub async fn deploy(args: &DeployArgs) -> Result<()> {
    if let Some(application) = &args.app {
        return super::application::deploy(args, application).await;
    }
    let document = read_config(&args.config)?;
    let target = Target::from_args(&args.address)?;
    let answer = send(&target, Method::PUT, APPLICATIONS, document).await?;
    answer.ok()?;
    println!("Sent deploy request successfully.");
    println!(" * Use `mobula status` to check the applications' statuses.");
    println!(" * Use `mobula config` to see the deployed config.");
    Ok(())
}

/// Checks a config file: its problems, or its warnings and what it holds.
pub fn validate(args: &ValidateArgs) -> Result<()> {
    let text = read_text(&args.config)?;
    let checked = check(&args.config, &text)?;
    build_all(&checked.config.applications)
        .with_context(|| format!("{} cannot be deployed here", args.config.display()))?;
    let applications = checked.config.applications.len();
    let warnings = checked.warnings.len();
    println!(
        "{}: valid, {applications} application(s), {warnings} warning(s)",
        args.config.display()
    );
    Ok(())
}

/// What the head finds beyond the schema: import paths and `args` that no builder takes.
fn build_all(applications: &[mobula_spec::Application]) -> Result<()> {
    let registry = crate::registry();
    let mut problems = Vec::new();
    for (index, application) in applications.iter().enumerate() {
        let mut env = crate::environment();
        env.extend(application.env_vars());
        let context = BuildContext {
            args: application.args.clone(),
            env,
        };
        if let Err(error) = registry.build(&application.import_path, &context) {
            problems.push(format!("applications[{index}].import_path: {error}"));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// Reads and checks a config file; warnings go to standard error. Answers with the document as
/// JSON, the body of a PUT.
pub fn read_config(path: &Path) -> Result<Vec<u8>> {
    let text = read_text(path)?;
    let checked = check(path, &text)?;
    serde_json::to_vec(&checked.config.to_json()).context("the config cannot be written as JSON")
}

fn check(path: &Path, text: &str) -> Result<mobula_spec::Checked> {
    match mobula_spec::ServeConfig::from_yaml(text) {
        Ok(checked) => {
            for warning in &checked.warnings {
                eprintln!("warning: {}: {warning}", path.display());
            }
            Ok(checked)
        }
        Err(errors) => bail!("{} is not a valid Serve config:\n{errors}", path.display()),
    }
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
