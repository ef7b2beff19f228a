//! The route table as a value: which deployment answers a path or a gRPC method.
//!
//! Pure. Not here: the queues and connections behind a deployment (`snapshot`), and how a table
//! arrives (`session`).

use std::collections::HashMap;

use mobula_proto::v1;

/// Index of a [`Route`] in [`Table::routes`].
pub type RouteId = usize;

/// An immutable route table.
#[derive(Debug, Default)]
pub struct Table {
    /// Version given by the head; 0 before the first.
    pub version: u64,
    /// Where to listen; absent when nothing is deployed.
    pub ingress: Option<v1::Ingress>,
    /// Every application, in the head's order.
    pub applications: Vec<Application>,
    /// The routers that share the limits on requests that wait.
    pub routers: Vec<String>,
    /// Every target that a path or a method leads to.
    pub routes: Vec<Route>,
    /// Put before the path by whoever mounts the whole ingress below a path; no slash at its end.
    root_path: String,
    /// Route prefix -> index of the application.
    prefixes: HashMap<String, usize>,
    /// "/package.Service/Method" -> the applications that have it.
    methods: HashMap<String, Vec<RouteId>>,
}

/// An application as far as routing needs it.
#[derive(Debug)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Whether its status is RUNNING.
    pub running: bool,
    /// `/`, or without a slash at its end. Absent: not reachable over HTTP.
    pub prefix: Option<String>,
    /// What the deployments are.
    pub deployments: Vec<v1::TableDeployment>,
    /// Path below the prefix -> route.
    paths: HashMap<String, RouteId>,
    /// What answers every other path; absent when the deployment does not exist (yet).
    default: Option<RouteId>,
}

/// Where a request goes, and what it is counted under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whether it is a gRPC method; otherwise it is a path.
    pub is_grpc: bool,
    /// Whether the method sends a stream of messages, in either direction.
    pub is_stream: bool,
    /// Name of the application.
    pub application: String,
    /// Name of the deployment.
    pub deployment: String,
    /// What the replica shall regard as its root: root path and route prefix.
    pub prefix: String,
    /// The `route` label in metrics: from the config, so of a closed set.
    pub label: String,
}

/// Why a gRPC method leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub enum NoMethod {
    /// No application has the method.
    Unknown,
    /// Several applications have it and the caller named none.
    Ambiguous,
    /// The application that the caller named does not have it, or does not exist.
    NotInApplication,
}

// === impl Table ===

impl Table {
    /// Reads the head's table. A route to a deployment that the table does not describe is left
    /// out: nothing could answer it.
    pub fn new(source: v1::RouteTable) -> Table {
        let root_path = source
            .ingress
            .as_ref()
            .map(|ingress| ingress.root_path.trim_end_matches('/').to_owned())
            .unwrap_or_default();
        let mut table = Table {
            version: source.version,
            ingress: source.ingress,
            routers: source.routers,
            root_path,
            ..Table::default()
        };
        for application in source.applications {
            table.add(application);
        }
        table
    }

    fn add(&mut self, source: v1::TableApplication) {
        let index = self.applications.len();
        let exists = |name: &str| source.deployments.iter().any(|d| d.name == name);
        let mut paths = HashMap::new();
        let mut default = None;
        if let Some(prefix) = &source.route_prefix {
            if exists(&source.ingress_deployment) {
                default = Some(self.http_route(&source, prefix, "", &source.ingress_deployment));
            }
            for route in source.routes.iter().filter(|r| exists(&r.deployment)) {
                let path = trim_slash(&route.path);
                let id = self.http_route(&source, prefix, path, &route.deployment);
                paths.entry(path.to_owned()).or_insert(id);
            }
            if default.is_some() || !paths.is_empty() {
                // Two applications under one prefix are refused at PUT; should it happen, the
                // first keeps it.
                let prefix = trim_slash(prefix).to_owned();
                self.prefixes.entry(prefix).or_insert(index);
            }
        }
        for route in source.grpc_routes.iter().filter(|r| exists(&r.deployment)) {
            let path = format!("/{}/{}", route.service, route.method);
            let id = self.routes.len();
            self.routes.push(Route {
                is_grpc: true,
                is_stream: route.streaming,
                application: source.name.clone(),
                deployment: route.deployment.clone(),
                prefix: String::new(),
                label: path.clone(),
            });
            self.methods.entry(path).or_default().push(id);
        }
        self.applications.push(Application {
            name: source.name,
            running: source.running,
            prefix: source.route_prefix,
            deployments: source.deployments,
            paths,
            default,
        });
    }

