//! How a download tells where it stands.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Hears of a download. Called from the downloading thread, often: implementations must be quick.
pub trait Progress: Send + Sync {
    /// Something worth a line: a source is tried, has failed, is waited for.
    fn note(&self, line: &str);
    /// `done` of `total` bytes of `what` are here; `total` is 0 where nobody knows.
    fn advance(&self, what: &str, done: u64, total: u64);
    /// `what` is complete.
    fn finish(&self, what: &str);
}

/// Says nothing.
pub struct Silent;

/// Writes notes to the log, for workers that fetch while they start.
pub struct Logged;

/// A bar on standard error; without a terminal, one line for each file.
pub struct Terminal {
    drawn: Mutex<Option<Instant>>,
    is_terminal: bool,
}

/// Redrawing more often is not seen by anyone.
const REDRAW_PERIOD: Duration = Duration::from_millis(100);
const BAR_CELLS: u64 = 28;

// === impl Silent ===

impl Progress for Silent {
    fn note(&self, _: &str) {}
    fn advance(&self, _: &str, _: u64, _: u64) {}
    fn finish(&self, _: &str) {}
}

// === impl Logged ===

impl Progress for Logged {
    fn note(&self, line: &str) {
        tracing::info!("{line}");
    }
    fn advance(&self, _: &str, _: u64, _: u64) {}
    fn finish(&self, what: &str) {
        tracing::info!("fetched {what}");
    }
}

// === impl Terminal ===

impl Default for Terminal {
    fn default() -> Terminal {
        Terminal {
            drawn: Mutex::new(None),
            is_terminal: std::io::stderr().is_terminal(),
        }
    }
}

impl Terminal {
    /// Progress is for the eye: a terminal that is gone is no reason to stop a download.
    fn write(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes());
        let _ = stderr.flush();
    }

    fn due(&self) -> bool {
        let Ok(mut drawn) = self.drawn.lock() else {
            return false;
        };
        let now = Instant::now();
        let due = drawn.is_none_or(|at| now.duration_since(at) >= REDRAW_PERIOD);
        if due {
            *drawn = Some(now);
        }
        due
    }
}

impl Progress for Terminal {
    fn note(&self, line: &str) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        self.write(&format!("{clear}{line}\n"));
    }

    fn advance(&self, what: &str, done: u64, total: u64) {
        if self.is_terminal && self.due() {
            self.write(&format!("\r\x1b[K{}", bar(what, done, total)));
        }
    }

    fn finish(&self, what: &str) {
        self.note(&format!("fetched {what}"));
    }
}

/// `name [=====>    ]  12.3 / 90.4 MB`
fn bar(what: &str, done: u64, total: u64) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    if total == 0 {
        return format!("{what} {:.1} MB", megabytes(done));
    }
    let filled = (done.min(total) * BAR_CELLS / total) as usize;
    format!(
        "{what} [{}{}] {:.1} / {:.1} MB",
        "=".repeat(filled),
        " ".repeat(BAR_CELLS as usize - filled),
        megabytes(done),
        megabytes(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_with_the_bytes_and_never_overflows() {
        assert_eq!(bar("a", 0, 0), "a 0.0 MB");
        assert!(bar("a", 50, 100).contains(&format!("[{}{}]", "=".repeat(14), " ".repeat(14))));
        assert!(bar("a", 500, 100).contains(&format!("[{}]", "=".repeat(28))));
    }
}
