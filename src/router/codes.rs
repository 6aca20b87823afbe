//! Makes the contract's codes of the many that the router knows: `UNAVAILABLE` for a service that is away, `BAD_USER_INPUT` for an
//! operation that cannot be carried out as it is written, and for a request that cannot be read.
//!
//! Plain answers pass through a plugin. The router gives its plugins no part in the events of a subscription: those of SSE and
//! multipart are corrected on their way out ([`with_the_contracts_codes`]). An error of a service also loses what is the router's
//! own of it: places in a document that no client sent, and paths through `_entities`.

use hive_router::GraphQLError;
use hive_router::async_trait;
use hive_router::executor::response::graphql_error::{GraphQLErrorPath, GraphQLErrorPathSegment};
use hive_router::ntex::http::header;
use hive_router::ntex::util::Bytes;
use hive_router::ntex::web::WebResponse;
use hive_router::plugins::hooks::on_graphql_error::{
    OnGraphQLErrorHookPayload, OnGraphQLErrorHookResult,
};
use hive_router::plugins::hooks::on_plugin_init::{OnPluginInitPayload, OnPluginInitResult};
use hive_router::plugins::plugin_trait::RouterPlugin;
use serde_json::Value;

use super::outgoing::each_chunk;

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
/// How the codes of the router begin for all else that may become of a call of a service.
const OF_A_CALL: [&str; 2] = ["SUBGRAPH_", "SUBREQUEST_"];
/// The router's code while it has not read its supergraph yet.
const STARTING: &str = "NO_SUPERGRAPH_AVAILABLE";
/// The router's code for a service that took too long.
const LATE: &str = "SUBGRAPH_REQUEST_TIMEOUT";
/// Our own code within the router for a mutation that a service was sent, and has not answered.
pub(super) const UNANSWERED_MUTATION: &str = "SUBGRAPH_MUTATION_UNANSWERED";
/// The router's code for an operation that took too long as a whole.
const OPERATION_LATE: &str = "GATEWAY_TIMEOUT";
/// Codes of the router for an operation that it does not take. The rules of GraphQL's validation have their names as codes:
/// [`is_rule`].
const REFUSED: [&str; 7] = [
    "GRAPHQL_PARSE_FAILED",
    "GRAPHQL_VALIDATION_FAILED",
    "OPERATION_RESOLUTION_FAILURE",
    "MAX_ALIASES_EXCEEDED",
    "MAX_DEPTH_EXCEEDED",
    "MAX_DIRECTIVES_EXCEEDED",
    "TOKEN_LIMIT_EXCEEDED",
];

/// What would be right in place of a request that the router cannot read.
const ONE_OBJECT: &str =
    r#"send one request as a JSON object: {"query": "…", "variables": {…}}, not a batch"#;
const JSON_TYPE: &str = "send JSON, with `content-type: application/json`";
const WITH_POST: &str = "send it with POST";
/// Codes of the router for a request that it cannot read, and what would be right.
const UNREADABLE: [(&str, &str); 6] = [
    ("BAD_REQUEST", ONE_OBJECT),
    ("MISSING_QUERY_PARAM", ONE_OBJECT),
    ("MISSING_CONTENT_TYPE_HEADER", JSON_TYPE),
    ("UNSUPPORTED_CONTENT_TYPE", JSON_TYPE),
    ("UNPROCESSABLE_QUERY_PARAMS", WITH_POST),
    ("MUTATION_NOT_ALLOWED_OVER_HTTP_GET", WITH_POST),
];

/// What an error of the router is in the contract.
struct Contract {
    code: &'static str,
    words: Words,
}

/// What it says.
enum Words {
    /// The same.
    Kept,
    /// What would be right, too.
    Advised(&'static str),
    /// Something else.
    Replaced(String),
}

impl Words {
    fn in_place_of(self, said: &str) -> String {
        match self {
            Self::Kept => said.to_owned(),
            Self::Advised(advice) => format!("{said}: {advice}"),
            Self::Replaced(words) => words,
        }
    }
}

/// Whether it is the name of a rule, such as `FieldsOnCorrectType`: all other codes are in capitals.
fn is_rule(code: &str) -> bool {
    code.starts_with(|first: char| first.is_ascii_uppercase())
        && code.contains(|any: char| any.is_ascii_lowercase())
}

/// What the contract makes of a code; `None` for those that are the contract's own, or a service's.
fn contract(code: &str, service: Option<&str>) -> Option<Contract> {
    if code == STARTING {
        return Some(Contract {
            code: "UNAVAILABLE",
            words: Words::Replaced("The gateway is starting: try again in a moment.".to_owned()),
        });
    }
    if code == OPERATION_LATE {
        return Some(Contract {
            code: "UNAVAILABLE",
            words: Words::Replaced(
                "The operation as a whole took too long: whether what it changes was changed is not known; ask for less at once, or again in a moment."
                    .to_owned(),
            ),
        });
    }
    let what = if code == UNANSWERED_MUTATION {
        "gave no answer to this change"
    } else if code == LATE {
        "did not answer in time"
    } else if AWAY.contains(&code) {
        "cannot be reached"
    } else if OF_A_CALL.iter().any(|begin| code.starts_with(begin)) {
        // What it said instead may be anybody's: it is in the log.
        "gave no answer that can be read"
    } else {
        return service.is_none().then(|| refusal(code)).flatten();
    };
    let service = service.unwrap_or("responsible");
    let known = if code == UNANSWERED_MUTATION {
        "whether it was carried out is not known; see what there is before you repeat it"
    } else {
        "what only it knows is null; try again later"
    };
    Some(Contract {
        code: "UNAVAILABLE",
        words: Words::Replaced(format!("The {service} service {what}: {known}.")),
    })
}

/// What the contract makes of a code with which the router itself refuses a request.
fn refusal(code: &str) -> Option<Contract> {
    let unreadable = UNREADABLE.iter().find(|(known, _)| *known == code);
    let words = match unreadable {
        Some((_, advice)) => Words::Advised(advice),
        None if REFUSED.contains(&code) || is_rule(code) => Words::Kept,
        None => return None,
    };
    Some(Contract {
        code: "BAD_USER_INPUT",
        words,
    })
}

/// The plugin; it has no settings.
#[derive(Default)]
pub(super) struct Codes;

#[async_trait]
impl RouterPlugin for Codes {
    type Config = ();

