//! Options of the ingress and of the head: `proxy_location`, `http_options`, `grpc_options`,
//! `controller_options`. They apply when serving first starts; that a later difference only
//! warns is the head's affair.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::acting::Place;
use crate::decode::{
    At, Fields, Unknown, boolean, entries, float, integer_in, list, string, values,
};
use crate::error::Findings;

/// Where the HTTP server listens when the config does not say; what Ray's config files do.
pub const HTTP_HOST_DEFAULT: &str = "0.0.0.0";
pub const HTTP_PORT_DEFAULT: u16 = 8000;
pub const HTTP_KEEP_ALIVE_TIMEOUT_S_DEFAULT: u32 = 90;
pub const GRPC_PORT_DEFAULT: u16 = 9000;

/// On which machines requests come in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum ProxyLocation {
    Disabled,
    HeadOnly,
    #[default]
    EveryNode,
}

/// Options of the HTTP ingress. `Serialize` gives the object of the status document, in which
/// the password is not readable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HttpOptions {
    pub host: String,
    pub port: u16,
    /// The prefix that a proxy before us strips off.
    pub root_path: String,
    /// `None` and numbers up to 0: requests never time out.
    pub request_timeout_s: Option<f64>,
    /// How long an idle connection stays open.
    pub keep_alive_timeout_s: u32,
    pub ssl_keyfile: Option<String>,
    pub ssl_certfile: Option<String>,
    pub ssl_keyfile_password: Option<Secret>,
    pub ssl_ca_certs: Option<String>,
}

/// Options of the gRPC ingress.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GrpcOptions {
    pub port: u16,
    pub grpc_servicer_functions: Vec<String>,
    pub request_timeout_s: Option<f64>,
    pub enable_reflection: bool,
}

/// Options of the head process. Ray allows its environment variables and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ControllerOptions {
    pub runtime_env: Option<ControllerRuntimeEnv>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ControllerRuntimeEnv {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_vars: Option<BTreeMap<String, String>>,
}

/// How HTTP is served with TLS; files on the machine of each router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTls {
    pub certfile: String,
    pub keyfile: String,
    pub keyfile_password: Option<Secret>,
    /// Clients have to show a certificate that one of these authorities signed.
    pub ca_certs: Option<String>,
}

/// Text that is shown nowhere unless it is asked for by name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

// === impl ProxyLocation ===

impl ProxyLocation {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        crate::decode::word_of(&[
            ("Disabled", Self::Disabled),
            ("HeadOnly", Self::HeadOnly),
            ("EveryNode", Self::EveryNode),
        ])(findings, at)
    }
}

// === impl HttpOptions ===

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            host: HTTP_HOST_DEFAULT.to_owned(),
            port: HTTP_PORT_DEFAULT,
            root_path: String::new(),
            request_timeout_s: None,
            keep_alive_timeout_s: HTTP_KEEP_ALIVE_TIMEOUT_S_DEFAULT,
            ssl_keyfile: None,
            ssl_certfile: None,
            ssl_keyfile_password: None,
            ssl_ca_certs: None,
        }
    }
}

/// Ray hands the file to its server and does not tell it to ask.
const CLIENTS_ARE_ASKED: &str = "with ssl_ca_certs clients have to show a certificate that one of \
                                 these authorities signed; Ray does not ask for one";

