//! What can be read, and how the gateway asks for the customers that other subgraphs name.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result};
use tandem_authentication::Scope;
use tandem_event_path::store::{self, AggregateStore, Filter, StoreError};
use tandem_model::aggregate::Aggregate;
use tandem_service::graphql::{
    Connection, PageRequest, access, connection, refuse_access, require_or_own,
};

use super::{failure, loaders::Loaders, types::Customer};
use crate::domain::{self, CustomerId};

#[derive(Debug)]
pub struct Query;

#[Object]
impl Query {
    /// Strongly consistent read of the system of record. null when there is none.
    #[graphql(requires_scopes = "customers:read", requires_scopes = "self")]
    async fn customer(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Customer>> {
        find(ctx, &id).await
    }

    /// Relay connection, ordered by id. `first` 1..100. With the scope `self` alone, of the caller's own customer.
    #[graphql(requires_scopes = "customers:read", requires_scopes = "self")]
    async fn customers(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<String, Customer>> {
        let page = PageRequest::<String>::new(first, after.as_deref())?;
        let access = access(ctx);
        let own = access
            .narrowed_to(Scope::CustomersRead)
            .map_err(refuse_access)?;
        if let Some(own) = own {
            let is_ahead = page.after.as_deref().is_none_or(|after| own > after);
            let customer = find(ctx, &ID::from(own)).await?.filter(|_| is_ahead);
            let customers = customer
                .into_iter()
                .map(|customer| (own.to_owned(), customer));
            return Ok(connection(&page, customers.collect()));
        }
        let store = ctx.data::<Arc<dyn AggregateStore<domain::Customer>>>()?;
        let customers = present_customers(store.as_ref(), page.after.clone(), page.fetch_limit())
            .await
            .map_err(|error| failure::of_store(&error))?
            .into_iter()
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

/// A page of those who have not been erased.
async fn present_customers(
    store: &dyn AggregateStore<domain::Customer>,
    mut after: Option<String>,
    limit: usize,
) -> Result<Vec<domain::Customer>, StoreError> {
    let mut present = Vec::with_capacity(limit);
    loop {
        let request = store::PageRequest {
            filter: Filter::all(),
            after,
            limit: limit - present.len(),
        };
        let wanted = request.limit;
        let page: Vec<domain::Customer> = store
            .pages(&[request])
            .await?
            .into_iter()
            .flatten()
            .collect();
        let was_full = page.len() >= wanted;
        after = page.last().map(|last| last.id().to_owned());
        present.extend(page.into_iter().filter(|customer| !customer.is_erased()));
        if !was_full || present.len() >= limit {
            return Ok(present);
        }
    }
}

async fn find(ctx: &Context<'_>, id: &ID) -> Result<Option<Customer>> {
    require_or_own(ctx, Scope::CustomersRead, id)?;
    // What cannot be an id is nobody's.
    let Ok(id) = CustomerId::parse(id.as_str()) else {
        return Ok(None);
    };
    let found = ctx
        .data::<Loaders>()?
        .customer(id)
        .await
        .map_err(|error| failure::of_store(&error))?;
    // Of an erased customer only a stub is kept, which is nobody to a reader.
    Ok(found.filter(|found| !found.is_erased()).map(Customer))
}
