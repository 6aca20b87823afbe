//! Keeps a failing service from failing the gateway. It has a time limit for each whole call; after one is exceeded,
//! the operation asks that service nothing more. It retries a query once if its connection broke. It has a circuit
//! breaker for each service. It replaces a failure by an error for each part of the client's response.
//!
//! The router has its own time limit, which ends with the head of a response, and its own circuit breaker, whose
//! refusals name no part of the response.
#![expect(clippy::disallowed_methods, reason = "the gateway runs on real time")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use hive_router::async_trait;
use hive_router::executor::executors::common::{
    SubgraphExecutionRequest, SubgraphExecutor, SubgraphExecutorBoxedArc,
};
use hive_router::executor::executors::error::SubgraphExecutorError;
use hive_router::executor::plugin_context::PluginRequestState;
use hive_router::executor::response::subgraph_response::SubgraphResponse;
use hive_router::http::{StatusCode, Uri};
use hive_router::plugins::hooks::on_plugin_init::{OnPluginInitPayload, OnPluginInitResult};
use hive_router::plugins::hooks::on_subgraph_execute::{
    OnSubgraphExecuteStartHookPayload, OnSubgraphExecuteStartHookResult,
};
use hive_router::plugins::plugin_trait::{RouterPlugin, StartHookPayload};
use hive_router::tracing;
use recloser::{AsyncRecloser, Error as BreakerError, Recloser};
use serde::Deserialize;

use super::codes::UNANSWERED_MUTATION;
use super::failed_parts::{Told, failed_parts};
use super::{recorded_trace, timed_out};

/// Failed calls, by service and code.
const FAILURES: &str = "gateway_service_failures_total";
/// Queries that were retried, by service.
const RETRIES: &str = "gateway_service_retries_total";
/// The code that the router adds to a response whose status is not a success.
const OF_THE_STATUS: &str = "SUBREQUEST_HTTP_ERROR";
/// The router's codes for a failed call to a service.
const CODES: [&str; 9] = [
    OF_THE_STATUS,
    "SUBREQUEST_MALFORMED_RESPONSE",
    "SUBGRAPH_CIRCUIT_BREAKER_REJECTED",
    "SUBGRAPH_INTERNAL_SERVER_ERROR",
    "SUBGRAPH_REQUEST_TIMEOUT",
    "SUBGRAPH_RESPONSE_BODY_EMPTY",
    "SUBGRAPH_RESPONSE_BODY_READ_FAILURE",
    "SUBGRAPH_RESPONSE_DECOMPRESSION_FAILURE",
    "SUBGRAPH_RESPONSE_FAILURE",
];

/// Creates these services' counters with zero. A series that begins with the first failure shows no increase, so no
/// alert would fire.
pub(super) fn show_counters(services: [&'static str; 2]) {
    for service in services {
        metrics::counter!(RETRIES, "service" => service).increment(0);
        for code in CODES {
            metrics::counter!(FAILURES, "service" => service, "code" => code).increment(0);
        }
    }
}

/// Settings, from the router configuration: `plugins.tandem_resilience.config`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ResilienceSettings {
    /// Whether a query whose connection broke is retried.
    retry_queries: bool,
    /// How many of the last calls to a service the circuit breaker considers.
    breaker_window: usize,
    /// The share of those calls that must fail before the breaker opens, above 0 and at most 1.
    breaker_failure_rate: f32,
    /// How long the breaker stays open, in milliseconds.
    breaker_pause_ms: u64,
    /// How many calls after that decide whether the breaker closes.
    breaker_trials: usize,
}

impl Default for ResilienceSettings {
    fn default() -> Self {
        Self {
            retry_queries: true,
            breaker_window: 20,
            breaker_failure_rate: 0.6,
            breaker_pause_ms: 1_000,
            breaker_trials: 3,
        }
    }
}

/// An invalid setting of the plugin.
#[derive(Debug, thiserror::Error)]
#[error(
    "plugins.tandem_resilience.config.{field} of the router configuration does not fit: {reason}"
)]
struct SettingError {
    field: &'static str,
    reason: &'static str,
}

