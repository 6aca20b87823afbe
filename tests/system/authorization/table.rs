//! The table of docs/security.md: made from the schema, and every cell of it tried.
//!
//! A row is a field, a route or an entity; a column is a scope. What a row needs stands in the committed SDL (`@requiresScopes`) and, for
//! routes, in [`routes`], which is held against the services' own OpenAPI documents. A row for which nobody wrote down how to ask fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};
use tandem_authentication::Scope;

use super::asked::asked;
use super::{OTHER, OWN, World, code};
use crate::support::{Client, Transport, graph::UPDATE, poll};

const ACCOUNTS: &str = include_str!("../../../schema/accounts.graphql");
const ORDERS: &str = include_str!("../../../schema/orders.graphql");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
const BEGIN: &str = "UPDATE_SECURITY=1 writes it -->\n";
const END: &str = "<!-- end of table -->";
/// Fields that the federation asks for, which have no directive: entities are rows of their own, the schema is open.
const FEDERATION: [&str; 2] = ["_entities", "_service"];

/// The types by which an operation begins.
const ROOTS: [&str; 3] = ["Query", "Mutation", "Subscription"];

/// What an operator asks of the services, and whether the gateway passes it on.
const OPERATORS: [(&str, &str, bool); 21] = [
    ("GET", "/admin/health", true),
    ("GET", "/admin/log", true),
    ("GET", "/admin/log/partitions", true),
    ("POST", "/admin/log/accept", false),
    ("POST", "/admin/log/restore", false),
    ("GET", "/admin/dead-letters", true),
    ("GET", "/admin/dead-letters/letter", true),
    ("POST", "/admin/dead-letters/retry", true),
    ("POST", "/admin/dead-letters/discard", true),
    ("POST", "/admin/dead-letters/discard-all", false),
    ("GET", "/admin/dead-letters/job", true),
    ("GET", "/admin/keys/waiting", true),
    ("POST", "/admin/keys/publish", false),
    ("GET", "/admin/keys/rotation", true),
    ("POST", "/admin/keys/rotate", false),
    ("GET", "/admin/rebuild", true),
    ("POST", "/admin/rebuild", true),
    ("POST", "/admin/rebuild/stop", true),
    ("POST", "/admin/rebuild/removals", false),
    ("POST", "/admin/rebuild/copies", false),
    ("GET", AUDIT, true),
];
/// Of accounts alone.
const AUDIT: &str = "/admin/audit/customer";
const OPERATIONS: &str = include_str!("../../../schema/openapi/operations.json");

/// A REST or operator's route.
struct Route {
    service: &'static str,
    method: &'static str,
    path: &'static str,
    needs: Needs,
}

fn routes() -> Vec<Route> {
    let route = |service, method, path, scopes: &[Scope], or_own| Route {
        service,
        method,
        path,
        needs: Needs {
            scopes: scopes.to_vec(),
            or_own,
        },
    };
    let write = [Scope::CustomersWrite];
    let read = [Scope::OrdersRead, Scope::CustomersRead];
    let mut routes = vec![
        route(
            "accounts",
            "POST",
            "/accounts/customer/create",
            &write,
            false,
        ),
        route("accounts", "GET", "/accounts/customer/print", &[], false),
        route("orders", "GET", "/orders/list", &read, false),
        route("orders", "GET", "/orders/order/{customerId}", &read, true),
    ];
    for service in ["accounts", "orders"] {
        for (method, path, _) in OPERATORS {
            if path == AUDIT && service != "accounts" {
                continue;
            }
            routes.push(route(service, method, path, &[Scope::Operations], false));
        }
    }
    routes
}

/// What must be there for a request to be carried out.
#[derive(Clone, Debug, PartialEq)]
struct Needs {
    /// All of these.
    scopes: Vec<Scope>,
    /// Or `self`, for what is one's own.
    or_own: bool,
}

impl Needs {
    /// What a token with these scopes may do with what is its subject's own.
    fn allow(&self, held: &[Scope]) -> bool {
        self.scopes.iter().all(|scope| held.contains(scope))
            || (self.or_own && held.contains(&Scope::Own))
    }

