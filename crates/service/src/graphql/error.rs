//! Errors as GraphQL clients see them. Every error has a code in `extensions.code`; an input error also names its
//! field.
//!
//! Domain crates have their own error types and convert them to an [`ApiError`] at the edge. An error of a resolver
//! that has no code is unexpected: it is logged, and the client learns only that it happened.

mod async_graphql_messages;
mod error_codes;

use std::collections::BTreeMap;
use std::fmt;

use async_graphql::{ErrorExtensionValues, Value};

pub use error_codes::ErrorCodes;

use crate::error_code::ErrorCode;
use tandem_model::request_key::{Request, RequestKey};

/// An error for a client: a code, a message, and data for programs.
///
/// It has no `Display` on purpose: async-graphql converts every type that has one to an error without a code.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The kind of the error.
    pub code: ErrorCode,
    /// What happened and what would be right, for people.
    pub message: String,
    /// The invalid argument or input field, such as `input.addresses[0].city`.
    pub field: Option<String>,
    /// Further members of `extensions`.
    pub extensions: BTreeMap<String, Value>,
}

/// The idempotency key that the client sent as `input.idempotencyKey` of a mutation.
///
/// # Errors
/// If it is not a valid key.
pub fn request_key(request: Request<'_>, given: &str) -> Result<RequestKey, ApiError> {
    RequestKey::new(request, given).map_err(|error| {
        ApiError::bad_user_input("input.idempotencyKey", format!("`idempotencyKey` {error}"))
    })
}

impl ApiError {
    /// An error with any code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            extensions: BTreeMap::new(),
        }
    }

    /// An argument or input field is wrong.
    pub fn bad_user_input(field: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorCode::BAD_USER_INPUT, message);
        error.field = Some(field.into());
        error
    }

    /// The requested object does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NOT_FOUND, message)
    }

    /// The object to create exists already.
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ALREADY_EXISTS, message)
    }

    /// The idempotency key was used before, for a request with different input.
    pub fn key_reused(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::IDEMPOTENCY_KEY_REUSED, message).with_field("input.idempotencyKey")
    }

    /// The expected revision is not the current one. Both go into `extensions`.
    pub fn revision_conflict(expected: u64, actual: u64) -> Self {
        Self::new(
            ErrorCode::REVISION_CONFLICT,
            format!("expected revision {expected}, but the present one is {actual}; read again and decide anew"),
        )
        .with("expectedRevision", expected)
        .with("actualRevision", actual)
    }

    /// The request has no valid credentials.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::UNAUTHENTICATED, message)
    }

    /// The credentials are valid, but do not give enough rights.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::FORBIDDEN, message)
    }

    /// A store or Kafka is unavailable.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::UNAVAILABLE, message)
    }

    /// An internal error: the cause is logged, and the client learns only that it happened.
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(ErrorCode::INTERNAL, INTERNAL_MESSAGE)
    }

    /// Names the invalid field.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Adds a member to `extensions`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.into(), value.into());
        self
    }
}

const INTERNAL_MESSAGE: &str = "the service failed to answer; its log says why";