impl ResilienceSettings {
    fn check(&self) -> Result<(), SettingError> {
        let wrong = |field, reason| Err(SettingError { field, reason });
        if !(1..=10_000).contains(&self.breaker_window) {
            return wrong("breaker_window", "give a number of calls, 1 to 10000");
        }
        if !(self.breaker_failure_rate > 0.0 && self.breaker_failure_rate <= 1.0) {
            return wrong(
                "breaker_failure_rate",
                "give a share, above 0 and at most 1",
            );
        }
        if !(1..=600_000).contains(&self.breaker_pause_ms) {
            return wrong("breaker_pause_ms", "give milliseconds, 1 to 600000");
        }
        if !(1..=1_000).contains(&self.breaker_trials) {
            return wrong("breaker_trials", "give a number of calls, 1 to 1000");
        }
        Ok(())
    }

    fn breaker(&self) -> AsyncRecloser {
        Recloser::custom()
            .error_rate(self.breaker_failure_rate)
            .closed_len(self.breaker_window)
            .half_open_len(self.breaker_trials)
            .open_wait(Duration::from_millis(self.breaker_pause_ms))
            .build()
            .into()
    }
}

/// The plugin that wraps the call to each service.
pub(super) struct Resilience {
    settings: ResilienceSettings,
    breakers: Mutex<HashMap<String, AsyncRecloser>>,
}

impl Resilience {
    fn breaker(&self, service: &str) -> AsyncRecloser {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        match breakers.get(service) {
            Some(breaker) => breaker.clone(),
            // There are at most as many as the supergraph has services.
            None => breakers
                .entry(service.to_owned())
                .or_insert_with(|| self.settings.breaker())
                .clone(),
        }
    }
}

#[async_trait]
impl RouterPlugin for Resilience {
    type Config = ResilienceSettings;

    fn plugin_name() -> &'static str {
        "tandem_resilience"
    }

    fn on_plugin_init(payload: OnPluginInitPayload<Self>) -> OnPluginInitResult<Self> {
        let settings = payload.config()?;
        settings.check()?;
        payload.initialize_plugin(Self {
            settings,
            breakers: Mutex::default(),
        })
    }

    async fn on_subgraph_execute<'exec>(
        &'exec self,
        mut payload: OnSubgraphExecuteStartHookPayload<'exec>,
    ) -> OnSubgraphExecuteStartHookResult<'exec> {
        payload.executor = Resilient {
            service: payload.subgraph_name.to_owned(),
            breaker: self.breaker(payload.subgraph_name),
            retries: self.settings.retry_queries,
            inner: payload.executor,
        }
        .to_boxed_arc();
        payload.proceed()
    }
}

/// Calls one service.
struct Resilient {
    service: String,
    breaker: AsyncRecloser,
    retries: bool,
    inner: SubgraphExecutorBoxedArc,
}

/// A call that the breaker counts as failed.
enum Failed {
    /// There is no response.
    Call(SubgraphExecutorError),
    /// The response says that the service is unable to answer.
    Answer(SubgraphResponse<'static>),
}

impl Resilient {
    async fn call<'a>(
        &self,
        request: SubgraphExecutionRequest<'a>,
        timeout: Option<Duration>,
        state: Option<&'a PluginRequestState<'a>>,
    ) -> Result<SubgraphResponse<'static>, SubgraphExecutorError> {
        let again = (self.retries && !is_mutation(request.query)).then(|| copy(&request));
        let calling = async {
            let outcome = self.inner.execute(request, timeout, state).await;
            let Some(again) = again.filter(|_| may_be_tried_again(&outcome)) else {
                return outcome;
            };
            metrics::counter!(RETRIES, "service" => self.service.clone()).increment(1);
            tokio::time::sleep(Duration::from_millis(rand::random_range(20..100))).await;
            self.inner.execute(again, timeout, state).await
        };
        match timeout {
            // The limit covers the whole call. The router's own limit ends with the head of a response.
            Some(limit) => match tokio::time::timeout(limit, calling).await {
                Ok(outcome) => outcome,
                Err(elapsed) => Err(elapsed.into()),
            },
            None => calling.await,
        }
    }

    /// Counts and logs a failure. Returns an error for each part of the client's response that the call was for.
    fn failed(
        &self,
        query: &str,
        representations: Option<&[(&str, Vec<u8>)]>,
        error: SubgraphExecutorError,
    ) -> Result<SubgraphResponse<'static>, SubgraphExecutorError> {
        let code = error.error_code();
        metrics::counter!(FAILURES, "service" => self.service.clone(), "code" => code).increment(1);
        // The router's span identifies the request.
        tracing::warn!(service = self.service, code, %error, "a call of a service failed");
        let told_code = if is_mutation(query) && may_have_been_carried_out(&error) {
            UNANSWERED_MUTATION
        } else {
            code
        };
        let told = Told {
            message: error.to_string(),
            extensions: serde_json::json!({ "code": told_code }),
        };
        match failed_parts(query, representations, &[told]) {
            Some(parts) => SubgraphResponse::deserialize_from_bytes(parts, None).map_err(|_| error),
            None => Err(error),
        }
    }
}

