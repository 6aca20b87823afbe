//! The mutations of customers. Each checks the caller's scope, makes a command from the input, and calls [`Customers`].

use async_graphql::{Context, ID, InputType, Object, Result};
use serde_json::json;
use tandem_authentication::Scope;
use tandem_model::aggregate::Aggregate;
use tandem_model::request_key::{Request, RequestKey};
use tandem_runtime::{consistency::Kind, trace_context::TraceContext};
use tandem_service::graphql::{ApiError, Caller, request_key, require, require_or_own, wrote};

use super::{
    failure,
    inputs::{CreateCustomerInput, UpdateCustomerInput, each},
    shown::require_shown,
    types::{Customer, CustomerPayload, EraseCustomerPayload},
};
use crate::{
    customers::{Customers, NewCustomer, Origin, former_name},
    domain::{CustomerId, UpdateCustomer},
};

/// The parts that the creator of a customer gives.
const ALL_PARTS: [&str; 4] = ["name", "contact", "addresses", "creditCards"];

#[derive(Debug)]
pub struct Mutation;

#[Object]
impl Mutation {
    /// Creates a customer. Without `id` the service assigns one. An id in use: code ALREADY_EXISTS.
    #[graphql(requires_scopes = "customers:write")]
    async fn create_customer(
        &self,
        ctx: &Context<'_>,
        mut input: CreateCustomerInput,
    ) -> Result<CustomerPayload> {
        require(ctx, Scope::CustomersWrite)?;
        let own_id = input.id.as_deref().map(String::as_str);
        require_shown(ctx, own_id, &ALL_PARTS)?;
        let origin = origin(ctx);
        let key = input.idempotency_key.take().map(|given| {
            let asked = json!({ "input": input.to_value() });
            key(&origin, "createCustomer", "", &asked, &given)
        });
        let key = key.transpose()?;
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
        wrote(
            ctx,
            Kind::Customer,
            created.customer_id().as_str(),
            created.revision(),
        );
        Ok(CustomerPayload {
            customer: Customer(created),
        })
    }

    /// Changes the given parts, leaves the rest. `expectedRevision` given and stale: code REVISION_CONFLICT. No such customer: NOT_FOUND.
    #[graphql(requires_scopes = "customers:write", requires_scopes = "self")]
    async fn update_customer(
        &self,
        ctx: &Context<'_>,
        id: ID,
        mut input: UpdateCustomerInput,
        expected_revision: Option<i64>,
    ) -> Result<CustomerPayload> {
        require_or_own(ctx, Scope::CustomersWrite, &id)?;
        require_shown(ctx, Some(id.as_str()), &input.given())?;
        let origin = origin(ctx);
        let id = parse_id(&id, "id")?;
        let expected_revision = expected(expected_revision)?;
        let key = input.idempotency_key.take().map(|given| {
            let asked = json!({ "input": input.to_value(), "expectedRevision": expected_revision });
            key(&origin, "updateCustomer", id.as_str(), &asked, &given)
        });
        let key = key.transpose()?;
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
        wrote(
            ctx,
            Kind::Customer,
            updated.customer_id().as_str(),
            updated.revision(),
        );
        Ok(CustomerPayload {
            customer: Customer(updated),
        })
    }

    /// Makes all personal data of a customer unreadable, in the log too; it cannot be undone. The customer is then null
    /// everywhere, orders stay without address, the id is never used again. Again: the same answer. No such customer: NOT_FOUND.
    #[graphql(requires_scopes = "customers:erase")]
    async fn erase_customer(&self, ctx: &Context<'_>, id: ID) -> Result<EraseCustomerPayload> {
        require(ctx, Scope::CustomersErase)?;
        let id = parse_id(&id, "id")?;
        let stub = ctx
            .data::<Customers>()?
            .erase(&id, &origin(ctx))
            .await
            .map_err(|error| failure::of_command(error, "input"))?;
        wrote(
            ctx,
            Kind::Customer,
            stub.customer_id().as_str(),
            stub.revision(),
        );
        Ok(EraseCustomerPayload {
            id: stub.customer_id().as_str().into(),
            erased_at: stub.updated_at().into(),
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

fn key(
    origin: &Origin,
    operation: &str,
    target: &str,
    input: &serde_json::Value,
    given: &str,
) -> Result<RequestKey, ApiError> {
    let request = Request {
        caller: &origin.by,
        operation,
        target,
        input,
    };
    let key = request_key(request, given)?;
    Ok(key.also_known_as(former_name(&origin.by, given)))
}

fn expected(revision: Option<i64>) -> Result<Option<i64>, ApiError> {
    match revision {
        Some(revision) if revision < 1 => Err(ApiError::bad_user_input(
            "expectedRevision",
            "`expectedRevision` is less than 1; the first revision of a customer is 1",
        )),
        revision => Ok(revision),
    }
}

fn parse_id(id: &ID, field: &str) -> Result<CustomerId, ApiError> {
    CustomerId::parse(id.as_str())
        .map_err(|violation| ApiError::bad_user_input(field, violation.to_string()))
}
