//! The command line. Every default is visible in `--help`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mobula_models::settings::RUNTIME_VARIABLE;
use mobula_process::busy_poll;
use mobula_process::net::Addr;

use crate::access::{AccessArgs, AdminArgs};
use crate::ray_version::RayVersionArgs;

/// Serves models from a Ray Serve config
#[derive(Debug, Parser)]
#[command(name = "mobula", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub log: LogArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// What to log: a level (error, warn, info, debug) or `crate=level` pairs
    #[arg(long, global = true, env = "MOBULA_LOG", default_value = "warn")]
    pub log: String,
    /// How to log: text or json
    #[arg(long, global = true, env = "MOBULA_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything on one machine: head, router and worker processes
    Run(RunArgs),
    /// The control plane of a cluster
    Head(HeadArgs),
    /// The ingress of a cluster, as a process of its own
    Router(RouterArgs),
    /// Host replicas for a head
    Worker(WorkerArgs),
    /// Deploy a config to a running Mobula
    Deploy(DeployArgs),
    /// Delete one application
    Delete(DeleteArgs),
    /// Say what deploying a config would do, without doing it
    Plan(PlanArgs),
    /// Show the configs of before and what became of them
    History(HistoryArgs),
    /// Deploy a config of before
    Rollback(RollbackArgs),
    /// Show the state of the deployed applications
    Status(StatusArgs),
    /// Show the deployed config
    Config(ReadArgs),
    /// Delete all applications
    Shutdown(ShutdownArgs),
    /// Check a config file without deploying it
    Validate(ValidateArgs),
    /// Turn a KubeRay RayService into values of the Helm chart and a Serve config
    Import(ImportArgs),
    /// Fetch and list model files
    Models(ModelsArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Serve config to deploy; without it, what was deployed before comes back
    pub config: Option<PathBuf>,
    /// Where the admin API listens
    #[arg(long, default_value = "127.0.0.1:8265")]
    pub admin_addr: SocketAddr,
    /// Where the deployed config is kept [default: $XDG_STATE_HOME/mobula or ~/.local/state/mobula]
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
    /// Worker processes to start
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// CPUs that replicas may ask for, over all workers [default: the machine's, or the container's limit]
    #[arg(long)]
    pub num_cpus: Option<f64>,
    /// GPUs that replicas may ask for, over all workers
    #[arg(long, default_value_t = 0.0)]
    pub num_gpus: f64,
    /// name=amount pairs that replicas may ask for as `resources`, over all workers
    #[arg(long, value_parser = amount, value_delimiter = ',')]
    pub resources: Vec<(String, f64)>,
    #[command(flatten)]
    pub requests: RequestArgs,
    #[command(flatten)]
    pub ray: RayVersionArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Debug, Args)]
pub struct HeadArgs {
    /// Where the admin API listens
    #[arg(long, default_value = "127.0.0.1:8265")]
    pub admin_addr: SocketAddr,
    /// Where workers and routers connect
    #[arg(long, default_value = "127.0.0.1:6380")]
    pub cluster_addr: Addr,
    /// Where the deployed config is kept [default: $XDG_STATE_HOME/mobula or ~/.local/state/mobula]
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub ray: RayVersionArgs,
    #[command(flatten)]
    pub etcd: EtcdArgs,
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub access: AccessArgs,
}

/// Worker pods that the head makes and takes away by itself.
#[cfg(feature = "kubernetes")]
#[derive(Clone, Debug, Args)]
pub struct KubernetesArgs {
    /// YAML file with the groups of worker pods that the head may make
    #[arg(long)]
    pub kubernetes_groups: Option<PathBuf>,
    /// The cluster's name in Kubernetes: the ConfigMap <NAME>-cluster owns its pods
    #[arg(long, default_value = "mobula", requires = "kubernetes_groups")]
    pub kubernetes_cluster: String,
    /// Where the pods are made [default: the namespace of the kubeconfig, or of the head's pod]
    #[arg(long, requires = "kubernetes_groups")]
    pub kubernetes_namespace: Option<String>,
}