/// The error of a call that is not made, because an earlier call of the operation used up the time of this service. It
/// is not a new failure of the service, so the breaker does not count it.
async fn no_time_left() -> SubgraphExecutorError {
    match tokio::time::timeout(Duration::ZERO, std::future::pending::<Infallible>()).await {
        Ok(never) => match never {},
        Err(elapsed) => elapsed.into(),
    }
}

#[async_trait]
impl SubgraphExecutor for Resilient {
    fn executor_name(&self) -> &str {
        self.inner.executor_name()
    }

    fn endpoint(&self) -> &Uri {
        self.inner.endpoint()
    }

    async fn execute<'a>(
        &self,
        request: SubgraphExecutionRequest<'a>,
        timeout: Option<Duration>,
        state: Option<&'a PluginRequestState<'a>>,
    ) -> Result<SubgraphResponse<'static>, SubgraphExecutorError> {
        recorded_trace::note();
        let query = request.query;
        if let Some(answer) = only_names_its_type(query) {
            // The router asks a service for the name of its own root type.
            return SubgraphResponse::deserialize_from_bytes(answer.into(), None);
        }
        let representations = request.raw_variable_values.clone();
        if timed_out::is_noted(&self.service) {
            return self.failed(query, representations.as_deref(), no_time_left().await);
        }
        let judged = async {
            match self.call(request, timeout, state).await {
                Ok(answer) if is_failure(&answer) => Err(Failed::Answer(answer)),
                Ok(answer) => Ok(answer),
                Err(error) => Err(Failed::Call(error)),
            }
        };
        let error = match self.breaker.call(judged).await {
            Ok(answer) => return Ok(in_parts(query, representations.as_deref(), answer)),
            // The service's own message says more.
            Err(BreakerError::Inner(Failed::Answer(answer))) if has_words(&answer) => {
                return Ok(in_parts(query, representations.as_deref(), answer));
            }
            Err(BreakerError::Inner(Failed::Answer(answer))) => {
                SubgraphExecutorError::InternalServerError(Box::new(answer))
            }
            Err(BreakerError::Inner(Failed::Call(error))) => error,
            Err(BreakerError::Rejected) => SubgraphExecutorError::CircuitBreakerRejected,
        };
        if matches!(error, SubgraphExecutorError::RequestTimeout(_)) {
            timed_out::note(&self.service);
        }
        self.failed(query, representations.as_deref(), error)
    }

    async fn subscribe<'a>(
        &self,
        request: SubgraphExecutionRequest<'a>,
        timeout: Option<Duration>,
    ) -> Result<
        BoxStream<'static, Result<SubgraphResponse<'static>, SubgraphExecutorError>>,
        SubgraphExecutorError,
    > {
        self.inner.subscribe(request, timeout).await
    }
}

/// Whether the service may have received the failed request, as far as the error shows.
fn may_have_been_carried_out(error: &SubgraphExecutorError) -> bool {
    match error {
        SubgraphExecutorError::RequestFailure(error) => !error.is_connect(),
        SubgraphExecutorError::RequestTimeout(_)
        | SubgraphExecutorError::ResponseFailure(_)
        | SubgraphExecutorError::ResponseBodyReadFailure(..)
        | SubgraphExecutorError::EmptyResponseBody(..)
        | SubgraphExecutorError::ResponseDeserializationFailure(..)
        | SubgraphExecutorError::MalformedResponse(_)
        | SubgraphExecutorError::InvalidContentType(..)
        | SubgraphExecutorError::ResponseDecompressionFailure(..)
        | SubgraphExecutorError::InternalServerError(_) => true,
        _ => false,
    }
}

