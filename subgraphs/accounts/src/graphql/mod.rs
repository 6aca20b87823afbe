//! The accounts subgraph of the federated graph. Clients rely on its names and nullability.

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

/// The schema with the data that its resolvers need. Each operation also needs the data of [`operation_data`].
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

/// Adds fresh loaders to the data of an operation. So its reads are batched, and nothing is cached longer than the
/// operation runs. While the gate is closed, a missing customer may still be in the log.
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
