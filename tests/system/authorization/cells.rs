//! Tries every cell of the table on one running system: without a token, with each kind of bad token, without the scope
//! and with it. Fields are tried on the service and at the gateway, routes on the service and where the gateway passes
//! them on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};
use tandem_authentication::Scope;

use super::{
    FORBIDDEN, LAST_NAME, OTHER, OWN, UNAUTHENTICATED, World,
    asked::{asked, of_customer},
    clients::{Clients, all_scopes_but, joined},
    code, commands, customer, open,
    table::{Field, Needs, OPERATORS, ROOTS, Route, all_fields, routes},
    tally::Tally,
    transports, verdict,
};
use crate::support::{
    Client, Transport,
    graph::{ADVANCE, CREATE, UPDATE},
    poll,
};

const OPERATIONS: &str = include_str!("../../../schema/openapi/operations.json");

#[test]
fn every_cell_of_the_table_is_allowed_or_refused_as_it_is_written() {
    let world = World::start();
    for order in [&world.own_order, &world.other_order] {
        for to in ["CONFIRMED", "SHIPPED"] {
            world
                .admin
                .data(&world.gateway(), ADVANCE, json!({"id": order, "to": to}));
        }
    }
    let clients = Clients::new(&world.issuer);
    let mut tally = Tally::default();
    check_fields(&world, &clients, &mut tally);
    check_parts_at_the_gateway(&world, &clients, &mut tally);
    check_federation(&world, &clients, &mut tally);
    check_routes(&world, &clients, &mut tally);
    check_that_all_routes_are_rows(&world);
    open::check(&world, &mut tally);
    transports::check(&world, &mut tally);
    // Last, because a rebuild reads the whole stores.
    commands::check(&world, &mut tally);
    tally.close();
}

fn refused(is_allowed: bool) -> Option<&'static str> {
    (!is_allowed).then_some(FORBIDDEN)
}

struct Port<'a> {
    world: &'a World,
    name: &'static str,
    url: String,
}

impl<'a> Port<'a> {
    fn new(world: &'a World, name: &'static str) -> Self {
        Self {
            world,
            name,
            url: format!("{}/graphql", world.base(name)),
        }
    }

    /// Queries a field and returns the code of its refusal.
    fn ask(
        &self,
        client: &Client,
        field: &Field,
        (query, variables): &(String, Value),
    ) -> Option<&'static str> {
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
        // An authorized subscriber gets the next change, so customers are changed until one arrives.
        let answer = poll("an answer to a subscription", || {
            let change = json!({"id": variables["id"], "input": {"name": {
                "firstName": format!("Ada {}", self.world.next()), "lastName": LAST_NAME}}});
            self.world.admin.data(&self.world.gateway(), UPDATE, change);
            updates.next_within(Duration::from_millis(200))
        });
        verdict(&answer)
    }
}

/// Tries every field on its service, and at the gateway if it is a root field.
fn check_fields(world: &World, clients: &Clients, tally: &mut Tally) {
    for (field, needs) in all_fields() {
        let asked = asked(world, &field);
        let is_root = ROOTS.contains(&field.of.as_str());
        let without =
            Client::with_token(world.issuer.token("nobody", &all_scopes_but(&needs.scopes)));
        let mut names = vec![field.service];
        if is_root {
            names.push("gateway");
        }
        for name in names {
            let port = Port::new(world, name);
            let mut check = |who: &str,
                             client: &Client,
                             asked: &(String, Value),
                             wanted: Option<&'static str>| {
                let got = port.ask(client, &field, asked);
                tally.check(|| format!("{field:?} on {}, {who}", port.name), got, wanted);
            };
            let nobody = (!needs.is_open()).then_some(UNAUTHENTICATED);
            check("without a token", &clients.nobody, &asked.own, nobody);
            for (kind, client) in &clients.bad {
                let who = format!("with a token {kind}");
                check(&who, client, &asked.own, Some(UNAUTHENTICATED));
            }
            for scope in Scope::ALL {
                let client = clients.of(scope);
                let own = needs.allow(&[scope]);
                check(scope.as_str(), client, &asked.own, refused(own));
                if let Some(other) = &asked.other {
                    let allowed = needs.allow_of_others(&[scope]);
                    let who = format!("{scope} of somebody else");
                    check(&who, client, other, refused(allowed));
                }
            }
            let is_open = needs.is_open();
            check(
                "all scopes but its own",
                &without,
                &asked.own,
                refused(is_open),
            );
            check("with all scopes", &clients.all, &asked.own, None);
        }
    }
}

