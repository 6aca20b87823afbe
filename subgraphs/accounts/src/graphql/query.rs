//! The queries of customers, and the entity resolver that the gateway calls for customers that other subgraphs name.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result};
use tandem_authentication::Scope;
use tandem_event_path::store::{self, AggregateStore, Filter, StoreError};
use tandem_model::aggregate::Aggregate;
use tandem_service::graphql::{
    ApiError, Connection, PageRequest, TextKey, TextList, access, beside, beside_entity,
    connection, refuse_access, require_or_own,
};

use super::{failure, loaders::Loaders, types::Customer};
use crate::{
    customers::Customers,
    domain::{self, CustomerId},
};

/// All customers, ordered by id.
pub(super) struct AllCustomers;

impl TextList for AllCustomers {
    const NAME: &'static str = "customers";

    fn may_have(id: &str) -> bool {
        CustomerId::parse(id).is_ok()
    }
}

#[derive(Debug)]
pub struct Query;

#[Object]
impl Query {
    /// Strongly consistent read of the system of record. null when there is none.
    #[graphql(requires_scopes = "customers:read", requires_scopes = "self")]
    async fn customer(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Customer>> {
        Ok(find(ctx, &id).await?)
    }

    /// Relay connection, ordered by id. `first` 1..100. With the scope `self` alone, of the caller's own customer.
    #[graphql(requires_scopes = "customers:read", requires_scopes = "self")]
    async fn customers(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<TextKey<AllCustomers>, Customer>> {
        let page = PageRequest::<TextKey<AllCustomers>>::new(first, after.as_deref())?;
        let access = access(ctx);
        let own = access
            .narrowed_to(Scope::CustomersRead)
            .map_err(refuse_access)?;
        if let Some(own) = own {
            let is_ahead = page.after.as_ref().is_none_or(|it| own > it.id.as_str());
            let customer = find(ctx, &ID::from(own)).await?.filter(|_| is_ahead);
            let customers = customer
                .into_iter()
                .map(|customer| (TextKey::new(own), customer));
            return Ok(connection(&page, customers.collect()));
        }
        let store = ctx.data::<Arc<dyn AggregateStore<domain::Customer>>>()?;
        // The gate is read before the store: if the store was filled by then, it lacks nothing that the log has.
        let is_filling = !ctx.data::<Customers>()?.gate().is_open();
        let after = page.after.as_ref().map(|it| it.id.clone());
        let customers = present_customers(store.as_ref(), after, page.fetch_limit())
            .await
            .map_err(|error| failure::of_store(&error))?
            .into_iter()
            .map(|customer| (TextKey::new(customer.id()), Customer(customer)))
            .collect();
        if is_filling {
            beside(ctx, failure::filling());
        }
        Ok(connection(&page, customers))
    }

    /// A customer that another subgraph names; null when there is none.
    #[graphql(entity)]
    async fn find_customer_by_id(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Customer>> {
        match find(ctx, &id).await {
            Err(error) if error == failure::filling() => {
                beside_entity(ctx, "Customer", &id, error);
                Ok(None)
            }
            found => Ok(found?),
        }
    }
}

/// The maximum number of customers in one read, for lists in which many erased customers follow one another.
const MOST_AT_ONCE: usize = 1_000;

/// A page of customers who have not been erased. A read that finds too few of them is followed by one that is at least
/// twice as large.
async fn present_customers(
    store: &dyn AggregateStore<domain::Customer>,
    mut after: Option<String>,
    limit: usize,
) -> Result<Vec<domain::Customer>, StoreError> {
    let mut present = Vec::with_capacity(limit);
    let (mut wanted, mut at_least) = (limit, 0);
    loop {
        let request = store::PageRequest {
            filter: Filter::all(),
            after,
            limit: wanted,
        };
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
            present.truncate(limit);
            return Ok(present);
        }
        wanted = at_least.max(limit - present.len());
        at_least = (2 * wanted).min(MOST_AT_ONCE);
    }
}

async fn find(ctx: &Context<'_>, id: &ID) -> Result<Option<Customer>, ApiError> {
    require_or_own(ctx, Scope::CustomersRead, id)?;
    // A text that is no valid id belongs to no customer.
    let Ok(id) = CustomerId::parse(id.as_str()) else {
        return Ok(None);
    };
    let found = ctx
        .data_opt::<Loaders>()
        .ok_or_else(|| ApiError::internal("an operation without its loaders"))?
        .customer(id)
        .await?;
    // Only a stub is kept of an erased customer. For a reader there is no such customer.
    Ok(found.filter(|found| !found.is_erased()).map(Customer))
}