    fn cell(&self, scope: Scope) -> &'static str {
        match self.scopes.as_slice() {
            [] => "✓",
            [one] if *one == scope => "✓",
            several if several.contains(&scope) => "with the other",
            _ if scope == Scope::Own && self.or_own => "own",
            _ => "–",
        }
    }
}

/// A field of the schema: its service, its type and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    pub service: &'static str,
    pub of: String,
    pub name: String,
}

/// Every field that the SDL guards, and the roots' fields that it does not.
fn fields(service: &'static str, sdl: &str) -> (BTreeMap<Field, Needs>, Vec<String>) {
    let (mut guarded, mut open) = (BTreeMap::new(), Vec::new());
    let mut of = None;
    let mut is_text = false;
    for line in sdl.lines() {
        is_text ^= line.trim() == "\"\"\"";
        if is_text {
            continue;
        }
        if let Some(rest) = line.strip_prefix("type ") {
            of = rest.split_whitespace().next().map(str::to_owned);
        } else if line == "}" {
            of = None;
        }
        let (Some(of), Some(text)) = (&of, line.strip_prefix('\t')) else {
            continue;
        };
        let name: String = text
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect();
        if let Some((_, scopes)) = line.split_once("@requiresScopes(scopes: [") {
            let alternatives: Vec<Vec<Scope>> = scopes
                .trim_end_matches(')')
                .trim_end_matches(']')
                .split("], ")
                .map(|one| {
                    one.split(['"', '[', ']', ',', ' '])
                        .filter(|word| !word.is_empty())
                        .map(|word| word.parse().unwrap())
                        .collect()
                })
                .collect();
            let or_own = alternatives.contains(&vec![Scope::Own]);
            let mut others = alternatives.into_iter().filter(|one| *one != [Scope::Own]);
            let scopes = others.next().unwrap();
            assert_eq!(others.next(), None, "{line}");
            // Arguments may stand on lines of their own before it.
            let name = if name.is_empty() {
                last_name(sdl, line)
            } else {
                name
            };
            let field = Field {
                service,
                of: of.clone(),
                name,
            };
            guarded.insert(field, Needs { scopes, or_own });
        } else if ROOTS.contains(&of.as_str()) && !line.ends_with('(') {
            if text.starts_with(')') {
                open.push(last_name(sdl, line));
            } else if !name.is_empty() {
                open.push(name);
            }
        }
    }
    (guarded, open)
}

/// The field whose arguments end on this line.
fn last_name(sdl: &str, line: &str) -> String {
    let before = &sdl[..sdl.find(line).unwrap()];
    let begin = before
        .lines()
        .rev()
        .find(|line| line.ends_with('('))
        .unwrap();
    begin.trim().trim_end_matches('(').to_owned()
}

fn all_fields() -> BTreeMap<Field, Needs> {
    let mut all = BTreeMap::new();
    for (service, sdl) in [("accounts", ACCOUNTS), ("orders", ORDERS)] {
        let (guarded, open) = fields(service, sdl);
        let open: Vec<_> = open
            .iter()
            .filter(|name| !FEDERATION.contains(&name.as_str()))
            .collect();
        assert!(
            open.is_empty(),
            "nothing says who may use these of {service}: {open:?}"
        );
        all.extend(guarded);
    }
    // As the router asks for what another subgraph names.
    let entity = |service, name: &str, scope| {
        let field = Field {
            service,
            of: "_entities".to_owned(),
            name: name.to_owned(),
        };
        (
            field,
            Needs {
                scopes: vec![scope],
                or_own: true,
            },
        )
    };
    all.extend([
        entity("accounts", "Customer", Scope::CustomersRead),
        entity("orders", "Order", Scope::OrdersRead),
    ]);
    all
}