    fn http_route(
        &mut self,
        application: &v1::TableApplication,
        prefix: &str,
        path: &str,
        deployment: &str,
    ) -> RouteId {
        let below_root = format!("{}{}", self.root_path, trim_slash(prefix));
        let label = format!("{}{path}", trim_slash(prefix));
        self.routes.push(Route {
            is_grpc: false,
            is_stream: false,
            application: application.name.clone(),
            deployment: deployment.to_owned(),
            prefix: or_slash(below_root),
            label: or_slash(label),
        });
        self.routes.len() - 1
    }

    /// The route of a path: the application with the longest prefix, in it the longest path
    /// route. A prefix matches itself and what follows it after a slash.
    pub fn route_http(&self, path: &str) -> Option<RouteId> {
        // `OPTIONS *` and `CONNECT host:port` name no path.
        if !path.starts_with('/') {
            return None;
        }
        let path = self.below_root(path);
        let application = longest(&self.prefixes, path)
            .and_then(|(index, matched)| Some((self.applications.get(*index)?, matched)));
        let (application, matched) = application?;
        if application.paths.is_empty() {
            return application.default;
        }
        let relative = path.get(matched..).unwrap_or_default();
        match longest(&application.paths, relative) {
            Some((id, _)) => Some(*id),
            None => application.default,
        }
    }

    /// The path without the root path, for paths below it.
    fn below_root<'a>(&self, path: &'a str) -> &'a str {
        match path.strip_prefix(self.root_path.as_str()) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            Some(_) | None => path,
        }
    }

    /// The route of "/package.Service/Method" in the application that the caller named, or in
    /// the only one that has it.
    pub fn route_grpc(&self, path: &str, application: Option<&str>) -> Result<RouteId, NoMethod> {
        let candidates = self.methods.get(path).ok_or(NoMethod::Unknown)?;
        let in_application = |id: &&RouteId| {
            let named = self.routes.get(**id).map(|r| r.application.as_str());
            application == named
        };
        match (application, candidates.as_slice()) {
            (Some(_), all) => all
                .iter()
                .find(in_application)
                .copied()
                .ok_or(NoMethod::NotInApplication),
            (None, [only]) => Ok(*only),
            (None, _) => Err(NoMethod::Ambiguous),
        }
    }

    /// How those who wait for a route's deployment are ordered, if they are.
    pub fn queueing(&self, route: &Route) -> Option<&v1::Queueing> {
        let mut all = self.applications.iter();
        let application = all.find(|application| application.name == route.application)?;
        let mut deployments = application.deployments.iter();
        let deployment = deployments.find(|deployment| deployment.name == route.deployment)?;
        deployment.queueing.as_ref()
    }

    /// Route prefix and application name of every application that HTTP reaches.
    pub fn http_prefixes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.applications.iter().filter_map(|application| {
            let reachable = application.default.is_some() || !application.paths.is_empty();
            let prefix = application.prefix.as_deref().filter(|_| reachable)?;
            Some((prefix, application.name.as_str()))
        })
    }

    /// gRPC services, and whether an application that is RUNNING answers each.
    pub fn grpc_services(&self) -> HashMap<&str, bool> {
        let mut services: HashMap<&str, bool> = HashMap::new();
        for (path, ids) in &self.methods {
            let service = path.trim_start_matches('/').split('/').next();
            let running = ids.iter().any(|id| self.is_running(*id));
            *services.entry(service.unwrap_or_default()).or_default() |= running;
        }
        services
    }

    fn is_running(&self, id: RouteId) -> bool {
        let name = self.routes.get(id).map(|route| route.application.as_str());
        let mut all = self.applications.iter();
        all.any(|application| Some(application.name.as_str()) == name && application.running)
    }

    /// Why the whole is not ready to serve, or `None` when every application is RUNNING.
    pub fn not_ready(&self) -> Option<String> {
        if self.version == 0 {
            return Some("Route table is not populated yet.".to_owned());
        }
        if self.applications.is_empty() {
            return Some("No application is deployed.".to_owned());
        }
        let waiting: Vec<&str> = self
            .applications
            .iter()
            .filter(|application| !application.running)
            .map(|application| application.name.as_str())
            .collect();
        if waiting.is_empty() {
            return None;
        }
        Some(format!(
            "Applications not RUNNING yet: {}.",
            waiting.join(", ")
        ))
    }
}