/// Tries the parts of a customer at the gateway, on the customer of an order. Each scope is combined with the scope
/// that shows the order.
fn check_parts_at_the_gateway(world: &World, clients: &Clients, tally: &mut Tally) {
    let url = world.gateway();
    let beside: BTreeMap<&str, (Scope, Client)> = Scope::ALL
        .into_iter()
        .map(|scope| {
            let held = joined(&[Scope::OrdersRead, scope]);
            let client = Client::with_token(world.issuer.token(OWN, &held));
            (scope.as_str(), (scope, client))
        })
        .collect();
    for (field, needs) in all_fields() {
        let Some(selection) = of_customer(&field) else {
            continue;
        };
        let query =
            format!("query($id: ID!) {{ order(id: $id) {{ customer {{ id {selection} }} }} }}");
        let part = selection.split(' ').next().unwrap();
        let mut check = |who: &str, client: &Client, order: &str, wanted: Option<&'static str>| {
            let answer = client.graphql(&url, &query, json!({"id": order}));
            let told = || format!("{field:?} of an order at the gateway, {who}");
            tally.check(told, verdict(&answer), wanted);
            let is_shown = !answer["data"]["order"]["customer"][part].is_null();
            let shown = || format!("{}, is answered {answer}", told());
            tally.hold(shown, is_shown == wanted.is_none());
        };
        let nobody = Some(UNAUTHENTICATED);
        check("without a token", &clients.nobody, &world.own_order, nobody);
        for (kind, client) in &clients.bad {
            let who = format!("with a token {kind}");
            check(&who, client, &world.own_order, nobody);
        }
        for (name, (scope, client)) in &beside {
            let held = [Scope::OrdersRead, *scope];
            let own = refused(needs.allow(&held));
            let other = refused(needs.allow_of_others(&held));
            check(
                &format!("orders:read {name}"),
                client,
                &world.own_order,
                own,
            );
            let who = format!("orders:read {name} of somebody else");
            check(&who, client, &world.other_order, other);
        }
    }
}

/// The gateway must not serve the federation's queries, whatever the token. A reference to a customer must show only
/// what was sent.
fn check_federation(world: &World, clients: &Clients, tally: &mut Tally) {
    let entities = "query($references: [_Any!]!) { _entities(representations: $references) { ... on Customer { id } } }";
    let references = |ids: &[&str]| -> Value {
        ids.iter()
            .map(|id| json!({"__typename": "Customer", "id": id}))
            .collect()
    };
    let own = json!({"references": references(&[OWN])});
    for (query, variables) in [(entities, &own), ("{ _service { sdl } }", &json!({}))] {
        let mut check = |who: &str, client: &Client, wanted: &str| {
            let answer = client.graphql(&world.gateway(), query, variables.clone());
            let told = || format!("{query} at the gateway, {who}");
            tally.check(told, code(&answer), Some(wanted));
            tally.hold(told, answer["data"].is_null());
        };
        check("without a token", &clients.nobody, "BAD_USER_INPUT");
        for (kind, client) in &clients.bad {
            check(kind, client, UNAUTHENTICATED);
        }
        for scope in Scope::ALL {
            check(scope.as_str(), clients.of(scope), "BAD_USER_INPUT");
        }
        check("with all scopes", &clients.all, "BAD_USER_INPUT");
    }
    // The response must be the same for customers that exist, were erased, or never existed.
    let erased = "erased-4711";
    let gateway = world.gateway();
    world
        .admin
        .data(&gateway, CREATE, json!({"input": customer(erased)}));
    world.admin.data(
        &gateway,
        "mutation($id: ID!) { eraseCustomer(id: $id) { id } }",
        json!({"id": erased}),
    );
    let ids = [OWN, erased, "never-4711", "no id at all"];
    let expected: Value = ids.iter().map(|id| json!({"id": id})).collect();
    let url = world.tandem.orders_url("/graphql");
    for client in [&clients.nobody, clients.of(Scope::Own), &clients.all] {
        let answer = client.graphql(&url, entities, json!({"references": references(&ids)}));
        tally.check(
            || "references to customers on orders".to_owned(),
            &answer,
            &json!({"data": {"_entities": expected}}),
        );
    }
}

