//! From settings to the router's configuration: the YAML file says how the router behaves, the flags say where things are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use hive_router::config::log::LogFormat as RouterLogFormat;
use hive_router::config::primitives::file_path::FilePath;
use hive_router::config::supergraph::SupergraphSource;
use hive_router::config::{HiveRouterConfig, PluginConfig, parse_yaml_config};
use hive_router::http::Uri;
use hive_router::plugins::plugin_trait::RouterPlugin;

use tandem_kit::telemetry::{LogFormat, LogSettings};

use super::RouterSettings;
use super::codes::Codes;

const BUILT_IN_CONFIGURATION: &str = include_str!("../../router-config/hive-router.yaml");
const BUILT_IN_SUPERGRAPH: &str = include_str!("../../schema/supergraph.graphql");

/// What the server needs to start.
pub(super) struct Configuration {
    pub(super) router: &'static HiveRouterConfig,
    pub(super) services: Services,
}

/// Base URLs of the services, without a slash at the end.
#[derive(Debug, Clone)]
pub(super) struct Services {
    pub(super) accounts: String,
    pub(super) orders: String,
}

/// Reads and checks everything before the first request can arrive.
pub(super) fn load(settings: &RouterSettings) -> anyhow::Result<Configuration> {
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

    router.http.host.clone_from(&settings.host);
    router.http.port = settings.port;
    router.supergraph = SupergraphSource::File {
        path: Some(supergraph(settings)?),
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
    if let Some(log) = &settings.log {
        router.log.format = match log.log_format {
            LogFormat::Text => RouterLogFormat::Text,
            LogFormat::Json => RouterLogFormat::Json,
        };
        // The services' default level would make the router log each request.
        if log.log != LogSettings::default().log {
            router.log.filter = Some(log.log.clone());
        }
    }
    router
        .plugins
        .insert(Codes::plugin_name().to_owned(), PluginConfig::default());

    Ok(Configuration {
        router: router.into_static(),
        services,
    })
}

/// The router replaces a subgraph URL's whole path for a WebSocket: a base URL's own path must go in front.
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
        None => write_built_in_supergraph(&settings.data_dir)?,
    };
    let file =
        fs::canonicalize(&file).with_context(|| format!("{} cannot be found", file.display()))?;
    FilePath::new_from_relative(&file.to_string_lossy())
        .with_context(|| format!("{} is no path of a supergraph", file.display()))
}

fn write_built_in_supergraph(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let folder = data_dir.join("router");
    let file = folder.join("supergraph.graphql");
    if fs::read_to_string(&file).is_ok_and(|written| written == BUILT_IN_SUPERGRAPH) {
        return Ok(file);
    }
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, BUILT_IN_SUPERGRAPH))
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
    if uri.scheme_str() != Some("http") || uri.host().is_none() || uri.query().is_some() {
        bail!(
            "{flag} `{value}` does not fit: give a base URL such as http://127.0.0.1:8080 (http, no query)"
        );
    }
    Ok(url.to_owned())
}
