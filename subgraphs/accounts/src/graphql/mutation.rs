//! What can be changed.

use async_graphql::{Context, ID, Object, Result};
use tandem_kit::{
    graphql::{ApiError, Caller},
    trace_context::TraceContext,
};

use super::{
    failure,
    inputs::{CreateCustomerInput, UpdateCustomerInput, each},
    types::{Customer, CustomerPayload, EraseCustomerPayload},
};
use crate::{
    customers::{Customers, IdempotencyKey, NewCustomer, Origin},
    domain::{CustomerId, UpdateCustomer},
};

#[derive(Debug)]
pub struct Mutation;

#[Object]
impl Mutation {
    /// Creates a customer. Without `id` the service assigns one. An id in use: code ALREADY_EXISTS.
    async fn create_customer(
        &self,
        ctx: &Context<'_>,
        input: CreateCustomerInput,
    ) -> Result<CustomerPayload> {
        let origin = origin(ctx);
        let key = key(&origin, input.idempotency_key.as_deref())?;
        let id = input.id.map(|id| parse_id(&id, "input.id")).transpose()?;
        let customer = NewCustomer {
            id,
            name: input.name.into(),
            contact: input.contact.into(),
            addresses: each(input.addresses),
            credit_cards: each(input.credit_cards),
        };
        let created = ctx
            .data::<Customers>()?
            .create(customer, key, &origin)
            .await
            .map_err(|error| failure::of_command(error, "input"))?;
        Ok(CustomerPayload {
            customer: Customer(created),
        })
    }

    /// Changes the given parts, leaves the rest. `expectedRevision` given and stale: code REVISION_CONFLICT. No such customer: NOT_FOUND.
    async fn update_customer(
        &self,
        ctx: &Context<'_>,
        id: ID,
        input: UpdateCustomerInput,
        expected_revision: Option<i64>,
    ) -> Result<CustomerPayload> {
        let origin = origin(ctx);
        let key = key(&origin, input.idempotency_key.as_deref())?;
        let id = parse_id(&id, "id")?;
        let command = UpdateCustomer {
            name: input.name.map(Into::into),
            contact: input.contact.map(Into::into),
            addresses: input.addresses.map(each),
            credit_cards: input.credit_cards.map(each),
        };
        let updated = ctx
            .data::<Customers>()?
            .update(&id, command, expected_revision, key, &origin)
            .await
            .map_err(|error| failure::of_command(error, "input"))?;
        Ok(CustomerPayload {
            customer: Customer(updated),
        })
    }

    /// Makes all personal data of a customer unreadable, in the log too; it cannot be undone. The customer is then null
    /// everywhere, orders stay without address, the id is never used again. Again: the same answer. No such customer: NOT_FOUND.
    async fn erase_customer(&self, ctx: &Context<'_>, id: ID) -> Result<EraseCustomerPayload> {
        let id = parse_id(&id, "id")?;
        let stub = ctx
            .data::<Customers>()?
            .erase(&id, &origin(ctx))
            .await
            .map_err(|error| failure::of_command(error, "input"))?;
        Ok(EraseCustomerPayload {
            id: stub.customer_id().as_str().into(),
            erased_at: stub.updated_at(),
        })
    }
}

fn origin(ctx: &Context<'_>) -> Origin {
    let caller = ctx.data_opt::<Caller>().cloned().unwrap_or_default();
    Origin {
        by: caller.as_str().to_owned(),
        trace: ctx.data_opt::<TraceContext>().copied(),
    }
}

fn key(origin: &Origin, given: Option<&str>) -> Result<Option<IdempotencyKey>, ApiError> {
    let field = "input.idempotencyKey";
    given
        .map(|given| IdempotencyKey::new(&origin.by, given))
        .transpose()
        .map_err(|error| ApiError::bad_user_input(field, format!("idempotencyKey {error}")))
}

fn parse_id(id: &ID, field: &str) -> Result<CustomerId, ApiError> {
    CustomerId::parse(id.as_str())
        .map_err(|violation| ApiError::bad_user_input(field, violation.to_string()))
}