/// State in etcd, for several heads of which one leads.
#[derive(Debug, Args)]
pub struct EtcdArgs {
    /// etcd's URLs; with them any number of heads may run, and one leads
    #[arg(long, value_delimiter = ',', conflicts_with = "state_dir")]
    pub etcd: Vec<String>,
    /// The cluster's name: clusters with different names share an etcd without seeing each other
    #[arg(long, default_value = "default", requires = "etcd")]
    pub cluster: String,
    /// Where the other heads reach this one's admin API [default: http://, or https:// with
    /// --admin-tls-cert, and --admin-addr, with this machine's address for 0.0.0.0]
    #[arg(long, requires = "etcd")]
    pub advertise_admin_url: Option<String>,
    /// PEM file with the authority of the other heads' --admin-tls-cert [default: what the system
    /// believes]
    #[arg(long, requires_all = ["etcd", "admin_tls_cert"])]
    pub admin_tls_ca: Option<PathBuf>,
    /// Seconds after which a head that died is no longer the leader
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=120), requires = "etcd")]
    pub lease_seconds: u64,
    /// A user of etcd
    #[arg(long, requires_all = ["etcd", "etcd_password_file"])]
    pub etcd_user: Option<String>,
    /// File with the password of --etcd-user
    #[arg(long, requires = "etcd_user")]
    pub etcd_password_file: Option<PathBuf>,
    /// PEM file with the authority of etcd's certificates, for https URLs
    #[arg(long, requires = "etcd")]
    pub etcd_ca: Option<PathBuf>,
    /// PEM file with the certificate to show to etcd
    #[arg(long, requires_all = ["etcd_ca", "etcd_key"])]
    pub etcd_cert: Option<PathBuf>,
    /// PEM file with the key of --etcd-cert
    #[arg(long, requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RouterArgs {
    /// The head's cluster address; several are tried in turn
    #[arg(long, required = true, value_delimiter = ',')]
    pub join: Vec<Addr>,
    /// Where to listen for HTTP, whatever the deployed config says
    #[arg(long)]
    pub http_addr: Option<SocketAddr>,
    /// Where to listen for gRPC, whatever the deployed config says
    #[arg(long)]
    pub grpc_addr: Option<SocketAddr>,
    /// Where /metrics, /livez and /readyz are answered [default: nowhere]
    #[arg(long)]
    pub admin_addr: Option<SocketAddr>,
    #[command(flatten)]
    pub access: AccessArgs,
}

/// What requests pass through.
#[derive(Clone, Copy, Debug, Args)]
pub struct RequestArgs {
    /// Longest look for a next message before the thread sleeps, in microseconds; 0: none. Where
    /// requests have one thread, and the machine more than one CPU
    #[arg(
        long,
        env = "MOBULA_BUSY_POLL_US",
        default_value_t = busy_poll::WINDOW_MAX_US,
        value_parser = clap::value_parser!(u64).range(..=1000)
    )]
    pub busy_poll_us: u64,
}

#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The head's cluster address; several are tried in turn
    #[arg(long, required = true, value_delimiter = ',')]
    pub join: Vec<Addr>,
    /// Where routers connect
    #[arg(long, default_value = "127.0.0.1:0")]
    pub data_addr: Addr,
    /// Where routers reach --data-addr, if not there; port 0 stands for the bound one
    /// [default: --data-addr, with this machine's address in place of 0.0.0.0]
    #[arg(long)]
    pub advertise_addr: Option<Addr>,
    /// Where /metrics, /livez and /readyz are answered [default: nowhere]
    #[arg(long)]
    pub admin_addr: Option<SocketAddr>,
    /// CPUs that replicas may ask for
    #[arg(long, env = "MOBULA_CPUS", default_value_t = 1.0)]
    pub cpus: f64,
    /// GPUs that replicas may ask for
    #[arg(long, env = "MOBULA_GPUS", default_value_t = 0.0)]
    pub gpus: f64,
    /// Bytes of memory that replicas may ask for; 0: no limit
    #[arg(long, env = "MOBULA_MEMORY", default_value_t = 0)]
    pub memory: u64,
    /// name=amount pairs that replicas may ask for as `resources`
    #[arg(long, env = "MOBULA_RESOURCES", value_parser = amount, value_delimiter = ',')]
    pub resources: Vec<(String, f64)>,
    /// The pod that this process runs in, by its uid
    #[arg(long, env = "MOBULA_POD_UID", hide = true)]
    pub pod_uid: Option<String>,
    /// This machine's address [default: that of the default route]
    #[arg(long, env = "MOBULA_POD_IP", hide = true)]
    pub node_ip: Option<std::net::IpAddr>,
    /// key=value pairs that placement may look at
    #[arg(long, value_parser = key_value, value_delimiter = ',')]
    pub labels: Vec<(String, String)>,
    /// This process's id, 56 hex digits [default: a new one]
    #[arg(long, hide = true)]
    pub worker_id: Option<String>,
    /// End when this process ends
    #[arg(long, hide = true)]
    pub parent_pid: Option<u32>,
    #[command(flatten)]
    pub requests: RequestArgs,
    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Args)]
