//! Errors as GraphQL clients see them: every one has a code in `extensions.code`, a wrong input its field beside it.
//!
//! Domain crates have error types of their own and turn them into an [`ApiError`] at the edge. What has no code and comes
//! from a resolver is an accident: it is logged, and the client learns only that it happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_graphql::extensions::{
    Extension, ExtensionContext, ExtensionFactory, NextRequest, NextSubscribe,
};
use async_graphql::{ErrorExtensionValues, Response, ServerError, Value};
use futures::StreamExt;
use futures::stream::BoxStream;

/// What kind of error it is: `extensions.code`. Clients rely on these; none may be renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// An argument or input field is wrong; `extensions.field` says which.
    BadUserInput,
    /// What was asked for does not exist.
    NotFound,
    /// What was to be created exists.
    AlreadyExists,
    /// The expected revision is not the present one.
    RevisionConflict,
    /// Orders knows no such customer.
    CustomerUnknown,
    /// The order cannot go from its status to that one.
    InvalidTransition,
    /// The replica does not yet hold the revision that was asked for.
    ReplicaBehind,
    /// The subscriber was too slow; `extensions.cursor` says where to resume.
    SubscriptionLagged,
    /// No valid credentials.
    Unauthenticated,
    /// Valid credentials, not enough rights.
    Forbidden,
    /// A store or Kafka is away; asking again later may work.
    Unavailable,
    /// An accident; the service's log says which.
    Internal,
}

impl ErrorCode {
    /// The code as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadUserInput => "BAD_USER_INPUT",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::RevisionConflict => "REVISION_CONFLICT",
            Self::CustomerUnknown => "CUSTOMER_UNKNOWN",
            Self::InvalidTransition => "INVALID_TRANSITION",
            Self::ReplicaBehind => "REPLICA_BEHIND",
            Self::SubscriptionLagged => "SUBSCRIPTION_LAGGED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An error that a client may see: code, sentence, and what a program needs beside them.
///
/// It has no `Display`, on purpose: async-graphql turns whatever has one into an error without a code.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// What kind of error it is.
    pub code: ErrorCode,
    /// What happened and what would be right, for a person.
    pub message: String,
    /// The argument or input field that is wrong, such as `input.addresses[0].city`.
    pub field: Option<String>,
    /// What else goes into `extensions`.
    pub extensions: BTreeMap<String, Value>,
}

impl ApiError {
    /// An error of any code.
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
        let mut error = Self::new(ErrorCode::BadUserInput, message);
        error.field = Some(field.into());
        error
    }

    /// What was asked for does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// What was to be created exists.
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::AlreadyExists, message)
    }

    /// The expected revision is not the present one; both go into `extensions`.
    pub fn revision_conflict(expected: u64, actual: u64) -> Self {
        Self::new(
            ErrorCode::RevisionConflict,
            format!("expected revision {expected}, but the present one is {actual}; read again and decide anew"),
        )
        .with("expectedRevision", expected)
        .with("actualRevision", actual)
    }

    /// Orders knows no such customer.
    pub fn customer_unknown(customer_id: &str) -> Self {
        Self::new(
            ErrorCode::CustomerUnknown,
            format!("orders knows no customer `{customer_id}`; create it first"),
        )
    }

    /// The order cannot go from its status to that one.
    pub fn invalid_transition(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidTransition, message)
    }

    /// The replica does not yet hold the revision that was asked for.
    pub fn replica_behind(wanted: u64, actual: Option<u64>) -> Self {
        let has = actual.map_or("nothing yet".to_owned(), |revision| {
            format!("revision {revision}")
        });
        let error = Self::new(
            ErrorCode::ReplicaBehind,
            format!(
                "revision {wanted} was asked for, the replica holds {has}; ask again in a moment"
            ),
        );
        match actual {
            Some(actual) => error.with("actualRevision", actual),
            None => error,
        }
    }

    /// The subscriber was too slow; it may resume behind `cursor`.
    pub fn subscription_lagged(cursor: impl Into<String>) -> Self {
        Self::new(
            ErrorCode::SubscriptionLagged,
            "updates came faster than they were taken; subscribe again with `after` set to `extensions.cursor`",
        )
        .with("cursor", cursor.into())
    }

    /// No valid credentials.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unauthenticated, message)
    }

    /// Valid credentials, not enough rights.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// A store or Kafka is away.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// An accident: the cause goes to the log, the client learns only that it happened.
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(ErrorCode::Internal, INTERNAL_MESSAGE)
    }

    /// Names the field that is wrong.
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

/// Gives every error a code: what the GraphQL layer itself refuses (syntax, validation, wrong types, limits) becomes
/// `BAD_USER_INPUT`, with the field where it is known; what a resolver let slip becomes `INTERNAL`, without its text.
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorCodes;

impl ExtensionFactory for ErrorCodes {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(ErrorCodes)
    }
}

#[async_trait::async_trait]
impl Extension for ErrorCodes {
    async fn request(&self, context: &ExtensionContext<'_>, next: NextRequest<'_>) -> Response {
        with_codes(next.run(context).await)
    }

    fn subscribe<'s>(
        &self,
        context: &ExtensionContext<'_>,
        stream: BoxStream<'s, Response>,
        next: NextSubscribe<'_>,
    ) -> BoxStream<'s, Response> {
        next.run(context, stream).map(with_codes).boxed()
    }
}

fn with_codes(mut response: Response) -> Response {
    for error in &mut response.errors {
        classify(error);
    }
    response
}

fn classify(error: &mut ServerError) {
    let has_code = error
        .extensions
        .as_ref()
        .is_some_and(|extensions| extensions.get("code").is_some());
    if has_code {
        return;
    }
    let refused_input = REFUSED_INPUT
        .iter()
        .any(|prefix| error.message.starts_with(prefix));
    // Errors without a path come from before any resolver ran.
    let code = if error.path.is_empty() || refused_input {
        ErrorCode::BadUserInput
    } else {
        tracing::error!(message = error.message, path = ?error.path, "a resolver failed without a code");
        error.message = INTERNAL_MESSAGE.into();
        ErrorCode::Internal
    };
    let extensions = error.extensions.get_or_insert_default();
    extensions.set("code", code.as_str());
    if code == ErrorCode::BadUserInput
        && extensions.get("field").is_none()
        && let Some(field) = field_of(&error.message)
    {
        extensions.set("field", field);
    }
}

/// How async-graphql begins the message when an argument's value cannot be read while a resolver is called.
const REFUSED_INPUT: &[&str] = &[
    "Failed to parse \"",
    "Expected input type \"",
    "Invalid value for argument \"",
];

/// The field that a validation message of async-graphql is about.
fn field_of(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("Invalid value for argument \"") {
        let (path, reason) = rest.split_once("\", ")?;
        let path = bracket_indices(path);
        // A missing or unknown field is reported at its parent.
        let child = reason
            .strip_prefix("field \"")
            .or_else(|| reason.strip_prefix("unknown field \""))
            .and_then(|rest| rest.split('"').next());
        return Some(match child {
            Some(child) => format!("{path}.{child}"),
            None => path,
        });
    }
    None
}

/// async-graphql writes `addresses.0.type`; everywhere else we write `addresses[0].type`.
fn bracket_indices(path: &str) -> String {
    let mut written = String::with_capacity(path.len());
    for segment in path.split('.') {
        if !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit()) {
            written.push('[');
            written.push_str(segment);
            written.push(']');
        } else {
            if !written.is_empty() {
                written.push('.');
            }
            written.push_str(segment);
        }
    }
    written
}
