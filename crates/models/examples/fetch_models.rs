//! Fetches the runtime and the default models into the user's cache, with a progress bar.

use mobula_models::fetch::{self, Terminal};
use mobula_models::settings::Settings;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for dir in fetch::ensure_all(&Settings::from_process(), &Terminal::default())? {
        println!("{}", dir.display());
    }
    Ok(())
}
