//! The state of the services behind the gateway, as the start page shows it.
//!
//! It shows states and names but no reasons, because reasons contain addresses. `/actuator/health` of each service has
//! them.
#![expect(clippy::disallowed_methods, reason = "the gateway runs on real time")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use hive_router::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};
use tandem_front_door::TlsSettings;
use tokio::sync::Mutex;

use super::configuration::Services;
use crate::tls_client::trusting;

/// Time limit for one health request. A service's own checks take up to 2 s.
const LIMIT: Duration = Duration::from_secs(3);
/// How long a report is reused, so that many viewers cost the services no more than one.
const STANDS: Duration = Duration::from_secs(1);
/// The largest part of a service's response that is read, in bytes.
const LARGEST: usize = 256 * 1024;

/// Asks the services for their health. Clones share the report.
#[derive(Clone)]
pub(super) struct System {
    client: reqwest::Client,
    services: Services,
    last: Arc<Mutex<Option<(Instant, Value)>>>,
}

/// The response of a service's actuator.
#[derive(Deserialize)]
struct Health {
    status: String,
    #[serde(default)]
    components: std::collections::BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Component {
    status: String,
}

impl System {
    /// Makes one with its own connection pool.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub(super) fn new(services: Services, tls: &TlsSettings) -> anyhow::Result<Self> {
        let client = trusting(reqwest::Client::builder(), tls)?
            .timeout(LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .context("the gateway's HTTP client could not be made")?;
        Ok(Self {
            client,
            services,
            last: Arc::default(),
        })
    }

    /// `{version, services: [{name, status, components: [{name, status}], address}]}`, at most a second old. An address
    /// is included only if it is one of this machine: a browser must not learn others.
    pub(super) async fn report(&self) -> Value {
        // Concurrent requests wait for the same report.
        let mut last = self.last.lock().await;
        if let Some((at, report)) = last.as_ref()
            && at.elapsed() < STANDS
        {
            return report.clone();
        }
        let (accounts, orders) = futures::join!(
            self.ask("accounts", &self.services.accounts),
            self.ask("orders", &self.services.orders)
        );
        let report =
            json!({ "version": env!("CARGO_PKG_VERSION"), "services": [accounts, orders] });
        *last = Some((Instant::now(), report.clone()));
        report
    }

    async fn ask(&self, name: &str, base: &str) -> Value {
        let mut told = match self.health(base).await {
            Some(health) => {
                let components: Vec<Value> = health
                    .components
                    .iter()
                    .map(|(name, component)| json!({ "name": name, "status": component.status }))
                    .collect();
                json!({ "name": name, "status": health.status, "components": components })
            }
            None => json!({ "name": name, "status": "UNREACHABLE" }),
        };
        if is_of_this_machine(base) {
            told["address"] = base.into();
        }
        told
    }

    /// `None` when there is no response or it cannot be read.
    async fn health(&self, base: &str) -> Option<Health> {
        let url = format!("{base}/actuator/health");
        let mut answer = self.client.get(url).send().await.ok()?;
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.ok()? {
            body.extend_from_slice(&part);
            if body.len() > LARGEST {
                return None;
            }
        }
        serde_json::from_slice(&body).ok()
    }
}

fn is_of_this_machine(base: &str) -> bool {
    let uri = base.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_shown() {
        for (base, shown) in [
            ("http://127.0.0.1:8080", true),
            ("http://localhost:8080", true),
            ("http://[::1]:8080", true),
            ("http://accounts", false),
            ("http://10.0.0.1:8080", false),
            ("http://localhost.example.org", false),
        ] {
            assert_eq!(is_of_this_machine(base), shown, "{base}");
        }
    }
}
