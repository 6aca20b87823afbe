//! The operator's page at `/operations`, and the routes of the services that the page calls, under
//! `/operations/accounts` and `/operations/orders`.
//!
//! The services decide who may call them. Where authentication is on, the caller's token is passed on unchanged. Where
//! it is off, on a developer's machine, the services still require proof that an operator asks. Under `tandem up` on
//! loopback the gateway adds that proof, but only for pages of its own origin.

use std::sync::Arc;

use hive_router::ntex::http::{HeaderMap, Method, StatusCode, header};
use hive_router::ntex::web::{self, HttpRequest, HttpResponse, ServiceConfig};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tandem_assembly::admin::openapi;
use tandem_web::{OPERATIONS_PAGE, OPERATIONS_PATH, PAGE_POLICY};

use super::methods::READ;
use super::pages::{page, read};
use super::problem::{method_not_allowed, problem};
use super::rest::{Proxy, Service};
use super::target::Target;

/// The method of a path that only accepts orders.
const ORDER: &str = "POST";
/// The methods of a path that can be read and accepts orders.
const BOTH: &str = "GET, HEAD, POST";

/// The routes that are passed on, and their methods. Orders that cannot be undone are left to the commands. The one
/// exception is to discard a dead letter, because the letter stays on its topic.
const PASSED_ON: [(&str, &str); 12] = [
    ("/admin/health", READ),
    ("/admin/log", READ),
    ("/admin/log/partitions", READ),
    ("/admin/dead-letters", READ),
    ("/admin/dead-letters/letter", READ),
    ("/admin/dead-letters/retry", ORDER),
    ("/admin/dead-letters/discard", ORDER),
    ("/admin/dead-letters/job", READ),
    ("/admin/keys/waiting", READ),
    ("/admin/keys/rotation", READ),
    ("/admin/rebuild", BOTH),
    ("/admin/rebuild/stop", ORDER),
];
/// Routes that are passed on to accounts only.
const PASSED_ON_TO_ACCOUNTS: [(&str, &str); 1] = [("/admin/audit/customer", READ)];

/// How an operator is recognized.
#[derive(Clone, Debug, Default)]
pub(super) enum Operators {
    /// By the caller's token, which is passed on.
    #[default]
    ByToken,
    /// Authentication is off, and nothing proves that the caller is an operator. The request is passed on; the services
    /// will probably refuse it.
    Nobody,
    /// Everybody who uses this machine is an operator.
    Everybody(Arc<HeaderValue>),
}

impl Operators {
    /// For a gateway without authentication. `token` is the operator token, where everybody is an operator.
    pub(super) fn without_authentication(token: Option<&SecretString>) -> Self {
        let header = token.and_then(|token| {
            let mut header =
                HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).ok()?;
            header.set_sensitive(true);
            Some(header)
        });
        header.map_or(Self::Nobody, |header| Self::Everybody(Arc::new(header)))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::ByToken => "token",
            Self::Nobody => "nobody",
            Self::Everybody(_) => "everybody",
        }
    }
}

pub(super) fn routes(app: &mut ServiceConfig) {
    app.service(web::resource(OPERATIONS_PATH).route(read().to(show)));
    app.service(web::resource("/operations/here.json").route(read().to(here)));
    app.service(web::resource("/operations/openapi.json").route(read().to(description)));
    for service in [Service::Accounts, Service::Orders] {
        for (path, allowed) in PASSED_ON {
            route(app, service, path, allowed);
        }
    }
    for (path, allowed) in PASSED_ON_TO_ACCOUNTS {
        route(app, Service::Accounts, path, allowed);
    }
}

async fn show() -> HttpResponse {
    page(StatusCode::OK, PAGE_POLICY, OPERATIONS_PAGE.to_owned())
}

/// Tells the page how to make its requests.
async fn here(operators: web::types::State<Operators>) -> HttpResponse {
    json_answer(&json!({ "operators": operators.name() }).to_string())
}

async fn description() -> HttpResponse {
    json_answer(&serde_json::to_string(&openapi::document()).unwrap_or_default())
}

fn json_answer(body: &str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(body.to_owned())
}

