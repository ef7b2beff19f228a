//! Packages by way of the user's own npm and pip, so that the mirrors and credentials those are
//! configured with hold here too; no registry is named in this code.
//!
//! The client is asked for the URL, which is then downloaded with progress and resumption; where
//! that URL alone is not enough (credentials in the client's configuration), the client downloads.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::lock::Package;

/// Asking a client for a URL: one or two round trips to its registry.
const ASK_SECONDS_MAX: u64 = 60;
/// A client that downloads by itself.
const CLIENT_DOWNLOAD_SECONDS_MAX: u64 = 1800;
/// What is kept of a failed client's output.
const MESSAGE_BYTES_MAX: usize = 300;

/// A registry's client: the program to run.
#[derive(Clone, Copy, Debug)]
pub enum Client<'a> {
    /// npm itself.
    Npm(&'a Path),
    /// The Python that has pip.
    Pip(&'a Path),
}

impl Client<'_> {
    /// The URL of a package's archive. It may hold credentials: not to be shown.
    pub fn url(self, package: &Package) -> Result<String, String> {
        let wait = Duration::from_secs(ASK_SECONDS_MAX);
        let url = match self {
            Client::Npm(npm) => {
                let name = format!("{}@{}", package.package, package.version);
                run(wait, npm, &args(&["view", &name, "dist.tarball"]))?
            }
            Client::Pip(python) => {
                let mut list = args(&["-m", "pip", "install", "--dry-run", "--quiet"]);
                list.extend(args(&[
                    "--report",
                    "-",
                    "--ignore-installed",
                    "--target",
                    "unused",
                ]));
                list.extend(wheel_args(package));
                wheel_url(&run(wait, python, &list)?)?
            }
        };
        let url = url.trim().to_owned();
        if url.starts_with("http://") || url.starts_with("https://") {
            Ok(url)
        } else {
            Err("the client named no URL".to_owned())
        }
    }

    /// Lets the client download the archive into `dir`, which is empty; gives its path.
    pub fn download(self, package: &Package, dir: &Path) -> Result<PathBuf, String> {
        let wait = Duration::from_secs(CLIENT_DOWNLOAD_SECONDS_MAX);
        let name = format!("{}@{}", package.package, package.version);
        match self {
            Client::Npm(npm) => {
                let mut list = args(&["pack", &name, "--silent", "--pack-destination"]);
                list.push(dir.as_os_str().to_owned());
                run(wait, npm, &list)?;
            }
            Client::Pip(python) => {
                let mut list = args(&["-m", "pip", "download", "--quiet", "--dest"]);
                list.push(dir.as_os_str().to_owned());
                list.extend(wheel_args(package));
                run(wait, python, &list)?;
            }
        }
        let files = std::fs::read_dir(dir).map_err(|error| error.to_string())?;
        let mut paths = files.filter_map(|file| file.ok().map(|file| file.path()));
        paths
            .find(|path| path.is_file())
            .ok_or_else(|| "the client left no file".to_owned())
    }
}

fn args(list: &[&str]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

fn wheel_args(package: &Package) -> Vec<OsString> {
    let mut list = args(&[
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]);
    if let Some(tags) = &package.tags {
        for (option, value) in [
            ("--python-version", &tags.python_version),
            ("--implementation", &tags.implementation),
            ("--abi", &tags.abi),
            ("--platform", &tags.platform),
        ] {
            list.extend(args(&[option, value]));
        }
    }
    list.push(format!("{}=={}", package.package, package.version).into());
    list
}

/// The URL in pip's installation report.
fn wheel_url(report: &str) -> Result<String, String> {
    let report: Value =
        serde_json::from_str(report).map_err(|error| format!("pip's report: {error}"))?;
    let url = report.pointer("/install/0/download_info/url");
    url.and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| "pip's report names no URL".to_owned())
}

/// Runs a client to its end and gives its standard output.
fn run(wait: Duration, program: &Path, args: &[OsString]) -> Result<String, String> {
    let shown = program.display();
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown} cannot be run: {error}"))?;
    let pid = rustix::process::Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = match receiver.recv_timeout(wait) {
        Ok(output) => output.map_err(|error| format!("{shown}: {error}"))?,
        Err(_) => {
            // Ended already or not: either way nobody waits for it any more.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            return Err(format!("{shown} did not end within {} s", wait.as_secs()));
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{shown} failed: {}",
        last_line(&String::from_utf8_lossy(&output.stderr))
    ))
}

/// The last line of a client's complaint, without URLs (they may hold credentials).
fn last_line(stderr: &str) -> String {
    let mut lines = stderr.lines().map(str::trim);
    let line = lines.rfind(|line| !line.is_empty());
    let words = line.unwrap_or("no message").split_whitespace();
    let shown = words.map(|word| if word.contains("://") { "(url)" } else { word });
    let mut text = shown.collect::<Vec<_>>().join(" ");
    let end = text.floor_char_boundary(MESSAGE_BYTES_MAX);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_read_out_of_pips_report() {
        let report = r#"{"install": [{"download_info": {"url": "https://index/x.whl"}}]}"#;
        assert_eq!(wheel_url(report).unwrap(), "https://index/x.whl");
        assert!(wheel_url("{\"install\": []}").is_err());
        assert!(wheel_url("no json").is_err());
    }

    #[test]
    fn a_clients_complaint_shows_no_url() {
        let text = last_line("first\nERROR: https://user:pass@index/simple said no\n\n");
        assert_eq!(text, "ERROR: (url) said no");
    }

    #[test]
    fn a_client_that_does_not_exist_or_hangs_or_fails_is_an_error() {
        let soon = Duration::from_millis(50);
        let list = args(&["60"]);
        assert!(
            run(soon, Path::new("no-such-client-anywhere"), &[])
                .unwrap_err()
                .contains("cannot be run")
        );
        assert!(
            run(soon, Path::new("sleep"), &list)
                .unwrap_err()
                .contains("did not end")
        );
        let fail = args(&["-c", "echo broken >&2; exit 3"]);
        let error = run(Duration::from_secs(60), Path::new("sh"), &fail).unwrap_err();
        assert_eq!(error, "sh failed: broken");
    }
}