/// The table as the document has it.
fn table() -> String {
    let mut text = String::from("| | |");
    for scope in Scope::ALL {
        write!(text, " `{scope}` |").unwrap();
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---|".repeat(Scope::ALL.len()));
    text.push('\n');
    let mut row = |service: &str, name: &str, needs: &Needs| {
        write!(text, "| {service} | `{name}` |").unwrap();
        for scope in Scope::ALL {
            write!(text, " {} |", needs.cell(scope)).unwrap();
        }
        text.push('\n');
    };
    for (field, needs) in all_fields() {
        row(
            field.service,
            &format!("{}.{}", field.of, field.name),
            &needs,
        );
    }
    for route in routes() {
        row(
            route.service,
            &format!("{} {}", route.method, route.path),
            &route.needs,
        );
    }
    text
}

#[test]
fn the_documented_table_is_that_of_the_schema() {
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_SECURITY").is_some() {
        std::fs::write(DOCUMENT, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert!(
        written == table(),
        "docs/security.md is stale: UPDATE_SECURITY=1 cargo test --test system -- documented_table"
    );
}

/// The verdict of an answer: the code with which it was refused, if it was.
fn verdict(answer: &Value) -> Option<String> {
    code(answer)
        .filter(|code| ["UNAUTHENTICATED", "FORBIDDEN"].contains(code))
        .map(str::to_owned)
}

struct Port<'a> {
    world: &'a World,
    name: &'static str,
    url: String,
}

impl Port<'_> {
    /// Asks for a field, and tells how it was refused.
    fn ask(
        &self,
        client: &Client,
        field: &Field,
        (query, variables): &(String, Value),
    ) -> Option<String> {
        if field.of != "Subscription" {
            return verdict(&client.graphql(&self.url, query, variables.clone()));
        }
        let updates = client.subscribe(
            Transport::ServerSentEvents,
            &self.url,
            query,
            variables.clone(),
        );
        if field.name != "customerUpdated" {
            return verdict(&updates.next());
        }
        // Who may gets the next change, and somebody changes something until it comes.
        let answer = poll("an answer to a subscription", || {
            let change = json!({"id": variables["id"], "input": {"name": {
                "firstName": format!("Ada {}", self.world.next()), "lastName": "Lovelace"}}});
            self.world.admin.data(&self.world.gateway(), UPDATE, change);
            updates.next_within(std::time::Duration::from_millis(200))
        });
        verdict(&answer)
    }
}

#[test]
fn every_cell_of_the_table_is_allowed_or_refused_as_it_is_written() {
    let world = World::start();
    for order in [&world.own_order, &world.other_order] {
        for to in ["CONFIRMED", "SHIPPED"] {
            let advance = "mutation($id: ID!, $to: OrderStatus!) { advanceOrder(id: $id, to: $to) { order { id } } }";
            world
                .admin
                .data(&world.gateway(), advance, json!({"id": order, "to": to}));
        }
    }
    let port = |name: &'static str| Port {
        world: &world,
        name,
        url: match name {
            "gateway" => world.gateway(),
            "accounts" => world.tandem.accounts_url("/graphql"),
            _ => world.tandem.orders_url("/graphql"),
        },
    };
    let mut cells = 0;
    let mut wrong = Vec::new();
    for (field, needs) in all_fields() {
        let asked = asked(&world, &field);
        let is_root = ROOTS.contains(&field.of.as_str());
        let ports = [Some(port(field.service)), is_root.then(|| port("gateway"))];
        for port in ports.into_iter().flatten() {
            let mut check =
                |who: &str, client: &Client, asked: &(String, Value), wanted: Option<&str>| {
                    let got = port.ask(client, &field, asked);
                    cells += 1;
                    if got.as_deref() != wanted {
                        wrong.push(format!(
                            "{field:?} on {}, {who}: {got:?}, not {wanted:?}",
                            port.name
                        ));
                    }
                };
            let nobody = Some("UNAUTHENTICATED");
            check("without a token", &Client::new(), &asked.own, nobody);
            for (kind, token) in world.issuer.bad(OWN, &all_scopes()) {
                check(
                    &format!("with a token {kind}"),
                    &Client::with_token(token),
                    &asked.own,
                    nobody,
                );
            }
            for scope in Scope::ALL {
                let client = Client::with_token(world.issuer.token(OWN, scope.as_str()));
                let refused = |is_allowed: bool| (!is_allowed).then_some("FORBIDDEN");
                check(
                    scope.as_str(),
                    &client,
                    &asked.own,
                    refused(needs.allow(&[scope])),
                );
                if let Some(other) = &asked.other {
                    let allowed = scope != Scope::Own && needs.allow(&[scope]);
                    let who = format!("{scope} of somebody else");
                    check(&who, &client, other, refused(allowed));
                }
            }
            let all = Client::with_token(world.issuer.token("nobody", &all_scopes()));
            check("with all scopes", &all, &asked.own, None);
        }
    }
    cells += check_routes(&world, &mut wrong);
    println!("{cells} cells of the table of authorization were tried");
    assert!(wrong.is_empty(), "{} of {cells}: {wrong:#?}", wrong.len());
}

