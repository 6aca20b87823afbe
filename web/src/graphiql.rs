//! GraphiQL, built from `web/graphiql`, as each graph serves it.
//!
//! Its files are below /graphql, so that an ingress that lets this path through lets the page work.

use crate::{File, Graph};

/// Only this origin: a page that would load anything from elsewhere breaks at once instead of quietly needing the internet. Its
/// libraries set styles of their own.
pub const GRAPHIQL_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                                   font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page loads.
pub const GRAPHIQL_FILES: [File; 4] = [
    File::new(
        "/graphql/ui/libraries.js",
        "text/javascript; charset=utf-8",
        include_str!("../graphiql/dist/libraries.js"),
    ),
    File::new(
        "/graphql/ui/graphiql.js",
        "text/javascript; charset=utf-8",
        include_str!("../graphiql/dist/graphiql.js"),
    ),
    File::new(
        "/graphql/ui/graphiql.css",
        "text/css; charset=utf-8",
        include_str!("../graphiql/dist/graphiql.css"),
    ),
    File::new(
        "/graphql/ui/LICENSES.txt",
        "text/plain; charset=utf-8",
        include_str!("../graphiql/dist/LICENSES.txt"),
    ),
];

/// The page for `GET /graphql` of a graph.
#[must_use]
pub fn graphiql(graph: Graph) -> String {
    include_str!("../graphiql/index.html").replace("{graph}", graph.name())
}