impl From<ApiError> for async_graphql::Error {
    fn from(error: ApiError) -> Self {
        let mut extensions = ErrorExtensionValues::default();
        for (name, value) in error.extensions {
            extensions.set(name, value);
        }
        extensions.set("code", error.code.as_str());
        if let Some(field) = error.field {
            extensions.set("field", field);
        }
        Self {
            message: error.message,
            source: None,
            extensions: Some(extensions),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use async_graphql::{
        EmptySubscription, Enum, InputObject, Object, Schema, Subscription, Variables,
    };
    use futures::{Stream, StreamExt};
    use serde_json::json;

    use super::*;
    use crate::graphql::{DateTime, Limits, guard};

    #[derive(InputObject)]
    struct CustomerInput {
        name: String,
        addresses: Vec<AddressInput>,
        since: Option<DateTime>,
    }

    #[derive(InputObject)]
    struct AddressInput {
        #[graphql(name = "type")]
        kind: Kind,
        city: String,
    }

    #[derive(Enum, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Billing,
        Shipping,
    }

    struct Query;

    #[Object]
    impl Query {
        async fn ok(&self) -> bool {
            true
        }
        async fn create(&self, input: CustomerInput) -> String {
            input
                .addresses
                .into_iter()
                .filter(|address| address.kind == Kind::Billing)
                .map(|address| address.city)
                .chain([input.name])
                .chain(input.since.map(|since| since.0.to_string()))
                .collect()
        }
        async fn stale(&self) -> async_graphql::Result<bool> {
            Err(ApiError::revision_conflict(3, 4))?
        }
        async fn wrong(&self) -> async_graphql::Result<bool> {
            Err(ApiError::bad_user_input("input.city", "empty").into())
        }
        async fn accident(&self) -> async_graphql::Result<bool> {
            Err("password=secret".into())
        }
        async fn nested(&self) -> Query {
            Query
        }
    }

    struct Updates;

    #[Subscription]
    impl Updates {
        async fn lagging(&self) -> impl Stream<Item = async_graphql::Result<bool>> {
            futures::stream::iter([
                Ok(true),
                Err(ApiError::new(ErrorCode("SUBSCRIPTION_LAGGED"), "too slow")
                    .with("cursor", "abc")
                    .into()),
            ])
        }
    }

    async fn error_of(query: &str, variables: serde_json::Value) -> serde_json::Value {
        let limits = Limits {
            depth: 4,
            ..Limits::default()
        };
        let schema = guard(
            Schema::build(Query, async_graphql::EmptyMutation, EmptySubscription),
            limits,
        )
        .finish();
        let request = async_graphql::Request::new(query).variables(Variables::from_json(variables));
        let response = schema.execute(request).await;
        let json = serde_json::to_value(&response).unwrap();
        json["errors"][0].clone()
    }

    #[tokio::test]
    async fn an_api_error_brings_its_code_and_what_else_a_program_needs() {
        let error = error_of("{ stale }", json!({})).await;
        assert_eq!(error["extensions"]["code"], "REVISION_CONFLICT");
        assert_eq!(error["extensions"]["actualRevision"], 4);
        let error = error_of("{ wrong }", json!({})).await;
        assert_eq!(
            error["extensions"],
            json!({"code": "BAD_USER_INPUT", "field": "input.city"})
        );
    }

    #[tokio::test]
    async fn an_accident_is_internal_and_keeps_its_text_to_itself() {
        let error = error_of("{ accident }", json!({})).await;
        assert_eq!(error["extensions"]["code"], "INTERNAL");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn what_the_graphql_layer_refuses_is_bad_user_input() {
        for query in [
            "{ ok",
            "{ unknown }",
            "{ create }",
            "{ nested { nested { nested { nested { ok } } } } }",
        ] {
            let error = error_of(query, json!({})).await;
            assert_eq!(
                error["extensions"]["code"], "BAD_USER_INPUT",
                "{query}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn a_wrong_input_value_is_named_by_its_path() {
        const CREATE: &str = "query($input: CustomerInput!) { create(input: $input) }";
        let billing = json!({"type": "BILLING", "city": "B"});
        for (input, field) in [
            (json!({"name": 5, "addresses": []}), "input.name"),
            (json!({"addresses": []}), "input.name"),
            (
                json!({"name": "A", "addresses": [billing, {"type": "HOME", "city": "B"}]}),
                "input.addresses[1].type",
            ),
            (
                json!({"name": "A", "addresses": [{"type": "SHIPPING"}]}),
                "input.addresses[0].city",
            ),
            (json!({"name": "A", "addresses": [], "age": 5}), "input.age"),
        ] {
            let error = error_of(CREATE, json!({"input": input})).await;
            assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{error}");
            assert_eq!(error["extensions"]["field"], field, "{error}");
        }
    }

    #[tokio::test]
    async fn a_scalar_that_cannot_be_read_is_bad_user_input() {
        let error = error_of(
            r#"{ create(input: {name: "A", addresses: [], since: "yesterday"}) }"#,
            json!({}),
        )
        .await;
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{error}");
        assert!(error["message"].as_str().unwrap().contains("RFC 3339"));
    }

    #[tokio::test]
    async fn a_missing_variable_is_bad_user_input() {
        let error = error_of(
            "query($input: CustomerInput!) { create(input: $input) }",
            json!({}),
        )
        .await;
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{error}");
        assert_eq!(error["extensions"]["field"], "input", "{error}");
    }

    #[tokio::test]
    async fn a_missing_argument_is_named() {
        let error = error_of("{ create }", json!({})).await;
        assert_eq!(
            error["extensions"],
            json!({"code": "BAD_USER_INPUT", "field": "input"})
        );
    }

    #[tokio::test]
    async fn errors_of_subscriptions_have_codes_too() {
        let schema = guard(
            Schema::build(Query, async_graphql::EmptyMutation, Updates),
            Limits::default(),
        )
        .finish();
        let last = schema
            .execute_stream("subscription { lagging }")
            .collect::<Vec<_>>()
            .await
            .pop()
            .unwrap();
        let json = serde_json::to_value(&last).unwrap();
        assert_eq!(
            json["errors"][0]["extensions"],
            json!({"code": "SUBSCRIPTION_LAGGED", "cursor": "abc"})
        );
        let refused = schema
            .execute_stream("subscription { unknown }")
            .next()
            .await
            .unwrap();
        let json = serde_json::to_value(&refused).unwrap();
        assert_eq!(json["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
    }
}