fn all_scopes() -> String {
    Scope::ALL.map(Scope::as_str).join(" ")
}

/// Tries every route with every token, on the service and, where it is there too, on the gateway.
fn check_routes(world: &World, wrong: &mut Vec<String>) -> usize {
    let mut cells = 0;
    for Route {
        service,
        method,
        path,
        needs,
    } in routes()
    {
        let own = path.replace("{customerId}", OWN);
        let other = path.replace("{customerId}", OTHER);
        let base = |name: &str| match name {
            "accounts" => world.tandem.accounts_url(""),
            "orders" => world.tandem.orders_url(""),
            _ => world.tandem.gateway_url(""),
        };
        let is_admin = path.starts_with("/admin");
        let is_passed_on = OPERATORS.contains(&(method, path, true));
        let ports = if is_admin && !is_passed_on {
            vec![service]
        } else {
            vec![service, "gateway"]
        };
        for port in ports {
            let mut check = |who: &str, client: &Client, path: &str, wanted: Option<u16>| {
                let url = match port {
                    "gateway" if is_admin => format!("{}/operations/{service}{path}", base(port)),
                    _ => format!("{}{path}", base(port)),
                };
                let answer = match method {
                    // What is asked for is nothing that is there: who may is told so.
                    "POST" => client.post(&url, "application/json", "{}"),
                    _ => client.get(&url),
                };
                cells += 1;
                let got = [401, 403].contains(&answer.status).then_some(answer.status);
                if got != wanted {
                    wrong.push(format!(
                        "{method} {path} on {port}, {who}: {}, not {wanted:?}",
                        answer.status
                    ));
                }
            };
            let is_open = needs.scopes.is_empty();
            let nobody = (!is_open).then_some(401);
            check("without a token", &Client::new(), &own, nobody);
            for (kind, token) in world.issuer.bad(OWN, &all_scopes()) {
                check(
                    &format!("with a token {kind}"),
                    &Client::with_token(token),
                    &own,
                    Some(401),
                );
            }
            for scope in Scope::ALL {
                let client = Client::with_token(world.issuer.token(OWN, scope.as_str()));
                let refused = |is_allowed: bool| (!is_allowed).then_some(403);
                check(
                    scope.as_str(),
                    &client,
                    &own,
                    refused(needs.allow(&[scope])),
                );
                if own != other {
                    let allowed = scope != Scope::Own && needs.allow(&[scope]);
                    check(
                        &format!("{scope} of somebody else"),
                        &client,
                        &other,
                        refused(allowed),
                    );
                }
            }
            let all = Client::with_token(world.issuer.token("nobody", &all_scopes()));
            check("with all scopes", &all, &own, None);
        }
    }
    let documented: BTreeSet<String> = ["accounts", "orders"]
        .into_iter()
        .flat_map(|service| {
            let url = match service {
                "accounts" => world.tandem.accounts_url("/openapi.json"),
                _ => world.tandem.orders_url("/openapi.json"),
            };
            let document = Client::new().get(&url).json();
            let paths = document["paths"].as_object().unwrap().clone();
            paths.into_iter().map(|(path, _)| path)
        })
        .collect();
    let tried: BTreeSet<String> = routes()
        .into_iter()
        .map(|route| route.path.to_owned())
        .filter(|path| !path.starts_with("/admin"))
        .collect();
    assert_eq!(
        documented, tried,
        "the documented routes are those of the table"
    );
    let operations: Value = serde_json::from_str(OPERATIONS).unwrap();
    let paths = operations["paths"].as_object().unwrap();
    let documented: BTreeSet<(String, &str)> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(|method| (method.to_uppercase(), path.as_str()))
        })
        .collect();
    let tried: BTreeSet<(String, &str)> = OPERATORS
        .iter()
        .map(|(method, path, _)| ((*method).to_owned(), *path))
        .collect();
    assert_eq!(
        documented, tried,
        "the operator's documented routes are those of the table"
    );
    cells
}