fn is_mutation(query: &str) -> bool {
    query.trim_start().starts_with("mutation")
}

/// The response to an operation that asks only for the name of its root type.
fn only_names_its_type(query: &str) -> Option<String> {
    let (_, selection) = query.split_once('{')?;
    let selection = selection.trim_end().strip_suffix('}')?;
    if selection.contains(['{', '(', '@', '.']) {
        return None;
    }
    let root = if is_mutation(query) {
        "Mutation"
    } else {
        "Query"
    };
    let mut words = selection.split_whitespace();
    let mut data = serde_json::Map::new();
    while let Some(word) = words.next() {
        let key = match word.strip_suffix(':') {
            Some(alias) => (words.next()? == "__typename").then_some(alias)?,
            None => (word == "__typename").then_some(word)?,
        };
        data.insert(key.to_owned(), root.into());
    }
    Some(serde_json::json!({ "data": data }).to_string())
}

fn copy<'a>(request: &SubgraphExecutionRequest<'a>) -> SubgraphExecutionRequest<'a> {
    SubgraphExecutionRequest {
        query: request.query,
        document_name_write_pos: request.document_name_write_pos,
        dedupe: request.dedupe,
        operation_name: request.operation_name.clone(),
        variables: request.variables.clone(),
        headers: request.headers.clone(),
        raw_variable_values: request.raw_variable_values.clone(),
        extensions: request.extensions.clone(),
        custom_scalar_paths: request.custom_scalar_paths,
        connection_fingerprint: request.connection_fingerprint,
    }
}

/// If a response consists only of errors without a path, repeats each of them for each part of the client's response.
/// Other responses stay unchanged.
fn in_parts(
    query: &str,
    representations: Option<&[(&str, Vec<u8>)]>,
    answer: SubgraphResponse<'static>,
) -> SubgraphResponse<'static> {
    let errors = answer.errors.as_deref().unwrap_or_default();
    if !answer.data.is_null() || errors.iter().any(|error| error.path.is_some()) {
        return answer;
    }
    let told: Vec<Told> = errors
        .iter()
        .filter(|error| error.extensions.code.as_deref() != Some(OF_THE_STATUS))
        .map(|error| Told {
            message: error.message.clone(),
            extensions: serde_json::to_value(&error.extensions).unwrap_or_default(),
        })
        .collect();
    let parts = failed_parts(query, representations, &told)
        .and_then(|parts| SubgraphResponse::deserialize_from_bytes(parts, None).ok());
    match parts {
        Some(mut parts) => {
            parts.headers = answer.headers;
            parts
        }
        None => answer,
    }
}

/// Whether the connection broke, or a proxy answered in place of the service that the service is down. A call that
/// exceeded its time limit is not retried: it would take as long again.
fn may_be_tried_again(outcome: &Result<SubgraphResponse<'static>, SubgraphExecutorError>) -> bool {
    match outcome {
        Ok(answer) => {
            matches!(
                answer.status,
                Some(StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE)
            ) && !has_words(answer)
        }
        Err(
            SubgraphExecutorError::RequestFailure(_)
            | SubgraphExecutorError::ResponseFailure(_)
            | SubgraphExecutorError::ResponseBodyReadFailure(..)
            | SubgraphExecutorError::InvalidContentType(..)
            | SubgraphExecutorError::ResponseDeserializationFailure(..)
            | SubgraphExecutorError::EmptyResponseBody(..),
        ) => true,
        Err(_) => false,
    }
}

fn is_failure(answer: &SubgraphResponse<'static>) -> bool {
    answer.status.is_some_and(|status| status.is_server_error())
}

/// Whether the response was GraphQL, not one that the router made from the status alone.
fn has_words(answer: &SubgraphResponse<'static>) -> bool {
    !answer.data.is_null()
        || answer.errors.as_ref().is_some_and(|errors| {
            errors.iter().any(|error| {
                let code = error.extensions.code.as_deref();
                code.is_some_and(|code| code != OF_THE_STATUS)
            })
        })
}

#[cfg(test)]
mod tests;