fn route(app: &mut ServiceConfig, service: Service, path: &'static str, allowed: &'static str) {
    let handler = async move |request: HttpRequest,
                              body: web::types::Payload,
                              proxy: web::types::State<Proxy>,
                              operators: web::types::State<Operators>| {
        let method = request.method().as_str();
        if !allowed.split(", ").any(|allowed| allowed == method) {
            return method_not_allowed(&request, allowed);
        }
        if let Err((status, detail)) = judge(&operators, request.method(), request.headers()) {
            return problem(status, request.path(), detail);
        }
        let target = Target::fixed(path, request.uri().query());
        let authorization = match &*operators {
            Operators::Everybody(header) => Some(header.as_ref()),
            Operators::ByToken | Operators::Nobody => None,
        };
        let mut answer = proxy
            .pass_on(service, &target, authorization, &request, body)
            .await;
        answer.headers_mut().insert(
            header::CACHE_CONTROL,
            header::HeaderValue::from_static("no-store"),
        );
        answer
    };
    let at = format!("{OPERATIONS_PATH}/{}{path}", service.name());
    app.service(web::resource(at).route(web::to(handler)));
}

/// Orders must be JSON, which a page of another origin cannot send without a preflight. Where everybody is an operator,
/// requests from pages of other origins are refused, even if such pages may use the graph.
fn judge(
    operators: &Operators,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), (StatusCode, &'static str)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_json = text("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    if method == Method::POST && !is_json {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send application/json; `{}` where nothing is to be said",
        ));
    }
    if !matches!(operators, Operators::Everybody(_)) {
        return Ok(());
    }
    let site = text("sec-fetch-site");
    let is_own_site = site.is_none_or(|site| ["same-origin", "none"].contains(&site));
    let is_own_origin = match (text("origin"), text("host")) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, of)| of == host),
        (Some(_), None) => site == Some("same-origin"),
    };
    if is_own_site && is_own_origin {
        Ok(())
    } else {
        Err((
            StatusCode::FORBIDDEN,
            "only the page that this port serves may operate here",
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    fn verdict(operators: &Operators, method: Method, given: &[(&str, &str)]) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, header::HeaderValue::from_str(value).unwrap());
        }
        let verdict = judge(operators, &method, &headers);
        verdict.err().map(|(status, _)| status.as_u16())
    }

    fn everybody() -> Operators {
        Operators::without_authentication(Some(&"secret".to_owned().into()))
    }

    #[test]
    fn where_everybody_is_an_operator_pages_of_other_origins_are_none() {
        let host = ("host", "localhost:9090");
        for (given, wanted) in [
            (vec![host], None),
            (vec![host, ("origin", "http://localhost:9090")], None),
            (vec![host, ("sec-fetch-site", "same-origin")], None),
            (vec![host, ("origin", "http://localhost:3000")], Some(403)),
            (vec![host, ("origin", "null")], Some(403)),
            (vec![host, ("sec-fetch-site", "same-site")], Some(403)),
            (vec![host, ("sec-fetch-site", "cross-site")], Some(403)),
        ] {
            assert_eq!(
                verdict(&everybody(), Method::GET, &given),
                wanted,
                "{given:?}"
            );
        }
    }

    #[test]
    fn an_order_is_json() {
        for operators in [everybody(), Operators::ByToken] {
            let form = [("content-type", "text/plain")];
            assert_eq!(verdict(&operators, Method::POST, &form), Some(415));
            assert_eq!(verdict(&operators, Method::POST, &[]), Some(415));
            let json = [("content-type", "application/json; charset=utf-8")];
            assert_eq!(verdict(&operators, Method::POST, &json), None);
        }
    }

    #[test]
    fn the_token_of_everybody_is_not_printed() {
        assert!(!format!("{:?}", everybody()).contains("secret"));
        assert_eq!(Operators::without_authentication(None).name(), "nobody");
    }

    #[test]
    fn what_is_passed_on_is_described() {
        let document = serde_json::to_value(openapi::document()).unwrap();
        for (path, allowed) in PASSED_ON.iter().chain(&PASSED_ON_TO_ACCOUNTS) {
            let described = document["paths"][path].as_object();
            let described: BTreeSet<String> = described
                .into_iter()
                .flat_map(|item| item.keys().map(|method| method.to_uppercase()))
                .collect();
            let passed: BTreeSet<String> = allowed
                .split(", ")
                .filter(|method| *method != "HEAD")
                .map(str::to_owned)
                .collect();
            assert_eq!(described, passed, "{path}");
        }
    }
}
