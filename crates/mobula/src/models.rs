//! `mobula models`: fetch and list model files.

use anyhow::Result;
use mobula_models::fetch::{self, Terminal};
use mobula_models::settings::Settings;

use crate::args::ModelsAction;

/// Fetches or lists.
pub async fn execute(action: ModelsAction) -> Result<()> {
    // File and network work of minutes: on a thread where it may block.
    tokio::task::spawn_blocking(move || match action {
        ModelsAction::Fetch { runtime } => fetch(runtime),
        ModelsAction::List => list(),
    })
    .await?
}

fn fetch(runtime: String) -> Result<()> {
    let settings = Settings {
        runtime,
        ..Settings::from_process()
    };
    for dir in fetch::ensure_all(&settings, &Terminal::default())? {
        println!("{}", dir.display());
    }
    Ok(())
}

fn list() -> Result<()> {
    for listed in fetch::list(&Settings::from_process())? {
        let state = if listed.cached {
            "cached"
        } else {
            "not fetched"
        };
        let mebibytes = listed.entry.size() as f64 / (1024.0 * 1024.0);
        let id = match &listed.entry.variant {
            Some(variant) => format!("{} ({variant})", listed.entry.id),
            None => listed.entry.id.clone(),
        };
        println!(
            "{state:<12} {mebibytes:>8.1} MiB  {id:<48} {}",
            listed.dir.display()
        );
    }
    Ok(())
}
