//! Downloads one URL into a file: resumed where a part is there, retried when the line is cut,
//! verified before anybody takes it for whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};

use super::hash;
use super::progress::Progress;
use crate::settings::Secret;

/// Short, so that a machine without a way to the hub goes on to the next source at once.
const CONNECT_SECONDS_MAX: u64 = 2;
/// A server that accepted must start to answer within this; large files are streamed after it.
const ANSWER_SECONDS_MAX: u64 = 15;
/// A line on which nothing came for so long is cut.
const STALL_SECONDS_MAX: u64 = 30;
/// Cuts in a row without a single new byte before the source is given up.
const FRUITLESS_ATTEMPTS_MAX: u32 = 3;
/// Cuts in all before the source is given up, however much progress there was.
const ATTEMPTS_MAX: u32 = 50;
/// No model of the BERT family comes near; a server cannot fill the disk.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
const CHUNK_BYTES: usize = 256 * 1024;

/// What to download.
pub struct Download<'a> {
    /// From where. Never shown: a registry's URL may hold credentials.
    pub url: &'a str,
    /// Sent as bearer.
    pub token: Option<&'a Secret>,
    /// For messages.
    pub what: &'a str,
    /// Length, where it is known beforehand.
    pub size: Option<u64>,
    /// SHA-256 in lower-case hex, where it is known beforehand.
    pub sha256: Option<&'a str>,
}

/// Why a download failed. The texts are for people.
#[derive(Debug, PartialEq, Eq)]
pub enum DownloadError {
    /// The server has no such file.
    NotFound,
    /// The server wants other credentials.
    Unauthorized(u16),
    /// Anything else.
    Failed(String),
}

