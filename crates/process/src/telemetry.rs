//! Logs: structured, to standard error, few. `MOBULA_LOG` sets the filter (`info`,
//! `mobula_head=debug`), `MOBULA_LOG_FORMAT=json` the format.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. A filter that does not parse is an error, so that nobody looks for lines that
/// a typing mistake keeps back.
///
/// # Errors
/// When the filter does not parse, or logging was started before.
pub fn init_logs(filter: &str, json: bool) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(with_quiet_libraries(filter))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours())
        .with_target(false);
    if json {
        builder.json().try_init()
    } else {
        builder.compact().try_init()
    }
}

/// A file or a log collector gets no escape sequences; `NO_COLOR` is everybody's switch.
fn colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !unwanted
}

/// ractor opens a span around every message, which would stand on each of our lines.
fn with_quiet_libraries(filter: &str) -> String {
    if filter.contains("ractor") {
        filter.to_owned()
    } else {
        format!("{filter},ractor=warn")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_they_are_asked_for() {
        assert_eq!(with_quiet_libraries("info"), "info,ractor=warn");
        assert_eq!(
            with_quiet_libraries("info,ractor=debug"),
            "info,ractor=debug"
        );
        assert!(EnvFilter::try_new(with_quiet_libraries("mobula_head=debug")).is_ok());
    }
}
