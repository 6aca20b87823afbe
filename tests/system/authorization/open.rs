//! Public endpoints: they answer every caller, with a good token or without one, and show no personal data. A bad token
//! is refused there too, except under `/actuator`, because probes and scrapers may send anything.

use serde_json::{Value, json};
use tandem_authentication::Scope;
use tandem_web::{
    ASYNCAPI_FILES, File, GRAPHIQL_FILES, LIVE_FILES, OPERATIONS_FILES, PAGE_FILES, START_FILES,
};

use super::{
    OWN, UNAUTHENTICATED, World,
    clients::all_scopes,
    http::{Http, Request},
    tally::Tally,
    verdict,
};

const PAGE: &str = "text/html";
const JSON: &str = "application/json";
const ANYTHING: &str = "*/*";

/// A row of the table.
pub struct Open {
    /// The ports that serve it.
    pub ports: &'static [&'static str],
    pub name: &'static str,
}

const ALL: &[&str] = &["gateway", "accounts", "orders"];
const GATEWAY: &[&str] = &["gateway"];
const SERVICES: &[&str] = &["accounts", "orders"];

const fn open(ports: &'static [&'static str], name: &'static str) -> Open {
    Open { ports, name }
}

pub const OPEN: [Open; 17] = [
    open(ALL, "Query.__schema"),
    open(ALL, "Query.__type"),
    open(SERVICES, "Query._service"),
    open(ALL, "GET /"),
    open(ALL, "GET /graphql"),
    open(ALL, "GET /graphql/ui/…"),
    open(ALL, "GET /ui/…"),
    open(GATEWAY, "GET /live"),
    open(GATEWAY, "GET /operations"),
    open(GATEWAY, "GET /operations/here.json"),
    open(GATEWAY, "GET /operations/openapi.json"),
    open(SERVICES, "GET /asyncapi"),
    open(SERVICES, "GET /asyncapi.json"),
    open(SERVICES, "GET /openapi.json"),
    open(SERVICES, "GET /v3/api-docs"),
    open(SERVICES, "GET /swagger-ui/…"),
    open(ALL, "GET /actuator/…"),
];

/// Tries every row with every token. Everything else on the start page of a port must be a row too.
pub fn check(world: &World, tally: &mut Tally) {
    let http = Http::new();
    for open in OPEN {
        for port in open.ports {
            for request in requests(world, &http, open.name, port) {
                check_one(world, &http, &request, tally);
            }
        }
    }
    check_first_pages(world, &http);
    check_that_nothing_is_killed(world, &http, tally);
}

/// The requests for a row on a port.
fn requests(world: &World, http: &Http, name: &str, port: &str) -> Vec<Request> {
    let base = world.base(port);
    let at = |path: &str| format!("{base}{path}");
    let graphql = |query: &str| vec![Request::post(at("/graphql"), JSON, json!({"query": query}))];
    let files = |files: &[File]| -> Vec<Request> {
        files
            .iter()
            .map(|file| Request::get(at(file.path), ANYTHING))
            .collect()
    };
    match name {
        "Query.__schema" => graphql("{ __schema { types { name } } }"),
        "Query.__type" => graphql("{ __type(name: \"Customer\") { fields { name } } }"),
        "Query._service" => graphql("{ _service { sdl } }"),
        "GET /" => vec![Request::get(at("/"), PAGE), Request::get(at("/"), JSON)],
        "GET /graphql" => vec![Request::get(at("/graphql"), PAGE)],
        "GET /graphql/ui/…" => files(&GRAPHIQL_FILES),
        "GET /ui/…" => {
            let mut all = files(&PAGE_FILES);
            if port == "gateway" {
                all.extend(files(&START_FILES));
                all.extend(files(&LIVE_FILES));
                all.extend(files(&OPERATIONS_FILES));
                for path in ["/ui/status.json", "/ui/live/here.json"] {
                    all.push(Request::get(at(path), ANYTHING));
                }
            } else {
                all.extend(files(&ASYNCAPI_FILES));
            }
            all
        }
        "GET /swagger-ui/…" => [
            "/swagger-ui.html",
            "/swagger-ui/index.html",
            "/swagger-ui/swagger-initializer.js",
        ]
        .map(|path| Request::get(at(path), ANYTHING))
        .into(),
        "GET /actuator/…" => {
            // The last request of this row covers all metrics. For the others, one metric's name is enough.
            let names = http.whole(&Request::get(at("/actuator/metrics"), JSON), None);
            let names: Value = serde_json::from_str(&names.body).unwrap();
            let measured = format!("/actuator/metrics/{}", names["names"][0].as_str().unwrap());
            [
                "/actuator",
                "/actuator/health",
                "/actuator/health/liveness",
                "/actuator/health/readiness",
                "/actuator/info",
                "/actuator/metrics",
                measured.as_str(),
                "/actuator/prometheus",
            ]
            .map(|path| Request::get(at(path), ANYTHING))
            .into()
        }
        name => {
            let path = name.strip_prefix("GET ").unwrap();
            vec![Request::get(at(path), ANYTHING)]
        }
    }
}

