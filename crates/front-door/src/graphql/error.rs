//! Errors of requests in the form that clients get: GraphQL's shape, our contract's codes, and only text that the
//! client itself sent.

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use tandem_authentication::Rejection;

use crate::identity;

/// The longest message, in characters. A message may quote what the client sent.
const LONGEST_MESSAGE: usize = 600;

/// A location in a document. Both numbers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Location {
    /// The location of a byte in a text.
    pub(super) fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_begin = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_begin..).unwrap_or_default().chars().count() + 1,
        }
    }
}

/// The codes of the contract that this crate uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request is wrong.
    BadUserInput,
    /// The operation would cost more than the limit.
    TooExpensive,
    /// The client asks for more than its share.
    RateLimited,
    /// A subscriber read events too slowly.
    SubscriptionLagged,
    /// The service that should answer is not available.
    Unavailable,
    /// The request or its document is not permitted here.
    Forbidden,
    /// The token is not accepted.
    Unauthenticated,
    /// No document has this hash. Apollo's clients wait for this code and then send the document.
    PersistedQueryNotFound,
}

impl Code {
    /// The text in `extensions.code`.
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
    /// The reason for the refusal, as a metric's label.
    reason: &'static str,
    status: StatusCode,
    /// Whether the error is about the document. A client that accepts only `application/json` gets such an error with
    /// status 200.
    of_document: bool,
}

impl RequestError {
    /// Makes an error with its own status. It cuts a message that is too long.
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

    /// The request cannot be read.
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

    /// An error of the document with another code.
    pub(crate) fn document(reason: &'static str, code: Code, message: impl Into<String>) -> Self {
        Self {
            of_document: true,
            ..Self::new(StatusCode::BAD_REQUEST, code, reason, message)
        }
    }

    /// The document is larger than a limit.
    pub(crate) fn limit(message: impl Into<String>, location: Option<Location>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            Code::BadUserInput,
            "limit",
            message,
        )
        .at(location)
    }

    /// The cost exceeds the limit. The error states both.
    pub(crate) fn too_expensive(cost: u64, limit: u64, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::TooExpensive, "cost", message)
            .with("cost", cost)
            .with("limit", limit)
    }

    /// The client asked for more than its share. It may ask again after this many seconds.
    pub(crate) fn rate_limited(seconds: u64, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            Code::RateLimited,
            "rate",
            message,
        )
        .with("retryAfterSeconds", seconds)
    }

    /// The token is not accepted, or it cannot be verified because the issuer's keys are not available.
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

    /// Sets the location in the document.
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

    /// The location in the document.
    #[must_use]
    pub fn location(&self) -> Option<Location> {
        self.location
    }

    /// The contract's code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message.
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

/// Why a request is not executed: one error or more.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    errors: Vec<RequestError>,
    operation: Option<String>,
}

impl Refused {
    /// Makes a refusal from these errors.
    pub(crate) fn of(errors: Vec<RequestError>) -> Self {
        debug_assert!(!errors.is_empty());
        Self {
            errors,
            operation: None,
        }
    }

    /// Sets the operation's name, in the form that logs may contain.
    #[must_use]
    pub(crate) fn of_operation(mut self, name: Option<String>) -> Self {
        self.operation = name;
        self
    }

    /// The operation's name, in the form that logs may contain.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.operation.as_deref()
    }

    /// The value of the member `errors` of a response.
    #[must_use]
    pub fn errors(&self) -> Value {
        self.errors
            .iter()
            .map(RequestError::json)
            .collect::<Vec<_>>()
            .into()
    }

    /// The body of a whole response.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        serde_json::json!({ "errors": self.errors() })
            .to_string()
            .into_bytes()
    }

    /// The first error. The others are of the same kind.
    #[must_use]
    pub fn first(&self) -> Option<&RequestError> {
        self.errors.first()
    }

    /// The HTTP status for a client that accepts GraphQL's own media type, or only JSON (GraphQL over HTTP, section
    /// 6.4).
    #[must_use]
    pub fn status(&self, own_media_type: bool) -> StatusCode {
        match self.first() {
            Some(error) if error.of_document && !own_media_type => StatusCode::OK,
            Some(error) => error.status,
            None => StatusCode::BAD_REQUEST,
        }
    }

    /// The reason, as a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.first().map_or("request", |error| error.reason)
    }

    /// After how many seconds the client may ask again.
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