pub struct AddressArgs {
    /// Address of the admin API
    #[arg(
        short,
        long,
        env = "RAY_DASHBOARD_ADDRESS",
        default_value = "http://localhost:8265"
    )]
    pub address: String,
    /// File with the admin API's token [default: $RAY_AUTH_TOKEN, the file $RAY_AUTH_TOKEN_PATH,
    /// or ~/.ray/auth_token when $RAY_AUTH_MODE is token]
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// PEM file with the authority of an https address [default: $REQUESTS_CA_BUNDLE, or what the
    /// system believes]
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DeployArgs {
    /// Serve config, YAML
    pub config: PathBuf,
    /// Deploy only this application of the config, and leave the others as they are
    #[arg(long)]
    pub app: Option<String>,
    /// Only while this revision is the newest
    #[arg(long, requires = "app")]
    pub revision: Option<u64>,
    #[command(flatten)]
    pub address: AddressArgs,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The application
    pub name: String,
    /// Only while this revision is the newest
    #[arg(long)]
    pub revision: Option<u64>,
    #[command(flatten)]
    pub address: AddressArgs,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Serve config, YAML
    pub config: PathBuf,
    #[command(flatten)]
    pub address: AddressArgs,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    pub address: AddressArgs,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Which one [default: the newest whose applications were all RUNNING, other than the current]
    #[arg(long)]
    pub revision: Option<u64>,
    #[command(flatten)]
    pub address: AddressArgs,
}

#[derive(Debug, Args)]
pub struct ReadArgs {
    #[command(flatten)]
    pub address: AddressArgs,
    /// Only this application
    #[arg(short, long)]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub read: ReadArgs,
    /// Wait up to so many seconds until every application is RUNNING; an error if one fails or the
    /// time is up
    #[arg(long, value_name = "SECONDS", conflicts_with = "name", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub wait: Option<u64>,
}

#[derive(Debug, Args)]
pub struct ShutdownArgs {
    #[command(flatten)]
    pub address: AddressArgs,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Serve config, YAML
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Manifests, YAML; one of them is the RayService
    pub manifest: PathBuf,
    /// Which RayService, where there are several
    #[arg(long)]
    pub name: Option<String>,
    /// Write values.yaml and serve.yaml into this directory, which has neither yet
    /// [default: to standard output]
    #[arg(short, long)]
    pub output_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    pub action: ModelsAction,
}

#[derive(Debug, Subcommand)]
pub enum ModelsAction {
    /// Fetch ONNX Runtime and the default models into the user's cache
    Fetch {
        /// Which ONNX Runtime: `cuda` computes on NVIDIA's GPUs as well (313 MB instead of 29)
        #[arg(long, env = RUNTIME_VARIABLE, default_value = "cpu")]
        runtime: String,
    },
    /// Show what is in the cache
    List,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not key=value")),
    }
}

/// A resource that is neither CPU, GPU nor memory, and how much there is of it.
fn amount(text: &str) -> Result<(String, f64), String> {
    let (name, units) = key_value(text)?;
    for (reserved, flag) in [("CPU", "--cpus"), ("GPU", "--gpus"), ("memory", "--memory")] {
        if name == reserved {
            return Err(format!("{name} is what {flag} says"));
        }
    }
    let amount: Option<f64> = units.parse().ok();
    let amount = amount.filter(|amount| amount.is_finite() && *amount > 0.0);
    let amount = amount.ok_or_else(|| format!("{name} must be a number above 0, got '{units}'"))?;
    Ok((name, amount))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn labels_are_key_value_pairs() {
        let parse = |labels: &str| {
            Cli::try_parse_from(["mobula", "worker", "--join", "unix:/h", "--labels", labels])
        };
        let Command::Worker(args) = parse("zone=a,gpu=t4").unwrap().command else {
            unreachable!("the command is worker");
        };
        let pairs = [
            ("zone".to_owned(), "a".to_owned()),
            ("gpu".to_owned(), "t4".to_owned()),
        ];
        assert_eq!(args.labels, pairs);
        assert!(parse("zone").is_err());
    }

    #[test]
    fn resources_are_amounts_of_what_has_no_flag_of_its_own() {
        let parse = |resources: &str| {
            let start = ["mobula", "worker", "--join", "unix:/h", "--resources"];
            Cli::try_parse_from(start.iter().chain([&resources]))
        };
        let Command::Worker(args) = parse("ssd=2,license=0.5").unwrap().command else {
            unreachable!("the command is worker");
        };
        let pairs = [("ssd".to_owned(), 2.0), ("license".to_owned(), 0.5)];
        assert_eq!(args.resources, pairs);
        for (wrong, says) in [
            ("ssd", "'ssd' is not key=value"),
            ("ssd=0", "ssd must be a number above 0, got '0'"),
            ("ssd=many", "ssd must be a number above 0, got 'many'"),
            ("GPU=1", "GPU is what --gpus says"),
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn certificate_key_and_authority_come_together() {
        let parse = |flags: &[&str]| {
            let start = ["mobula", "router", "--join", "127.0.0.1:1"];
            Cli::try_parse_from(start.iter().chain(flags))
        };
        let all = ["--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a"];
        assert!(parse(&[]).is_ok());
        assert!(parse(&all).is_ok());
        for left_out in 0..3 {
            let mut some = all.to_vec();
            some.drain(2 * left_out..2 * left_out + 2);
            assert!(parse(&some).is_err(), "{some:?}");
        }
    }
}