/// An agent with the limits above and the machine's own root certificates.
pub fn agent() -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .timeout_resolve(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
        .timeout_connect(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
        .timeout_recv_response(Some(Duration::from_secs(ANSWER_SECONDS_MAX)))
        .timeout_per_read(Some(Duration::from_secs(STALL_SECONDS_MAX)))
        .user_agent(concat!("mobula/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// Downloads into `part`, continuing what is there, and verifies it. On a wrong hash the part is
/// removed, so that the next attempt starts afresh.
pub fn download(
    agent: &Agent,
    request: &Download<'_>,
    part: &Path,
    progress: &dyn Progress,
) -> Result<(), DownloadError> {
    let mut fruitless = 0;
    for attempt in 1..=ATTEMPTS_MAX {
        let before = length(part);
        match attempt_once(agent, request, part, progress) {
            Ok(()) => return verify(request, part),
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Cut(reason)) => {
                fruitless = if length(part) > before {
                    0
                } else {
                    fruitless + 1
                };
                if fruitless >= FRUITLESS_ATTEMPTS_MAX || attempt == ATTEMPTS_MAX {
                    return Err(DownloadError::Failed(reason));
                }
                progress.note(&format!("{}: {reason}; resuming", request.what));
            }
        }
    }
    Err(DownloadError::Failed("too many attempts".to_owned()))
}

enum Attempt {
    /// Worth another try from where it stopped.
    Cut(String),
    Final(DownloadError),
}

fn attempt_once(
    agent: &Agent,
    request: &Download<'_>,
    part: &Path,
    progress: &dyn Progress,
) -> Result<(), Attempt> {
    let have = length(part);
    if have > 0 && request.size == Some(have) {
        return Ok(());
    }
    let mut get = agent.get(request.url);
    if let Some(token) = request.token {
        get = get.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    if have > 0 {
        get = get.header(header::RANGE, format!("bytes={have}-"));
    }
    let mut response = get.call().map_err(unanswered)?;
    let status = response.status();
    let resumed = status == StatusCode::PARTIAL_CONTENT && starts_at(&response, have);
    if status == StatusCode::RANGE_NOT_SATISFIABLE || (!resumed && status.as_u16() == 206) {
        // What is here does not fit what is there: start again.
        remove(part);
        return Err(Attempt::Cut("the part no longer fits the file".to_owned()));
    }
    if !status.is_success() {
        return Err(refusal(status.as_u16()));
    }
    let start = if resumed { have } else { 0 };
    let total = request
        .size
        .or_else(|| response.body().content_length().map(|rest| rest + start));
    let file = open(part, resumed).map_err(|error| Attempt::Final(failed(error.to_string())))?;
    let reader = response
        .body_mut()
        .with_config()
        .limit(FILE_BYTES_MAX)
        .reader();
    let copied = copy(reader, file, start, total, request, progress)?;
    match total {
        Some(total) if copied != total => Err(Attempt::Cut(format!(
            "connection ended after {copied} of {total} bytes"
        ))),
        _ => Ok(()),
    }
}

fn copy(
    mut reader: impl Read,
    mut file: File,
    start: u64,
    total: Option<u64>,
    request: &Download<'_>,
    progress: &dyn Progress,
) -> Result<u64, Attempt> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = start;
    loop {
        let read = reader
            .read(&mut chunk)
            .map_err(|error| Attempt::Cut(error.to_string()))?;
        if read == 0 {
            break;
        }
        done += read as u64;
        if total.is_some_and(|total| done > total) {
            let text = format!("longer than the {} bytes expected", total.unwrap_or(0));
            return Err(Attempt::Final(failed(text)));
        }
        file.write_all(&chunk[..read])
            .map_err(|error| Attempt::Final(failed(error.to_string())))?;
        progress.advance(request.what, done, total.unwrap_or(0));
    }
    file.sync_all()
        .map_err(|error| Attempt::Final(failed(error.to_string())))?;
    Ok(done)
}

fn verify(request: &Download<'_>, part: &Path) -> Result<(), DownloadError> {
    let Some(expected) = request.sha256 else {
        return Ok(());
    };
    let found = hash::hex_of_file(part).map_err(|error| failed(error.to_string()))?;
    if found == expected {
        return Ok(());
    }
    remove(part);
    Err(failed(format!(
        "SHA-256 is {found}, the lock file says {expected}"
    )))
}

/// No answer at all: worth another try only if somebody was there.
fn unanswered(error: ureq::Error) -> Attempt {
    let was_there = match &error {
        ureq::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        ),
        ureq::Error::Timeout(limit) => {
            !matches!(limit, ureq::Timeout::Connect | ureq::Timeout::Resolve)
        }
        _ => false,
    };
    if was_there {
        return Attempt::Cut(error.to_string());
    }
    Attempt::Final(failed(format!("no connection: {error}")))
}

fn refusal(status: u16) -> Attempt {
    match status {
        404 | 410 => Attempt::Final(DownloadError::NotFound),
        401 | 403 => Attempt::Final(DownloadError::Unauthorized(status)),
        429 | 500..=599 => Attempt::Cut(format!("status {status}")),
        _ => Attempt::Final(failed(format!("status {status}"))),
    }
}

/// Whether a 206 continues at the byte that was asked for.
fn starts_at(response: &ureq::http::Response<ureq::Body>, have: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE);
    let start = range
        .and_then(|range| range.to_str().ok())
        .and_then(|range| range.strip_prefix("bytes "))
        .and_then(|range| range.split('-').next())
        .and_then(|start| start.parse::<u64>().ok());
    start == Some(have)
}

fn open(part: &Path, append: bool) -> io::Result<File> {
    if append {
        return OpenOptions::new().append(true).open(part);
    }
    File::create(part)
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// A part that cannot be removed is found wrong again by the next verification.
fn remove(part: &Path) {
    let _ = std::fs::remove_file(part);
}

fn failed(text: String) -> DownloadError {
    DownloadError::Failed(text)
}

impl std::fmt::Display for DownloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DownloadError::NotFound => f.write_str("no such file (404)"),
            DownloadError::Unauthorized(status) => {
                write!(f, "access denied ({status}); is a token needed?")
            }
            DownloadError::Failed(text) => f.write_str(text),
        }
    }
}
