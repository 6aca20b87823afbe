//! Errors of requests, as clients get them: GraphQL's shape, the contract's codes, and never a byte that the client did not send.

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use tandem_authentication::Rejection;

use crate::identity;

/// The longest message, in characters: it may quote what the client sent.
const LONGEST_MESSAGE: usize = 600;

/// A place in a document; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Location {
    /// Lines.
    pub line: usize,
    /// Characters of the line.
    pub column: usize,
}

impl Location {
    /// The place of a byte of a text.
    pub(super) fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_begin = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_begin..).unwrap_or_default().chars().count() + 1,
        }
    }
}

/// The contract's codes that this crate gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request is not right.
    BadUserInput,
    /// The operation would cost more than is given.
    TooExpensive,
    /// The client asks for more than its share.
    RateLimited,
    /// A subscriber took events too slowly.
    SubscriptionLagged,
    /// What answers is away.
    Unavailable,
    /// Not for this origin.
    Forbidden,
    /// The token is not taken.
    Unauthenticated,
    /// No document has this hash (the code that Apollo's clients wait for, to send the document itself).
    PersistedQueryNotFound,
}

impl Code {
    /// As `extensions.code` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadUserInput => "BAD_USER_INPUT",
            Self::TooExpensive => "TOO_EXPENSIVE",
            Self::RateLimited => "RATE_LIMITED",
            Self::SubscriptionLagged => "SUBSCRIPTION_LAGGED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Forbidden => "FORBIDDEN",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PersistedQueryNotFound => "PERSISTED_QUERY_NOT_FOUND",
        }
    }
}

/// One error of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestError {
    code: Code,
    message: String,
    location: Option<Location>,
    extensions: Map<String, Value>,
    /// Why it was refused, as a metric's label.
    reason: &'static str,
    status: StatusCode,
    /// Whether it is about the document: then a client that accepts `application/json` alone gets it with status 200.
    of_document: bool,
}

impl RequestError {
    /// An error with a status of its own.
    pub(crate) fn new(
        status: StatusCode,
        code: Code,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
            message.truncate(end);
            message.push('…');
        }
        Self {
            code,
            message,
            location: None,
            extensions: Map::new(),
            reason,
            status,
            of_document: false,
        }
    }

    /// The request itself cannot be read.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            Code::BadUserInput,
            "request",
            message,
        )
    }

    /// The document cannot be parsed.
    pub(crate) fn syntax(message: impl Into<String>, location: Option<Location>) -> Self {
        Self::document("syntax", Code::BadUserInput, message).at(location)
    }

    /// The document does not fit the schema.
    pub(crate) fn validation(message: impl Into<String>, location: Option<Location>) -> Self {
        Self::document("validation", Code::BadUserInput, message).at(location)
    }

    /// An error of the document, with another code.
    pub(crate) fn document(reason: &'static str, code: Code, message: impl Into<String>) -> Self {
        Self {
            of_document: true,
            ..Self::new(StatusCode::BAD_REQUEST, code, reason, message)
        }
    }

    /// The document is larger than what is taken.
    pub(crate) fn limit(message: impl Into<String>, location: Option<Location>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            Code::BadUserInput,
            "limit",
            message,
        )
        .at(location)
    }

    /// More than is given: what it would cost, and the limit.
    pub(crate) fn too_expensive(cost: u64, limit: u64, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::TooExpensive, "cost", message)
            .with("cost", cost)
            .with("limit", limit)
    }

    /// More than the client's share; it may ask again after some seconds.
    pub(crate) fn rate_limited(seconds: u64, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            Code::RateLimited,
            "rate",
            message,
        )
        .with("retryAfterSeconds", seconds)
    }

    /// The token is not taken; or nothing is known of it while its issuer's keys cannot be had.
    pub(crate) fn token(rejection: &Rejection) -> Self {
        let code = if identity::is_unknown(rejection) {
            Code::Unavailable
        } else {
            Code::Unauthenticated
        };
        Self {
            status: identity::status(rejection),
            ..Self::document("token", code, rejection.to_string())
        }
    }

    /// With where in the document it is.
    #[must_use]
    pub(super) fn at(mut self, location: Option<Location>) -> Self {
        self.location = location;
        self
    }

    /// Adds a member to `extensions`.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Where in the document.
    #[must_use]
    pub fn location(&self) -> Option<Location> {
        self.location
    }

    /// The contract's code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// What it says.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    fn json(&self) -> Value {
        let mut extensions = self.extensions.clone();
        extensions.insert("code".to_owned(), self.code.as_str().into());
        let mut error = Map::new();
        error.insert("message".to_owned(), self.message.as_str().into());
        if let Some(Location { line, column }) = self.location {
            error.insert(
                "locations".to_owned(),
                serde_json::json!([{ "line": line, "column": column }]),
            );
        }
        error.insert("extensions".to_owned(), extensions.into());
        error.into()
    }
}

/// Why a request is not carried out: at least one error.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    errors: Vec<RequestError>,
    operation: Option<String>,
}

impl Refused {
    /// Of these errors.
    pub(crate) fn of(errors: Vec<RequestError>) -> Self {
        debug_assert!(!errors.is_empty());
        Self {
            errors,
            operation: None,
        }
    }

    /// With the name of the operation, as logs may have it.
    #[must_use]
    pub(crate) fn of_operation(mut self, name: Option<String>) -> Self {
        self.operation = name;
        self
    }

    /// The name of the operation, as logs may have it.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.operation.as_deref()
    }

    /// The errors, as the member `errors` of a response has them.
    #[must_use]
    pub fn errors(&self) -> Value {
        self.errors
            .iter()
            .map(RequestError::json)
            .collect::<Vec<_>>()
            .into()
    }

    /// A whole response.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        serde_json::json!({ "errors": self.errors() })
            .to_string()
            .into_bytes()
    }

    /// The first error: the others are of its kind.
    #[must_use]
    pub fn first(&self) -> Option<&RequestError> {
        self.errors.first()
    }

    /// The status for a client that accepts GraphQL's own media type, or JSON alone (GraphQL over HTTP, section 6.4).
    #[must_use]
    pub fn status(&self, own_media_type: bool) -> StatusCode {
        match self.first() {
            Some(error) if error.of_document && !own_media_type => StatusCode::OK,
            Some(error) => error.status,
            None => StatusCode::BAD_REQUEST,
        }
    }

    /// Why, as a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.first().map_or("request", |error| error.reason)
    }

    /// In how many seconds it may be asked again.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        self.first()?.extensions.get("retryAfterSeconds")?.as_u64()
    }
}

impl From<RequestError> for Refused {
    fn from(error: RequestError) -> Self {
        Self::of(vec![error])
    }
}
