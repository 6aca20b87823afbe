//! Makes the router's configuration. The YAML file says how the router behaves, the flags say where things are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use hive_router::config::log::LogFormat as RouterLogFormat;
use hive_router::config::primitives::file_path::FilePath;
use hive_router::config::supergraph::SupergraphSource;
use hive_router::config::{HiveRouterConfig, parse_yaml_config};
use hive_router::http::Uri;
use hive_router::plugins::plugin_trait::RouterPlugin;

use secrecy::SecretString;
use tandem_authentication::AuthenticationSettings;
use tandem_front_door::graphql::{
    DocumentLimits, GraphQlRules, GraphSchema, Treatment, TrustedDocuments,
};
use tandem_front_door::{Clients, FrontDoor, Tasks, Tls, TlsSettings};
use tandem_service::telemetry::{LogFormat, LogSettings};
use tandem_service::web::legacy;
use tandem_trace_export::{Sampling, TraceSettings};

use super::RouterSettings;
use super::codes::Codes;
use super::log_filter;
use super::resilience::Resilience;
use super::traces;

const BUILT_IN_CONFIGURATION: &str = include_str!("../../router-config/hive-router.yaml");
const BUILT_IN_SUPERGRAPH: &str = include_str!("../../schema/supergraph.graphql");

/// A certificate authority that has signed nothing.
const NOBODY: &str = include_str!("../../router-config/nobody.pem");

/// The operations of `queries/`.
const BUILT_IN_OPERATIONS: &str = include_str!("../../queries/manifest.json");
/// The name of the introspection query in GraphiQL and other clients.
const INTROSPECTION: &str = "IntrospectionQuery";

/// How many subscriptions of one client may be set up at once. Each one is planned and opens a connection to a service.
const SET_UPS_PER_CLIENT: usize = 8;

/// How much later than the front door the router cancels an operation.
const BEHIND_THE_OPERATION: Duration = Duration::from_secs(5);

/// What the server needs to start.
pub(super) struct Configuration {
    pub(super) router: &'static HiveRouterConfig,
    pub(super) services: Services,
    pub(super) door: FrontDoor,
    pub(super) authentication: AuthenticationSettings,
    /// The data directory of an `up` whose processes the live page may kill.
    pub(super) kills: Option<PathBuf>,
    /// The token that shows the services that an operator asks.
    pub(super) operator_token: Option<SecretString>,
    pub(super) tls: TlsSettings,
    /// Which traces are recorded. `None` if no trace can be.
    pub(super) sampling: Option<Sampling>,
}

/// Base URLs of the services, without a trailing slash.
#[derive(Debug, Clone)]
pub(super) struct Services {
    pub(super) accounts: String,
    pub(super) orders: String,
}

/// Reads and checks all settings before the first request can arrive.
pub(super) fn load(settings: &RouterSettings, log: &LogSettings) -> anyhow::Result<Configuration> {
    let services = Services {
        accounts: base_url("--accounts-url", &settings.accounts_url)?,
        orders: base_url("--orders-url", &settings.orders_url)?,
    };
    let (text, origin) = match &settings.router_config {
        Some(file) => (read("--router-config", file)?, file.display().to_string()),
        None => (
            BUILT_IN_CONFIGURATION.to_owned(),
            "router-config/hive-router.yaml (built in)".to_owned(),
        ),
    };
    let mut router = parse_yaml_config(text)
        .with_context(|| format!("the router configuration {origin} is not valid"))?;

    let operation_time = Duration::from_secs(settings.operation_timeout_seconds);
    leave_time_limit_to_door(&mut router, operation_time);
    router.http.host.clone_from(&settings.host);
    router.http.port = settings.port;
    let supergraph = supergraph(settings)?;
    let schema = read("--supergraph", Path::new(&supergraph.absolute))
        .and_then(|sdl| GraphSchema::from_sdl(&sdl).context("the supergraph is not valid"))?;
    router.supergraph = SupergraphSource::File {
        path: Some(supergraph),
        poll_interval: None,
    };
    for (subgraph, base) in [
        ("accounts", &services.accounts),
        ("orders", &services.orders),
    ] {
        let url = serde_json::from_value(serde_json::json!({ "url": format!("{base}/graphql") }))?;
        router
            .override_subgraph_urls
            .subgraphs
            .insert(subgraph.to_owned(), url);
    }
    place_web_sockets(&mut router, &services)?;
    trust_services(&mut router, &settings.tls)?;
    start_without_authorities(&mut router, &services, &settings.data_dir)?;
    let traces = TraceSettings::from_environment()?;
    traces::configure(&mut router, traces.as_ref())?;
    let defaults = LogSettings::default();
    if log.log_format == LogFormat::Json {
        router.log.format = RouterLogFormat::Json;
    }
    // At the services' default level the router would log each request.
    if log.log != defaults.log {
        let (filter, level) = log_filter::bounded(&log.log);
        router.log.filter = Some(filter);
        // The router uses this level for every target that its filter does not name.
        if let Ok(level) = level.parse() {
            router.log.level = level;
        }
    }
    for name in [Codes::plugin_name(), Resilience::plugin_name()] {
        router.plugins.entry(name.to_owned()).or_default();
    }

    let trusted = trusted_documents(settings)?;
    let old_routes = legacy::notices(&legacy::OLD_ROUTES, settings.rest_sunset.as_ref());
    let door = front_door(settings, &router, schema, trusted, operation_time)?
        .with_notices(old_routes)
        .with_tls(Tls::load(&settings.tls, Clients::Anybody)?);
    Ok(Configuration {
        router: router.into_static(),
        services,
        door,
        authentication: settings.authentication.clone(),
        kills: settings.kills.clone(),
        operator_token: settings.operator_token.clone(),
        tls: settings.tls.clone(),
        sampling: traces.map(|traces| traces.sampling),
    })
}

