//! `mobula shutdown`.

use std::io::{BufRead, Write};

use anyhow::Result;
use http::Method;

use super::http::{APPLICATIONS, send};
use super::target::Target;
use crate::args::ShutdownArgs;

/// Deletes all applications, after asking.
pub async fn shutdown(args: &ShutdownArgs) -> Result<()> {
    let address = &args.address.address;
    let target = Target::from_args(&args.address)?;
    let document = send(&target, Method::GET, APPLICATIONS, Vec::new())
        .await?
        .json()?;
    if document["controller_info"]["node_id"]
        .as_str()
        .is_none_or(str::is_empty)
    {
        println!("No applications are deployed at {address}.");
        return Ok(());
    }
    if !args.yes && !confirmed(address)? {
        println!("Nothing was deleted.");
        return Ok(());
    }
    send(&target, Method::DELETE, APPLICATIONS, Vec::new())
        .await?
        .ok()?;
    println!("Sent delete request successfully; replicas drain in the background.");
    Ok(())
}

fn confirmed(address: &str) -> Result<bool> {
    print!("This deletes all applications at {address}. Continue? [y/N]: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
