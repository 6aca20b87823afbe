//! Read-your-writes: a request with a consistency token waits until this instance shows what the bearer wrote.
//!
//! A token is not signed. So an entry counts only if the bearer may ask about that customer or order. Otherwise the
//! latency and the text of the answer would reveal which customers and orders exist, and their revisions.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::{self, Next},
    response::Response,
};
use tandem_authentication::{Access, Scope};
use tandem_runtime::consistency::{self, Consistency, Kind, Malformed, Written};

/// The longest time that a request waits.
pub const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The header of the token.
pub const HEADER: HeaderName = HeaderName::from_static(consistency::HEADER);

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The state of customers and orders, as commands and older clients read it.
    State,
    /// The state and the audit trail, as queries read them.
    StateAndAudit,
}

type Waiting = Pin<Box<dyn Future<Output = Vec<Written>> + Send>>;

/// Waits until these writes are visible, at most [`LONGEST_WAIT`]. Returns those that are not visible by then.
pub type Shows = Arc<dyn Fn(Vec<Written>, Of) -> Waiting + Send + Sync>;

/// A message about the writes that are not visible yet.
#[must_use]
pub fn not_shown(behind: &[Written]) -> String {
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

/// The writes of a request's caller that are still not visible after the wait. If a store lacks one of them, this does
/// not mean that it does not exist. Resolvers and routes find this in their context, and answer `REPLICA_BEHIND`
/// instead of "not found".
#[derive(Clone, Debug)]
pub struct Behind(Arc<[Written]>);

impl Behind {
    /// Holds these writes; `None` if there are none.
    #[must_use]
    pub fn of(behind: &[Written]) -> Option<Self> {
        (!behind.is_empty()).then(|| Self(behind.into()))
    }

    /// Whether the caller wrote this object and it is not visible yet.
    #[must_use]
    pub fn has(&self, kind: Kind, id: &str) -> bool {
        let mut written = self.0.iter();
        written.any(|written| written.kind == kind && written.id == id)
    }
}

/// The header that a client gets after this write.
#[must_use]
pub fn header(kind: Kind, id: &str, revision: i64) -> Option<HeaderValue> {
    HeaderValue::from_str(&Consistency::of(kind, id, revision).to_string()).ok()
}

/// Whether a caller may learn that an object exists and has a certain revision. This needs the right to read or to
/// change it. Only the store knows whose an order is, and it is not queried for a token that names one. So with the
/// scope `self` no order is waited for. Orders shows the state of its own orders at once, and the audit trail when the
/// log has the event.
fn may_ask_about(access: &Access, written: &Written) -> bool {
    let Access::Bearer(principal) = access else {
        return matches!(access, Access::Open);
    };
    let [reads, writes] = match written.kind {
        Kind::Customer if principal.is_customer(&written.id) => return true,
        Kind::Customer => [Scope::CustomersRead, Scope::CustomersWrite],
        Kind::Order => [Scope::OrdersRead, Scope::OrdersWrite],
    };
    principal.has(reads) || principal.has(writes)
}

fn brought(headers: &HeaderMap) -> (Consistency, Result<(), Malformed>) {
    let values = headers.get_all(HEADER).iter();
    Consistency::brought(values.map(|value| value.to_str().unwrap_or("?")))
}

/// Waits for the writes in the token, as far as its bearer may ask about them. Returns those that are not visible yet.
pub async fn wait(shows: &Shows, headers: &HeaderMap, access: &Access, of: Of) -> Vec<Written> {
    let (token, _) = brought(headers);
    let written: Vec<Written> = token
        .written()
        .iter()
        .filter(|written| may_ask_about(access, written))
        .cloned()
        .collect();
    if written.is_empty() {
        return Vec::new();
    }
    shows(written, of).await
}

/// Makes requests to these routes wait. An answer that may be behind has the header `warning` (RFC 7234, 5.5), and so
/// has the answer to a request with an invalid token.
pub fn waiting(routes: Router, shows: Shows) -> Router {
    routes.layer(middleware::from_fn_with_state(shows, wait_first))
}

async fn wait_first(State(shows): State<Shows>, mut request: Request, next: Next) -> Response {
    let access = request.extensions().get::<Access>().cloned();
    let access = access.unwrap_or_default();
    let (_, is_read) = brought(request.headers());
    let behind = wait(&shows, request.headers(), &access, Of::State).await;
    if let Some(behind) = Behind::of(&behind) {
        request.extensions_mut().insert(behind);
    }
    let mut response = next.run(request).await;
    let mut warn = |warning| {
        let warning = HeaderValue::from_static(warning);
        response
            .headers_mut()
            .append(HeaderName::from_static("warning"), warning);
    };
    if !behind.is_empty() {
        warn("199 - \"REPLICA_BEHIND: not everything that you wrote is shown yet\"");
    }
    if is_read.is_err() {
        warn(
            "299 - \"tandem-consistency is no token that a mutation's answer gave: it is ignored\"",
        );
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_authentication::{Principal, Scopes};

    const TOKEN: &str = "v1~c.7.1~c.8.1~o.9.1";

    /// What a caller has to wait for, if nothing ever becomes visible.
    async fn behind(access: &Access) -> Vec<String> {
        let shows: Shows = Arc::new(|written, _| Box::pin(async move { written }));
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_static(TOKEN));
        let behind = wait(&shows, &headers, access, Of::StateAndAudit).await;
        behind.into_iter().map(|written| written.id).collect()
    }

    #[tokio::test]
    async fn a_caller_waits_only_for_what_it_may_ask_about() {
        assert_eq!(behind(&Access::Open).await, ["7", "8", "9"]);
        assert!(behind(&Access::Anonymous).await.is_empty());
        for (scopes, expected) in [
            ("customers:read", &["7", "8"][..]),
            ("customers:write", &["7", "8"]),
            ("orders:read", &["9"]),
            ("orders:write", &["9"]),
            ("self", &["7"]),
            ("self orders:read", &["7", "9"]),
            ("customers:erase operations", &[]),
            ("", &[]),
        ] {
            let access = Access::Bearer(Principal {
                subject: "7".into(),
                scopes: Scopes::of_claim(scopes),
                expires_at: u64::MAX,
            });
            assert_eq!(behind(&access).await, expected, "{scopes}");
        }
    }
}