/// The gateway's front door. It applies the limits of the router's configuration: tokens, depth and body size.
fn front_door(
    settings: &RouterSettings,
    router: &HiveRouterConfig,
    schema: GraphSchema,
    trusted: Option<TrustedDocuments>,
    operation_time: Duration,
) -> anyhow::Result<FrontDoor> {
    // Labels, log fields and cache keys contain the names of these operations. All other operations share one name.
    let mut known_operations = TrustedDocuments::from_manifest(BUILT_IN_OPERATIONS)?
        .names()
        .clone();
    known_operations.insert(INTROSPECTION.to_owned());
    if let Some(trusted) = &trusted {
        known_operations.extend(trusted.names().iter().cloned());
    }
    let limits = &router.limits;
    let mut documents = DocumentLimits {
        cost: settings.front_door.max_cost,
        ..DocumentLimits::default()
    };
    if let Some(tokens) = &limits.max_tokens {
        documents.tokens = tokens.n;
    }
    if let Some(depth) = &limits.max_depth {
        documents.depth = depth.n;
    }
    let rules = GraphQlRules {
        schema: Some(schema),
        limits: documents,
        path: router.graphql_path().into(),
        body_size: usize::try_from(limits.max_request_body_size.to_bytes()).unwrap_or(usize::MAX),
        log_errors: true,
        trusted,
        treatment: Treatment {
            known_operations: Some(known_operations),
            fill_empty_selections: true,
            is_federated: true,
        },
        set_ups_per_client: SET_UPS_PER_CLIENT,
        connections_behind_each: 1,
        operation_time: Some(operation_time),
        ..GraphQlRules::default()
    };
    // The router's application cannot leave its thread, so all tasks of a connection stay there too.
    Ok(FrontDoor::new(&settings.front_door, rules, Tasks::Local))
}

/// Makes the router's request limit longer than the front door's limit of an operation, because the front door can tell
/// its client what is known of the outcome.
fn leave_time_limit_to_door(router: &mut HiveRouterConfig, operation_time: Duration) {
    let limit = &mut router.traffic_shaping.router.request_timeout;
    *limit = (*limit).max(operation_time + BEHIND_THE_OPERATION);
}

fn trusted_documents(settings: &RouterSettings) -> anyhow::Result<Option<TrustedDocuments>> {
    let Some(file) = &settings.trusted_documents else {
        return Ok(None);
    };
    let text = read("--trusted-documents", file)?;
    TrustedDocuments::from_manifest(&text)
        .with_context(|| format!("--trusted-documents {}", file.display()))
        .map(Some)
}

/// Makes the router trust services that the system's own authority signed, and present the gateway's certificate to
/// them.
fn trust_services(router: &mut HiveRouterConfig, tls: &TlsSettings) -> anyhow::Result<()> {
    let (Some(authority), Some(certificate), Some(key)) =
        (&tls.tls_ca, &tls.tls_certificate, &tls.tls_key)
    else {
        return Ok(());
    };
    let path = |file: &Path| {
        fs::canonicalize(file).with_context(|| format!("{} cannot be found", file.display()))
    };
    let trust = serde_json::json!({
        "cert_file": path(authority)?,
        "client_auth": { "cert_file": path(certificate)?, "key_file": path(key)? },
    });
    router.traffic_shaping.all.tls =
        Some(serde_json::from_value(trust).context("the gateway's certificate does not do")?);
    Ok(())
}

