//! The HTTP server of a service: a port, limits, and a shutdown that has an end.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use tokio::net::TcpListener;
use tower::Service;
use tower::make::Shared;

use super::middleware::with_middleware;
use crate::shutdown::Shutdown;

/// How requests are served. The port belongs to each service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// The address to listen on; 0.0.0.0 for all.
    #[arg(
        long,
        env = "TANDEM_HOST",
        value_name = "ADDRESS",
        default_value = "127.0.0.1"
    )]
    pub host: IpAddr,

    /// How long an answer may take, such as `10s` or `500ms`; then the request is answered with 503.
    #[arg(long, env = "TANDEM_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = crate::settings::parse_duration)]
    pub request_timeout: Duration,

    /// The largest body that is taken, in bytes.
    #[arg(
        long,
        env = "TANDEM_MAX_BODY",
        value_name = "BYTES",
        default_value = "1048576"
    )]
    pub max_body: usize,

    /// How long open requests may go on once shutdown is requested.
    #[arg(long, env = "TANDEM_DRAIN_LIMIT", value_name = "DURATION", default_value = "2s", value_parser = crate::settings::parse_duration)]
    pub drain_limit: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            request_timeout: Duration::from_secs(10),
            max_body: 1024 * 1024,
            drain_limit: Duration::from_secs(2),
        }
    }
}

/// Why a port could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has it.
    #[error(
        "port {port} on {host} is taken by another program; stop that one, or choose another port with {flag}"
    )]
    Taken {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
        /// The flag that changes it.
        flag: &'static str,
    },
    /// This user may not have it.
    #[error(
        "port {port} on {host} may not be used by this user; choose one above 1023 with {flag}"
    )]
    Denied {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
        /// The flag that changes it.
        flag: &'static str,
    },
    /// The address is not one of this machine.
    #[error(
        "{host} is no address of this machine; choose another with --host (127.0.0.1 for this machine only, 0.0.0.0 for all)"
    )]
    NoSuchAddress {
        /// The address.
        host: IpAddr,
    },
    /// Anything else.
    #[error("cannot listen on {host}:{port}: {source}")]
    Other {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Why serving ended other than by shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener failed.
    #[error("the HTTP server failed: {0}")]
    Io(#[from] io::Error),
}

/// Listens on a port; 0 takes a free one. `flag` is the flag by which the user changes it, such as `--port`.
///
/// # Errors
///
/// [`BindError`] says which port, why not, and what to do.
pub async fn bind(host: IpAddr, port: u16, flag: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(SocketAddr::new(host, port))
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { host, port, flag },
            io::ErrorKind::PermissionDenied => BindError::Denied { host, port, flag },
            io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { host },
            _ => BindError::Other { host, port, source },
        })
}

/// Serves until shutdown is requested, then lets open requests end for at most [`HttpSettings::drain_limit`].
///
/// # Errors
///
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &HttpSettings,
    shutdown: &Shutdown,
) -> Result<(), ServeError> {
    serve_service(
        listener,
        with_middleware(router, settings),
        settings,
        shutdown,
    )
    .await
}

/// The same of anything that answers requests and has its middleware.
pub(super) async fn serve_service<S>(
    listener: TcpListener,
    service: S,
    settings: &HttpSettings,
    shutdown: &Shutdown,
) -> Result<(), ServeError>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let stop = shutdown.token();
    let server = axum::serve(listener, Shared::new(service))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .into_future();
    let over = async {
        shutdown.requested().await;
        tokio::time::sleep(settings.drain_limit).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = over => {
            tracing::warn!(
                limit_ms = settings.drain_limit.as_millis(),
                "requests were still open when the drain limit was over"
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_flag_that_changes_it() {
        let host = IpAddr::from([127, 0, 0, 1]);
        let first = bind(host, 0, "--port").await.unwrap();
        let taken = first.local_addr().unwrap().port();
        let refused = bind(host, taken, "--accounts-port").await.unwrap_err();
        let sentence = refused.to_string();
        assert!(matches!(refused, BindError::Taken { .. }));
        assert!(
            sentence.contains(&taken.to_string()) && sentence.contains("--accounts-port"),
            "{sentence}"
        );
    }

    #[tokio::test]
    async fn serving_ends_with_shutdown_even_when_a_request_never_does() {
        let settings = HttpSettings {
            drain_limit: Duration::from_millis(50),
            ..HttpSettings::default()
        };
        let listener = bind(settings.host, 0, "--port").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let (entered, mut was_entered) = tokio::sync::mpsc::channel::<()>(1);
        let router = Router::new().route(
            "/forever",
            get(move || async move {
                entered.send(()).await.unwrap();
                std::future::pending::<()>().await;
            }),
        );
        let stop = shutdown.clone();
        let server = tokio::spawn(async move { serve(listener, router, &settings, &stop).await });
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET /forever HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        was_entered.recv().await.unwrap();
        shutdown.request("test");
        tokio::time::timeout(Duration::from_secs(5), server)
            .await
            .expect("the server ends in time")
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn an_open_request_may_end_after_shutdown_was_requested() {
        let settings = HttpSettings::default();
        let listener = bind(settings.host, 0, "--port").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let in_handler = shutdown.clone();
        let router = Router::new().route(
            "/last",
            get(move || async move {
                in_handler.request("test");
                tokio::task::yield_now().await;
                "done"
            }),
        );
        let server = serve(listener, router, &settings, &shutdown);
        let client = async {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            client
                .write_all(b"GET /last HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let both = async { tokio::join!(server, client) };
        let (served, answer) = tokio::time::timeout(Duration::from_secs(5), both)
            .await
            .unwrap();
        served.unwrap();
        assert!(answer.ends_with("done"), "{answer}");
    }
}
