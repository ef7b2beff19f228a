//! `mobula run`: head and router in this process, workers as child processes, state on disk.
//!
//! The three roles speak the same protocol as in a cluster, over Unix sockets.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use mobula_head::HeadConfig;
use mobula_head::provision::WorkerSet;
use mobula_head::provision::process::ProcessProvisioner;
use mobula_process::access::Credentials;
use mobula_process::admin::Readiness;
use mobula_process::follow::Current;
use mobula_process::metrics::MetricsHandle;
use mobula_process::net::{self, Addr};
use mobula_process::token::Token;
use mobula_process::{ids, metrics, signals};
use mobula_router::{RouterConfig, RouterLimits};
use mobula_store::EmbeddedStore;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::access::{Following, admin_https, admin_token};
use crate::args::RunArgs;
use crate::client::deploy::read_config;
use crate::client::http::{APPLICATIONS, send};
use crate::client::target::Target;
use crate::launch::worker_command;
use crate::state_dir;
use crate::telemetry::Telemetry;

/// How often the start asks whether everything serves. Only the banner waits for it.
const READY_POLL_PERIOD: Duration = Duration::from_millis(50);

/// How long workers may take to drain and end before they are killed: Ray's default for one
/// replica (`graceful_shutdown_timeout_s`, 20 s) and some for the process around it.
const WORKER_RETIRE_SECONDS_MAX: Duration = Duration::from_secs(30);

/// Serves until SIGTERM or Ctrl-C, then drains. The router runs on the runtime that is given.
pub async fn run(args: RunArgs, log: &crate::args::LogArgs, router_on: Handle) -> Result<()> {
    // A config with a mistake is refused before anything starts.
    let document = args.config.as_deref().map(read_config).transpose()?;
    let shutdown = signals::shutdown_token()?;
    let state_dir = state_dir::open(args.state_dir.clone())?;
    let sockets = state_dir::sockets(&state_dir)?;
    let metrics = metrics::install(&[])?;
    let _telemetry = Telemetry::start(metrics.clone());

    let sockets_at = &sockets.path;
    let roles = Roles::start(&args, log, &state_dir, sockets_at, metrics, &router_on).await?;
    let admin = roles.admin.clone();
    let serving = tokio::spawn(deploy_and_announce(
        admin,
        args.admin.admin_token_file.clone(),
        document,
    ));

    roles.run_until(shutdown, serving).await
}

/// The head and the router of this process.
struct Roles {
    admin: Target,
    head: JoinHandle<Result<()>>,
    head_shutdown: CancellationToken,
    router: JoinHandle<Result<()>>,
    router_shutdown: CancellationToken,
    _following: Following,
}

impl Roles {
    async fn start(
        args: &RunArgs,
        log: &crate::args::LogArgs,
        state_dir: &Path,
        sockets: &Path,
        metrics: MetricsHandle,
        router_on: &Handle,
    ) -> Result<Roles> {
        let store = EmbeddedStore::open(&state_dir.join("state.redb"))?;
        let admin_listener = TcpListener::bind(args.admin_addr)
            .await
            .with_context(|| format!("cannot listen on --admin-addr {}", args.admin_addr))?;
        let mut following = Following::default();
        let admin_token = admin_token(&args.admin, args.admin_addr, &mut following)?;
        let admin_https = admin_https(&args.admin, &mut following)?;
        let trust = admin_https.as_ref().map(Current::trust_in_itself);
        let scheme = if trust.is_some() { "https" } else { "http" };
        let admin = Target {
            address: format!("{scheme}://{}", admin_listener.local_addr()?),
            trust: trust.transpose()?,
            token: admin_token.as_ref().map(|token| Token::clone(&token.get())),
        };
        let head_addr = Addr::Unix(sockets.join("head.sock"));
        let cluster_listener = net::listen(&head_addr).await?;
        let registry = crate::registry();
        let descriptor_sets = registry.descriptor_sets().to_vec();
        let (node_id, node_ip) = (ids::node_id(), ids::node_ip());

        let head_shutdown = CancellationToken::new();
        let command = worker_command(args, log, &head_addr, sockets)?;
        let provisioner = ProcessProvisioner::new(command, WORKER_RETIRE_SECONDS_MAX);
        let head = mobula_head::run(HeadConfig {
            registry,
            env: crate::environment(),
            store: Arc::new(store),
            provisioner: Box::new(provisioner),
            workers: WorkerSet {
                workers: args.workers,
            },
            admin_listener,
            admin_https,
            cluster_listener,
            // The socket is private.
            credentials: Credentials::default(),
            admin_token,
            node_id: node_id.clone(),
            node_ip: node_ip.clone(),
            metrics,
            ray_version: args.ray.ray_version.clone(),
            router_here: true,
            shutdown: head_shutdown.clone(),
        });
        let router_shutdown = CancellationToken::new();
        let router = mobula_router::run(RouterConfig {
            head: vec![head_addr],
            credentials: Credentials::default(),
            http_addr: None,
            grpc_addr: None,
            readiness: Readiness::default(),
            router_id: ids::hex56(),
            node_id,
            node_ip,
            descriptor_sets,
            limits: RouterLimits::default(),
            shutdown: router_shutdown.clone(),
        });
        Ok(Roles {
            admin,
            head: tokio::spawn(async move { head.await.context("head") }),
            head_shutdown,
            router: router_on.spawn(async move { router.await.context("router") }),
            router_shutdown,
            _following: following,
        })
    }

