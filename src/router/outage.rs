//! Makes one error of the many that the router knows for a service that is away: code `UNAVAILABLE`, as in the contract.
//!
//! The router gives its plugins no part in the events of a subscription: there its own codes reach the client.

use hive_router::async_trait;
use hive_router::plugins::hooks::on_graphql_error::{
    OnGraphQLErrorHookPayload, OnGraphQLErrorHookResult,
};
use hive_router::plugins::hooks::on_plugin_init::{OnPluginInitPayload, OnPluginInitResult};
use hive_router::plugins::plugin_trait::RouterPlugin;

/// Codes of the router for a service that could not be reached, or broke off.
const AWAY: [&str; 10] = [
    "SUBREQUEST_HTTP_ERROR",
    "SUBGRAPH_RESPONSE_FAILURE",
    "SUBGRAPH_RESPONSE_BODY_READ_FAILURE",
    "SUBGRAPH_RESPONSE_BODY_EMPTY",
    "SUBGRAPH_WEBSOCKET_CONNECT_FAILURE",
    "SUBGRAPH_WEBSOCKET_HANDSHAKE_FAILURE",
    "SUBGRAPH_WEBSOCKET_STREAM_CLOSED_EMPTY",
    "SUBGRAPH_WEBSOCKET_ARBITER_CHANNEL_CLOSED",
    "SUBGRAPH_WEBSOCKET_CLIENT_FAILURE",
    "SUBGRAPH_CIRCUIT_BREAKER_REJECTED",
];
/// The router's code for a service that took too long.
const LATE: &str = "SUBGRAPH_REQUEST_TIMEOUT";

/// The plugin; it has no settings.
#[derive(Default)]
pub(super) struct Outage;

#[async_trait]
impl RouterPlugin for Outage {
    type Config = ();

    fn plugin_name() -> &'static str {
        "tandem_outage"
    }

    fn on_plugin_init(payload: OnPluginInitPayload<Self>) -> OnPluginInitResult<Self> {
        payload.initialize_plugin_with_defaults()
    }

    fn on_graphql_error<'request>(
        &'request self,
        mut payload: OnGraphQLErrorHookPayload<'request>,
    ) -> OnGraphQLErrorHookResult<'request> {
        let extensions = &mut payload.error.extensions;
        let code = extensions.code.as_deref().unwrap_or_default();
        let what = if code == LATE {
            "did not answer in time"
        } else if AWAY.contains(&code) {
            "cannot be reached"
        } else {
            return payload.proceed();
        };
        let service = extensions.service_name.as_deref().unwrap_or("responsible");
        payload.error.message =
            format!("The {service} service {what}: what only it knows is null; try again later.");
        extensions.code = Some("UNAVAILABLE".to_owned());
        payload.proceed()
    }
}
