//! The front door's metrics, shown together with the router's own. Two different libraries record them.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use send_wrapper::SendWrapper;
use tandem_service::telemetry::{LATENCY_BUCKETS_SECONDS, UPKEEP_INTERVAL};
use tandem_service::web::actuator::record_process;
use tandem_service::web::open_metrics;

use super::in_process::InProcess;

const PATH: &str = "/actuator/prometheus";
/// The largest size of the router's own metrics, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;

/// The metrics of the front door and of our plugins.
#[derive(Clone)]
pub(super) struct Recorded {
    handle: PrometheusHandle,
    started: Instant,
}

impl Recorded {
    /// All these metrics in the text format of Prometheus, with what the operating system reports of this process.
    pub(super) fn render(&self) -> String {
        record_process(self.started);
        self.handle.render()
    }
}

/// Installs the recorder.
///
/// # Errors
/// When a recorder is already installed.
#[expect(clippy::disallowed_methods, reason = "it measures and decides nothing")]
pub(super) fn record() -> Result<Recorded, BuildError> {
    let handle = PrometheusBuilder::new()
        .add_global_label("application", "gateway")
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), LATENCY_BUCKETS_SECONDS)?
        .install_recorder()?;
    Ok(Recorded {
        handle,
        started: Instant::now(),
    })
}

/// Periodically folds recorded values into their histograms. Until then each value is held in memory, and a scrape may
/// never come.
#[expect(clippy::disallowed_methods, reason = "the gateway runs on real time")]
pub(super) async fn keep_small(recorded: &Recorded) -> Infallible {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        recorded.handle.run_upkeep();
    }
}

/// The router, with the front door's metrics appended to its own.
#[derive(Clone)]
pub(super) struct WithMetrics {
    router: InProcess,
    recorded: Recorded,
}

impl WithMetrics {
    pub(super) fn new(router: InProcess, recorded: Recorded) -> Self {
        Self { router, recorded }
    }
}

impl tower::Service<Request<Body>> for WithMetrics {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = SendWrapper<LocalBoxFuture<'static, Result<Response<Body>, Self::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.router.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let is_scrape = request.uri().path() == PATH;
        if is_scrape {
            // Text appended to a compressed body would not be part of it.
            request.headers_mut().remove(header::ACCEPT_ENCODING);
        }
        if !is_scrape {
            return self.router.call(request);
        }
        let accept = request.headers().get(header::ACCEPT);
        let accept = accept.and_then(|accept| accept.to_str().ok());
        let is_open = accept.is_some_and(open_metrics::is_accepted);
        let recorded = self.recorded.clone();
        let answer = self.router.call(request);
        let both = async move {
            let (mut parts, body) = answer.await?.into_parts();
            let router = axum::body::to_bytes(body, LARGEST)
                .await
                .unwrap_or_default();
            let mut text = [router.as_ref(), b"\n", recorded.render().as_bytes()].concat();
            parts.headers.remove(header::CONTENT_LENGTH);
            if is_open && parts.status == StatusCode::OK {
                text = open_metrics::of_text(&String::from_utf8_lossy(&text)).into_bytes();
                let kind = HeaderValue::from_static(open_metrics::CONTENT_TYPE);
                parts.headers.insert(header::CONTENT_TYPE, kind);
            }
            Ok(Response::from_parts(parts, Body::from(text)))
        };
        SendWrapper::new(both.boxed_local())
    }
}
