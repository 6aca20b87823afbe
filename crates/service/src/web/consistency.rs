//! Reading one's own writes: a request that brings a consistency token waits until this instance shows what its bearer wrote.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::{self, Next},
    response::Response,
};
use tandem_runtime::consistency::{self, Consistency, Kind, Written};

/// How long a request waits at most.
pub const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The header of the token.
pub const HEADER: HeaderName = HeaderName::from_static(consistency::HEADER);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The state of things, as commands and older clients read it.
    State,
    /// The state, and the audit trail, as queries read them.
    StateAndAudit,
}

type Waiting = Pin<Box<dyn Future<Output = Vec<Written>> + Send>>;

/// Waits until what was written is shown, [`LONGEST_WAIT`] at most; answers what is not shown by then.
pub type Shows = Arc<dyn Fn(Vec<Written>, Of) -> Waiting + Send + Sync>;

/// A sentence about what is not shown yet.
#[must_use]
pub fn told(behind: &[Written]) -> String {
    let things: Vec<String> = behind.iter().map(thing).collect();
    format!(
        "not everything that you wrote is shown yet ({}); ask again in a moment",
        things.join(", ")
    )
}

fn thing(written: &Written) -> String {
    let kind = match written.kind {
        Kind::Customer => "customer",
        Kind::Order => "order",
    };
    format!("revision {} of {kind} `{}`", written.revision, written.id)
}

/// What a client is told that wrote this.
#[must_use]
pub fn header(kind: Kind, id: &str, revision: i64) -> Option<HeaderValue> {
    HeaderValue::from_str(&Consistency::of(kind, id, revision).to_string()).ok()
}

/// Waits for what the bearer of these headers wrote; answers what is not shown yet.
pub async fn wait(shows: &Shows, headers: &HeaderMap, of: Of) -> Vec<Written> {
    let values = headers.get_all(HEADER).iter();
    let token = Consistency::joined(values.filter_map(|value| value.to_str().ok()));
    if token.is_empty() {
        return Vec::new();
    }
    shows(token.written().to_vec(), of).await
}

/// Makes requests of routes wait. An answer that may be behind has the header `warning` (RFC 7234, 5.5).
pub fn waiting(routes: Router, shows: Shows) -> Router {
    routes.layer(middleware::from_fn_with_state(shows, wait_first))
}

async fn wait_first(State(shows): State<Shows>, request: Request, next: Next) -> Response {
    let behind = wait(&shows, request.headers(), Of::State).await;
    let mut response = next.run(request).await;
    if !behind.is_empty() {
        response.headers_mut().insert(
            HeaderName::from_static("warning"),
            HeaderValue::from_static(
                "199 - \"REPLICA_BEHIND: not everything that you wrote is shown yet\"",
            ),
        );
    }
    response
}
