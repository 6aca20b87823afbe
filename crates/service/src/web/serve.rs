//! The HTTP server of a service: its port, its limits, and a shutdown with a time limit.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use tandem_authentication::Verifier;
use tandem_front_door::graphql::{DocumentLimits, GraphQlRules, GraphSchema, Treatment};
use tandem_front_door::{Clients, FrontDoor, Tasks, Tls, TlsError};
use tokio::net::TcpListener;
use tower::Service;

use super::http_settings::HttpSettings;
use super::legacy::{self, OldRoute};
use super::middleware::with_middleware;
use tandem_runtime::shutdown::Shutdown;

/// Why the service could not listen on a port.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program uses the port.
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
    /// This user may not use the port.
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
    /// The address does not belong to this machine.
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

/// Why serving ended without a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener failed.
    #[error("the HTTP server failed: {0}")]
    Io(#[from] io::Error),
    /// The port's certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Listens on a port; 0 chooses a free one. `flag` is the flag with which the user can change it, such as `--port`.
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

/// How much longer than its token a subscription may last on a service. The gateway, which is its client, ends it first
/// and gives the reason.
const GRACE: Duration = Duration::from_secs(1);

/// Serves until shutdown is requested, then lets open requests finish for at most [`HttpSettings::drain_limit`].
/// Requires no tokens.
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
    let service = with_middleware(router, settings);
    serve_service(listener, service, Judge::default(), settings, shutdown).await
}

/// The rules for requests.
#[derive(Debug, Clone, Default)]
pub struct Judge {
    /// The schema that documents are validated against, if there is one.
    pub schema: Option<GraphSchema>,
    /// Verifies tokens. Without it every caller has all rights.
    pub verifier: Option<Verifier>,
    /// Routes for older clients. All their answers, also refusals, say that they are deprecated.
    pub old_routes: Vec<OldRoute>,
}

/// Like [`serve`], for any service that brings its own middleware.
pub(super) async fn serve_service<S>(
    listener: TcpListener,
    service: S,
    judge: Judge,
    settings: &HttpSettings,
    shutdown: &Shutdown,
) -> Result<(), ServeError>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let limits = DocumentLimits {
        // The gateway adds keys to the selection of its own client, and one level of nesting.
        cost: settings.front_door.max_cost.saturating_mul(2),
        depth: DocumentLimits::default().depth + 2,
        ..DocumentLimits::default()
    };
    let rules = GraphQlRules {
        schema: judge.schema,
        limits,
        treatment: Treatment {
            fill_empty_selections: true,
            ..Treatment::default()
        },
        body_size: settings.max_body,
        waits_for_clients: true,
        serves_gateways: true,
        ..GraphQlRules::default()
    };
    let door = FrontDoor::new(&settings.front_door, rules, Tasks::Shared)
        .verifying(judge.verifier, GRACE)
        .with_notices(legacy::notices(
            &judge.old_routes,
            settings.rest_sunset.as_ref(),
        ))
        .with_tls(Tls::load(&settings.tls, Clients::Certified)?);
    let (stopper, stop) = tandem_front_door::stop();
    let serving = door.serve(listener, service, stop, settings.drain_limit);
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => return Ok(served?),
        () = shutdown.requested() => stopper.request(),
    }
    Ok(serving.await?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

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

    /// A server with these routes and a small limit for bodies. It runs until the end of the test.
    async fn server(router: Router) -> (SocketAddr, Shutdown) {
        let settings = HttpSettings {
            max_body: 64 * 1024,
            ..HttpSettings::default()
        };
        let listener = bind(settings.host, 0, "--port").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        tokio::spawn(async move { serve(listener, router, &settings, &stop).await });
        (address, shutdown)
    }

    #[tokio::test]
    async fn a_client_that_writes_all_before_it_reads_is_told_that_its_body_is_too_large() {
        let take =
            axum::routing::post(|body: axum::body::Bytes| async move { body.len().to_string() });
        let router = Router::new()
            .route("/take", take.clone())
            .route("/graphql", take);
        let (address, shutdown) = server(router).await;
        let body = vec![b'x'; 512 * 1024];
        let declared = format!("content-length: {}\r\n\r\n", body.len());
        let chunked = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len());
        for path in ["/take", "/graphql", "/nowhere"] {
            for head in [&declared, &chunked] {
                let mut client = TcpStream::connect(address).await.unwrap();
                let request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{head}");
                client.write_all(request.as_bytes()).await.unwrap();
                client.write_all(&body).await.unwrap();
                if head == &chunked {
                    client.write_all(b"\r\n0\r\n\r\n").await.unwrap();
                }
                // The connection still accepts another request.
                let last = "GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
                client.write_all(last.as_bytes()).await.unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                let refused = answer.starts_with("HTTP/1.1 413 ");
                assert!(refused || path == "/nowhere", "{path}: {answer}");
                assert!(answer.contains("HTTP/1.1 404 "), "{path}: {answer}");
            }
        }
        shutdown.request("the test is over");
    }

    #[tokio::test]
    async fn work_for_a_client_that_went_away_is_stopped() {
        let (alive, stopped) = tokio::sync::oneshot::channel::<()>();
        let (entered, was_entered) = tokio::sync::oneshot::channel::<()>();
        let once = std::sync::Arc::new(std::sync::Mutex::new(Some((alive, entered))));
        let work = get(move || async move {
            let (_alive, entered) = once.lock().unwrap().take().unwrap();
            entered.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        let (address, shutdown) = server(Router::new().route("/work", work)).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET /work HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        was_entered.await.unwrap();
        drop(client);
        let stopped = tokio::time::timeout(Duration::from_secs(5), stopped).await;
        stopped.unwrap().unwrap_err();
        shutdown.request("the test is over");
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
            .write_all(b"GET /forever HTTP/1.1\r\nhost: localhost\r\n\r\n")
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
                .write_all(b"GET /last HTTP/1.1\r\nhost: localhost\r\n\r\n")
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
