//! A running service as an operator reaches it: its address, and the token that opens its `/admin` routes.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use tandem_kit::{
    admin::AdminToken,
    sealing::{Sealer, SealingSettings},
};

/// A service that keeps a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// The system of record of customers.
    Accounts,
    /// The system of record of orders.
    Orders,
}

/// How to reach the services, and the key that opens them.
#[derive(Args, Clone, Debug)]
pub(crate) struct Reach {
    /// Where accounts answers.
    #[arg(
        long,
        env = "TANDEM_ACCOUNTS_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    accounts_url: String,

    /// Where orders answers.
    #[arg(
        long,
        env = "TANDEM_ORDERS_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8085"
    )]
    orders_url: String,

    /// Data directory of a system that `tandem up` runs: its sealing key is used unless one is given.
    #[arg(
        long,
        env = "TANDEM_DATA_DIR",
        value_name = "DIR",
        default_value = ".tandem"
    )]
    data_dir: PathBuf,

    #[command(flatten)]
    sealing: SealingSettings,
}

/// A client of one service's `/admin` routes.
pub(super) struct Operator {
    http: reqwest::Client,
    base: String,
    token: AdminToken,
}

impl Reach {
    /// A client of this service.
    pub(super) fn operator(&self, service: Service) -> anyhow::Result<Operator> {
        let mut sealing = self.sealing.clone();
        if sealing.sealing_key.is_none() && sealing.sealing_key_file.is_none() {
            sealing.sealing_key_file = Some(self.data_dir.join("sealing.key"));
        }
        let sealer = Sealer::from_settings(&sealing)
            .context("an operator's request is signed with the sealing key")?;
        let base = match service {
            Service::Accounts => &self.accounts_url,
            Service::Orders => &self.orders_url,
        };
        Ok(Operator {
            http: reqwest::Client::builder()
                .connect_timeout(Duration::from_secs(5))
                .build()?,
            base: base.trim_end_matches('/').to_owned(),
            token: AdminToken::of(&sealer),
        })
    }
}

impl Operator {
    /// Sends a request and returns the answer if it is a good one.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        limit: Option<Duration>,
        body: Option<Value>,
    ) -> anyhow::Result<Response> {
        let mut request: RequestBuilder = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(self.token.reveal());
        if let Some(limit) = limit {
            request = request.timeout(limit);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("{} does not answer", self.base))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        match problem["detail"].as_str() {
            Some(detail) => bail!("{detail} ({status})"),
            None => bail!("{} answered {status}", self.base),
        }
    }
}
