//! The accounts subgraph of the federated graph: names and nullability as clients rely on them.

mod failure;
mod inputs;
mod loaders;
mod mutation;
mod query;
mod shown;
mod types;

use std::sync::Arc;

use async_graphql::{Data, EmptySubscription, SDLExportOptions, Schema};
use tandem_event_path::{
    commands::Gate,
    store::{AggregateStore, ChangeLog},
};
use tandem_runtime::clock::Clock;
use tandem_service::graphql::{
    Limits, guard,
    sdl::{Declared, with_access},
};

pub use self::loaders::Loaders;
use self::{mutation::Mutation, query::Query};
use crate::{customers::Customers, domain::Customer};

/// The subgraph's schema.
pub type AccountsSchema = Schema<Query, Mutation, EmptySubscription>;

/// The schema with what its resolvers need. Each operation needs the data of [`operation_data`] besides.
#[must_use]
pub fn schema(
    customers: Customers,
    store: Arc<dyn AggregateStore<Customer>>,
    limits: Limits,
) -> AccountsSchema {
    guard(
        Schema::build(Query, Mutation, EmptySubscription).enable_federation(),
        limits,
    )
    .data(customers)
    .data(store)
    .finish()
}

/// Puts fresh loaders into an operation's data, so that what it reads is read in batches and kept no longer than it runs.
/// While the gate is closed, what is missing may be in the log.
pub fn operation_data(
    store: Arc<dyn AggregateStore<Customer>>,
    log: Arc<dyn ChangeLog>,
    gate: Gate,
    clock: Clock,
) -> impl Fn(&mut Data) + Send + Sync + 'static {
    move |data| {
        data.insert(Loaders::new(
            Arc::clone(&store),
            Arc::clone(&log),
            gate.clone(),
            clock.clone(),
        ));
    }
}

/// The subgraph's SDL, as committed at `schema/accounts.graphql`.
#[must_use]
pub fn sdl() -> String {
    let schema = Schema::build(Query, Mutation, EmptySubscription)
        .enable_federation()
        .finish();
    let sdl = schema.sdl_with_options(
        SDLExportOptions::new()
            .federation()
            .prefer_single_line_descriptions(),
    );
    let declared = Declared {
        authenticated: &["Customer"],
        subscriptions: &[],
    };
    with_access(&sdl, declared)
}
