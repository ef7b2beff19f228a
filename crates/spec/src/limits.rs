//! Every bound of reading a config, with its reason.
//!
//! A config comes from outside, through an open port or a file of unknown origin, so what it
//! can cost is settled here and not by whoever wrote it.

/// Bytes of one document. Kubernetes keeps an object below 1.5 MiB, so a config that lives in
/// a custom resource always fits.
pub const DOCUMENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Levels of lists and objects inside each other. The schema itself needs ten; the rest is for
/// `user_config` and `args`. Small enough that recursion over a document needs no care.
pub const DOCUMENT_DEPTH_MAX: usize = 64;

/// Values in one document after aliases and merge keys are written out. A document of
/// `DOCUMENT_BYTES_MAX` without aliases can hold about a million one-letter values; real ones
/// hold a few thousand.
pub const DOCUMENT_NODES_MAX: usize = 200_000;

/// Bytes of text after aliases and merge keys are written out: what stops an alias bomb made
/// of one long string.
pub const DOCUMENT_TEXT_BYTES_MAX: usize = 4 * DOCUMENT_BYTES_MAX;

/// Applications of one config: a page of status still loads in a browser.
pub const APPLICATIONS_MAX: usize = 1_000;

/// Override entries of one application.
pub const DEPLOYMENTS_MAX: usize = 1_000;

/// Problems that one answer lists. Nobody mends more than a screenful at a time.
pub const PROBLEMS_MAX: usize = 100;

/// Warnings that one answer lists.
pub const WARNINGS_MAX: usize = 200;

/// Characters of a user's own words (a key, a wrong value) that a message repeats.
pub const QUOTED_CHARS_MAX: usize = 80;