/// Tries every route with every token, on the service, and on the gateway if the route exists there too.
fn check_routes(world: &World, clients: &Clients, tally: &mut Tally) {
    for Route {
        service,
        method,
        path,
        needs,
    } in routes()
    {
        let is_admin = path.starts_with("/admin");
        let is_passed_on = !is_admin || OPERATORS.contains(&(method, path, true));
        let without =
            Client::with_token(world.issuer.token("nobody", &all_scopes_but(&needs.scopes)));
        let mut ports = vec![service];
        if is_passed_on {
            ports.push("gateway");
        }
        for port in ports {
            let base = world.base(port);
            let begin = match port {
                "gateway" if is_admin => format!("{base}/operations/{service}"),
                _ => base,
            };
            let mut check = |who: &str, client: &Client, of: &str, wanted: Option<u16>| {
                let url = format!("{begin}{}", path.replace("{customerId}", of));
                let answer = match method {
                    // The request names nothing that exists, so an authorized caller gets an error about that.
                    "POST" => client.post(&url, "application/json", "{}"),
                    _ => client.get(&url),
                };
                let got = [401, 403].contains(&answer.status).then_some(answer.status);
                tally.check(|| format!("{method} {path} on {port}, {who}"), got, wanted);
            };
            let refused = |is_allowed: bool| (!is_allowed).then_some(403);
            let nobody = (!needs.is_open()).then_some(401);
            check("without a token", &clients.nobody, OWN, nobody);
            for (kind, client) in &clients.bad {
                check(&format!("with a token {kind}"), client, OWN, Some(401));
            }
            for scope in Scope::ALL {
                let client = clients.of(scope);
                check(scope.as_str(), client, OWN, refused(needs.allow(&[scope])));
                if path.contains("{customerId}") {
                    let allowed = refused(needs.allow_of_others(&[scope]));
                    let who = format!("{scope} of somebody else");
                    check(&who, client, OTHER, allowed);
                }
            }
            // Where two scopes are needed, each of them is tried with every other scope.
            for held in pairs(&needs) {
                let scopes = joined(&held);
                let client = Client::with_token(world.issuer.token(OWN, &scopes));
                check(&scopes, &client, OWN, refused(needs.allow(&held)));
                if path.contains("{customerId}") {
                    let allowed = refused(needs.allow_of_others(&held));
                    let who = format!("{scopes} of somebody else");
                    check(&who, &client, OTHER, allowed);
                }
            }
            let is_open = needs.is_open();
            check("all scopes but its own", &without, OWN, refused(is_open));
            check("with all scopes", &clients.all, OWN, None);
        }
    }
}

/// All pairs of scopes, for a field that needs more than one.
fn pairs(needs: &Needs) -> Vec<[Scope; 2]> {
    if needs.scopes.len() < 2 {
        return Vec::new();
    }
    let mut pairs = Vec::new();
    for (place, one) in Scope::ALL.into_iter().enumerate() {
        for other in &Scope::ALL[place + 1..] {
            pairs.push([one, *other]);
        }
    }
    pairs
}

/// The routes of the table must be those that the services document.
fn check_that_all_routes_are_rows(world: &World) {
    let documented: BTreeSet<String> = ["accounts", "orders"]
        .into_iter()
        .flat_map(|service| {
            let url = format!("{}/openapi.json", world.base(service));
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
}