/// Lets the gateway start where there are no certificate authorities, as in a container with only a C library. The
/// router always loads the system's authorities and never becomes ready without any. There it gets an authority that
/// has signed nothing, which suffices for services without TLS.
fn start_without_authorities(
    router: &mut HiveRouterConfig,
    services: &Services,
    data_dir: &Path,
) -> anyhow::Result<()> {
    if router.traffic_shaping.all.tls.is_some()
        || !rustls_native_certs::load_native_certs().certs.is_empty()
    {
        return Ok(());
    }
    for (flag, url) in [
        ("--accounts-url", &services.accounts),
        ("--orders-url", &services.orders),
    ] {
        if url.starts_with("https:") {
            bail!(
                "{flag} {url} cannot be trusted: this system has no certificate authorities. Install them (Debian: ca-certificates), name a file of them in \
                 SSL_CERT_FILE, or give --tls-ca, --tls-certificate and --tls-key"
            );
        }
    }
    let file = write_built_in(data_dir, "nobody.pem", NOBODY)?;
    let file =
        fs::canonicalize(&file).with_context(|| format!("{} cannot be found", file.display()))?;
    router.traffic_shaping.all.tls = Some(serde_json::from_value(
        serde_json::json!({ "cert_file": file }),
    )?);
    Ok(())
}

/// The router replaces the whole path of a subgraph's URL for a WebSocket, so a path in the base URL must be added in
/// front.
fn place_web_sockets(router: &mut HiveRouterConfig, services: &Services) -> anyhow::Result<()> {
    let Some(sockets) = router.subscriptions.websocket.as_mut() else {
        return Ok(());
    };
    for (subgraph, base) in [
        ("accounts", &services.accounts),
        ("orders", &services.orders),
    ] {
        let prefix = base.parse::<Uri>()?.path().trim_end_matches('/').to_owned();
        let Some(socket) = sockets.subgraphs.get_mut(subgraph) else {
            continue;
        };
        if let Some(path) = &socket.path
            && !prefix.is_empty()
        {
            let path = serde_json::json!({ "path": format!("{prefix}{}", path.as_str()) });
            *socket = serde_json::from_value(path)?;
        }
    }
    Ok(())
}

fn supergraph(settings: &RouterSettings) -> anyhow::Result<FilePath> {
    let file = match &settings.supergraph {
        Some(file) => {
            read("--supergraph", file)?;
            file.clone()
        }
        None => write_built_in(
            &settings.data_dir,
            "supergraph.graphql",
            BUILT_IN_SUPERGRAPH,
        )?,
    };
    let file =
        fs::canonicalize(&file).with_context(|| format!("{} cannot be found", file.display()))?;
    FilePath::new_from_relative(&file.to_string_lossy())
        .with_context(|| format!("{} is no path of a supergraph", file.display()))
}

/// Writes built-in content to a file, because the router reads only files.
fn write_built_in(data_dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let folder = data_dir.join("router");
    let file = folder.join(name);
    if fs::read_to_string(&file).is_ok_and(|written| written == text) {
        return Ok(file);
    }
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, text))
        .with_context(|| {
            format!(
                "{} cannot be written: choose a writable folder with --data-dir",
                file.display()
            )
        })?;
    Ok(file)
}

fn read(flag: &str, file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("{flag} {} cannot be read", file.display()))
}

fn base_url(flag: &str, value: &str) -> anyhow::Result<String> {
    let url = value.trim_end_matches('/');
    let Ok(uri) = url.parse::<Uri>() else {
        bail!("{flag} `{value}` is no URL: give a base URL such as http://127.0.0.1:8080");
    };
    if !matches!(uri.scheme_str(), Some("http" | "https"))
        || uri.host().is_none()
        || uri.query().is_some()
    {
        bail!(
            "{flag} `{value}` does not fit: give a base URL such as http://127.0.0.1:8080 (http or https, no query)"
        );
    }
    Ok(url.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_router_gives_no_operation_up_before_the_front_door_does() {
        let short = "traffic_shaping: { router: { request_timeout: 1s } }";
        for configuration in [BUILT_IN_CONFIGURATION, short] {
            for operation_time in [1, 30, 86_400].map(Duration::from_secs) {
                let mut router = parse_yaml_config(configuration.to_owned()).unwrap();
                leave_time_limit_to_door(&mut router, operation_time);
                let limit = router.traffic_shaping.router.request_timeout;
                assert!(limit > operation_time, "{limit:?} {operation_time:?}");
            }
        }
    }
}