    fn plugin_name() -> &'static str {
        "tandem_codes"
    }

    fn on_plugin_init(payload: OnPluginInitPayload<Self>) -> OnPluginInitResult<Self> {
        payload.initialize_plugin_with_defaults()
    }

    fn on_graphql_error<'request>(
        &'request self,
        mut payload: OnGraphQLErrorHookPayload<'request>,
    ) -> OnGraphQLErrorHookResult<'request> {
        let extensions = &payload.error.extensions;
        let code = extensions.code.as_deref().unwrap_or_default();
        if let Some(contract) = contract(code, extensions.service_name.as_deref()) {
            payload.error.extensions.code = Some(contract.code.to_owned());
            payload.error.message = contract.words.in_place_of(&payload.error.message);
        }
        of_the_client(&mut payload.error);
        payload.proceed()
    }
}

/// Leaves of a service's error what a client can make something of.
fn of_the_client(error: &mut GraphQLError) {
    if error.extensions.service_name.is_none() {
        return;
    }
    // They are of the document that the router sent to the service.
    error.locations = None;
    let affected = error.extensions.affected_path.take();
    if error.path.as_ref().is_none_or(is_routers) {
        error.path = affected.as_deref().and_then(before_lists);
    }
}

/// Whether a path leads through the field by which the router asks for entities.
fn is_routers(path: &GraphQLErrorPath) -> bool {
    match path.segments.first() {
        Some(GraphQLErrorPathSegment::String(name)) => {
            let is_alias = || {
                name.strip_prefix("_e").is_some_and(|number| {
                    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
                })
            };
            name == "_entities" || is_alias()
        }
        _ => false,
    }
}

/// The beginning of a path of the router, such as `customers.nodes.@`, as far as it is the same for all elements of a list.
fn before_lists(path: &str) -> Option<GraphQLErrorPath> {
    let mut known = GraphQLErrorPath::default();
    for name in path.split('.') {
        // Lists are `@`, conditions of types `|[Type]`.
        if name.contains('@') {
            break;
        }
        if !name.contains('|') {
            known.push_field(name);
        }
    }
    (!known.segments.is_empty()).then_some(known)
}

/// The events of a subscription with the contract's codes; other responses as they are.
pub(super) fn with_the_contracts_codes(response: WebResponse) -> WebResponse {
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| {
            kind.starts_with("text/event-stream") || kind.starts_with("multipart/mixed")
        });
    if !is_stream {
        return response;
    }
    each_chunk(response, |chunk| match corrected(&chunk) {
        Some(text) => Bytes::from(text),
        None => chunk,
    })
}

