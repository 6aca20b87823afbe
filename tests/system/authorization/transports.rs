//! Every transport of operations with every kind of token: one query, one mutation and one subscription of each port
//! that has them. They arrive by GET, HEAD and POST, as server-sent events and multipart, over WebSockets with the
//! token in the handshake or in `connection_init`, and by the name of a document that was sent before.

use reqwest::{Method, Url};
use serde_json::{Value, json};
use tandem_authentication::Scope;
use tandem_front_door::graphql::hash;

use super::{
    FORBIDDEN, LAST_NAME, OWN, UNAUTHENTICATED, World,
    clients::{all_scopes, all_scopes_but},
    code,
    http::{Http, Request},
    order,
    sockets::Socket,
    tally::Tally,
    verdict,
};

const JSON: &str = "application/json";
/// With this media type the HTTP status shows whether a token is accepted.
const OWN_JSON: &str = "application/graphql-response+json";
const EVENTS: &str = "text/event-stream";
const MULTIPART: &str = "multipart/mixed;subscriptionSpec=\"1.0\", application/json";
const PROTOCOL: &str = "graphql-transport-ws";
const OLDER_PROTOCOL: &str = "graphql-ws";

/// The transport of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Get(&'static str),
    Post(&'static str),
    /// By the hash of its document.
    NamedByGet(&'static str),
    NamedByPost(&'static str),
    /// The token is in the handshake.
    Handshake,
    /// The token is in `connection_init` of this protocol.
    Init(&'static str),
}

const OF_QUERIES: [Way; 9] = [
    Way::Get(JSON),
    Way::Get(EVENTS),
    Way::Post(OWN_JSON),
    Way::Post(EVENTS),
    Way::NamedByGet(JSON),
    Way::NamedByPost(JSON),
    Way::Handshake,
    Way::Init(PROTOCOL),
    Way::Init(OLDER_PROTOCOL),
];
const OF_MUTATIONS: [Way; 6] = [
    Way::Post(OWN_JSON),
    Way::Post(EVENTS),
    Way::NamedByPost(JSON),
    Way::Handshake,
    Way::Init(PROTOCOL),
    Way::Init(OLDER_PROTOCOL),
];
const OF_SUBSCRIPTIONS: [Way; 7] = [
    Way::Get(EVENTS),
    Way::Post(MULTIPART),
    Way::NamedByGet(MULTIPART),
    Way::NamedByPost(EVENTS),
    Way::Handshake,
    Way::Init(PROTOCOL),
    Way::Init(OLDER_PROTOCOL),
];

/// An operation that needs a scope.
struct Operation {
    port: &'static str,
    query: &'static str,
    variables: Value,
    scope: Scope,
    ways: &'static [Way],
}

fn operations() -> Vec<Operation> {
    let of_customer = json!({"id": OWN});
    let mut all = Vec::new();
    for port in ["gateway", "accounts"] {
        all.push(Operation {
            port,
            query: "query($id: ID!) { customer(id: $id) { id name { lastName } } }",
            variables: of_customer.clone(),
            scope: Scope::CustomersRead,
            ways: &OF_QUERIES,
        });
        all.push(Operation {
            port,
            query: "mutation($id: ID!) { updateCustomer(id: $id, input: {}) { customer { revision } } }",
            variables: of_customer.clone(),
            scope: Scope::CustomersWrite,
            ways: &OF_MUTATIONS,
        });
    }
    all.push(Operation {
        port: "orders",
        query: "query($id: ID!) { orderingCustomer(id: $id) { id name { lastName } } }",
        variables: of_customer,
        scope: Scope::CustomersRead,
        ways: &OF_QUERIES,
    });
    all.push(Operation {
        port: "orders",
        query: super::PLACE,
        variables: json!({"input": order(OWN)}),
        scope: Scope::OrdersWrite,
        ways: &OF_MUTATIONS,
    });
    for port in ["gateway", "orders"] {
        all.push(Operation {
            port,
            query: "subscription { orderFeed(snapshot: true) { __typename ... on OrderSnapshot { orders { id } } } }",
            variables: json!({}),
            scope: Scope::OrdersRead,
            ways: &OF_SUBSCRIPTIONS,
        });
    }
    all
}

impl Operation {
    fn is_mutation(&self) -> bool {
        self.query.starts_with("mutation")
    }

    fn is_query(&self) -> bool {
        self.query.starts_with("query")
    }

    /// The members of a POST, or of the query string of a GET.
    fn members(&self, is_named: bool) -> Value {
        let mut members = json!({"variables": self.variables});
        if is_named {
            members["extensions"] =
                json!({"persistedQuery": {"version": 1, "sha256Hash": hash(self.query)}});
        } else {
            members["query"] = self.query.into();
        }
        members
    }

    fn get(&self, world: &World, is_named: bool, accept: &'static str) -> Request {
        let members = self.members(is_named);
        let parameters = members.as_object().unwrap().iter().map(|(name, member)| {
            let text = member.as_str().map(str::to_owned);
            (name, text.unwrap_or_else(|| member.to_string()))
        });
        let address = format!("{}/graphql", world.base(self.port));
        let url = Url::parse_with_params(&address, parameters).unwrap();
        Request::get(url, accept)
    }

    fn post(&self, world: &World, is_named: bool, accept: &'static str) -> Request {
        let url = format!("{}/graphql", world.base(self.port));
        Request::post(url, accept, self.members(is_named))
    }

    /// The first response to the operation.
    fn ask(&self, world: &World, http: &Http, way: Way, token: Option<&str>) -> Value {
        match way {
            Way::Get(accept) => http.first(&self.get(world, false, accept), token),
            Way::Post(accept) => http.first(&self.post(world, false, accept), token),
            Way::NamedByGet(accept) => http.first(&self.get(world, true, accept), token),
            Way::NamedByPost(accept) => http.first(&self.post(world, true, accept), token),
            Way::Handshake => self.over_socket(world, PROTOCOL, token, None),
            Way::Init(protocol) => self.over_socket(world, protocol, None, token),
        }
    }

    fn over_socket(
        &self,
        world: &World,
        protocol: &'static str,
        in_handshake: Option<&str>,
        in_init: Option<&str>,
    ) -> Value {
        let port = match self.port {
            "gateway" => world.tandem.gateway,
            "accounts" => world.tandem.accounts,
            _ => world.tandem.orders,
        };
        let mut socket = Socket::open_with(port, protocol, in_handshake);
        socket.init(in_init);
        socket.subscribe("1", self.query, &self.variables);
        socket.result("1")
    }
}

/// A token, or none, and the code with which an operation of its bearer is refused.
struct Bearer {
    who: String,
    token: Option<String>,
    refusal: Option<&'static str>,
}

fn bearers(world: &World, operation: &Operation) -> Vec<Bearer> {
    let bearer = |who: &str, token: Option<String>, refusal| Bearer {
        who: who.to_owned(),
        token,
        refusal,
    };
    let of_nobody = |scopes: &str| Some(world.issuer.token("nobody", scopes));
    let mut all = vec![
        bearer("without a token", None, Some(UNAUTHENTICATED)),
        bearer(
            "without the scope",
            of_nobody(&all_scopes_but(&[operation.scope])),
            Some(FORBIDDEN),
        ),
        bearer("with the scope", of_nobody(operation.scope.as_str()), None),
    ];
    for (kind, token) in world.issuer.bad(OWN, &all_scopes()) {
        let who = format!("with a token {kind}");
        all.push(bearer(&who, Some(token), Some(UNAUTHENTICATED)));
    }
    all
}

/// Tries every operation on every transport with every token.
pub fn check(world: &World, tally: &mut Tally) {
    let http = Http::new();
    for operation in operations() {
        let bearers = bearers(world, &operation);
        // The document is sent once with its hash, so that later requests can name it.
        let mut sent = operation.members(true);
        sent["query"] = operation.query.into();
        let url = format!("{}/graphql", world.base(operation.port));
        let scope = operation.scope.as_str();
        let right = world.issuer.token("nobody", scope);
        let kept = http.first(&Request::post(url, EVENTS, sent), Some(&right));
        assert_eq!(kept.get("errors"), None, "{kept}");
        for way in operation.ways {
            for bearer in &bearers {
                let token = bearer.token.as_deref();
                let answer = operation.ask(world, &http, *way, token);
                check_answer(&operation, &format!("{way:?}"), bearer, &answer, tally);
            }
        }
        if operation.is_mutation() {
            check_that_get_changes_nothing(world, &http, &operation, &bearers, tally);
        }
        if operation.is_query() {
            check_head(world, &http, &operation, &bearers, tally);
        }
        check_two_tokens(world, &operation, &bearers, tally);
    }
}

fn check_answer(
    operation: &Operation,
    way: &str,
    bearer: &Bearer,
    answer: &Value,
    tally: &mut Tally,
) {
    let Operation { port, query, .. } = operation;
    let told = || format!("{query} on {port}, {way}, {}", bearer.who);
    tally.check(told, verdict(answer), bearer.refusal);
    let answered = || format!("{} is answered {answer}", told());
    let holds = match bearer.refusal {
        Some(_) => !answer.to_string().contains(LAST_NAME) && has_no_data(answer),
        None => answer.get("errors").is_none() && !has_no_data(answer),
    };
    tally.hold(answered, holds);
}

/// Whether nothing was executed: there is no data, or none of the root field.
fn has_no_data(answer: &Value) -> bool {
    let fields = answer["data"].as_object();
    fields.is_none_or(|fields| fields.values().all(Value::is_null))
}

/// A mutation by GET is never executed, whatever the token.
fn check_that_get_changes_nothing(
    world: &World,
    http: &Http,
    operation: &Operation,
    bearers: &[Bearer],
    tally: &mut Tally,
) {
    for is_named in [false, true] {
        let request = operation.get(world, is_named, OWN_JSON);
        for bearer in bearers {
            let answer = http.first(&request, bearer.token.as_deref());
            let is_bad = bearer.who.starts_with("with a token");
            let wanted = if is_bad {
                UNAUTHENTICATED
            } else {
                "BAD_USER_INPUT"
            };
            let told = || format!("{request:?}, {}", bearer.who);
            tally.check(told, code(&answer), Some(wanted));
            tally.hold(told, answer.get("data").is_none());
        }
    }
}

/// HEAD is authorized like GET, and returns only the head of that response.
fn check_head(
    world: &World,
    http: &Http,
    operation: &Operation,
    bearers: &[Bearer],
    tally: &mut Tally,
) {
    for is_named in [false, true] {
        let get = operation.get(world, is_named, OWN_JSON);
        let head = Request {
            method: Method::HEAD,
            ..get.clone()
        };
        for bearer in bearers {
            let token = bearer.token.as_deref();
            let (full, begun) = (http.whole(&get, token), http.whole(&head, token));
            let told = || format!("{head:?}, {}: {begun:?}", bearer.who);
            tally.check(told, begun.status, full.status);
            let is_bad = bearer.who.starts_with("with a token");
            tally.hold(told, (begun.status == 401) == is_bad);
            tally.hold(told, begun.body.is_empty());
            let length = full.body.len() as u64;
            tally.hold(told, begun.length.is_none_or(|told| told == length));
        }
    }
}

/// If handshake and `connection_init` both carry a token, the one in `connection_init` counts, even if it is the worse
/// one.
fn check_two_tokens(world: &World, operation: &Operation, bearers: &[Bearer], tally: &mut Tally) {
    let right = bearers.iter().find(|bearer| bearer.refusal.is_none());
    let right = right.unwrap();
    for bearer in bearers.iter().filter(|bearer| bearer.token.is_some()) {
        for (first, second) in [(right, bearer), (bearer, right)] {
            let answer = operation.over_socket(
                world,
                PROTOCOL,
                first.token.as_deref(),
                second.token.as_deref(),
            );
            let way = format!("in a handshake {} and in connection_init", first.who);
            check_answer(operation, &way, second, &answer, tally);
        }
    }
}