fn check_one(world: &World, http: &Http, request: &Request, tally: &mut Tally) {
    let everything = world.issuer.token("nobody", &all_scopes());
    let own = world.issuer.token(OWN, Scope::Own.as_str());
    let good = [
        ("without a token", None),
        ("with `self`", Some(own.as_str())),
        ("with all scopes", Some(everything.as_str())),
    ];
    let is_graphql = request.body.is_some();
    for (who, token) in good {
        let answer = http.whole(request, token);
        let refused = is_graphql && answer.body.contains("\"errors\"");
        tally.check(
            || format!("{} {who}", request.url),
            (answer.status, refused),
            (200, false),
        );
        for secret in world.secrets() {
            tally.hold(
                || format!("{} {who} tells {secret}", request.url),
                !answer.body.contains(secret),
            );
        }
    }
    let is_looked_at = !request.url.contains("/actuator");
    for (kind, token) in world.issuer.bad(OWN, &all_scopes()) {
        let answer = http.whole(request, Some(&token));
        let got = if is_graphql {
            // For a client that accepts only JSON, GraphQL over HTTP requires the status 200.
            let response: Value = serde_json::from_str(&answer.body).unwrap();
            verdict(&response) == Some(UNAUTHENTICATED)
        } else {
            answer.status == 401
        };
        tally.check(
            || format!("{} refuses a token {kind}", request.url),
            got,
            is_looked_at,
        );
    }
}

/// Everything that the first page of a port links to must have a row.
fn check_first_pages(world: &World, http: &Http) {
    for port in ALL {
        let first = http.whole(&Request::get(world.base(port) + "/", JSON), None);
        let first: Value = serde_json::from_str(&first.body).unwrap();
        for (_, link) in first["_links"].as_object().unwrap() {
            let path = link["href"].as_str().unwrap();
            let is_row = OPEN.iter().any(|open| {
                let row = open.name.trim_start_matches("GET ");
                let is_here = open.ports.contains(port);
                let begins = row
                    .strip_suffix("/…")
                    .is_some_and(|of| path.starts_with(of));
                is_here && (row == path || begins)
            });
            assert!(is_row, "{path} of {port} is no row of what is open");
        }
    }
}

/// The live page kills processes only on a developer's own machine. Where tokens are required, no token allows it.
fn check_that_nothing_is_killed(world: &World, http: &Http, tally: &mut Tally) {
    let url = world.tandem.gateway_url("/ui/live/kill/orders");
    let request = Request::post(url, JSON, json!({}));
    let mut check = |who: &str, token: Option<&str>, wanted: u16| {
        let status = http.whole(&request, token).status;
        tally.check(|| format!("{} {who}", request.url), status, wanted);
    };
    check("without a token", None, 403);
    for scope in Scope::ALL {
        let token = world.issuer.token(OWN, scope.as_str());
        check(scope.as_str(), Some(&token), 403);
    }
    let everything = world.issuer.token("nobody", &all_scopes());
    check("with all scopes", Some(&everything), 403);
    for (kind, token) in world.issuer.bad(OWN, &all_scopes()) {
        check(&format!("with a token {kind}"), Some(&token), 401);
    }
}
