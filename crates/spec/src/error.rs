//! What is wrong with a config, where, and what would be right.

use std::fmt;

use crate::limits::{PROBLEMS_MAX, QUOTED_CHARS_MAX, WARNINGS_MAX};

/// One thing that makes a config unusable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as `applications[0].deployments[1].num_replicas`; empty for the whole document.
    pub path: String,
    /// The line in the YAML text, counted from 1. JSON carries none.
    pub line: Option<usize>,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// One thing that is accepted and will not do what its author may expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// As [`Problem::path`].
    pub path: String,
    /// As [`Problem::line`].
    pub line: Option<usize>,
    /// What will not happen, and why.
    pub message: String,
}

/// A config was refused: everything found wrong with it, up to [`PROBLEMS_MAX`]. Asking again
/// with the same text gives the same answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
    left_out: usize,
}

/// A config that was accepted and cannot be applied to the application's code, for example
/// because it names a deployment that the code does not have. The text is the message of the
/// application's `DEPLOY_FAILED` status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LateError {
    pub message: String,
}

/// Collects what a reading finds, within the limits.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Vec<Problem>,
    problems_left_out: usize,
    warnings: Vec<Warning>,
}

// === impl ConfigErrors ===

impl ConfigErrors {
    pub(crate) fn one(line: Option<usize>, message: impl Into<String>) -> Self {
        let problem = Problem {
            path: String::new(),
            line,
            message: message.into(),
        };
        Self {
            problems: vec![problem],
            left_out: 0,
        }
    }

    /// The problems in the order of the text.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many more were found than are listed.
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        if self.left_out > 0 {
            write!(f, "\nand {} more", self.left_out)?;
        }
        Ok(())
    }
}

// === impl Problem, Warning ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        located(f, &self.path, self.line, &self.message)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        located(f, &self.path, self.line, &self.message)
    }
}

fn located(
    f: &mut fmt::Formatter<'_>,
    path: &str,
    line: Option<usize>,
    message: &str,
) -> fmt::Result {
    match (path.is_empty(), line) {
        (true, None) => f.write_str(message),
        (true, Some(line)) => write!(f, "line {line}: {message}"),
        (false, None) => write!(f, "{path}: {message}"),
        (false, Some(line)) => write!(f, "{path} (line {line}): {message}"),
    }
}

// === impl LateError ===

impl LateError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

// === impl Findings ===

impl Findings {
    /// Takes over what another reading found, its problems as warnings.
    pub(crate) fn warn_of(&mut self, other: Self, prefix: &str) {
        for problem in other.problems {
            let message = format!("{prefix}: {}", problem.message);
            self.warning(&problem.path, problem.line, message);
        }
        for warning in other.warnings {
            self.warning(&warning.path, warning.line, warning.message);
        }
    }

    pub(crate) fn problem(&mut self, path: &str, line: Option<usize>, message: impl Into<String>) {
        if self.problems.len() == PROBLEMS_MAX {
            self.problems_left_out += 1;
            return;
        }
        self.problems.push(Problem {
            path: path.to_owned(),
            line,
            message: message.into(),
        });
    }

    /// Warnings beyond the limit are dropped: the first ones already say what to look for.
    pub(crate) fn warning(&mut self, path: &str, line: Option<usize>, message: impl Into<String>) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(Warning {
                path: path.to_owned(),
                line,
                message: message.into(),
            });
        }
    }

    /// The warnings of a clean reading, or the problems; in the order of the text where it has
    /// lines, else in the order of reading.
    pub(crate) fn finish(mut self) -> Result<Vec<Warning>, ConfigErrors> {
        if self.problems.is_empty() {
            self.warnings.sort_by_key(|warning| warning.line);
            return Ok(self.warnings);
        }
        self.problems.sort_by_key(|problem| problem.line);
        Err(ConfigErrors {
            problems: self.problems,
            left_out: self.problems_left_out,
        })
    }
}

/// A user's word as a message repeats it: shortened, and control characters made visible, so
/// that a config cannot write to the terminal of whoever reads the answer.
pub(crate) fn quoted(word: &str) -> String {
    let mut text = String::from("`");
    for (index, c) in word.chars().enumerate() {
        if index == QUOTED_CHARS_MAX {
            text.push('…');
            break;
        }
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text.push('`');
    text
}
