//! A running service as an operator reaches it: its address, and the token that opens its `/admin` routes.

use std::{error::Error, time::Duration};

use anyhow::bail;
use clap::ValueEnum;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tandem_front_door::TlsSettings;
use tokio::sync::OnceCell;

use crate::tls_client::trusting;

/// For a service to say which it is.
const NAME_LIMIT: Duration = Duration::from_secs(5);

/// A service that keeps a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// The system of record of customers.
    Accounts,
    /// The system of record of orders.
    Orders,
}

impl Service {
    /// As flags and messages have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Orders => "orders",
        }
    }
}

/// A client of one service's `/admin` routes.
pub(super) struct Operator {
    http: reqwest::Client,
    service: Service,
    /// That it was asked which service it is.
    is_known: OnceCell<()>,
    base: String,
    /// What to say when it does not answer.
    advice: String,
    token: SecretString,
}

impl Operator {
    /// A client of the service at `base`; `advice` is said when it does not answer, or another one does.
    pub(super) fn new(
        service: Service,
        base: &str,
        advice: String,
        token: SecretString,
        tls: &TlsSettings,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            http: trusting(reqwest::Client::builder(), tls)?
                .connect_timeout(Duration::from_secs(5))
                .no_proxy()
                .build()?,
            service,
            is_known: OnceCell::new(),
            base: base.to_owned(),
            advice,
            token,
        })
    }

    /// Sends a request and returns the answer if it is a good one.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        limit: Option<Duration>,
        body: Option<Value>,
    ) -> anyhow::Result<Response> {
        let response = self.ask(method, path, limit, body).await?;
        self.good(response).await
    }

    /// As [`Self::send`]; `None` when the service says that there is no such thing.
    pub(super) async fn find(
        &self,
        method: Method,
        path: &str,
        limit: Option<Duration>,
        body: Option<Value>,
    ) -> anyhow::Result<Option<Response>> {
        let response = self.ask(method, path, limit, body).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.good(response).await.map(Some)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        limit: Option<Duration>,
        body: Option<Value>,
    ) -> anyhow::Result<Response> {
        self.is_known
            .get_or_try_init(|| self.refuse_another())
            .await?;
        let mut request: RequestBuilder = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(self.token.expose_secret());
        if let Some(limit) = limit {
            request = request.timeout(limit);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        match request.send().await {
            Ok(response) => Ok(response),
            Err(error) => bail!(
                "{} does not answer ({}); {}",
                self.base,
                innermost(&error),
                self.advice
            ),
        }
    }

    /// Another part of the system would do to itself what is meant for this one.
    async fn refuse_another(&self) -> anyhow::Result<()> {
        match what_answers(&self.http, &self.base).await {
            Some(name) if name != self.service.name() => bail!(
                "{} is {name}, not {}; {}",
                self.base,
                self.service.name(),
                self.advice
            ),
            // Other failures are reported by the request itself.
            _ => Ok(()),
        }
    }

    async fn good(&self, response: Response) -> anyhow::Result<Response> {
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

/// What the process at a base URL calls itself, if it says so: `accounts`, `orders`, `gateway`, or whatever else listens there.
pub(crate) async fn what_answers(http: &reqwest::Client, base: &str) -> Option<String> {
    let request = http.get(format!("{base}/actuator/info"));
    let answer = request.timeout(NAME_LIMIT).send().await.ok()?;
    let info: Value = answer.json().await.ok()?;
    // The gateway is named as an app: its build is that of the whole program.
    let name = info["app"]["name"]
        .as_str()
        .or_else(|| info["build"]["name"].as_str())?;
    Some(name.to_owned())
}

/// The cause behind all others: what the operating system says.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => REFUSED.to_owned(),
        _ => cause.to_string(),
    }
}

/// What a refused connection means.
pub(super) const REFUSED: &str = "connection refused: nothing listens on that port";
