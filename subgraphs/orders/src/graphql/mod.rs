//! The GraphQL schema of the orders subgraph.
//!
//! Resolvers only translate. Decisions and storage are in other modules. Every read of a store goes through
//! [`Loaders`], so that an operation on many customers or orders reads each store once.

use std::sync::Arc;

use async_graphql::{SDLExportOptions, Schema};
use tandem_event_path::store::ChangeLog;
use tandem_service::graphql::{
    Limits, guard,
    sdl::{Declared, with_access},
};

mod customer;
mod entities;
mod error;
mod feed_item;
#[cfg(test)]
mod filling_tests;
mod input;
mod loaders;
mod mutation;
mod order;
mod query;
mod rendering;
mod shown;
mod subscription;
#[cfg(test)]
mod tests;

pub use loaders::Loaders;
pub use mutation::Mutation;
pub use query::Query;
use rendering::Renderer;
pub use subscription::Subscription;

use crate::{commands::OrderCommands, live::Live, replica::Replica};

/// The schema of the subgraph.
pub type OrdersSchema = Schema<Query, Mutation, Subscription>;

/// The services that resolvers call. Clones share them.
#[derive(Clone)]
pub struct Backing {
    /// The commands on orders, and the store of orders.
    pub commands: OrderCommands,
    /// The replica of customers.
    pub replica: Replica,
    /// The audit trail of orders.
    pub changes: Arc<dyn ChangeLog>,
    /// The live feeds of changes.
    pub live: Live,
}

impl Backing {
    /// Creates loaders for one operation.
    #[must_use]
    pub fn loaders(&self) -> Loaders {
        Loaders::new(
            Arc::clone(self.replica.store()),
            Arc::clone(self.commands.store()),
            Arc::clone(&self.changes),
            self.commands.gate(),
        )
    }
}

/// The schema on these stores. Resolvers find their [`Loaders`] in the data of the operation.
#[must_use]
pub fn schema(backing: Backing) -> OrdersSchema {
    guard(builder(), Limits::default())
        .data(Renderer::new(backing.clone()))
        .data(backing)
        .finish()
}

fn builder() -> async_graphql::SchemaBuilder<Query, Mutation, Subscription> {
    Schema::build(Query, Mutation, Subscription)
        .enable_federation()
        .enable_subscription_in_federation()
}

/// The SDL that is composed into the supergraph.
#[must_use]
pub fn sdl() -> String {
    let options = SDLExportOptions::new()
        .federation()
        .prefer_single_line_descriptions();
    let text = builder().finish().sdl_with_options(options);
    let declared = Declared {
        authenticated: &["Customer", "Order"],
        subscriptions: &[
            ("orderUpdated", "orders:read"),
            ("orderFeed", "orders:read"),
            ("customerUpdated", "customers:read"),
            ("customerFeed", "customers:read"),
        ],
    };
    with_access(&text, declared)
}
