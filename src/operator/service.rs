//! A client for the `/admin` routes of a running service: its address, and the operator token.

use std::{error::Error, time::Duration};

use anyhow::bail;
use clap::ValueEnum;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tandem_front_door::TlsSettings;
use tokio::sync::OnceCell;

use crate::tls_client::trusting;

/// Time limit for a service to answer with its name.
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
    /// The name in flags and messages.
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
    /// Set once the service has been asked for its name.
    is_known: OnceCell<()>,
    base: String,
    /// The advice to show when the service does not answer.
    advice: String,
    token: SecretString,
}

impl Operator {
    /// A client of the service at `base`. `advice` is shown when it does not answer, or another service does.
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

    /// Sends a request. Returns the response if it is a success.
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

    /// Like [`Self::send`], but returns `None` when the service answers that there is no such thing.
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

    /// Fails if another service answers, because that service would apply the request to itself.
    async fn refuse_another(&self) -> anyhow::Result<()> {
        match what_answers(&self.http, &self.base).await {
            Some(name) if name != self.service.name() => bail!(
                "{} is {name}, not {}; {}",
                self.base,
                self.service.name(),
                self.advice
            ),
            // The request itself reports other failures.
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

/// The name of the process at a base URL, if it reports one: `accounts`, `orders`, `gateway`, or the name of another
/// program.
pub(crate) async fn what_answers(http: &reqwest::Client, base: &str) -> Option<String> {
    let request = http.get(format!("{base}/actuator/info"));
    let answer = request.timeout(NAME_LIMIT).send().await.ok()?;
    let info: Value = answer.json().await.ok()?;
    // The gateway's name is in `app`, because its build is that of the whole program.
    let name = info["app"]["name"]
        .as_str()
        .or_else(|| info["build"]["name"].as_str())?;
    Some(name.to_owned())
}

/// The innermost cause of an error, which is usually the operating system's.
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

/// The meaning of a refused connection.
pub(super) const REFUSED: &str = "connection refused: nothing listens on that port";
