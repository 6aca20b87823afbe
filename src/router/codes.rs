//! Maps the many error codes of the router to the few of the contract: `UNAVAILABLE` for a service that is down,
//! `BAD_USER_INPUT` for an operation that cannot be executed as written and for a request that cannot be read.
//!
//! Plain responses pass through a plugin. The router does not show its plugins the events of a subscription, so events
//! of SSE and multipart are corrected on their way out ([`with_the_contracts_codes`]). A service's error also loses
//! what only the router understands: locations in a document that no client sent, and paths through `_entities`.

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

/// The router's codes for a service that could not be reached, or whose response broke off.
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
/// The prefixes of the router's codes for every other failure of a call to a service.
const OF_A_CALL: [&str; 2] = ["SUBGRAPH_", "SUBREQUEST_"];
/// The router's code while it has not loaded its supergraph yet.
const STARTING: &str = "NO_SUPERGRAPH_AVAILABLE";
/// The router's code for a service that exceeded its time limit.
const LATE: &str = "SUBGRAPH_REQUEST_TIMEOUT";
/// Our own code, used within the router, for a mutation that was sent to a service and not answered.
pub(super) const UNANSWERED_MUTATION: &str = "SUBGRAPH_MUTATION_UNANSWERED";
/// The router's code for an operation that exceeded its time limit as a whole.
const OPERATION_LATE: &str = "GATEWAY_TIMEOUT";
/// The router's codes for an operation that it refuses. The rules of GraphQL's validation use their names as codes; see
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

/// The advice for a request that the router cannot read.
const ONE_OBJECT: &str =
    r#"send one request as a JSON object: {"query": "…", "variables": {…}}, not a batch"#;
const JSON_TYPE: &str = "send JSON, with `content-type: application/json`";
const WITH_POST: &str = "send it with POST";
/// The router's codes for a request that it cannot read, each with its advice.
const UNREADABLE: [(&str, &str); 6] = [
    ("BAD_REQUEST", ONE_OBJECT),
    ("MISSING_QUERY_PARAM", ONE_OBJECT),
    ("MISSING_CONTENT_TYPE_HEADER", JSON_TYPE),
    ("UNSUPPORTED_CONTENT_TYPE", JSON_TYPE),
    ("UNPROCESSABLE_QUERY_PARAMS", WITH_POST),
    ("MUTATION_NOT_ALLOWED_OVER_HTTP_GET", WITH_POST),
];

/// The contract's form of an error of the router.
struct Contract {
    code: &'static str,
    words: Words,
}

/// The message of such an error.
enum Words {
    /// The router's message.
    Kept,
    /// The router's message, followed by advice.
    Advised(&'static str),
    /// Another message.
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

/// Whether a code is the name of a rule, such as `FieldsOnCorrectType`. All other codes are in capitals.
fn is_rule(code: &str) -> bool {
    code.starts_with(|first: char| first.is_ascii_uppercase())
        && code.contains(|any: char| any.is_ascii_lowercase())
}

/// The contract's form of a code. `None` for codes of the contract itself and for those of a service.
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
        // The router's message may contain anything that the service sent. It is in the log.
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

/// The contract's form of a code with which the router itself refuses a request.
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

/// The plugin. It has no settings.
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

/// Removes from a service's error what a client cannot use.
fn of_the_client(error: &mut GraphQLError) {
    if error.extensions.service_name.is_none() {
        return;
    }
    // The locations belong to the document that the router sent to the service.
    error.locations = None;
    let affected = error.extensions.affected_path.take();
    if error.path.as_ref().is_none_or(is_routers) {
        error.path = affected.as_deref().and_then(before_lists);
    }
}

/// Whether a path begins at the field by which the router asks for entities.
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

/// The beginning of one of the router's paths, such as `customers.nodes.@`, up to its first list: the part that is the
/// same for all elements.
fn before_lists(path: &str) -> Option<GraphQLErrorPath> {
    let mut known = GraphQLErrorPath::default();
    for name in path.split('.') {
        // `@` stands for a list, `|[Type]` for a type condition.
        if name.contains('@') {
            break;
        }
        if !name.contains('|') {
            known.push_field(name);
        }
    }
    (!known.segments.is_empty()).then_some(known)
}

/// Puts the contract's codes into the events of a subscription. Other responses stay unchanged.
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

/// An event with the contract's codes, or `None` if it has them already. The router writes each event as one chunk.
fn corrected(chunk: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(chunk).ok()?;
    // Most events have no errors, so they are not parsed.
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