    /// Waits for the signal, or for a role that ends by itself, and then drains in the order in
    /// which a request travels: the router first, which needs the workers to finish, then the
    /// head, which ends the workers.
    async fn run_until(
        mut self,
        shutdown: CancellationToken,
        mut serving: JoinHandle<Result<()>>,
    ) -> Result<()> {
        let mut failure = None;
        let mut announced = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                ended = &mut self.head => return ended?.and_then(|()| bail!("the head ended")),
                ended = &mut self.router => return ended?.and_then(|()| bail!("the router ended")),
                outcome = &mut serving, if !announced => {
                    announced = true;
                    if let Err(error) = outcome? {
                        failure = Some(error);
                        break;
                    }
                }
            }
        }
        serving.abort();
        self.router_shutdown.cancel();
        self.router.await??;
        self.head_shutdown.cancel();
        self.head.await??;
        failure.map_or(Ok(()), Err)
    }
}

/// Deploys the config that was given and says so once everything serves.
async fn deploy_and_announce(
    admin: Target,
    token_file: Option<PathBuf>,
    document: Option<Vec<u8>>,
) -> Result<()> {
    wait_for_head(&admin).await?;
    if let Some(document) = document {
        let answer = send(&admin, Method::PUT, APPLICATIONS, document).await?;
        answer.ok().context("the config was refused")?;
    }
    let state = wait_until_settled(&admin).await?;
    let banner = crate::banner::banner(&admin.address, token_file.as_deref(), &state);
    // A reader that went away (`mobula run | head -1`) is no reason to stop serving.
    let mut out = std::io::stdout();
    let _ = out.write_all(banner.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

async fn wait_for_head(admin: &Target) -> Result<()> {
    loop {
        // The listener is bound, so every answer means that the head runs.
        if send(admin, Method::GET, "/readyz", Vec::new())
            .await?
            .status
            .is_success()
        {
            return Ok(());
        }
        tokio::time::sleep(READY_POLL_PERIOD).await;
    }
}

/// Waits until no application is on its way any more. One that failed does not end the process:
/// it is shown, and a better config can be deployed.
async fn wait_until_settled(admin: &Target) -> Result<serde_json::Value> {
    let mut told = false;
    loop {
        let document = send(admin, Method::GET, APPLICATIONS, Vec::new())
            .await?
            .json()?;
        let applications = document["applications"].as_object();
        let mut pending = false;
        for (name, application) in applications.into_iter().flatten() {
            let message = application["message"].as_str().unwrap_or_default();
            match application["status"].as_str() {
                Some("RUNNING") => {}
                Some(status @ ("DEPLOY_FAILED" | "UNHEALTHY")) => {
                    eprintln!("application {name}: {status}: {message}");
                }
                _ => pending = true,
            }
        }
        let proxies = document["proxies"].as_object();
        let closed = |proxy: &serde_json::Value| proxy["status"] == "UNHEALTHY";
        if proxies.is_some_and(|proxies| proxies.values().any(closed)) {
            pending = true;
            if !told {
                eprintln!("a port of http_options or grpc_options is taken; waiting for it");
            }
            told = true;
        }
        if !pending {
            return Ok(document);
        }
        tokio::time::sleep(READY_POLL_PERIOD).await;
    }
}