/// The longest key that is the path itself or ends where the path has a slash, and its length.
/// The root is the empty key.
fn longest<'a, T>(keys: &'a HashMap<String, T>, path: &str) -> Option<(&'a T, usize)> {
    let mut end = path.len();
    loop {
        let candidate = path.get(..end)?;
        if let Some(found) = keys.get(candidate) {
            return Some((found, end));
        }
        end = candidate.rfind('/')?;
    }
}

fn trim_slash(text: &str) -> &str {
    text.trim_end_matches('/')
}

fn or_slash(text: String) -> String {
    if text.is_empty() {
        "/".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn application(name: &str, prefix: Option<&str>) -> v1::TableApplication {
        let deployments = ["Ingress", "Rerank"].map(|name| v1::TableDeployment {
            name: name.to_owned(),
            ..Default::default()
        });
        v1::TableApplication {
            name: name.to_owned(),
            route_prefix: prefix.map(str::to_owned),
            ingress_deployment: "Ingress".to_owned(),
            running: true,
            deployments: deployments.to_vec(),
            ..Default::default()
        }
    }

    fn table(applications: Vec<v1::TableApplication>) -> Table {
        Table::new(v1::RouteTable {
            routers: Vec::new(),
            version: 1,
            ingress: None,
            applications,
        })
    }

    fn found<'a>(table: &'a Table, path: &str) -> Option<(&'a str, &'a str)> {
        let route = &table.routes[table.route_http(path)?];
        Some((route.application.as_str(), route.deployment.as_str()))
    }

    #[test]
    fn the_longest_prefix_wins_and_ends_at_a_slash() {
        let table = table(vec![
            application("root", Some("/")),
            application("a", Some("/a")),
            application("ab", Some("/a/b")),
            application("hidden", None),
        ]);
        for (path, name) in [
            ("/", "root"),
            ("/a", "a"),
            ("/a/", "a"),
            ("/a/x", "a"),
            ("/ab", "root"),
            ("/a/b", "ab"),
            ("/a/b/c/d", "ab"),
            ("/a/bc", "a"),
            ("/hidden", "root"),
        ] {
            assert_eq!(found(&table, path), Some((name, "Ingress")), "{path}");
        }
    }

    #[test]
    fn without_an_application_at_the_root_other_paths_have_no_route() {
        let table = table(vec![application("a", Some("/a"))]);
        assert_eq!(found(&table, "/"), None);
        assert_eq!(found(&table, "/ax"), None);
    }

    #[test]
    fn what_is_no_path_has_no_route_even_with_an_application_at_the_root() {
        let table = table(vec![application("root", Some("/"))]);
        assert_eq!(found(&table, "*"), None);
        assert_eq!(found(&table, ""), None);
        assert_eq!(found(&table, "/"), Some(("root", "Ingress")));
    }

    #[test]
    fn path_routes_lie_below_the_prefix_and_the_longest_wins() {
        let mut app = application("rag", Some("/rag"));
        app.routes = vec![
            v1::PathRoute {
                path: "/v1/rerank".into(),
                deployment: "Rerank".into(),
            },
            v1::PathRoute {
                path: "/gone".into(),
                deployment: "DoesNotExist".into(),
            },
        ];
        let table = table(vec![app]);
        for (path, deployment) in [
            ("/rag", "Ingress"),
            ("/rag/v1", "Ingress"),
            ("/rag/v1/rerank", "Rerank"),
            ("/rag/v1/rerank/batch", "Rerank"),
            ("/rag/v1/reranker", "Ingress"),
            ("/rag/gone", "Ingress"),
        ] {
            assert_eq!(found(&table, path), Some(("rag", deployment)), "{path}");
        }
        let rerank = table.route_http("/rag/v1/rerank").unwrap();
        assert_eq!(table.routes[rerank].label, "/rag/v1/rerank");
        assert_eq!(table.routes[rerank].prefix, "/rag");
    }

    #[test]
    fn the_root_path_is_not_part_of_the_route_but_of_the_prefix_that_replicas_see() {
        let table = Table::new(v1::RouteTable {
            routers: Vec::new(),
            version: 1,
            ingress: Some(v1::Ingress {
                root_path: "/base/".into(),
                ..Default::default()
            }),
            applications: vec![application("a", Some("/a")), application("root", Some("/"))],
        });
        assert_eq!(found(&table, "/base/a/x"), Some(("a", "Ingress")));
        assert_eq!(found(&table, "/a/x"), Some(("a", "Ingress")));
        assert_eq!(found(&table, "/base"), Some(("root", "Ingress")));
        let route = &table.routes[table.route_http("/base/a").unwrap()];
        assert_eq!(
            (route.prefix.as_str(), route.label.as_str()),
            ("/base/a", "/a")
        );
        let root = &table.routes[table.route_http("/base").unwrap()];
        assert_eq!((root.prefix.as_str(), root.label.as_str()), ("/base", "/"));
    }

    #[test]
    fn grpc_methods_need_the_application_only_when_several_have_it() {
        let with_method = |name: &str, method: &str| {
            let mut app = application(name, None);
            app.grpc_routes = vec![v1::GrpcRoute {
                service: "p.S".into(),
                method: method.into(),
                deployment: "Rerank".into(),
                streaming: false,
            }];
            app
        };
        let table = table(vec![
            with_method("a", "Both"),
            with_method("b", "Both"),
            with_method("c", "One"),
        ]);
        let name = |id: RouteId| table.routes[id].application.as_str();
        assert_eq!(table.route_grpc("/p.S/One", None).map(name), Ok("c"));
        assert_eq!(table.route_grpc("/p.S/Both", Some("b")).map(name), Ok("b"));
        assert_eq!(
            table.route_grpc("/p.S/Both", None),
            Err(NoMethod::Ambiguous)
        );
        assert_eq!(
            table.route_grpc("/p.S/One", Some("a")),
            Err(NoMethod::NotInApplication)
        );
        assert_eq!(table.route_grpc("/p.S/None", None), Err(NoMethod::Unknown));
        assert_eq!(table.grpc_services(), HashMap::from([("p.S", true)]));
    }

    #[test]
    fn ready_means_a_table_with_applications_that_all_run() {
        assert_eq!(
            Table::default().not_ready().as_deref(),
            Some("Route table is not populated yet.")
        );
        assert!(table(vec![]).not_ready().is_some());
        let mut slow = application("slow", Some("/s"));
        slow.running = false;
        let mixed = table(vec![application("a", Some("/a")), slow]);
        assert_eq!(
            mixed.not_ready().as_deref(),
            Some("Applications not RUNNING yet: slow.")
        );
        assert_eq!(table(vec![application("a", None)]).not_ready(), None);
    }

    /// The rule as it is written in the contract, the slow way.
    fn by_the_book<'a>(prefixes: &'a [String], path: &str) -> Option<&'a str> {
        prefixes
            .iter()
            .filter(|prefix| {
                prefix.as_str() == "/"
                    || path == prefix.as_str()
                    || path.starts_with(&format!("{prefix}/"))
            })
            .max_by_key(|prefix| prefix.len())
            .map(String::as_str)
    }

    proptest! {
        #[test]
        fn lookup_agrees_with_the_rule(
            prefixes in proptest::collection::hash_set("(/|(/[ab]{1,2}){1,3})", 0..6),
            path in "(/[ab]{0,2}){1,4}",
        ) {
            let prefixes: Vec<String> = prefixes.into_iter().collect();
            let table = table(prefixes.iter().map(|p| application(p, Some(p))).collect());
            prop_assert_eq!(found(&table, &path).map(|f| f.0), by_the_book(&prefixes, &path));
        }
    }
}