/// An event with the contract's codes; `None` if it has them already. The router writes each event as one chunk.
fn corrected(chunk: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(chunk).ok()?;
    // Most events have no errors: they are not read.
    if !text.contains("\"errors\"") {
        return None;
    }
    let (start, end) = (text.find('{')?, text.rfind('}')? + 1);
    let mut event: Value = serde_json::from_str(text.get(start..end)?).ok()?;
    let answer = match event.get_mut("payload") {
        Some(payload) => payload,
        None => &mut event,
    };
    let mut changed = false;
    for error in answer.get_mut("errors")?.as_array_mut()? {
        let Some(extensions) = error.get("extensions") else {
            continue;
        };
        let text = |name: &str| extensions.get(name).and_then(Value::as_str);
        if let Some(contract) = contract(text("code").unwrap_or_default(), text("service")) {
            error["extensions"]["code"] = contract.code.into();
            let said = error["message"].as_str().unwrap_or_default();
            error["message"] = contract.words.in_place_of(said).into();
            changed = true;
        }
    }
    changed.then(|| format!("{}{event}{}", &text[..start], &text[end..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn code(code: &str, service: Option<&str>) -> Option<&'static str> {
        contract(code, service).map(|contract| contract.code)
    }

    #[test]
    fn the_routers_codes_become_the_contracts() {
        assert_eq!(code("FieldsOnCorrectType", None), Some("BAD_USER_INPUT"));
        assert_eq!(code("GRAPHQL_PARSE_FAILED", None), Some("BAD_USER_INPUT"));
        assert_eq!(code("MAX_DEPTH_EXCEEDED", None), Some("BAD_USER_INPUT"));
        assert_eq!(code("BAD_REQUEST", None), Some("BAD_USER_INPUT"));
        assert_eq!(
            code("SUBREQUEST_HTTP_ERROR", Some("accounts")),
            Some("UNAVAILABLE")
        );
        assert_eq!(code(LATE, None), Some("UNAVAILABLE"));
        assert_eq!(code(OPERATION_LATE, None), Some("UNAVAILABLE"));
        for unreadable in [
            "SUBREQUEST_MALFORMED_RESPONSE",
            "SUBGRAPH_INTERNAL_SERVER_ERROR",
            "SUBGRAPH_RESPONSE_DECOMPRESSION_FAILURE",
        ] {
            let contract = contract(unreadable, Some("orders")).unwrap();
            assert_eq!(contract.code, "UNAVAILABLE");
            let said = contract.words.in_place_of("Invalid JSON: <html>");
            assert!(
                said.contains("orders") && !said.contains("html"),
                "{unreadable}: {said}"
            );
        }
    }

    #[test]
    fn of_a_change_without_an_answer_nobody_is_told_that_it_was_not_carried_out() {
        for unknown in [UNANSWERED_MUTATION, OPERATION_LATE] {
            let contract = contract(unknown, Some("orders")).unwrap();
            assert_eq!(contract.code, "UNAVAILABLE");
            let said = contract.words.in_place_of("Request to subgraph timed out");
            assert!(said.contains("is not known"), "{said}");
        }
    }

    #[test]
    fn the_contracts_codes_and_a_services_own_stay() {
        for known in ["NOT_FOUND", "BAD_USER_INPUT", "REVISION_CONFLICT", ""] {
            assert_eq!(code(known, None), None);
            assert_eq!(code(known, Some("orders")), None);
        }
        assert_eq!(code("Strange", Some("orders")), None);
        assert_eq!(code("BAD_REQUEST", Some("orders")), None);
    }

    #[test]
    fn an_error_of_a_service_has_nothing_of_the_routers_own() {
        let error = |json: &str| -> Value {
            let mut error: GraphQLError = serde_json::from_str(json).unwrap();
            of_the_client(&mut error);
            serde_json::to_value(error).unwrap()
        };
        let own = error(
            r#"{"message":"m","locations":[{"line":1,"column":2}],"path":["_entities","orders"],"extensions":{"service":"orders","affectedPath":"customers.nodes.@"}}"#,
        );
        assert_eq!(
            own,
            serde_json::json!({"message": "m", "path": ["customers", "nodes"], "extensions": {"service": "orders"}})
        );
        let clients = error(
            r#"{"message":"m","path":["customers","nodes",3,"orders"],"extensions":{"service":"orders","affectedPath":"customers.nodes.@"}}"#,
        );
        assert_eq!(
            clients["path"],
            serde_json::json!(["customers", "nodes", 3, "orders"])
        );
        let routers = error(r#"{"message":"m","locations":[{"line":1,"column":2}]}"#);
        assert_eq!(routers["locations"][0]["column"], 2);
        let batch = error(r#"{"message":"m","path":["_e1",0],"extensions":{"service":"orders"}}"#);
        assert_eq!(batch.get("path"), None);
    }

    #[test]
    fn an_event_keeps_all_but_the_code_and_the_words() {
        let event = "event: next\ndata: {\"data\":{\"a\":null},\"errors\":[{\"message\":\"x\",\"extensions\":{\"code\":\"SUBREQUEST_HTTP_ERROR\",\"service\":\"accounts\"}}]}\n\n";
        let corrected = corrected(event.as_bytes()).unwrap();
        let json = corrected.strip_prefix("event: next\ndata: ").unwrap();
        let json: Value = serde_json::from_str(json.strip_suffix("\n\n").unwrap()).unwrap();
        assert_eq!(json["data"], serde_json::json!({"a": null}));
        assert_eq!(json["errors"][0]["extensions"]["code"], "UNAVAILABLE");
        assert_eq!(json["errors"][0]["extensions"]["service"], "accounts");
    }

    #[test]
    fn events_without_such_an_error_are_not_touched() {
        for event in [
            "data: {\"data\":{\"a\":\"SUBREQUEST_HTTP_ERROR\"}}\n\n",
            "data: {\"errors\":[{\"message\":\"x\",\"extensions\":{\"code\":\"NOT_FOUND\"}}]}\n\n",
            ":\n\n",
            "data: {\"errors\" broken}",
        ] {
            assert!(corrected(event.as_bytes()).is_none(), "{event}");
        }
        assert!(corrected(&[0xff, 0xfe]).is_none());
    }
}
