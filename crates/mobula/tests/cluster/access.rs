//! Who may join, and who may use the admin API.

use mobula_process::access::Credentials;
use mobula_process::follow::Current;
use mobula_process::net::Addr;
use mobula_process::token::Token;
use mobula_proto::v1::MetricsRequest;
use mobula_proto::v1::worker_service_client::WorkerServiceClient;

use crate::client::{get, send};
use crate::house::{House, TOKEN, flags, free_addr};
use crate::process::{Process, command};

/// A reason is told once a minute; a test on a slow machine may take more than one.
const TOLD_MAX: usize = 3;

#[test]
fn with_a_wrong_token_or_none_nobody_joins_and_everybody_says_why() {
    let house = House::with_token();
    let head = house.head("head", &[]);
    let file = house.dir.path().join("another-token");
    std::fs::write(&file, "another-token-of-the-test").unwrap();
    let wrong = flags(&[("--join-token-file", &file)]);
    house.deploy(1);

    let mut refused = [
        (house.worker_with("wrong-worker", 1, &wrong), "wrong"),
        (house.router_with("wrong-router", &wrong), "wrong"),
        (house.worker_with("bare-worker", 1, &[]), "missing"),
        (house.router_with("bare-router", &[]), "missing"),
    ];
    for (role, why) in &refused {
        let line = format!("the join token is {why}");
        role.process.wait_for_log(&line);
    }
    head.wait_for_log("a peer may not join");

    let _worker = house.worker("right-worker", 1);
    let router = house.router("right-router");
    house.wait_until_running(1);
    router.wait_until_it_serves();
    house.wait_for_routers(1);
    for (role, why) in &mut refused {
        assert_eq!(get(role.admin, "/readyz").unwrap().0, 503);
        let log = role.process.log();
        assert!(role.process.is_running(), "it goes on trying: {log}");
        let told = log.matches(&format!("the join token is {why}")).count();
        assert!(told <= TOLD_MAX, "not with every try: {log}");
    }
    let told = head.log().matches("a peer may not join").count();
    assert!(told <= TOLD_MAX, "all come from one address");
    for log in [head.log(), refused[0].0.process.log()] {
        assert!(
            !log.contains(TOKEN) && !log.contains("another-token-of"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn a_workers_data_port_wants_the_token_too() {
    let house = House::with_token();
    let file = house.dir.path().join("join-token");
    let data = free_addr();
    let mut args: Vec<String> = ["worker", "--join"].map(str::to_owned).into();
    args.extend([
        free_addr().to_string(),
        "--data-addr".to_owned(),
        data.to_string(),
    ]);
    args.extend(flags(&[("--join-token-file", &file)]));
    let worker = Process::start(house.dir.path(), "worker", &args);
    worker.wait_for_log("worker is up");

    let ask = async |token: Option<&str>| {
        let token = token.map(|text| Current::fixed(Token::new(text).unwrap()));
        let addr = Addr::Tcp(data.to_string());
        let connected = Credentials::new(token, None).connect(&addr).await;
        let mut client = WorkerServiceClient::new(connected.unwrap());
        client.metrics(MetricsRequest {}).await
    };
    for (token, why) in [
        (None, "missing"),
        (Some("another-token-of-the-test"), "wrong"),
    ] {
        let status = ask(token).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
        assert_eq!(status.message(), format!("the join token is {why}"));
    }
    assert!(ask(Some(TOKEN)).await.is_ok());
}

#[test]
fn addresses_of_the_network_are_refused_without_token_or_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_str().unwrap();
    for args in [
        &["head", "--cluster-addr", "0.0.0.0:0", "--state-dir", state][..],
        &[
            "worker",
            "--join",
            "127.0.0.1:1",
            "--data-addr",
            "0.0.0.0:0",
        ],
        &["worker", "--join", "10.255.255.1:1"],
        &["router", "--join", "127.0.0.1:1,head.example:1"],
    ] {
        let output = command().args(args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{args:?}");
        assert!(
            error.contains("can be reached from other machines"),
            "{error}"
        );
        assert!(error.contains("--join-token-file"), "{error}");
    }
}

#[test]
fn the_admin_api_with_a_token_wants_it_and_the_command_line_sends_it() {
    let house = House::with_token();
    let file = house.dir.path().join("admin-token");
    let token = "the-admin-token-of-the-test";
    std::fs::write(&file, token).unwrap();
    let path = file.to_str().unwrap();
    let _head = house.head("head", &["--admin-token-file", path]);

    let applications = "/api/serve/applications/";
    let (status, text) = get(house.admin, applications).unwrap();
    assert_eq!(
        (status, &*text),
        (401, "Unauthorized: Missing authentication token")
    );
    let wrong = "x-ray-authorization: Bearer another-admin-token\r\n";
    let (status, text) = send(house.admin, "GET", applications, wrong, "").unwrap();
    assert_eq!(
        (status, &*text),
        (403, "Forbidden: Invalid authentication token")
    );
    let (status, text) = get(house.admin, "/api/authentication_mode").unwrap();
    assert_eq!(
        (status, &*text),
        (200, r#"{"authentication_mode":"token"}"#)
    );

    let address = format!("http://{}", house.admin);
    let run = |flags: &[&str], env: &[(&str, &str)]| {
        let mut command = command();
        command.args(["config", "--address", &address]).args(flags);
        let output = command.envs(env.iter().copied()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (ok, text) = run(&[], &[]);
    assert!(
        !ok && text.contains("Missing authentication token"),
        "{text}"
    );
    for (flags, env) in [
        (&["--token-file", path][..], &[][..]),
        (&[], &[("RAY_AUTH_TOKEN", token)]),
        (&[], &[("RAY_AUTH_TOKEN_PATH", path)]),
    ] {
        let (ok, text) = run(flags, env);
        assert!(ok && text.contains("No configuration was found"), "{text}");
    }
}
