//! The table of docs/security.md, made from the schema. `cells` tries it.
//!
//! A row is a field, a route, an entity, a command, or a public endpoint. A column is a scope, or no token. The needs
//! of a row come from the committed SDL (`@requiresScopes`) and, for routes, from [`routes`], which is checked against
//! the services' own OpenAPI documents. Commands are checked against the program's own help. A row without a query to
//! try it fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tandem_authentication::Scope;

use super::commands::COMMANDS;
use super::open::OPEN;

const ACCOUNTS: &str = include_str!("../../../schema/accounts.graphql");
const ORDERS: &str = include_str!("../../../schema/orders.graphql");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
const BEGIN: &str = "UPDATE_SECURITY=1 writes it -->\n";
const END: &str = "<!-- end of table -->";
/// Fields that the federation queries, which have no directive: entities are rows of their own, the schema is public.
const FEDERATION: [&str; 2] = ["_entities", "_service"];

/// The root types of operations.
pub const ROOTS: [&str; 3] = ["Query", "Mutation", "Subscription"];

/// The operator's routes of the services, and whether the gateway passes them on.
pub const OPERATORS: [(&str, &str, bool); 21] = [
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
/// Only on accounts.
const AUDIT: &str = "/admin/audit/customer";

/// A REST route or an operator's route.
pub struct Route {
    pub service: &'static str,
    pub method: &'static str,
    pub path: &'static str,
    pub needs: Needs,
}

pub fn routes() -> Vec<Route> {
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

/// What a request needs in order to be executed.
#[derive(Clone, Debug, PartialEq)]
pub struct Needs {
    /// All of these scopes. If there are none, it is public and needs no token.
    pub scopes: Vec<Scope>,
    /// Or `self`, for the subject's own data.
    or_own: bool,
}

impl Needs {
    pub fn is_open(&self) -> bool {
        self.scopes.is_empty()
    }

    /// Whether these scopes suffice for the subject's own data.
    pub fn allow(&self, held: &[Scope]) -> bool {
        self.allow_of_others(held) || (self.or_own && held.contains(&Scope::Own))
    }

    /// Whether these scopes suffice for others' data.
    pub fn allow_of_others(&self, held: &[Scope]) -> bool {
        self.scopes.iter().all(|scope| held.contains(scope))
    }

    /// The cell in the column of a scope, or of no token.
    fn cell(&self, column: Option<Scope>) -> &'static str {
        match (self.scopes.as_slice(), column) {
            ([], _) => "✓",
            (_, None) => "–",
            ([one], Some(scope)) if *one == scope => "✓",
            (several, Some(scope)) if several.contains(&scope) => "with the other",
            (_, Some(Scope::Own)) if self.or_own => "own",
            _ => "–",
        }
    }
}

/// A field of the schema: its service, its type and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    pub service: &'static str,
    pub of: String,
    pub name: String,
}

/// Every field that the SDL guards, and the root fields that it does not guard.
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
            // The arguments may be on lines of their own before it.
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

pub fn all_fields() -> BTreeMap<Field, Needs> {
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
    // As the router queries entities that another subgraph refers to.
    let entity = |service, name: &str, scopes: &[Scope]| {
        let field = Field {
            service,
            of: "_entities".to_owned(),
            name: name.to_owned(),
        };
        let needs = Needs {
            scopes: scopes.to_vec(),
            or_own: !scopes.is_empty(),
        };
        (field, needs)
    };
    all.extend([
        entity("accounts", "Customer", &[Scope::CustomersRead]),
        // Nothing but the id that was sent: orders looks up no customer for it.
        entity("orders", "Customer", &[]),
        entity("orders", "Order", &[Scope::OrdersRead]),
    ]);
    all
}

/// The table in the form of the document.
fn table() -> String {
    let columns = || std::iter::once(None).chain(Scope::ALL.map(Some));
    let mut text = String::from("| | | no token |");
    for scope in Scope::ALL {
        write!(text, " `{scope}` |").unwrap();
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---|".repeat(columns().count()));
    text.push('\n');
    let mut row = |of: &str, name: &str, cell: &dyn Fn(Option<Scope>) -> &'static str| {
        write!(text, "| {of} | `{name}` |").unwrap();
        for column in columns() {
            write!(text, " {} |", cell(column)).unwrap();
        }
        text.push('\n');
    };
    for (field, needs) in all_fields() {
        let name = format!("{}.{}", field.of, field.name);
        row(field.service, &name, &|column| needs.cell(column));
    }
    for route in routes() {
        let name = format!("{} {}", route.method, route.path);
        row(route.service, &name, &|column| route.needs.cell(column));
    }
    for open in OPEN {
        row(&open.ports.join(", "), open.name, &|_| "✓");
    }
    for command in COMMANDS {
        row("command", command.name, &|column| {
            command.decides.cell(column)
        });
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
