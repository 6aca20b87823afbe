//! What can be read, and how the gateway asks for the customers that other subgraphs name.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result};
use tandem_kit::{
    aggregate::Aggregate,
    graphql::{Connection, PageRequest, connection},
    store::{self, AggregateStore, Filter},
};

use super::{failure, loaders::Loaders, types::Customer};
use crate::domain::{self, CustomerId};

#[derive(Debug)]
pub struct Query;

#[Object]
impl Query {
    /// Strongly consistent read of the system of record. null when there is none.
    async fn customer(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Customer>> {
        find(ctx, &id).await
    }

    /// Relay connection, ordered by id. `first` 1..100.
    async fn customers(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<String, Customer>> {
        let page = PageRequest::<String>::new(first, after.as_deref())?;
        let request = store::PageRequest {
            filter: Filter::all(),
            after: page.after.clone(),
            limit: page.fetch_limit(),
        };
        let found = ctx
            .data::<Arc<dyn AggregateStore<domain::Customer>>>()?
            .pages(&[request])
            .await
            .map_err(|error| failure::of_store(&error))?;
        let customers = found
            .into_iter()
            .flatten()
            .map(|customer| (customer.id().to_owned(), Customer(customer)))
            .collect();
        Ok(connection(&page, customers))
    }

    /// A customer that another subgraph names; null when there is none.
    #[graphql(entity)]
    async fn find_customer_by_id(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Customer>> {
        find(ctx, &id).await
    }
}

async fn find(ctx: &Context<'_>, id: &ID) -> Result<Option<Customer>> {
    // What cannot be an id is nobody's.
    let Ok(id) = CustomerId::parse(id.as_str()) else {
        return Ok(None);
    };
    let found = ctx
        .data::<Loaders>()?
        .customer(id)
        .await
        .map_err(|error| failure::of_store(&error))?;
    Ok(found.map(Customer))
}