impl HttpOptions {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::HttpOptions)?;
        let default = Self::default();
        let options = Self {
            host: fields.get(findings, "host", string).unwrap_or(default.host),
            port: fields.get(findings, "port", port).unwrap_or(default.port),
            root_path: fields
                .get(findings, "root_path", string)
                .unwrap_or(default.root_path),
            request_timeout_s: fields.optional(findings, "request_timeout_s", float),
            keep_alive_timeout_s: fields
                .get(findings, "keep_alive_timeout_s", crate::decode::count(0))
                .unwrap_or(default.keep_alive_timeout_s),
            ssl_keyfile: fields.optional(findings, "ssl_keyfile", string),
            ssl_certfile: fields.optional(findings, "ssl_certfile", string),
            ssl_keyfile_password: fields
                .optional(findings, "ssl_keyfile_password", string)
                .map(Secret),
            ssl_ca_certs: fields.optional(findings, "ssl_ca_certs", string),
        };
        let given = |file: &Option<String>| file.as_ref().is_some_and(|file| !file.is_empty());
        if given(&options.ssl_keyfile) != given(&options.ssl_certfile) {
            at.problem(
                findings,
                "both ssl_keyfile and ssl_certfile must be provided together to enable HTTPS",
            );
        }
        fields.close(findings, Unknown::Warn);
        if given(&options.ssl_ca_certs) {
            at.warning(
                findings,
                match options.tls() {
                    Some(_) => CLIENTS_ARE_ASKED,
                    None => "ssl_ca_certs has no effect without ssl_certfile and ssl_keyfile",
                },
            );
        }
        Some(options)
    }

    /// How HTTP is served with TLS, if it is. As with Ray, what is empty is not there.
    pub fn tls(&self) -> Option<HttpTls> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let password = self.ssl_keyfile_password.clone();
        Some(HttpTls {
            certfile: given(&self.ssl_certfile)?,
            // Neither without the other, see `read`.
            keyfile: given(&self.ssl_keyfile)?,
            keyfile_password: password.filter(|secret| !secret.reveal().is_empty()),
            ca_certs: given(&self.ssl_ca_certs),
        })
    }

    /// The object as a config may say it, with the password.
    pub(crate) fn to_config(&self) -> Value {
        let mut value = json!(self);
        if let Some(secret) = &self.ssl_keyfile_password {
            value["ssl_keyfile_password"] = Value::String(secret.reveal().to_owned());
        }
        value
    }
}

// === impl GrpcOptions ===

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            port: GRPC_PORT_DEFAULT,
            grpc_servicer_functions: Vec::new(),
            request_timeout_s: None,
            enable_reflection: true,
        }
    }
}

impl GrpcOptions {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::GrpcOptions)?;
        let default = Self::default();
        let options = Self {
            port: fields.get(findings, "port", port).unwrap_or(default.port),
            grpc_servicer_functions: fields
                .get(findings, "grpc_servicer_functions", |findings, at| {
                    list(findings, at, string)
                })
                .unwrap_or_default(),
            request_timeout_s: fields.optional(findings, "request_timeout_s", float),
            enable_reflection: fields
                .get(findings, "enable_reflection", boolean)
                .unwrap_or(default.enable_reflection),
        };
        fields.close(findings, Unknown::Warn);
        Some(options)
    }
}

// === impl ControllerOptions ===

impl ControllerOptions {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::ControllerOptions)?;
        let runtime_env = fields.optional(findings, "runtime_env", ControllerRuntimeEnv::read);
        fields.close(findings, Unknown::Reject);
        Some(Self { runtime_env })
    }
}

impl ControllerRuntimeEnv {
    fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut env_vars = None;
        for entry in entries(findings, at)? {
            let inner = at.entry(entry);
            if entry.key != "env_vars" {
                inner.problem(findings, "the key is not known here, allowed: env_vars");
                continue;
            }
            env_vars = values(findings, &inner, string);
            if env_vars
                .as_ref()
                .is_some_and(|env_vars| env_vars.contains_key(""))
            {
                inner.problem(findings, "a variable has an empty name");
            }
        }
        Some(Self { env_vars })
    }
}

// === impl Secret ===

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<redacted>")
    }
}

/// Stricter than Ray, which takes any integer and fails when it listens.
fn port(findings: &mut Findings, at: &At<'_>) -> Option<u16> {
    let value = integer_in(0, u16::MAX.into())(findings, at)?;
    u16::try_from(value).ok()
}
